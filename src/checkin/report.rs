//! The machine's state as the registry sees it: every text cut, the whole never too long, ages instead of times.

use std::collections::BTreeSet;
use std::path::Path;

use super::wire::{self, CheckIn, MAX_EVENTS, MAX_FINDINGS, MAX_PENDING, MAX_SENT, Report};
use super::{REFUSED, UNREACHABLE};
use crate::api::{COMMIT, VERSION};
use crate::clock::UnixMs;
use crate::config::Env;
use crate::desired::history::Outcome;
use crate::state::{Finding, Kind, Pending, Phase, Severity, Snapshot};

/// A name or id.
const NAME: usize = 96;
/// A sentence.
const SENTENCE: usize = 256;
const SCOPES: usize = 12;

/// What a report needs besides the snapshot.
#[derive(Clone, Debug, Default)]
pub struct Surroundings {
    /// A launcher is there.
    pub launched: bool,
    /// Seconds since this process started.
    pub uptime_s: u64,
    /// SHA-256 of the certificate served.
    pub certificate_sha256: Option<String>,
    /// How long the gateway's last call took, in milliseconds.
    pub rpc_ms: u64,
    /// Where the machine runs.
    pub platform: wire::Platform,
    /// How it is doing.
    pub host: wire::Host,
}

/// What of a snapshot is worth a message of its own when it changes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Watched {
    phase: (String, String, String, Option<String>),
    pairing: (BTreeSet<(String, String)>, usize),
    findings: BTreeSet<&'static str>,
    desired: (u64, &'static str, Option<String>),
    attention: bool,
}

impl Watched {
    /// Of this snapshot, and of the certificate that is served.
    pub fn of(snapshot: &Snapshot, certificate: Option<&str>) -> Self {
        let version = snapshot.gateway.as_ref().map(|g| g.version.clone()).unwrap_or_default();
        let id = |p: &Pending| (kind_name(p.kind).to_owned(), p.request_id.clone());
        let pending: BTreeSet<_> = snapshot.pairing.pending.iter().map(id).collect();
        let booting = matches!(snapshot.phase, Phase::Seeding | Phase::Starting);
        Self {
            attention: booting || !pending.is_empty(),
            phase: (
                snapshot.phase.name().to_owned(),
                snapshot.phase_reason.clone(),
                version,
                certificate.map(str::to_owned),
            ),
            pairing: (pending, snapshot.pairing.approved.len()),
            findings: told(snapshot).map(|f| f.code.name()).collect(),
            desired: (snapshot.desired.generation, desired_name(snapshot), snapshot.desired.error.clone()),
        }
    }

    /// Whether the gateway boots or somebody waits.
    pub fn attention(&self) -> bool {
        self.attention
    }

    /// What changed since `before`, as reasons of a message.
    pub fn since(&self, before: &Self) -> impl Iterator<Item = &'static str> {
        let differs = [
            ("phase", self.phase != before.phase),
            ("pairing", self.pairing != before.pairing),
            ("findings", self.findings != before.findings),
            ("desired", self.desired != before.desired),
        ];
        differs.into_iter().filter_map(|(reason, differs)| differs.then_some(reason))
    }
}

/// Problems with the registry are not told to it: whoever reads of them there would read of the past.
fn told(snapshot: &Snapshot) -> impl Iterator<Item = &Finding> {
    snapshot.findings.iter().filter(|f| ![UNREACHABLE, REFUSED].contains(&f.code))
}

/// The report of a snapshot at `now`.
pub fn report(snapshot: &Snapshot, around: &Surroundings, now: UnixMs) -> Report {
    let supervisor = snapshot.supervisor.as_deref();
    let exit = supervisor.and_then(|s| s.last_exit.as_ref());
    let mut findings: Vec<_> = told(snapshot).collect();
    findings.sort_by_key(|f| f.severity == Severity::Warning);
    Report {
        phase: snapshot.phase.name().to_owned(),
        phase_since: Some(snapshot.phase_since),
        phase_reason: cut(&snapshot.phase_reason, SENTENCE),
        mode: if around.launched { "launch" } else { "attach" }.to_owned(),
        sent_at: Some(now),
        sidecar: wire::Sidecar {
            version: VERSION.to_owned(),
            commit: cut(COMMIT, NAME),
            uptime_s: around.uptime_s,
            certificate_sha256: around.certificate_sha256.clone(),
            isolation: supervisor.map(|s| cut(&s.isolation, NAME)).unwrap_or_default(),
        },
        gateway: wire::Gateway {
            version: snapshot.gateway.as_ref().map(|g| cut(&g.version, NAME)).unwrap_or_default(),
            starts: supervisor.map_or(0, |s| s.starts),
            last_exit: exit.map(|e| cut(&e.reason, SENTENCE)),
            last_exit_at: exit.map(|e| e.at),
            rpc_ms: around.rpc_ms,
        },
        pairing: pairing(snapshot, now),
        desired: wire::Desired {
            generation: snapshot.desired.generation,
            status: desired_name(snapshot).to_owned(),
            error: snapshot.desired.error.as_deref().map(|e| cut(e, SENTENCE)).unwrap_or_default(),
        },
        platform: around.platform.clone(),
        host: around.host.clone(),
        findings_count: findings.len() as u64,
        findings: findings.into_iter().take(MAX_FINDINGS).map(|f| finding(f, now)).collect(),
    }
}

fn pairing(snapshot: &Snapshot, now: UnixMs) -> wire::Pairing {
    let pairing = &snapshot.pairing;
    wire::Pairing {
        posture: "manual".to_owned(),
        pending: pairing.pending.iter().take(MAX_PENDING).map(|p| pending(p, now)).collect(),
        pending_count: pairing.pending.len() as u64,
        approved_count: pairing.approved.len() as u64,
        connected_count: pairing.approved.iter().filter(|a| a.connected == Some(true)).count() as u64,
        last_out_of_band_at: pairing.last_out_of_band.as_ref().map(|o| o.noticed_at),
    }
}

fn pending(request: &Pending, now: UnixMs) -> wire::Pending {
    wire::Pending {
        kind: kind_name(request.kind).to_owned(),
        request_id: cut(&request.request_id, NAME),
        device_id: cut(&request.device_id, NAME),
        label: cut(&request.label, NAME),
        client: cut(&request.client_id, NAME),
        platform: cut(&request.platform, NAME),
        role: cut(&request.role, NAME),
        scopes: request.scopes.iter().take(SCOPES).map(|s| cut(s, NAME)).collect(),
        is_upgrade: request.is_upgrade,
        age_s: request.requested_at.seconds_until(now),
        // A device that keeps trying keeps its request alive without saying so.
        expires_in_s: request.expires_at.filter(|at| *at > now).map(|at| now.seconds_until(at)),
    }
}

fn finding(finding: &Finding, now: UnixMs) -> wire::Finding {
    wire::Finding {
        code: finding.code.name().to_owned(),
        severity: if finding.severity == Severity::Error { "error" } else { "warning" }.to_owned(),
        age_s: finding.since.seconds_until(now),
        summary: cut(&finding.summary, SENTENCE),
        evidence: finding.evidence.iter().map(|fact| cut(fact, SENTENCE)).collect(),
        remedy: cut(&finding.remedy, SENTENCE),
    }
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Device => "device",
        Kind::Node => "node",
        Kind::Channel => "channel",
    }
}

fn desired_name(snapshot: &Snapshot) -> &'static str {
    match snapshot.desired.status {
        None => "",
        Some(Outcome::AtNextStart) => "at_next_start",
        Some(Outcome::Applied) => "applied",
        Some(Outcome::Failed) => "failed",
    }
}

/// At most `most` bytes of a text, whole characters, without those that change how a terminal or a page reads.
pub fn cut(text: &str, most: usize) -> String {
    let mut short = String::new();
    for c in text.chars().map(|c| if c.is_control() { ' ' } else { c }) {
        if short.len() + c.len_utf8() > most {
            break;
        }
        short.push(c);
    }
    short
}

/// The message as it is sent: never longer than [`MAX_SENT`]. What is least needed is left out first, never a count.
pub fn encode(message: &mut CheckIn) -> Vec<u8> {
    message.events.truncate(MAX_EVENTS);
    loop {
        let text = serde_json::to_vec(message).unwrap_or_default();
        if text.len() <= MAX_SENT || !shorten(message) {
            return text;
        }
    }
}

/// Leaves one thing out; false when nothing is left to leave out.
fn shorten(message: &mut CheckIn) -> bool {
    let state = &mut message.state;
    if let Some(finding) = state.findings.iter_mut().rev().find(|f| !f.evidence.is_empty()) {
        finding.evidence.pop();
    } else if !message.events.is_empty() {
        message.events.pop();
    } else if state.pairing.pending.len() > 1 {
        state.pairing.pending.pop();
    } else if let Some(request) = state.pairing.pending.iter_mut().find(|p| p.scopes.len() > 1) {
        request.scopes.pop();
    } else {
        return state.findings.pop().is_some();
    }
    true
}

/// Where the machine runs, as its environment says.
pub fn platform(env: &Env) -> wire::Platform {
    let var = |name: &str| env.get(name).map(|value| cut(value, NAME)).unwrap_or_default();
    let known = |kind: &str, region, machine| wire::Platform { kind: kind.to_owned(), region, machine };
    if env.contains_key("FLY_MACHINE_ID") {
        let app = var("FLY_APP_NAME");
        let machine = if app.is_empty() { var("FLY_MACHINE_ID") } else { format!("{app}/{}", var("FLY_MACHINE_ID")) };
        return known("fly", var("FLY_REGION"), machine);
    }
    if env.keys().any(|name| name.starts_with("RAILWAY_")) {
        return known("railway", var("RAILWAY_REPLICA_REGION"), var("RAILWAY_SERVICE_ID"));
    }
    let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
    let kind = if env.contains_key("INVOCATION_ID") { "systemd" } else { "docker" };
    known(kind, String::new(), cut(&host.unwrap_or_default(), NAME))
}

/// How the machine is doing, from what the kernel tells for nothing.
pub fn host(volume: &Path) -> wire::Host {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let available = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix("kB")?.trim().parse::<u64>().ok());
    let load = read("/proc/loadavg").split(' ').next().and_then(|load| load.replace('.', "").parse().ok());
    // Each in the C type of the platform.
    #[allow(clippy::useless_conversion, reason = "the types differ between platforms")]
    let disk = nix::sys::statvfs::statvfs(volume)
        .map(|fs| u64::from(fs.blocks_available()).saturating_mul(u64::from(fs.fragment_size())) / (1024 * 1024));
    wire::Host { memory_free_mib: available.map(|kib| kib / 1024), disk_free_mib: disk.ok(), load_percent: load }
}

#[cfg(test)]
mod tests;
