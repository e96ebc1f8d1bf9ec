//! A fleet as a registry sees it: who they are, how they are, and what they say in check-ins of the real type.

use openclaw_sidecar::{
    checkin::wire::{self, AuditEvent, AuditHead, Bye, CheckIn, Finding, Intent, Pending, Report},
    clock::UnixMs,
    registry::tenant::Digest,
};
use sha2::{Digest as _, Sha256};

const REGIONS: [&str; 8] = ["ams", "fra", "gru", "iad", "lhr", "nrt", "sjc", "syd"];
const VERSIONS: [&str; 3] = ["2026.9.6", "2026.6.11", "2026.4.9"];
const PROBLEMS: [&str; 4] = ["channel_down", "disk_low", "gateway_version_old", "memory_low"];
/// Of sixteen messages of a machine that is awake, one brings a waiting request and the next its approval.
const ROUND: u64 = 16;

/// How a machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    Ready,
    Asleep,
    Pairing,
    Degraded,
    Crashed,
    Booting,
    /// Its next message was promised soon, and does not come.
    Unreachable,
    /// It was created, nothing more.
    Silent,
}

/// One machine.
#[derive(Clone, Debug)]
pub struct Member {
    n: usize,
    pub condition: Condition,
    seq: u64,
}

impl Member {
    /// The `n`th of a fleet in which one of three is awake and one of twenty has a problem.
    pub fn new(n: usize) -> Self {
        // Not in blocks: 37 and 100 have no common divisor.
        let condition = match n * 37 % 100 {
            0..66 => Condition::Asleep,
            66..92 => Condition::Ready,
            92 | 93 => Condition::Pairing,
            94..97 => Condition::Degraded,
            97 => Condition::Crashed,
            98 => Condition::Unreachable,
            _ if n.is_multiple_of(200) => Condition::Booting,
            _ => Condition::Silent,
        };
        Self { n, condition, seq: 0 }
    }

    /// One that is awake and well.
    pub fn ready(n: usize) -> Self {
        Self { n, condition: Condition::Ready, seq: 0 }
    }

    pub fn id(&self) -> String {
        format!("tenant-{:06}", self.n)
    }

    /// How many messages it sent.
    pub fn said(&self) -> u64 {
        self.seq
    }

    pub fn label(&self) -> String {
        format!("Customer {}", self.n)
    }

    pub fn credential(&self) -> String {
        format!("ocr_of-the-bench-{:026}", self.n)
    }

    pub fn digest(&self) -> Digest {
        Sha256::digest(self.credential().as_bytes()).into()
    }

    /// How many messages bring it to its condition.
    pub fn messages(&self) -> u64 {
        match self.condition {
            Condition::Silent => 0,
            Condition::Booting => 1,
            Condition::Asleep => 3,
            _ => 2,
        }
    }

    /// Its next message: first it boots, then it is as it is, later one in sixteen is news.
    pub fn next(&mut self) -> CheckIn {
        self.seq += 1;
        let mut state = self.report();
        let bye = (self.condition == Condition::Asleep && self.seq == 3)
            .then(|| Bye { intent: Intent::Sleep, reason: "SIGTERM".to_owned() });
        let turn = self.seq % ROUND;
        if (self.condition == Condition::Pairing && self.seq > 1) || (turn == 3 && bye.is_none()) {
            state.pairing.pending = vec![self.request()];
            state.pairing.pending_count = 1;
        }
        let approved = AuditEvent {
            seq: self.seq,
            at: UnixMs::now(),
            actor: "control-plane".to_owned(),
            verb: "pairing.approve".to_owned(),
            target: format!("device:{}", self.hex(0)),
            outcome: "approved".to_owned(),
        };
        let soon = self.condition == Condition::Unreachable;
        CheckIn {
            tenant: self.id(),
            epoch: 7,
            boot_id: self.hex(0)[..16].to_owned(),
            seq: self.seq,
            reason: vec![if self.seq == 1 { "boot" } else { "interval" }.to_owned()],
            bye,
            next_s: Some(if soon { 15 } else { 375 }),
            state,
            audit: Some(AuditHead { seq: self.seq, hash: self.hex(1) }),
            events: if turn == 4 { vec![approved] } else { Vec::new() },
            dropped: 0,
        }
    }

    fn report(&self) -> Report {
        let booting = self.seq == 1 || self.condition == Condition::Booting;
        let phase = match self.condition {
            _ if booting => "starting",
            Condition::Crashed => "crash_loop",
            _ => "ready",
        };
        let findings = if booting { Vec::new() } else { self.findings() };
        Report {
            phase: phase.to_owned(),
            phase_since: Some(UnixMs::now()),
            phase_reason: if booting { "the gateway was not reached yet" } else { "" }.to_owned(),
            mode: "launch".to_owned(),
            sent_at: Some(UnixMs::now()),
            sidecar: wire::Sidecar {
                version: if self.n.is_multiple_of(5) { "0.1.0" } else { "0.1.1" }.to_owned(),
                commit: "4327068".to_owned(),
                uptime_s: self.seq * 300,
                certificate_sha256: Some(self.hex(2)),
                isolation: "separate-uids".to_owned(),
            },
            gateway: wire::Gateway {
                version: if booting { "" } else { VERSIONS[self.n * 7 % 10 % 3] }.to_owned(),
                starts: 1,
                rpc_ms: 3,
                ..Default::default()
            },
            pairing: wire::Pairing {
                posture: "manual".to_owned(),
                approved_count: 3,
                connected_count: 2,
                ..Default::default()
            },
            desired: wire::Desired { generation: 7, status: "applied".to_owned(), error: String::new() },
            platform: wire::Platform {
                kind: "fly".to_owned(),
                region: REGIONS[self.n % REGIONS.len()].to_owned(),
                machine: format!("openclaw-{}/{}", self.n, &self.hex(3)[..14]),
            },
            host: wire::Host { memory_free_mib: Some(318), disk_free_mib: Some(12_900), load_percent: Some(21) },
            findings_count: findings.len() as u64,
            findings,
        }
    }

    fn findings(&self) -> Vec<Finding> {
        let severity = match self.condition {
            Condition::Degraded | Condition::Crashed => "error",
            Condition::Ready if self.n.is_multiple_of(9) => "warning",
            _ => return Vec::new(),
        };
        vec![Finding {
            code: PROBLEMS[self.n / 9 % PROBLEMS.len()].to_owned(),
            severity: severity.to_owned(),
            age_s: 40,
            summary: "the channel whatsapp is down: it answers with 401 since it was logged out".to_owned(),
            evidence: vec!["channels.status: whatsapp running=false".to_owned(), "last error 40 s ago".to_owned()],
            remedy: "link the account anew in the gateway's control page".to_owned(),
        }]
    }

    fn request(&self) -> Pending {
        Pending {
            kind: "device".to_owned(),
            request_id: self.hex(self.seq / ROUND)[..36].to_owned(),
            device_id: self.hex(0),
            label: "Chrome on Windows".to_owned(),
            client: "openclaw-control-ui".to_owned(),
            platform: "Win32".to_owned(),
            role: "operator".to_owned(),
            scopes: ["operator.admin", "operator.approvals", "operator.pairing"].map(str::to_owned).to_vec(),
            is_upgrade: false,
            age_s: 1,
            expires_in_s: Some(299),
        }
    }

    fn hex(&self, salt: u64) -> String {
        data_encoding::HEXLOWER.encode(&Sha256::digest(format!("{}/{salt}", self.n).as_bytes()))
    }
}
