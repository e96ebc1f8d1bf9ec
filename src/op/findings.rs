//! Diagnosis: which problems follow from what is known. Pure; [`watch`] gathers the facts and publishes the result.
//!
//! ```text
//! snapshot, host, openclaw.json, the gateway's log and channels, secrets, certificate -> Facts -> diagnose -> findings
//! ```
//!
//! Other findings are opened where they happen: a refusal by the observer, a file that cannot be written by its writer.

pub mod facts;
pub mod host;
pub mod watch;

use std::time::Duration;

use crate::clock::{RELEASED, UnixMs};
use crate::launcher::machine::State as Launched;
use crate::launcher::output::redact;
use crate::launcher::verbs::{LastExit, Status};
use crate::state::{Code, Found, Kind, Pending, Phase};
use facts::{Facts, Platform, Validity};

/// Whoever asks often is answered by a person, at best.
const WAITED: Duration = Duration::from_secs(60);
/// Without an answer for so long it is mute. A throttled gateway takes up to 13 s.
const MUTE: Duration = Duration::from_secs(30);
/// A restart by whoever starts it takes less.
const ABSENT: Duration = Duration::from_secs(60);
/// What happened once is shown for so long.
const FRESH: Duration = Duration::from_secs(24 * 3600);
/// A clock that differs by more is wrong: certificates and the gateway's handshake bear a little less or more.
const SKEW: Duration = Duration::from_secs(120);
/// Beyond that the clock is wrong, not the program old.
const PROGRAM_LIFE: Duration = Duration::from_secs(20 * 365 * 24 * 3600);
const DAY_MS: u64 = 24 * 3600 * 1000;
const LOW_DISK: u64 = 2 * 1024 * 1024 * 1024;

/// The codes that [`diagnose`] decides: those it does not return are closed.
pub const DIAGNOSED: [Code; 20] = [
    Code::GatewayAbsent,
    Code::GatewayAuthOff,
    Code::GatewayMute,
    Code::GatewaySlow,
    Code::ConfigChangeRefused,
    Code::ConfigDrift,
    Code::VersionChanged,
    Code::LaunchedAround,
    Code::PairingRequired,
    Code::NodeCommandsUnapproved,
    Code::OutOfBandApproval,
    Code::OriginNotAllowed,
    Code::ProxyMakesEveryoneLocal,
    Code::ForwardingHeadersUntrusted,
    Code::ChannelDown,
    Code::DiskLow,
    Code::MemoryLow,
    Code::ClockWrong,
    Code::SecretExpiring,
    Code::CertificateExpiring,
];

/// A diagnosed problem, before it has a time.
pub type Diagnosis = (Code, Found);

/// What follows from the facts: every problem that is there now, each code at most once.
pub fn diagnose(facts: &Facts) -> Vec<Diagnosis> {
    let all = [pairing(facts), visitors(facts), gateway(facts), configuration(facts), machine(facts), ends(facts)];
    all.into_iter().flatten().collect()
}

/// What follows from the process alone, in launch mode; these are decided with every status.
pub fn supervision(status: &Status, decommissioned: bool) -> [(Code, Option<Found>); 4] {
    let stuck = |state: Launched| (status.state == state).then(|| ended(&status.reason, status.last_exit.as_ref()));
    let invalid = stuck(Launched::ConfigInvalid).map(|found| {
        let path = status.last_exit.as_ref().and_then(|exit| exit.last_lines.iter().find_map(|l| faulty_member(l)));
        path.into_iter().fold(found, |found, path| found.fact("path", path))
    });
    let gone = "this tenant was decommissioned: its state was wiped, and the gateway stays stopped";
    let notes = (!status.notes.is_empty()).then(|| Found::new(status.notes.join("; ")));
    [
        (Code::Decommissioned, decommissioned.then(|| Found::new(gone))),
        (Code::GatewayCrashLoop, stuck(Launched::CrashLoop)),
        (Code::GatewayConfigInvalid, invalid),
        (Code::SeedNotes, notes),
    ]
}

fn ended(reason: &str, exit: Option<&LastExit>) -> Found {
    let found = Found::new(reason);
    let Some(exit) = exit else { return found };
    let code = exit.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
    let found = found.fact("exit", code).fact("signal", exit.signal.as_deref().unwrap_or("none"));
    let found = found.fact("oom", exit.oom);
    let last = exit.last_lines.iter().rev().take(2).rev();
    last.fold(found, |found, line| found.fact("said", line))
}

/// The member that a line of the gateway names as wrong: `gateway.auth: Unrecognized key: "x"`, with or without what
/// stands before it. The line is the gateway's, so only what looks like a path is one.
fn faulty_member(line: &str) -> Option<String> {
    let words = ["Unrecognized key", "Invalid", "invalid", "must be", "expected", "Expected", "Required", "required"];
    let (before, after) = words.iter().find_map(|word| line.split_once(&format!(": {word}")))?;
    let path = before.rsplit([' ', ':']).next().filter(|path| is_path(path))?;
    let key = line.contains("Unrecognized key").then(|| after.split('"').nth(1)).flatten().filter(|key| is_path(key));
    Some(match key {
        Some(key) if matches!(path, "<root>" | "root") => key.to_owned(),
        Some(key) => format!("{path}.{key}"),
        None => path.to_owned(),
    })
}

fn is_path(text: &str) -> bool {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '[' | ']' | '<' | '>');
    !text.is_empty() && text.len() <= 120 && text.chars().all(legal)
}

fn pairing(facts: &Facts) -> Vec<Diagnosis> {
    let waits = |p: &&Pending| p.requested_at.seconds_until(facts.now) >= WAITED.as_secs();
    let (nodes, people): (Vec<_>, Vec<_>) =
        facts.snapshot.pairing.pending.iter().filter(waits).partition(|p| p.kind == Kind::Node);
    let shown = |waiting: &[&Pending], what: &str| {
        let first = waiting.first()?;
        let found =
            Found::new(format!("{} for more than a minute: {}", what, first.label)).fact("waiting", waiting.len());
        let found = found.fact("request_id", &first.request_id).fact("client", &first.client_id);
        Some(found.fact("from", if first.channel.is_empty() { &first.remote_ip } else { &first.channel }))
    };
    let people = shown(&people, "somebody waits for approval").map(|found| (Code::PairingRequired, found));
    let nodes = shown(&nodes, "a paired node waits for its commands to be allowed");
    let nodes = nodes.map(|found| (Code::NodeCommandsUnapproved, found));
    people.into_iter().chain(nodes).chain(out_of_band(facts)).collect()
}

fn out_of_band(facts: &Facts) -> Option<Diagnosis> {
    let pairing = &facts.snapshot.pairing;
    let last = pairing.last_out_of_band.as_ref().filter(|last| is_fresh(last.noticed_at, facts.now))?;
    // Gone again: nothing is left to do. The gateway's own command line lets itself in all the time.
    let device = pairing.approved.iter().find(|a| a.device_id == last.device_id)?;
    if device.client_id == "cli" && device.approved_via == "silent" {
        return None;
    }
    let found = Found::new(format!("{} was let in, and not by this sidecar", device.label));
    let via = if last.via.is_empty() { "unknown" } else { &last.via };
    let found = found.fact("device_id", &last.device_id).fact("client", &device.client_id).fact("via", via);
    Some((Code::OutOfBandApproval, found.fact("scopes", device.scopes.join(","))))
}

/// Who stands before the door, and whether the gateway sees where they come from.
fn visitors(facts: &Facts) -> Vec<Diagnosis> {
    let mut all = Vec::new();
    let browsers = ["openclaw-control-ui", "webchat-ui", "webchat"];
    let local = |ip: &str| ip.is_empty() || ip.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    let hidden = facts
        .snapshot
        .pairing
        .approved
        .iter()
        .find(|a| browsers.contains(&a.client_id.as_str()) && a.approved_via == "silent" && local(&a.remote_ip));
    if let Some(device) = hidden {
        let what = "a browser was let in without approval, because the gateway took it for a local one";
        let found = Found::new(what).fact("device_id", &device.device_id).fact("platform", &device.platform);
        all.push((Code::ProxyMakesEveryoneLocal, found.fact("via", "silent").fact("source", "gateway")));
    }
    let allowed = |origin: &String| facts.config.as_ref().is_some_and(|config| config.origins.contains(origin));
    let refused: Vec<&String> = facts.log.origins.iter().filter(|origin| !allowed(origin)).collect();
    if let Some(newest) = refused.last() {
        let found = Found::new(format!("browsers are turned away: their page's origin {newest} is not allowed"));
        let found = found.fact("source", "log");
        let found = refused.iter().rev().take(4).fold(found, |found, origin| found.fact("origin", origin));
        all.push((Code::OriginNotAllowed, found));
    }
    let trusts = facts.config.as_ref().is_some_and(|config| config.trusts_proxies);
    if let Some(peer) = facts.log.forwarding.as_ref().filter(|_| !trusts) {
        let what = "a proxy sends forwarding headers, and the gateway trusts no proxy";
        all.push((Code::ForwardingHeadersUntrusted, Found::new(what).fact("peer", peer).fact("source", "log")));
    }
    all
}

fn gateway(facts: &Facts) -> Vec<Diagnosis> {
    let mut all: Vec<Diagnosis> = absent(facts).into_iter().collect();
    if facts.snapshot.phase == Phase::Degraded && facts.silent_for.is_some_and(|silent| silent >= MUTE) {
        let found = Found::new("it accepts connections and has answered no call for 30 s");
        let process = facts.process_stopped.map(|stopped| if stopped { "stopped" } else { "running" });
        let found = process.into_iter().fold(found, |found, process| found.fact("process", process));
        all.push((Code::GatewayMute, found.fact("reason", &facts.snapshot.phase_reason)));
    }
    if let Some(why) = &facts.slow {
        let found = Found::new("the gateway is slow: wait for it, it is not dead");
        all.push((Code::GatewaySlow, why.iter().fold(found, |found, (key, value)| found.fact(key, value))));
    }
    for down in facts.channels.iter().take(1) {
        let found = Found::new(format!("the channel {} is not connected", down.name));
        let found = found.fact("source", "gateway").fact("down", facts.channels.len());
        let said = |found: Found, why: &str| if why.is_empty() { found } else { found.fact("said", why) };
        all.push((Code::ChannelDown, said(found.fact("channel", &down.name), &down.why)));
    }
    all.extend(port_taken(facts));
    if let Some((was, is)) = &facts.version_changed {
        let found = Found::new(format!("the gateway's version changed from {was} to {is}"));
        all.push((Code::VersionChanged, found.fact("was", was).fact("is", is)));
    }
    all
}

/// Nobody started it. A launcher knows by itself why its gateway does not run.
fn absent(facts: &Facts) -> Option<Diagnosis> {
    let snapshot = &facts.snapshot;
    let long = snapshot.phase_since.seconds_until(facts.now) >= ABSENT.as_secs();
    if snapshot.supervisor.is_some() || snapshot.phase != Phase::Stopped || !long {
        return None;
    }
    let found = Found::new("nothing listens at the gateway's address: it was not started, or listens elsewhere");
    Some((Code::GatewayAbsent, found.fact("port", facts.port).fact("since", snapshot.phase_since.rfc3339())))
}

/// It ended because its port is in use, and somebody else does listen there. Closed by the observer, once it is ready.
fn port_taken(facts: &Facts) -> Option<Diagnosis> {
    let status = facts.snapshot.supervisor.as_ref()?;
    let waits = matches!(status.state, Launched::Backoff | Launched::CrashLoop);
    let exit = status.last_exit.as_ref().filter(|exit| waits && exit.reason.contains("in use"))?;
    let uid = facts.listener_uid.filter(|_| !facts.is_open(Code::GatewayPortTaken))?;
    let port = facts.port;
    let found = Found::new(format!("the gateway's port {port} is held by another process, of the user {uid}"));
    Some((Code::GatewayPortTaken, found.fact("port", port).fact("uid", uid).fact("said", redact(&exit.reason))))
}

fn configuration(facts: &Facts) -> Vec<Diagnosis> {
    let mut all = Vec::new();
    let says = facts.auth_mode.as_deref().map(|mode| (mode, "gateway"));
    let written = facts.config.as_ref().and_then(|config| config.auth_mode.as_deref()).map(|mode| (mode, "config"));
    if let Some((mode, source)) = says.into_iter().chain(written).find(|(mode, _)| *mode == "none") {
        let found = Found::new("the gateway's authentication is off: whoever reaches its port is let in");
        all.push((Code::GatewayAuthOff, found.fact("gateway.auth.mode", mode).fact("source", source)));
    }
    if let Some(why) = &facts.log.config_refused {
        let found = Found::new(format!("the gateway passed over a change of its configuration: {why}"));
        let path = faulty_member(why).into_iter();
        let found = path.fold(found, |found, path| found.fact("path", path));
        all.push((Code::ConfigChangeRefused, found.fact("said", why).fact("source", "log")));
    }
    // A launched gateway says itself what it refuses.
    if let Some(why) = facts.config_fault.as_ref().filter(|_| facts.snapshot.supervisor.is_none()) {
        let found = Found::new(format!("openclaw.json cannot be read as the gateway reads it: {why}"));
        all.push((Code::GatewayConfigInvalid, found.fact("at", why).fact("source", "config")));
    }
    let drift = facts.config.as_ref().map(|config| config.drift.as_slice()).unwrap_or_default();
    if let Some(first) = drift.first() {
        let found = Found::new(format!("{first} is not as the desired state has it")).fact("changed", drift.len());
        all.push((Code::ConfigDrift, drift.iter().take(5).fold(found, |found, path| found.fact("path", path))));
    }
    if let Some(around) = &facts.launched_around {
        let found = Found::new("the sidecar is set up to launch the gateway, but it was started beside one");
        all.push((Code::LaunchedAround, around.iter().fold(found, |found, (key, value)| found.fact(key, value))));
    }
    all
}

fn machine(facts: &Facts) -> Vec<Diagnosis> {
    let mut all = Vec::new();
    let low = facts.disks.iter().find(|disk| disk.is_low(facts.is_open(Code::DiskLow), LOW_DISK));
    if let Some(disk) = low {
        let found = Found::new(format!("the disk of {} is nearly full", disk.of)).fact("path", &disk.of);
        all.push((Code::DiskLow, found.fact("free_mib", disk.free_mib()).fact("total_mib", disk.total / 1024 / 1024)));
    }
    let was_low = facts.is_open(Code::MemoryLow);
    if let Some(memory) = facts.memory.as_ref().filter(|memory| memory.is_low(was_low, u64::MAX)) {
        let found = Found::new("hardly any memory is left").fact("of", &memory.of);
        all.push((
            Code::MemoryLow,
            found.fact("free_mib", memory.free_mib()).fact("total_mib", memory.total / 1024 / 1024),
        ));
    }
    all.extend(clock(facts).map(|found| (Code::ClockWrong, found)));
    all
}

fn clock(facts: &Facts) -> Option<Found> {
    let of_program =
        |what: &str| Found::new(what).fact("clock", facts.now.rfc3339()).fact("released", RELEASED.rfc3339());
    if facts.now < RELEASED {
        return Some(of_program("the clock shows a time before this program was made").fact("against", "release"));
    }
    if facts.now > RELEASED.plus_ms(u64::try_from(PROGRAM_LIFE.as_millis()).unwrap_or(u64::MAX)) {
        return Some(of_program("the clock shows a time far in the future").fact("against", "release"));
    }
    let skew = facts.registry_skew_ms.filter(|skew| u128::from(skew.unsigned_abs()) > SKEW.as_millis())?;
    let direction = if skew > 0 { "behind" } else { "ahead of" };
    let found = Found::new(format!("the clock is {} s {direction} the registry's", skew.unsigned_abs() / 1000));
    Some(found.fact("against", "registry").fact("off_s", -skew / 1000))
}

/// What stops working at a known moment.
fn ends(facts: &Facts) -> Vec<Diagnosis> {
    let soon = |life: &Validity, days: u64| facts.now.plus_ms((days * DAY_MS).min(life.length_ms() / 3)) >= life.until;
    let how = |life: &Validity| if life.until <= facts.now { "has ended" } else { "ends soon" };
    let secret = facts.secrets.iter().filter(|(_, life)| soon(life, 3)).min_by_key(|(_, life)| life.until);
    let secret = secret.map(|(name, life)| {
        let found = Found::new(format!("the secret {name} {}", how(life))).fact("name", name);
        (Code::SecretExpiring, found.fact("expires_at", life.until.rfc3339()))
    });
    let certificate = facts.certificate.filter(|life| soon(life, 14)).map(|life| {
        let found = Found::new(format!("the certificate of the tls listener {}", how(&life)));
        (Code::CertificateExpiring, found.fact("not_after", life.until.rfc3339()))
    });
    secret.into_iter().chain(certificate).collect()
}

/// Why it looks as if the platform had replaced the entrypoint; `None` where nothing says that we should launch.
pub fn around(launch_wanted: bool, laid_out: bool, platform: &Platform) -> Option<Vec<(&'static str, String)>> {
    if !launch_wanted && !laid_out {
        return None;
    }
    let mut why = vec![("mode", "attach".to_owned())];
    why.extend(launch_wanted.then(|| ("configured", "launch".to_owned())));
    why.extend(laid_out.then(|| ("volume", "laid out by a launcher".to_owned())));
    why.extend(platform.name.map(|name| ("platform", name.to_owned())));
    why.extend(platform.first_process.clone().map(|name| ("pid1", redact(&name))));
    Some(why)
}

fn is_fresh(at: UnixMs, now: UnixMs) -> bool {
    at.seconds_until(now) < FRESH.as_secs()
}

#[cfg(test)]
mod tests;
