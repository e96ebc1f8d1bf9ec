//! A restless tenant: around each approve call something happens at random, repeatable by seed.

use super::core::Core;
use super::records::DeviceSpec;
use super::world::Approver;

/// What the approve call itself still does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Proceed,
    /// Carried out, the answer is lost with the connection.
    LoseReply,
    /// The connection goes before anything happened.
    DropCall,
}

/// How often each thing happened, so that a run can show that it met them all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ChurnCounts {
    pub undisturbed: u64,
    pub superseded: u64,
    pub widened: u64,
    pub expired: u64,
    pub approved_elsewhere: u64,
    pub rejected_elsewhere: u64,
    pub removed_after: u64,
    pub bystanders: u64,
    pub replies_lost: u64,
    pub calls_dropped: u64,
}

#[derive(Debug, Clone)]
pub struct Churn {
    state: u64,
    pub counts: ChurnCounts,
    /// Removed right after the approve that follows.
    pub remove_after: Option<String>,
}

impl Churn {
    pub fn new(seed: u64) -> Self {
        Self { state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, counts: ChurnCounts::default(), remove_after: None }
    }

    /// xorshift64*: good enough to mix, and the same everywhere.
    fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        (self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % limit
    }
}

impl Core {
    /// Disturbs the request `request_id` before it is approved.
    pub fn churn_step(&mut self, request_id: &str) -> Fate {
        let Some(mut churn) = self.churn.take() else { return Fate::Proceed };
        let fate = self.disturb(&mut churn, request_id);
        self.churn = Some(churn);
        fate
    }

    fn disturb(&mut self, churn: &mut Churn, request_id: &str) -> Fate {
        let at = self.world.pending.iter().position(|one| one.request_id == request_id);
        let device = at.map(|at| self.world.pending[at].spec.clone());
        // Out of 60. Losing the connection is rare, because each loss costs the other side a reconnect.
        match (churn.below(60), device) {
            (0..=5, Some(_)) => {
                churn.counts.superseded += 1;
                self.supersede_request(request_id, &[]);
            }
            (6..=11, Some(device)) => {
                churn.counts.widened += 1;
                let scopes = [device.scopes.clone(), vec!["operator.admin".into()]].concat();
                let (_, events) = self.world.request(DeviceSpec { scopes, ..device });
                self.broadcast(events);
            }
            (12..=14, Some(_)) => {
                churn.counts.expired += 1;
                self.world.pending.retain(|one| one.request_id != request_id);
            }
            (15..=20, Some(_)) => {
                churn.counts.approved_elsewhere += 1;
                self.decide_out_of_band(request_id, true);
            }
            (21..=23, Some(_)) => {
                churn.counts.rejected_elsewhere += 1;
                self.decide_out_of_band(request_id, false);
            }
            (24..=26, Some(device)) => {
                churn.counts.removed_after += 1;
                churn.remove_after = Some(device.device_id);
            }
            (27..=29, _) => {
                churn.counts.bystanders += 1;
                let (_, events) = self.world.request(DeviceSpec::browser().with_scopes(&["operator.read"]));
                self.broadcast(events);
            }
            (30, _) => {
                churn.counts.replies_lost += 1;
                return Fate::LoseReply;
            }
            (31, _) => {
                churn.counts.calls_dropped += 1;
                return Fate::DropCall;
            }
            _ => churn.counts.undisturbed += 1,
        }
        Fate::Proceed
    }

    /// What `Churn` scheduled for the moment after the approve.
    pub fn churn_after(&mut self) {
        let doomed = self.churn.as_mut().and_then(|churn| churn.remove_after.take());
        if let Some(device_id) = doomed {
            let _ = self.world.remove(&device_id);
        }
    }

    /// The device of `request_id` asks again, also for `adding`: its request gets a new id, or on 2026.2.9 more scopes.
    pub fn supersede_request(&mut self, request_id: &str, adding: &[String]) {
        let Some(at) = self.world.pending.iter().position(|one| one.request_id == request_id) else { return };
        let old = self.world.pending[at].spec.clone();
        let scopes = super::records::union(&old.scopes, adding);
        let events = if self.world.version == super::Version::V2026_2_9 {
            self.world.request(DeviceSpec { scopes, ..old }).1
        } else {
            self.world.supersede(at, old, scopes).1
        };
        self.broadcast(events);
    }

    pub fn decide_out_of_band(&mut self, request_id: &str, approve: bool) -> bool {
        let answer = if approve {
            self.world.approve(request_id, None, Approver::OutOfBand)
        } else {
            self.world.reject(request_id)
        };
        let Ok((_, events)) = answer else { return false };
        self.broadcast(events);
        true
    }
}
