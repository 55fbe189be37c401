# Who may do what, and what holds for acts of every kind.

package writ

# Roles. An act that stands in no role of the principal is denied, an act that nobody knows among them.

role_grants if {
	some role in input.principal.roles
	input.action in data.writ.config.roles[role]
}

# A tenant's own role grants what it permits, as far as some role of a tenant's people has it: what the table takes from
# all of those, it takes from a tenant's own roles too, and what is the platform's alone is in none of them.

role_grants if {
	some own in input.principal.permitting
	is_string(own)
	some role in data.writ.config.tenant_roles
	input.action in data.writ.config.roles[role]
}

deny contains "access.role_missing" if not role_grants

# Tenants. A resource that says whose it is must be the principal's own tenant's.

deny contains "access.tenant_foreign" if {
	input.resource.attributes.tenant != input.principal.tenant
	not "platform_admin" in input.principal.roles
}

# Approvals. Nobody approves what they asked for themselves, and nobody above their tier. An approval that does not
# say who asked, or which tier it needs, cannot be judged.

granting if input.action == "governor.approval.grant"

deny contains "approval.self" if {
	granting
	input.resource.attributes.requester == input.principal.id
}

deny contains "approval.request_unknown" if {
	granting
	not is_string(input.resource.attributes.requester)
}

deny contains "approval.request_unknown" if {
	granting
	not is_number(input.resource.attributes.approver_tier)
}

deny contains "approval.tier_too_low" if {
	granting
	not tier_suffices
}

tier_suffices if {
	not delegated
	some role in input.principal.roles
	data.writ.config.approver_tiers[role] >= input.resource.attributes.approver_tier
}

# Delegation. Who decides in the place of somebody else does it with that person's own tier, and only if their own is
# not too low for that. Deciding for whoever asked is deciding for oneself.

delegated if is_string(input.resource.attributes.delegator)

tier_suffices if {
	delegated
	delegate_suffices
	some role in input.resource.attributes.delegator_roles
	data.writ.config.approver_tiers[role] >= input.resource.attributes.approver_tier
}

delegate_suffices if {
	some role in input.principal.roles
	data.writ.config.approver_tiers[role] >= data.writ.config.delegates.own_tier_min
}

deny contains "approval.self" if {
	granting
	delegated
	input.resource.attributes.delegator == input.resource.attributes.requester
}

# What is one's own: some acts are for whom a thing belongs to, and for administrators.

deny contains "access.not_own" if {
	input.action in data.writ.config.own_acts
	not owns
	not administers
}

owns if input.resource.attributes.own == true

administers if {
	some role in input.principal.roles
	role in data.writ.config.admin_roles
}

# Assurance. Acts that change the rules or the secrets need more than an ordinary key.

step_up contains "assurance.too_low" if {
	input.context.assurance.level < data.writ.config.step_up[input.action]
}

# Nor does anybody make a key, or the new secret of one, that proves more than they have proven.

makes_key if input.action in {"access.key.create", "access.key.rotate"}

step_up contains "assurance.too_low" if {
	makes_key
	input.resource.attributes.assurance > input.context.assurance.level
}

# Nor does anybody with an ordinary key make a key for somebody else: whoever has it acts, and approves, as that person.

step_up contains "assurance.too_low" if {
	makes_key
	not owns
	not proven_for_others
}

proven_for_others if input.context.assurance.level >= data.writ.config.keys_of_others.level_min

# Who approves such an act needs the same proof. A click in a chat proves less than a key, so it decides up to a tier.

step_up contains "approval.assurance_too_low" if {
	granting
	input.context.assurance.level < data.writ.config.step_up[input.resource.attributes.act]
}

step_up contains "approval.click_too_weak" if {
	granting
	input.context.assurance.method == "slack"
	not click_suffices
}

click_suffices if {
	is_number(input.resource.attributes.approver_tier)
	input.resource.attributes.approver_tier <= data.writ.config.clicks.tier_max
}

# Models. Only providers and models on the list are called; `*` stands for every model of a provider.

deny contains "models.model_not_allowed" if {
	input.action == "models.model.call"
	not model_allowed
}

model_allowed if {
	some model in data.writ.config.models[input.resource.attributes.provider]
	model in {input.resource.attributes.model, "*"}
}

# Another model stands in for the one that was asked for only where that very pair is on the list. Which model sees a
# text is a decision, not a matter of load.

deny contains "models.fallback_not_allowed" if {
	input.action == "models.model.call"
	input.resource.attributes.instead_of
	not fallback_allowed
}

fallback_allowed if {
	some model in data.writ.config.model_fallbacks[input.resource.attributes.instead_of]
	model == input.resource.attributes.route
}

# Content. What is marked as restricted leaves for no connector and no model.

deny contains "data.restricted" if {
	input.action in data.writ.config.content_acts
	input.resource.attributes.sensitivity in data.writ.config.sensitivities_denied
}
