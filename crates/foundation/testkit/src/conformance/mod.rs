//! What every storage engine must do: one suite, one named test per rule, engine and sequencing mode.
//!
//! The store's contract is the [`store::Engine`] trait and these cases; where the trait's words leave a question open,
//! the case answers it. Nothing here knows which engine it runs on. An engine joins with one [`Home`], which says where
//! its data lives during a test and how it is opened and opened again, and one line:
//!
//! ```ignore
//! mod sqlite {
//!     testkit::conformance!(crate::sqlite_home);
//! }
//! ```
//!
//! which makes tests such as `sqlite::deferred::jobs::a_stale_epoch_completes_nothing`.
//!
//! To add a case: a `pub async fn` that takes a [`Bed`] in the module of its subject, and its name in the list of
//! [`conformance!`](crate::conformance). A test of this crate fails while one of the two is missing.
//!
//! Cases are written against an adversary: not "does a put work" but "what if two of them meet in one batch, one
//! belongs to another tenant, and the process dies".

pub mod bed;
pub mod checkpoints;
pub mod facts;
pub mod indexes;
pub mod jobs;
pub mod leases;
pub mod ledger;
pub mod ledger_model;
pub mod log;
pub mod model;
pub mod origins;
pub mod outcomes;
pub mod records;
pub mod restart;
pub mod sequencing;
pub mod uniques;
pub mod views;

pub use bed::{Bed, Home, Opening};

/// Demands that a commit was refused in the way that the pattern says.
macro_rules! refused {
    ($result:expr, $pattern:pat $(if $guard:expr)?) => {{
        let result = $result;
        assert!(matches!(&result, Err($pattern) $(if $guard)?), "{result:?}");
    }};
}
pub(crate) use refused;

/// Expands to one test per case and sequencing mode. `$home` is the path from the crate's root of a function that
/// makes a fresh [`Home`].
#[macro_export]
macro_rules! conformance {
    ($home:path) => {
        $crate::conformance_cases! { $home;
            records {
                a_new_record_begins_at_one_and_is_new_once
                an_update_demands_the_exact_revision
                a_delete_demands_the_exact_revision
                an_expectation_guards_without_writing
                a_revision_is_never_given_twice
                a_changeset_is_whole_or_not_at_all
                one_record_twice_in_a_changeset_is_a_conflict
                conflicts_leave_their_neighbours_untouched
                no_update_is_lost
                tenants_do_not_see_each_other
                bodies_are_kept_to_the_byte_and_to_the_limit
                what_is_absent_is_absent
                blobs_are_kept_once_by_what_they_are
            }
            indexes {
                lists_come_in_key_order_both_ways
                pages_join_without_gap_or_double
                a_prefix_is_a_prefix_to_the_byte
                a_cursor_may_lie_outside_the_range
                entries_follow_the_record
                an_entry_named_twice_counts_once
                lists_keep_to_tenant_kind_and_name
                limits_are_kept
            }
            uniques {
                a_taken_key_is_a_conflict
                a_key_is_free_once_let_go
                a_key_is_handed_over_within_a_changeset
                two_cannot_take_one_key_at_once
                keys_are_scoped_to_tenant_kind_and_name
                a_key_is_found_in_any_tenant
                many_want_one_key_and_one_gets_it
            }
            origins {
                a_permit_of_another_governor_is_refused
                a_permit_serves_until_it_expires
                only_permitted_kinds_are_written
                only_permitted_facts_are_stated
                several_permits_add_up_and_the_first_speaks
                genesis_happens_once
                there_is_no_log_without_genesis
                a_refusal_records_itself_alone
                a_lease_covers_its_kind_alone
                a_refused_changeset_leaves_nothing
            }
            outcomes {
                the_first_outcome_stands
                outcomes_are_told_apart_by_every_part_of_their_name
                one_outcome_twice_in_a_changeset_is_a_conflict
                many_retries_and_one_outcome
            }
            jobs {
                a_job_is_claimed_when_due_with_all_it_was_given
                an_enqueued_job_is_all_or_nothing
                one_id_is_one_job
                a_held_job_is_leased_at_once
                a_step_enqueues_the_next_and_holds_it
                an_unclaimed_job_can_be_cancelled
                a_timer_can_be_set_anew
                tenants_take_turns
                turns_go_on_from_claim_to_claim
                a_tenant_is_served_in_order_of_time
                an_unknown_kind_is_put_off_and_blocks_nobody
                limits_of_a_claim
                the_next_due_time_is_known
                jobs_are_listed_by_due_time
                hints_move_when_something_came
            }
            leases {
                a_lease_keeps_others_away_until_it_ends
                a_renewed_lease_lasts_longer
                a_lost_lease_is_not_renewed
                a_completion_deletes_the_job
                a_stale_epoch_completes_nothing
                a_late_completion_counts_if_nobody_else_came
                a_fence_holds_for_its_epoch_alone
                many_workers_and_each_job_done_once
                clocks_that_go_back_hand_out_nothing_twice
            }
            ledger {
                an_account_keeps_its_sort_and_moves_its_bounds
                a_transfer_is_done_once_by_its_id
                an_id_stands_for_one_transfer
                what_makes_no_sense_is_refused
                no_account_goes_beyond_its_bounds
                holds_count_as_spent_until_they_end
                a_hold_ends_once
                a_settlement_beyond_its_hold_is_the_accounts_to_permit
                holds_run_out_and_are_let_go
                a_hold_that_ran_out_may_be_settled_late
                several_holds_are_taken_together_or_not_at_all
                one_that_cannot_pay_leaves_its_neighbours_untouched
                exactly_as_many_as_fit
                transfers_of_one_changeset_build_on_one_another
                ledgers_of_tenants_are_apart
                only_who_may_moves_money
                statements_come_newest_first_in_pages
                accounts_are_listed_in_order
                everything_survives_a_restart
            }
            ledger_model {
                seeds_0_to_24
                seeds_25_to_49
                seeds_50_to_74
            }
            facts {
                indexes_and_streams_are_gapless_under_many_writers
                a_leaf_says_what_the_origin_says
                a_fact_that_does_not_fit_stops_its_changeset
                leaves_are_read_in_pieces
                a_stream_is_read_in_pieces
                facts_of_one_changeset_stand_together
                a_fact_is_stated_once
                asides_are_kept_beside_the_log
            }
            log {
                the_root_is_that_of_the_leaves_at_every_size
                the_batch_chain_covers_every_head
                any_leaves_are_proven_at_any_size
                any_two_sizes_are_consistent
                what_is_not_in_the_log_is_not_proven
                logs_of_tenants_are_apart
                a_large_log_proves_across_levels_of_tiles
            }
            sequencing {
                a_commit_says_whether_its_facts_have_a_place
                places_are_given_in_the_order_of_commits
                streams_count_on_over_what_waits
                sequencing_keeps_to_its_limit
                what_waits_is_not_in_the_log
            }
            checkpoints {
                a_true_checkpoint_is_kept
                a_false_checkpoint_is_not_kept
                an_earlier_size_may_be_kept_if_it_is_news
                checkpoints_are_listed_from_a_size_on
            }
            restart {
                everything_is_still_there
                counting_goes_on
                a_lease_ends_with_the_process_that_held_it
                waiting_facts_survive_and_keep_their_order
                the_mode_can_change_between_runs
            }
            views {
                a_view_remembers_what_it_read_once
                what_was_read_must_not_move
                a_list_without_a_guard_is_not_committed_on
                a_guarded_list_stands_and_falls_with_its_guard
                a_found_record_is_remembered
                members_of_a_newer_version_survive_a_rewrite
            }
            model {
                seeds_0_to_49
                seeds_50_to_99
                seeds_100_to_149
                seeds_150_to_199
                seeds_200_to_249
            }
        }
    };
}

/// The list of [`conformance!`] as modules of tests.
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_cases {
    ($home:path; $($module:ident { $($case:ident)* })*) => {
        $crate::conformance_cases! { @mode immediate Immediate $home; $($module { $($case)* })* }
        $crate::conformance_cases! { @mode deferred Deferred $home; $($module { $($case)* })* }
    };
    (@mode $mode:ident $sequencing:ident $home:path; $($module:ident { $($case:ident)* })*) => {
        mod $mode {
            $(mod $module {
                $(
                    #[tokio::test]
                    async fn $case() {
                        let sequencing = store::Sequencing::$sequencing;
                        let bed = $crate::conformance::Bed::start($home(), sequencing).await;
                        $crate::conformance::$module::$case(bed).await;
                    }
                )*
            })*
        }
    };
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    /// The names that stand in a module of the list above.
    fn listed(list: &str, module: &str) -> BTreeSet<String> {
        let start = list.find(&format!("            {module} {{\n")).expect("every module is listed");
        let names = list[start..].lines().skip(1).take_while(|line| line.trim() != "}");
        names.map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn every_case_is_listed() {
        let list = include_str!("mod.rs");
        for (module, source) in [
            ("checkpoints", include_str!("checkpoints.rs")),
            ("facts", include_str!("facts.rs")),
            ("indexes", include_str!("indexes.rs")),
            ("jobs", include_str!("jobs.rs")),
            ("leases", include_str!("leases.rs")),
            ("ledger", include_str!("ledger.rs")),
            ("ledger_model", include_str!("ledger_model.rs")),
            ("log", include_str!("log.rs")),
            ("model", include_str!("model.rs")),
            ("origins", include_str!("origins.rs")),
            ("outcomes", include_str!("outcomes.rs")),
            ("records", include_str!("records.rs")),
            ("restart", include_str!("restart.rs")),
            ("sequencing", include_str!("sequencing.rs")),
            ("uniques", include_str!("uniques.rs")),
            ("views", include_str!("views.rs")),
        ] {
            let cases = source.lines().filter_map(|line| line.strip_prefix("pub async fn ")?.split_once('('));
            let cases: BTreeSet<String> = cases.map(|(name, _)| name.to_owned()).collect();
            assert_eq!(cases, listed(list, module), "cases of {module}, and those listed in conformance!");
        }
    }
}
