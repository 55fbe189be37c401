//! Every code that the policy half shows to people, with its meaning in one line. Each has a page in
//! `docs/errors/`, and a test sees to both.

/// Codes and their meaning: of bundles, of evaluation, and of the default platform policy.
pub const CODES: &[(&str, &str)] = &[
    // Bundles.
    ("policy.bundle_engine", "the bundle needs a later engine than this installation has"),
    ("policy.bundle_expired", "the bundle is past its own end and was not put into force"),
    ("policy.bundle_files", "a file of the bundle was changed, added or taken away after signing"),
    (
        "policy.bundle_malformed",
        "the upload is not a policy bundle, or its manifest or data break the format",
    ),
    ("policy.bundle_rollback", "the bundle is older than the one accepted before"),
    ("policy.bundle_signature", "the bundle is not signed by a key that is trusted for its scope"),
    ("policy.bundle_too_large", "the bundle is over a limit of size or number of files"),
    ("policy.compile", "the rules could not be compiled"),
    ("policy.lint", "the rules use something that policies may not use"),
    ("policy.syntax", "the rules are not Rego"),
    // Evaluation.
    ("policy.denied", "the policy denied the act and gave no reason"),
    ("policy.failed", "evaluating the policy ended in an error, so the act was denied"),
    ("policy.input_too_large", "the act's attributes or arguments are too large for a decision"),
    ("policy.malformed", "the policy's answer was not a verdict, so the act was denied"),
    ("policy.no_route_left", "the policies that apply leave no route in common"),
    ("policy.no_rule", "no rule of the platform policy allowed the act"),
    ("policy.panicked", "evaluating the policy broke off, so the act was denied"),
    ("policy.stale", "the policy is past its end, so every act is denied"),
    ("policy.too_slow", "the policy took too long, so the act was denied"),
    ("policy.undefined", "the policy had no answer, so the act was denied"),
    // The default platform policy.
    ("access.role_granted", "a role of the principal grants the act"),
    ("access.role_missing", "no role of the principal grants the act"),
    ("access.tenant_foreign", "the resource belongs to another tenant"),
    ("approval.automatic", "the write went ahead without a person, as the workflow and the thresholds allow"),
    ("approval.checkpoint", "a checkpoint of the workflow waits for people"),
    ("approval.checkpoint_unknown", "a checkpoint does not say how many people pass it, or of which tier"),
    ("approval.granted", "enough people approved this very act"),
    ("approval.request_unknown", "the request to approve does not say who asked, or which tier it needs"),
    ("approval.self", "nobody approves what they asked for themselves"),
    ("approval.tier_too_low", "the approver's tier is too low for this request"),
    ("approval.unsafe_effect", "a call that cannot be repeated safely waits for two people"),
    ("approval.write_effect", "a write in an outside system waits for a person"),
    ("assurance.too_low", "the act needs a stronger proof of who acts"),
    ("connector.effect_class_unknown", "the tool's manifest does not say what kind of effect a call has"),
    ("connector.field_not_allowed", "the write sets a field that is not on the list"),
    ("connector.fields_unknown", "the write does not say which fields it sets"),
    ("connector.host_not_allowed", "the call goes to a host that the connector does not list"),
    ("connector.reconcile_writes", "looking at what became of a call may not write"),
    ("data.restricted", "the content is marked as restricted and goes to no connector and no model"),
    ("models.fallback_not_allowed", "no list lets this model stand in for the one that was asked for"),
    ("models.model_not_allowed", "the model or its provider is not on the list"),
    ("throttle.rate", "the act may happen only so many times a minute"),
];
