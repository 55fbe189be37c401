//! Who may decide, whatever a policy says: separation of duties as one pure function.
//!
//! Say Ann starts a run that wants to write. Ann may not approve that write; nor may she with her other key, nor through
//! the engine that acts for her, nor by asking Bob to name her as his delegate, nor may Bob's delegate grant once for
//! herself and once for Bob where two people are wanted. All of these are one rule: an approval is about *people*, so
//! what counts is the set of principals that stand behind a decision, and never a key, a session or a service.
//!
//! | rule | refused with |
//! |---|---|
//! | only people decide | `approval.not_a_person` |
//! | nobody that the act is asked for by or on behalf of, and nobody who acts for or under them | `approval.self` |
//! | only while it waits | `approval.late`, `approval.closed` |
//! | only what was shown | `approval.changed` |
//! | each person counts once, for themselves or for another | `approval.twice` |
//! | for another only under a delegation of that time, of a right that is their own | `approval.delegation` |
//! | only of the tier that is needed | `approval.tier_too_low` |
//!
//! They are checked in this order. Those who add one add it here, and a dimension to the table in the tests.

use super::{Approval, GrantedBy, Rules, Status};
use crate::delegation::Delegation;
use act::{Class, Coded, Ctx, PrincipalKind};
use kernel::Id;

/// Why a decision on an approval is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// By a service, an integration or an agent.
    #[error("only people decide on acts that wait for approval")]
    NotAPerson,
    /// By the requester, or somebody the act is for, or in the name of one of them.
    #[error("nobody decides on an act that was asked for by or on behalf of themselves")]
    Own,
    /// A second grant by or for the same person.
    #[error("you, or the person you decide for, have already granted this act")]
    Twice,
    /// After its time.
    #[error("the approval has expired")]
    Late,
    /// After it was decided.
    #[error("the approval is {0} already")]
    Closed(&'static str),
    /// For something else than was shown.
    #[error("the act is not the one that you were shown; look at it again")]
    Changed,
    /// Under a delegation that does not cover it.
    #[error("no delegation lets you decide for that person now")]
    Delegation,
    /// By somebody of too low a tier.
    #[error("this act needs an approver of tier {0}")]
    Tier(u8),
}

impl Coded for ApprovalError {
    fn code(&self) -> &'static str {
        match self {
            ApprovalError::NotAPerson => "approval.not_a_person",
            ApprovalError::Own => "approval.self",
            ApprovalError::Twice => "approval.twice",
            ApprovalError::Late => "approval.late",
            ApprovalError::Closed(_) => "approval.closed",
            ApprovalError::Changed => "approval.changed",
            ApprovalError::Delegation => "approval.delegation",
            ApprovalError::Tier(_) => "approval.tier_too_low",
        }
    }
    fn class(&self) -> Class {
        match self {
            ApprovalError::NotAPerson
            | ApprovalError::Own
            | ApprovalError::Delegation
            | ApprovalError::Tier(_) => Class::Denied,
            ApprovalError::Twice
            | ApprovalError::Late
            | ApprovalError::Closed(_)
            | ApprovalError::Changed => Class::Conflict,
        }
    }
}

/// In whose place somebody decides.
#[derive(Debug, Clone, Copy)]
pub struct Absent<'a> {
    /// The delegation that they gave.
    pub delegation: &'a Delegation,
    /// Their own roles now: what was delegated to them does not count.
    pub roles: &'a [String],
}

/// Whether `ctx` may have a say at all: a person who stands on neither side of the request, while it waits.
pub fn say_check(
    approval: &Approval,
    ctx: &Ctx,
    absent: Option<&Id>,
    now_ms: i64,
) -> Result<(), ApprovalError> {
    if ctx.principal.kind != PrincipalKind::Person {
        return Err(ApprovalError::NotAPerson);
    }
    let mut behind = std::iter::once(&ctx.principal.id).chain(&ctx.on_behalf_of).chain(absent);
    if behind.any(|person| approval.is_for(person)) {
        return Err(ApprovalError::Own);
    }
    match approval.status {
        Status::Pending if now_ms >= approval.expires_at_ms => Err(ApprovalError::Late),
        Status::Pending => Ok(()),
        Status::Expired => Err(ApprovalError::Late),
        closed @ (Status::Granted | Status::Used | Status::Denied | Status::Void) => {
            Err(ApprovalError::Closed(closed.as_str()))
        }
    }
}

/// Whether `ctx`, who was shown what has the digest `shown`, may grant, and as what.
///
/// # Errors
/// The first rule of this module that is broken.
pub fn grant_check(
    approval: &Approval,
    ctx: &Ctx,
    shown: &str,
    absent: Option<Absent<'_>>,
    rules: &Rules,
    now_ms: i64,
) -> Result<GrantedBy, ApprovalError> {
    say_check(approval, ctx, absent.map(|absent| &absent.delegation.from), now_ms)?;
    if shown != approval.preview_digest {
        return Err(ApprovalError::Changed);
    }
    let approver = &ctx.principal.id;
    let delegator = absent.map(|absent| absent.delegation.from.clone());
    let counted =
        |person: &Id| approval.grants.iter().any(|grant| grant.people().any(|other| other == person));
    if counted(approver) || delegator.as_ref().is_some_and(counted) {
        return Err(ApprovalError::Twice);
    }
    let own = rules.tier(&access::rights::roles_at(&ctx.principal, approval.project.as_ref()));
    let tier = match absent {
        None => own,
        Some(absent) => {
            let delegation = absent.delegation;
            let own_suffices = rules.delegate_tier_min.is_some_and(|least| own >= Some(least));
            if delegation.to != *approver || !delegation.covers(now_ms) || !own_suffices {
                return Err(ApprovalError::Delegation);
            }
            rules.tier(absent.roles)
        }
    };
    let tier = tier.filter(|tier| *tier >= approval.tier).ok_or(ApprovalError::Tier(approval.tier))?;
    Ok(GrantedBy {
        approver: approver.clone(),
        tier,
        at_ms: now_ms,
        delegator,
        delegation: absent.map(|absent| absent.delegation.id.clone()),
    })
}

/// How many of the grants count for an act by `ctx` that needs `tier`: of people who are all different, none of them
/// behind the act itself.
pub fn people_counted(grants: &[GrantedBy], tier: u8, ctx: &Ctx) -> usize {
    let mut seen: Vec<&Id> = std::iter::once(&ctx.principal.id).chain(&ctx.on_behalf_of).collect();
    let mut counted = 0;
    for grant in grants.iter().filter(|grant| grant.tier >= tier) {
        if !grant.people().any(|person| seen.contains(&person)) {
            counted += 1;
            seen.extend(grant.people());
        }
    }
    counted
}

#[cfg(test)]
mod tests {
    use super::super::tests::{approval, ctx, id, rules};
    use super::*;

    const KINDS: [PrincipalKind; 4] =
        [PrincipalKind::Person, PrincipalKind::Service, PrincipalKind::Integration, PrincipalKind::Agent];
    const STATUSES: [Status; 6] =
        [Status::Pending, Status::Granted, Status::Used, Status::Denied, Status::Expired, Status::Void];

    /// How the one who decides stands to the one who asked.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Stands {
        Apart,
        IsRequester,
        IsServed,
        ActsForRequester,
        ActsForServed,
        ForRequester,
    }

    /// In whose place they decide.
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Place {
        Own,
        Bob,
        BobTooEarly,
        BobTooLate,
        BobEnded,
        SomebodyElses,
    }

    fn delegation(place: Place) -> Delegation {
        let (starts_at_ms, ends_at_ms, ended_at_ms) = match place {
            Place::BobTooEarly => (60, 90, None),
            Place::BobTooLate => (1, 50, None),
            Place::BobEnded => (1, 90, Some(40)),
            Place::Own | Place::Bob | Place::SomebodyElses => (1, 90, None),
        };
        Delegation {
            id: id("dlg_a"),
            from: id("prn_bob"),
            to: id(if place == Place::SomebodyElses { "prn_fay" } else { "prn_eve" }),
            starts_at_ms,
            ends_at_ms,
            note: String::new(),
            created_at_ms: 1,
            ended_at_ms,
        }
    }

    /// Every combination, against the rules written down a second time as one condition each.
    #[test]
    fn every_combination() {
        let rules = rules();
        let mut granted = 0;
        let stands_ = [
            Stands::Apart,
            Stands::IsRequester,
            Stands::IsServed,
            Stands::ActsForRequester,
            Stands::ActsForServed,
            Stands::ForRequester,
        ];
        let places = [
            Place::Own,
            Place::Bob,
            Place::BobTooEarly,
            Place::BobTooLate,
            Place::BobEnded,
            Place::SomebodyElses,
        ];
        for kind in KINDS {
            for stands in stands_ {
                for place in places {
                    for status in STATUSES {
                        for (now_ms, shown, before, own, bobs, needed) in moments() {
                            let mut asked =
                                Approval { status, tier: needed, expires_at_ms: 80, ..approval() };
                            let mut decider = ctx("prn_eve", kind, own);
                            let mut given = delegation(place);
                            match stands {
                                Stands::Apart => {}
                                Stands::IsRequester => asked.requester.principal.id = id("prn_eve"),
                                Stands::IsServed => {
                                    asked.requester.on_behalf_of = vec![id("prn_zoe"), id("prn_eve")]
                                }
                                Stands::ActsForRequester => decider.on_behalf_of = vec![id("prn_ann")],
                                Stands::ActsForServed => {
                                    asked.requester.on_behalf_of = vec![id("prn_zoe")];
                                    decider.on_behalf_of = vec![id("prn_joe"), id("prn_zoe")];
                                }
                                Stands::ForRequester => given.from = id("prn_ann"),
                            }
                            asked.grants = before
                                .map(|(who, whose): (&str, Option<&str>)| GrantedBy {
                                    approver: id(who),
                                    tier: 2,
                                    at_ms: 1,
                                    delegator: whose.map(id),
                                    delegation: None,
                                })
                                .into_iter()
                                .collect();
                            let roles: Vec<String> = bobs.iter().map(|role| (*role).to_owned()).collect();
                            let absent =
                                (place != Place::Own).then_some(Absent { delegation: &given, roles: &roles });
                            let found = grant_check(&asked, &decider, shown, absent, &rules, now_ms);

                            let own_tier = rules.tier(&decider.principal.roles);
                            let tier = if place == Place::Own { own_tier } else { rules.tier(&roles) };
                            let people: Vec<&str> = match place {
                                Place::Own => vec!["prn_eve"],
                                _ => vec!["prn_eve", given.from.as_str()],
                            };
                            let counted = before.is_some_and(|(who, whose)| {
                                people.contains(&who) || whose.is_some_and(|whose| people.contains(&whose))
                            });
                            let apart = match stands {
                                Stands::Apart => true,
                                Stands::ForRequester => place == Place::Own,
                                _ => false,
                            };
                            let may = kind == PrincipalKind::Person
                                && apart
                                && status == Status::Pending
                                && now_ms < 80
                                && shown == "seen"
                                && !counted
                                && matches!(place, Place::Own | Place::Bob)
                                && (place == Place::Own || own_tier.is_some())
                                && tier.is_some_and(|tier| tier >= needed);
                            assert_eq!(
                                found.is_ok(),
                                may,
                                "{kind:?} {stands:?} {place:?} {status:?} {now_ms} {shown} {before:?} {own:?} {bobs:?} {needed}: {found:?}"
                            );
                            if let Ok(by) = found {
                                granted += 1;
                                assert_eq!(Some(by.tier), tier);
                                assert_eq!(by.delegator.is_some(), place != Place::Own);
                            }
                        }
                    }
                }
            }
        }
        assert!(granted > 20, "the table grants where it should");
    }

    type Moment = (
        i64,
        &'static str,
        Option<(&'static str, Option<&'static str>)>,
        &'static [&'static str],
        &'static [&'static str],
        u8,
    );

    fn moments() -> impl Iterator<Item = Moment> {
        let before = [
            None,
            Some(("prn_eve", None)),
            Some(("prn_bob", None)),
            Some(("prn_fay", None)),
            Some(("prn_fay", Some("prn_eve"))),
            Some(("prn_fay", Some("prn_bob"))),
        ];
        let own: [&[&str]; 3] = [&["operator"], &["approver"], &["approver", "tenant_admin"]];
        let bobs: [&[&str]; 3] = [&[], &["approver"], &["tenant_admin"]];
        [50, 80].into_iter().flat_map(move |now_ms| {
            ["seen", "other"].into_iter().flat_map(move |shown| {
                before.into_iter().flat_map(move |before| {
                    own.into_iter().flat_map(move |own| {
                        bobs.into_iter().flat_map(move |bobs| {
                            [0, 1, 2].map(|needed| (now_ms, shown, before, own, bobs, needed))
                        })
                    })
                })
            })
        })
    }

    #[test]
    fn each_broken_rule_has_its_code() {
        let rules = rules();
        let eve = ctx("prn_eve", PrincipalKind::Person, &["approver"]);
        let check = |approval: &Approval, ctx: &Ctx, shown: &str, absent: Option<Absent<'_>>, now_ms: i64| {
            grant_check(approval, ctx, shown, absent, &rules, now_ms).map_err(|error| error.code()).err()
        };
        let asked = approval();
        let with = |status| Approval { status, ..approval() };
        let agent = ctx("prn_eve", PrincipalKind::Agent, &["approver"]);
        let ann = ctx("prn_ann", PrincipalKind::Person, &["approver"]);
        let gone = delegation(Place::BobEnded);
        let absent = Some(Absent { delegation: &gone, roles: &[] });
        let mut twice = approval();
        twice.grants.push(GrantedBy {
            approver: id("prn_eve"),
            tier: 1,
            at_ms: 1,
            delegator: None,
            delegation: None,
        });
        let high = Approval { tier: 2, ..approval() };
        for (found, code) in [
            (check(&asked, &eve, "seen", None, 50), None),
            (check(&asked, &agent, "seen", None, 50), Some("approval.not_a_person")),
            (check(&asked, &ann, "seen", None, 50), Some("approval.self")),
            (check(&asked, &eve, "seen", None, 1000), Some("approval.late")),
            (check(&with(Status::Expired), &eve, "seen", None, 50), Some("approval.late")),
            (check(&with(Status::Denied), &eve, "seen", None, 50), Some("approval.closed")),
            (check(&with(Status::Granted), &eve, "seen", None, 50), Some("approval.closed")),
            (check(&asked, &eve, "other", None, 50), Some("approval.changed")),
            (check(&twice, &eve, "seen", None, 50), Some("approval.twice")),
            (check(&asked, &eve, "seen", absent, 50), Some("approval.delegation")),
            (check(&high, &eve, "seen", None, 50), Some("approval.tier_too_low")),
        ] {
            assert_eq!(found, code);
        }
    }

    #[test]
    fn grants_count_by_people() {
        let by = |who: &str, whose: Option<&str>, tier| GrantedBy {
            approver: id(who),
            tier,
            at_ms: 1,
            delegator: whose.map(id),
            delegation: None,
        };
        let mut asker = ctx("prn_ann", PrincipalKind::Person, &[]);
        asker.on_behalf_of = vec![id("prn_zoe")];
        for (grants, tier, counted) in [
            (vec![], 0, 0),
            (vec![by("prn_bob", None, 1)], 1, 1),
            (vec![by("prn_bob", None, 1)], 2, 0),
            (vec![by("prn_bob", None, 1), by("prn_bob", None, 1)], 1, 1),
            (vec![by("prn_bob", None, 1), by("prn_eve", None, 1)], 1, 2),
            (vec![by("prn_bob", None, 1), by("prn_eve", Some("prn_bob"), 1)], 1, 1),
            (vec![by("prn_eve", Some("prn_bob"), 1), by("prn_fay", Some("prn_bob"), 1)], 1, 1),
            (vec![by("prn_eve", Some("prn_bob"), 2), by("prn_fay", Some("prn_joe"), 2)], 2, 2),
            (vec![by("prn_ann", None, 2), by("prn_zoe", None, 2)], 1, 0),
            (vec![by("prn_eve", Some("prn_ann"), 2)], 1, 0),
        ] {
            assert_eq!(people_counted(&grants, tier, &asker), counted, "{grants:?}");
        }
    }
}
