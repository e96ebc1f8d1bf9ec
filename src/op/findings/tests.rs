//! Every code from facts alone. Clock, memory and lack of it are injected here: a real machine's cannot be bent.

use super::*;
use crate::state::{Draft, State};

use std::sync::Arc;

use serde_json::json;

use super::facts::{ConfigFacts, LogFacts};
use super::host::Room;
use crate::gateway::diagnosis::ChannelDown;
use crate::state::{Approved, OutOfBand, Pairing};

const NOW: UnixMs = UnixMs(RELEASED.0 + 1_000_000_000);

/// A healthy machine.
fn facts() -> Facts {
    Facts {
        now: NOW,
        snapshot: State::new("test".into()).now(),
        config: None,
        config_fault: None,
        log: LogFacts::default(),
        channels: Vec::new(),
        auth_mode: Some("token".into()),
        silent_for: None,
        process_stopped: None,
        slow: None,
        port: 18789,
        listener_uid: None,
        version_changed: None,
        launched_around: None,
        disks: Vec::new(),
        memory: None,
        registry_skew_ms: None,
        secrets: Vec::new(),
        certificate: None,
    }
}

fn with(change: impl FnOnce(&mut Draft)) -> Facts {
    let state = State::new("test".into());
    state.publish(change);
    Facts { snapshot: state.now(), ..facts() }
}

fn codes(facts: &Facts) -> Vec<Code> {
    diagnose(facts).into_iter().map(|(code, _)| code).collect()
}

fn pending(kind: &str, age_s: u64) -> Pending {
    Pending {
        kind: serde_json::from_value(json!(kind)).unwrap(),
        request_id: "r".into(),
        device_id: "d".into(),
        label: "Chrome".into(),
        client_id: "openclaw-control-ui".into(),
        platform: String::new(),
        role: String::new(),
        scopes: Vec::new(),
        commands: Vec::new(),
        remote_ip: "203.0.113.9".into(),
        is_upgrade: false,
        requested_at: UnixMs(NOW.0 - age_s * 1000),
        expires_at: None,
        channel: String::new(),
        account: String::new(),
    }
}

fn approved(client_id: &str, via: &str, ip: &str) -> Approved {
    Approved {
        kind: Kind::Device,
        device_id: "d".into(),
        label: "x".into(),
        client_id: client_id.into(),
        platform: String::new(),
        role: String::new(),
        scopes: Vec::new(),
        commands: Vec::new(),
        remote_ip: ip.into(),
        connected: None,
        approved_at: NOW,
        approved_by: String::new(),
        approved_via: via.into(),
    }
}

#[test]
fn nothing_is_wrong_with_a_healthy_machine() {
    assert!(diagnose(&facts()).is_empty());
}

#[test]
fn who_waits_a_minute_is_shown_by_kind() {
    let waiting = |kind: &str, age| {
        let pairing = Pairing { pending: vec![pending(kind, age)], ..Pairing::default() };
        codes(&with(|d| d.snapshot.pairing = pairing.into()))
    };
    assert_eq!(waiting("device", 59), []);
    assert_eq!(waiting("device", 60), [Code::PairingRequired]);
    assert_eq!(waiting("channel", 60), [Code::PairingRequired]);
    assert_eq!(waiting("node", 60), [Code::NodeCommandsUnapproved]);
}

#[test]
fn somebody_elses_approval_is_shown_for_a_day_while_the_device_is_there() {
    let found = |age_h: u64, device: Option<Approved>| {
        let noticed_at = UnixMs(NOW.0 - age_h * 3_600_000);
        let last = OutOfBand { device_id: "d".into(), noticed_at, via: "owner".into() };
        let approved = device.into_iter().collect();
        let pairing = Pairing { approved, last_out_of_band: Some(last), ..Pairing::default() };
        codes(&with(|d| d.snapshot.pairing = pairing.into()))
    };
    let browser = || Some(approved("openclaw-control-ui", "owner", "203.0.113.9"));
    assert_eq!(found(23, browser()), [Code::OutOfBandApproval]);
    assert_eq!(found(24, browser()), []);
    assert_eq!(found(1, None), []);
    assert_eq!(found(1, Some(approved("cli", "silent", ""))), [], "the gateway's own command line");
}

#[test]
fn a_browser_that_looks_local_is_a_proxy_that_hides_it() {
    let found = |device: Approved| {
        let pairing = Pairing { approved: vec![device], ..Pairing::default() };
        codes(&with(|d| d.snapshot.pairing = pairing.into()))
    };
    assert_eq!(found(approved("openclaw-control-ui", "silent", "")), [Code::ProxyMakesEveryoneLocal]);
    assert_eq!(found(approved("openclaw-control-ui", "silent", "127.0.0.1")), [Code::ProxyMakesEveryoneLocal]);
    assert_eq!(found(approved("openclaw-control-ui", "owner", "")), []);
    assert_eq!(found(approved("cli", "silent", "")), []);
}

#[test]
fn what_the_log_says_counts_until_the_configuration_says_otherwise() {
    let log = LogFacts {
        origins: vec!["https://a.example".into()],
        forwarding: Some("127.0.0.1".into()),
        ..LogFacts::default()
    };
    let said = Facts { log, ..facts() };
    let found = diagnose(&said);
    let shown: Vec<_> = found.iter().map(|(code, _)| *code).collect();
    assert_eq!(shown, [Code::OriginNotAllowed, Code::ForwardingHeadersUntrusted]);
    assert!(found.iter().all(|(code, found)| {
        code.severity() == crate::state::Severity::Warning && format!("{found:?}").contains("source=log")
    }));
    let config =
        ConfigFacts { origins: vec!["https://a.example".into()], trusts_proxies: true, ..ConfigFacts::default() };
    assert!(codes(&Facts { config: Some(config), ..said }).is_empty());
}

#[test]
fn a_gateway_that_nobody_started_is_missed_after_a_minute() {
    let mut facts = with(|draft| draft.snapshot.phase = Phase::Stopped);
    let since = facts.snapshot.phase_since;
    for (seconds, expected) in [(59, vec![]), (60, vec![Code::GatewayAbsent])] {
        facts.now = since.plus_ms(seconds * 1000);
        assert_eq!(codes(&facts), expected, "after {seconds} s");
    }
}

#[test]
fn authentication_is_off_when_either_says_so() {
    let config = ConfigFacts { auth_mode: Some("none".into()), ..ConfigFacts::default() };
    assert_eq!(codes(&Facts { config: Some(config), ..facts() }), [Code::GatewayAuthOff]);
    assert_eq!(codes(&Facts { auth_mode: Some("none".into()), ..facts() }), [Code::GatewayAuthOff]);
}

#[test]
fn silence_is_judged_by_its_length() {
    let mute = |s| {
        let facts = with(|d| d.snapshot.enter(Phase::Degraded, "it has not answered"));
        codes(&Facts { silent_for: Some(Duration::from_secs(s)), ..facts })
    };
    assert_eq!((mute(29), mute(30)), (vec![], vec![Code::GatewayMute]));
}

#[test]
fn an_injected_clock_is_told_from_a_right_one() {
    let clock = |now, registry_skew_ms| codes(&Facts { now, registry_skew_ms, ..facts() });
    assert_eq!(clock(UnixMs(0), None), [Code::ClockWrong]);
    assert_eq!(clock(RELEASED.plus_ms(21 * 365 * DAY_MS), None), [Code::ClockWrong]);
    assert_eq!(clock(NOW, Some(-121_000)), [Code::ClockWrong]);
    assert_eq!(clock(NOW, Some(119_000)), []);
    let found = super::clock(&Facts { registry_skew_ms: Some(3_600_000), ..facts() }).unwrap();
    assert!(format!("{found:?}").contains("3600 s behind") && format!("{found:?}").contains("against=registry"));
}

#[test]
fn injected_memory_and_disk_are_low_below_a_twentieth() {
    let room = |free| Room { of: "cgroup".into(), free, total: 1_000 };
    assert_eq!(codes(&Facts { memory: Some(room(49)), ..facts() }), [Code::MemoryLow]);
    assert_eq!(codes(&Facts { disks: vec![room(900), room(1)], ..facts() }), [Code::DiskLow]);
    assert!(codes(&Facts { memory: Some(room(50)), disks: vec![room(50)], ..facts() }).is_empty());
}

#[test]
fn short_lives_end_late_and_long_ones_are_announced_early() {
    let life = |days_left: u64, days: u64| {
        let until = NOW.plus_ms(days_left * DAY_MS);
        Validity { from: UnixMs(until.0 - days * DAY_MS), until }
    };
    let certificate = |life| codes(&Facts { certificate: Some(life), ..facts() });
    assert_eq!(certificate(life(14, 90)), [Code::CertificateExpiring]);
    assert_eq!(certificate(life(15, 90)), []);
    assert_eq!(certificate(life(3, 6)), [], "it was made for six days");
    assert_eq!(certificate(life(0, 6)), [Code::CertificateExpiring]);
    let secret = |life| codes(&Facts { secrets: vec![("KEY".into(), life)], ..facts() });
    assert_eq!((secret(life(3, 90)), secret(life(4, 90))), (vec![Code::SecretExpiring], vec![]));
}

#[test]
fn the_rest_follows_at_once() {
    let channel = ChannelDown { name: "telegram/default".into(), why: String::new() };
    let config = ConfigFacts { drift: vec!["gateway.bind".into()], ..ConfigFacts::default() };
    let log = LogFacts { config_refused: Some("gateway: Unrecognized key: \"bananas\"".into()), ..LogFacts::default() };
    let all = Facts {
        channels: vec![channel],
        config: Some(config),
        log,
        slow: Some(vec![("rpc_s", "9".into())]),
        version_changed: Some(("1".into(), "2".into())),
        launched_around: around(true, false, &Platform::default()),
        ..facts()
    };
    let expected = [
        Code::GatewaySlow,
        Code::ChannelDown,
        Code::VersionChanged,
        Code::ConfigChangeRefused,
        Code::ConfigDrift,
        Code::LaunchedAround,
    ];
    assert_eq!(codes(&all), expected);
    assert!(format!("{:?}", diagnose(&all)).contains("path=gateway.bananas"));
    assert!(expected.iter().all(|code| DIAGNOSED.contains(code)));
    assert_eq!(around(false, false, &Platform { name: Some("fly"), first_process: None }), None);
}

#[test]
fn an_end_is_told_with_what_proves_it() {
    let exit = LastExit {
        reason: "the kernel ended it for lack of memory (SIGKILL)".into(),
        signal: Some("SIGKILL".into()),
        oom: true,
        last_lines: vec!["one".into(), "Config invalid: gateway.auth: Unrecognized key: \"x\"".into()],
        ..LastExit::default()
    };
    let status = |state| Status { state, reason: "why".into(), last_exit: Some(exit.clone()), ..Status::default() };
    let found = format!("{:?}", supervision(&status(Launched::CrashLoop), false));
    for fact in ["signal=SIGKILL", "oom=true", "said=one", "exit=none"] {
        assert!(found.contains(fact), "{fact}: {found}");
    }
    let found = format!("{:?}", supervision(&status(Launched::ConfigInvalid), false));
    assert!(found.contains("path=gateway.auth.x"), "{found}");
    assert!(supervision(&status(Launched::Ready), false).iter().all(|(_, found)| found.is_none()));
}

#[test]
fn members_are_found_in_the_words_of_several_versions() {
    for (line, path) in [
        ("Config invalid: gateway: Unrecognized key: \"bananas\"", Some("gateway.bananas")),
        ("  - gateway: Unrecognized key: \"bananas\"", Some("gateway.bananas")),
        ("  - <root>: Unrecognized key: \"a\"", Some("a")),
        ("- agents.list[0].id: Invalid input: expected string", Some("agents.list[0].id")),
        ("gateway.port: must be a number", Some("gateway.port")),
        ("Error: Invalid thing", None),
        ("nothing", None),
    ] {
        let found = faulty_member(line);
        if path.is_some() || line == "nothing" {
            assert_eq!(found.as_deref(), path, "{line}");
        }
    }
}

#[test]
fn a_port_in_use_is_taken_when_somebody_listens_there() {
    let exit = LastExit { reason: "Port 18789 is already in use.".into(), ..LastExit::default() };
    let status = Status { state: Launched::Backoff, last_exit: Some(exit), ..Status::default() };
    let taken = with(|d| d.snapshot.supervised(status));
    assert_eq!(codes(&taken), []);
    let found = diagnose(&Facts { listener_uid: Some(12_003), ..taken });
    assert!(found[0].0 == Code::GatewayPortTaken && format!("{found:?}").contains("uid=12003"));
    let _: Arc<_> = facts().snapshot;
}
