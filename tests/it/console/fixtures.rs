//! Tenants as a registry comes to know them: stories told in check-ins, so that statuses, reasons and histories on the
//! pages are those of the rules and not of the tests.

use std::collections::BTreeMap;

use openclaw_sidecar::checkin::wire::{self, Bye, CheckIn, Finding, Intent, Pending, Report};
use openclaw_sidecar::clock::UnixMs;
use openclaw_sidecar::registry::console::{FleetPage, TenantPage};
use openclaw_sidecar::registry::rules::{Arrival, check_in, pass_time};
use openclaw_sidecar::registry::store::{Blind, Counts, Filter};
use openclaw_sidecar::registry::tenant::{Digest, Entry, Row};
use openclaw_sidecar::registry::view::{Fleet, Summary, TenantLine, TenantView, Timeline};

/// 2026-11-20T16:12:03Z.
pub const NOW: UnixMs = UnixMs(1_795_191_123_000);
pub const USER: &str = "night-shift";
const CREDENTIAL: Digest = [7; 32];

/// One tenant and what happened to it.
#[derive(Clone, Debug)]
pub struct Story {
    pub row: Row,
    pub report: Option<String>,
    pub entries: Vec<Entry>,
    seq: u64,
}

/// A moment before [`NOW`].
pub fn ago(seconds: u64) -> UnixMs {
    UnixMs(NOW.0 - seconds * 1000)
}

impl Story {
    pub fn new(id: &str, label: &str, created: UnixMs) -> Self {
        Self { row: Row::new(id, label, vec![CREDENTIAL], created), report: None, entries: Vec::new(), seq: 0 }
    }

    /// A check-in, received `seconds` before now.
    pub fn says(self, seconds: u64, state: &Report) -> Self {
        self.message(seconds, state, |_| {})
    }

    pub fn message(mut self, seconds: u64, state: &Report, change: impl FnOnce(&mut CheckIn)) -> Self {
        self.seq += 1;
        let mut message = CheckIn {
            tenant: self.row.id.clone(),
            epoch: 4,
            boot_id: "b1".to_owned(),
            seq: self.seq,
            reason: vec!["interval".to_owned()],
            bye: None,
            next_s: Some(300),
            state: state.clone(),
            audit: None,
            events: Vec::new(),
            dropped: 0,
        };
        change(&mut message);
        let arrival = Arrival { message, credential: CREDENTIAL, ticket: false, at: ago(seconds) };
        let change = check_in(Some(&self.row), &arrival, &[]);
        self.take(change)
    }

    /// The registry looks whether something is overdue, `seconds` before now.
    pub fn swept(self, seconds: u64) -> Self {
        let change = pass_time(Some(&self.row), ago(seconds), &[]);
        self.take(change)
    }

    fn take(mut self, change: openclaw_sidecar::registry::store::Change) -> Self {
        self.row = change.row.unwrap_or(self.row);
        self.report = change.report.or(self.report);
        for entry in change.entries {
            let seq = 1000 + self.entries.len() as u64;
            self.entries.push(Entry { seq, ..entry });
        }
        self
    }

    pub fn page(&self) -> TenantPage {
        let entries = self.entries.iter().rev().cloned().collect();
        TenantPage {
            view: TenantView::of(&self.row, self.report.as_deref(), NOW, &[]),
            timeline: Timeline { at: NOW, entries, next: None },
            before: None,
            user: USER.to_owned(),
        }
    }

    pub fn line(&self) -> TenantLine {
        TenantLine::of(&self.row, NOW, &[])
    }
}

/// A machine that works.
pub fn report() -> Report {
    Report {
        phase: "ready".to_owned(),
        phase_since: Some(ago(86_400)),
        mode: "launch".to_owned(),
        sent_at: Some(ago(12)),
        sidecar: wire::Sidecar {
            version: "0.1.0".to_owned(),
            commit: "4327068".to_owned(),
            uptime_s: 86_460,
            certificate_sha256: Some("9f2c1e07".repeat(8)),
            isolation: "separate-uids".to_owned(),
        },
        gateway: wire::Gateway { version: "2026.9.6".to_owned(), starts: 1, rpc_ms: 14, ..Default::default() },
        pairing: wire::Pairing {
            posture: "manual".to_owned(),
            approved_count: 3,
            connected_count: 2,
            ..Default::default()
        },
        desired: wire::Desired { generation: 7, status: "applied".to_owned(), error: String::new() },
        platform: wire::Platform {
            kind: "fly".to_owned(),
            region: "ams".to_owned(),
            machine: "3d8d9014b32e89".to_owned(),
        },
        host: wire::Host { memory_free_mib: Some(318), disk_free_mib: Some(12_900), load_percent: Some(21) },
        ..Default::default()
    }
}

/// The same with problems.
pub fn with(mut report: Report, findings: Vec<Finding>) -> Report {
    report.findings_count = findings.len() as u64;
    report.findings = findings;
    report
}

pub fn finding(code: &str, severity: &str, summary: &str, remedy: &str, evidence: &[&str]) -> Finding {
    Finding {
        code: code.to_owned(),
        severity: severity.to_owned(),
        age_s: 40,
        summary: summary.to_owned(),
        evidence: evidence.iter().map(|&text| text.to_owned()).collect(),
        remedy: remedy.to_owned(),
    }
}

pub fn pending(id: &str, label: &str, age_s: u64) -> Pending {
    Pending {
        kind: "device".to_owned(),
        request_id: id.to_owned(),
        device_id: "5e5f1b0d9b".repeat(6),
        label: label.to_owned(),
        client: "openclaw-control-ui".to_owned(),
        platform: "MacIntel".to_owned(),
        role: "operator".to_owned(),
        scopes: ["operator.read", "operator.write", "operator.admin"].map(str::to_owned).to_vec(),
        is_upgrade: false,
        age_s,
        expires_in_s: Some(300u64.saturating_sub(age_s)),
    }
}

/// The same with somebody at the door.
pub fn waiting(mut report: Report, pending: Vec<Pending>) -> Report {
    report.pairing.pending_count = pending.len() as u64;
    report.pairing.pending = pending;
    report
}

/// Tenants in every state there is, the broken ones first.
pub fn fleet() -> Vec<Story> {
    let mut all = broken();
    all.extend(others());
    all
}

/// Five tenants that are broken in ways that support meets.
pub fn broken() -> Vec<Story> {
    vec![token_mismatch(), crash_loop(), config_invalid(), port_taken(), disk_low()]
}

fn known(id: &str, label: &str) -> Story {
    Story::new(id, label, ago(9 * 86_400)).says(86_400, &report()).says(400, &report())
}

fn token_mismatch() -> Story {
    let found = finding(
        "gateway_token_mismatch",
        "error",
        "The gateway refuses the sidecar: the token the sidecar holds is not the one the gateway runs with",
        "Rotate the token through the control plane (POST /v1/gateway/rotate-token), or point gateway.token_file at the \
         current one. A changed file is picked up within seconds.",
        &["authReason=token_mismatch", "the sidecar's copy is older: 2026-11-20T14:02:11Z", "source=handshake"],
    );
    let state = Report { phase: "unauthorized".to_owned(), ..with(report(), vec![found]) };
    known("t-4f0c", "Acme Robotics").says(95, &state).says(12, &state)
}

fn crash_loop() -> Story {
    let found = finding(
        "gateway_crash_loop",
        "error",
        "The gateway ends again and again: it ran out of memory",
        "Give the machine more memory (512 MiB at least), or switch off what uses it: the last lines name the plugin \
         that was loading.",
        &["exit=137 signal=SIGKILL oom=true", "5 ends within 300 s", "last line: loading plugin browser-relay"],
    );
    let mut state = with(report(), vec![found]);
    state.phase = "crash_loop".to_owned();
    state.phase_reason = "out of memory (SIGKILL by the kernel)".to_owned();
    state.gateway.starts = 6;
    state.gateway.last_exit =
        Some("killed by SIGKILL, out of memory; last line: loading plugin browser-relay".to_owned());
    state.gateway.last_exit_at = Some(ago(42));
    state.host.memory_free_mib = Some(11);
    known("t-81ab", "Bakery Lindqvist").says(240, &Report { phase: "backoff".into(), ..report() }).says(38, &state)
}

fn config_invalid() -> Story {
    let found = finding(
        "gateway_config_invalid",
        "error",
        "The gateway refuses its configuration at agents.list[0].model.primary",
        "Correct agents.list[0].model.primary in the desired state and send it again; or send generation 6, which worked.",
        &["path=agents.list[0].model.primary", "Invalid input: expected string, received number", "exit=78"],
    );
    let mut state = with(report(), vec![found]);
    state.phase = "config_invalid".to_owned();
    state.desired = wire::Desired {
        generation: 8,
        status: "failed".to_owned(),
        error: "the gateway ended with 78 before it was ready".to_owned(),
    };
    state.gateway.last_exit = Some("exit 78: invalid config".to_owned());
    state.gateway.last_exit_at = Some(ago(130));
    known("t-97d2", "").says(120, &state)
}

fn port_taken() -> Story {
    let found = finding(
        "gateway_port_taken",
        "error",
        "Another process holds the gateway's port 18789",
        "Find the process that holds the port and end it, or move it; the token was not sent to it.",
        &["port=18789 uid=1000 (not the gateway's)", "EADDRINUSE in the gateway's log, source=log"],
    );
    let mut state = with(report(), vec![found]);
    state.phase = "backoff".to_owned();
    state.phase_reason = "exit 1: another gateway instance is already listening".to_owned();
    state.gateway.last_exit =
        Some("exit 1: another gateway instance is already listening on ws://127.0.0.1:18789".into());
    state.gateway.last_exit_at = Some(ago(9));
    known("t-a3c8", "Study group Ω").says(20, &state)
}

fn disk_low() -> Story {
    let low = finding(
        "disk_low",
        "error",
        "The volume is nearly full: 41 MiB free",
        "Enlarge the volume, or remove old sessions and logs below /data/openclaw; writes fail when it is full.",
        &["disk_free_mib=41", "log files: 612 MiB"],
    );
    let slow = finding(
        "gateway_slow",
        "warning",
        "The gateway answers slowly: the machine is throttled",
        "Wait for the burst of CPU to refill, or give the machine a larger share.",
        &["rpc_ms=2140", "nr_throttled rose by 311 in 60 s"],
    );
    let mut state = with(report(), vec![slow, low]);
    state.host.disk_free_mib = Some(41);
    state.gateway.rpc_ms = 2140;
    known("t-b41e", "Hartmann & Söhne Steuerberatung").says(70, &state)
}

fn others() -> Vec<Story> {
    let bye = |reason: &str| Some(Bye { intent: Intent::Sleep, reason: reason.to_owned() });
    let iphone =
        Pending { platform: "iPhone".into(), is_upgrade: true, ..pending("c81e72d0-11f2", "Safari, Mia's phone", 281) };
    let upgrade = waiting(report(), vec![pending("0b9d2c5e-7f41-4f43-9b1e-52a1f8c1d2aa", "Chrome on Mac", 64), iphone]);
    let gone =
        finding("version_changed", "warning", "The gateway's version changed", "Nothing, if that was wanted.", &[]);
    let booting = Report { phase: "starting".to_owned(), ..report() };
    let mut copied = known("t-e811", "Copied volume").says(30, &report());
    copied = copied.message(15, &report(), |message| message.boot_id = "b2".to_owned());
    vec![
        known("t-c002", "Ready and fine").says(130, &report()).says(12, &report()),
        known("t-c517", "Sleeps at night").message(3 * 3600, &report(), |message| message.bye = bye("idle for 30 min")),
        Story::new("t-d200", "Silent", ago(9 * 86_400))
            .says(90_000, &report())
            .says(7_600, &report())
            .says(1_290, &with(report(), vec![gone]))
            .swept(800),
        known("t-d7aa", "Lets somebody in").says(60, &upgrade).says(2, &upgrade),
        copied,
        Story::new("t-e900", "Starts", ago(600)).says(50, &booting),
        Story::new("t-f000", "Created a moment ago", ago(320)),
        Story::new("t-f100", "Quiet", ago(40 * 86_400)).message(30 * 3600, &report(), |message| message.next_s = None),
    ]
}

/// The page of the fleet with these tenants on it.
pub fn fleet_page(stories: &[Story]) -> FleetPage {
    let tenants: Vec<TenantLine> = stories.iter().map(Story::line).collect();
    let mut counts = Counts::default();
    let raise = |map: &mut BTreeMap<String, u64>, name: &str| *map.entry(name.to_owned()).or_default() += 1;
    for line in &tenants {
        raise(&mut counts.status, line.status.name());
        raise(&mut counts.version, &line.gateway_version);
        raise(&mut counts.region, &line.region);
        line.findings.iter().for_each(|code| raise(&mut counts.finding, code));
        counts.pairing += u64::from(line.pending_count > 0);
    }
    FleetPage {
        summary: Summary { at: NOW, counts, blind: Vec::new() },
        fleet: Fleet { at: NOW, tenants, next: None },
        filter: Filter::default(),
        first: true,
        user: USER.to_owned(),
    }
}

/// The registry was away for ten minutes, half an hour ago.
pub fn blind() -> Vec<Blind> {
    vec![Blind { from: ago(2400), to: ago(1800) }]
}
