//! Every problem that can be diagnosed, provoked: on a real gateway where what it does matters, several in one boot.

#[path = "findings/attached.rs"]
mod attached;
#[path = "findings/disks.rs"]
mod disks;
#[path = "findings/doctor.rs"]
mod doctor;
#[path = "findings/launched.rs"]
mod launched;
#[path = "findings/scripts.rs"]
mod scripts;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use openclaw_sidecar::state::Code;
use serde_json::Value;

use crate::support::client::Client;

/// The machine and the gateway are looked at every 30 s.
const LOOKED: Duration = Duration::from_secs(75);

/// To see in the output what took how long.
static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Where each code is provoked: the test's file and its function.
#[rustfmt::skip]
const PROVOKED: &[(&str, &str, &str)] = &[
    ("gateway_token_missing", "gateway_faults/refusals.rs", "refusals_that_end_are_forgotten"),
    ("gateway_token_mismatch", "real_gateway/lifecycle.rs", "wrong_token_is_explained_and_followed"),
    ("gateway_version_unsupported", "gateway_faults/refusals.rs", "refusals_that_end_are_forgotten"),
    ("gateway_refuses_us", "gateway_faults/refusals.rs", "refusals_that_end_are_forgotten"),
    ("credentials_unreadable", "auth_matrix/reload.rs", "finding"),
    ("proxy_makes_everyone_local", "findings/attached.rs", "visitors_came_in_all_wrong_ways"),
    ("forwarding_headers_untrusted", "findings/attached.rs", "visitors_came_in_all_wrong_ways"),
    ("origin_not_allowed", "findings/attached.rs", "visitors_came_in_all_wrong_ways"),
    ("certificate_expiring", "findings/attached.rs", "known_at_once"),
    ("launched_around", "findings/attached.rs", "known_at_once"),
    ("config_change_refused", "findings/attached.rs", "a_change_is_passed_over"),
    ("out_of_band_approval", "findings/attached.rs", "somebody_else_approves"),
    ("pairing_required", "findings/attached.rs", "who_waits_is_shown"),
    ("node_commands_unapproved", "findings/attached.rs", "who_waits_is_shown"),
    ("channel_down", "findings/attached.rs", "who_waits_is_shown"),
    ("gateway_mute", "findings/attached.rs", "it_falls_silent"),
    ("gateway_auth_off", "findings/attached.rs", "authentication_is_turned_off"),
    ("gateway_config_invalid", "findings/attached.rs", "the_file_is_broken"),
    ("gateway_config_invalid", "findings/scripts.rs", "a_refused_configuration_names_the_member"),
    ("config_drift", "findings/launched.rs", "somebody_changes_what_is_ours"),
    ("secret_expiring", "findings/launched.rs", "a_secret_ends"),
    ("gateway_slow", "findings/launched.rs", "the_machine_is_throttled"),
    ("gateway_port_taken", "findings/launched.rs", "its_port_is_taken"),
    ("desired_not_written", "findings/launched.rs", "its_port_is_taken"),
    ("gateway_crash_loop", "findings/scripts.rs", "a_crash_loop_shows_how_it_ended"),
    ("version_changed", "findings/scripts.rs", "another_version_is_told"),
    ("seed_notes", "findings/scripts.rs", "another_version_is_told"),
    ("decommissioned", "findings/scripts.rs", "another_version_is_told"),
    ("desired_unreadable", "findings/scripts.rs", "a_first_document_that_is_none"),
    ("gateway_absent", "findings/attached.rs", "without_a_gateway_that_is_said"),
    ("disk_low", "findings/disks.rs", "what_cannot_be_written_is_said"),
    ("audit_not_durable", "findings/disks.rs", "what_cannot_be_written_is_said"),
    ("state_not_written", "findings/disks.rs", "what_cannot_be_written_is_said"),
    ("certificate_unreadable", "findings/disks.rs", "files_that_become_unreadable"),
    ("local_socket_unavailable", "findings/disks.rs", "files_that_become_unreadable"),
    ("registry_unreachable", "checkin/reports.rs", "without_a_registry_everything_else_goes_on"),
    ("registry_refuses_us", "checkin/reports.rs", "a_registry_that_refuses_us_is_a_finding_and_is_left_alone"),
    // Injected: a real machine's clock and memory are everybody's, and the kernel's choice of whom to end is its own.
    ("clock_wrong", "../../src/op/findings/tests.rs", "an_injected_clock_is_told_from_a_right_one"),
    ("memory_low", "../../src/op/findings/tests.rs", "injected_memory_and_disk_are_low_below_a_twentieth"),
];

#[test]
fn every_code_is_provoked_somewhere() {
    let mut known: BTreeMap<&str, bool> = Code::ALL.iter().map(|code| (code.name(), false)).collect();
    for (code, file, function) in PROVOKED {
        *known.get_mut(code).unwrap_or_else(|| panic!("{code} is no code")) = true;
        let path = format!("{}/tests/it/{file}", env!("CARGO_MANIFEST_DIR"));
        let source = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"));
        assert!(source.contains(&format!("fn {function}(")), "{file} has no {function}");
        let variant = |c: &&Code| c.name() == *code;
        let variant = Code::ALL.iter().find(variant).map(|code| format!("Code::{code:?}")).unwrap_or_default();
        let looks = source.contains(&format!("\"{code}\"")) || source.contains(&variant);
        assert!(looks, "{file} does not look for {code}");
    }
    let without: Vec<&str> = known.into_iter().filter(|(_, provoked)| !provoked).map(|(code, _)| code).collect();
    assert!(without.is_empty(), "no test provokes {without:?}");
}

fn finding<'a>(state: &'a Value, code: &str) -> Option<&'a Value> {
    state["findings"].as_array()?.iter().find(|one| one["code"] == code)
}

fn evidence(one: &Value) -> Vec<&str> {
    one["evidence"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Waits until the finding is there with this evidence; it has to have a summary and a remedy too.
async fn found(client: &Client, code: &str, facts: &[&str], limit: Duration) -> anyhow::Result<Value> {
    let proves = |one: &Value| facts.iter().all(|fact| evidence(one).iter().any(|text| text.contains(fact)));
    let there = |state: &Value| finding(state, code).is_some_and(proves);
    let state = client.wait_until("/v1/state", there, limit).await;
    let state = state.with_context(|| format!("waiting for {code} with {facts:?}"))?;
    let one = finding(&state, code).cloned().expect("just found");
    let filled = |name: &str| one[name].as_str().is_some_and(|text| !text.is_empty());
    ensure!(filled("summary") && filled("remedy") && filled("since"), "{one}");
    ensure!(evidence(&one).len() <= 6 && evidence(&one).iter().all(|text| text.len() <= 200), "{one}");
    println!("{:?} {one}", BEGAN.elapsed());
    Ok(one)
}

async fn gone(client: &Client, code: &str, limit: Duration) -> anyhow::Result<Value> {
    let state = client.wait_until("/v1/state", |state| finding(state, code).is_none(), limit).await;
    state.with_context(|| format!("waiting for the end of {code}"))
}
