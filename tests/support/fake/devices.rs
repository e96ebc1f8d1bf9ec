//! What happens to devices, nodes and channel senders beside the sidecar, and what is true about them.

use super::codec::now_ms;
use super::records::{DeviceSpec, PairedScopes, union};
use super::world::Approval;
use super::{ChurnCounts, Fake};

impl Fake {
    /// A remote device was refused and now waits; the id of its request.
    pub fn raise(&self, spec: &DeviceSpec) -> String {
        self.with(|core| {
            let (id, events) = core.world.request(spec.clone());
            core.broadcast(events);
            id
        })
    }

    /// The waiting device tries again and also asks for `scopes`; the id its request has now.
    pub fn widen(&self, device_id: &str, scopes: &[&str]) -> String {
        let more: Vec<String> = scopes.iter().map(ToString::to_string).collect();
        let known = self.with(|core| {
            let pending = core.world.pending.iter().find(|one| one.spec.device_id == device_id);
            let paired = core.world.paired.get(device_id).map(|record| &record.spec);
            pending.map(|one| &one.spec).or(paired).cloned()
        });
        let spec = known.expect("a device that was raised or paired before");
        self.raise(&DeviceSpec { scopes: union(&spec.scopes, &more), ..spec })
    }

    /// Somebody on the machine approves; false if the id is unknown.
    pub fn approve_out_of_band(&self, request_id: &str) -> bool {
        self.with(|core| core.decide_out_of_band(request_id, true))
    }

    pub fn reject_out_of_band(&self, request_id: &str) -> bool {
        self.with(|core| core.decide_out_of_band(request_id, false))
    }

    /// The gateway pairs a local client without asking.
    pub fn silently_pair(&self, spec: &DeviceSpec) {
        self.with(|core| {
            let events = core.world.pair_silently(spec);
            core.broadcast(events);
        });
    }

    /// The request's time is up: it is gone, and no event says so.
    pub fn expire(&self, request_id: &str) {
        self.with(|core| {
            core.world.pending.retain(|one| one.request_id != request_id);
            core.world.nodes.pending.retain(|one| one.request_id != request_id);
            core.world.nodes.channels.retain(|one| one.request_id != request_id);
        });
    }

    /// Removed on the machine: no event, open sessions of the device are closed.
    pub fn remove(&self, device_id: &str) -> bool {
        self.with(|core| {
            let answer = core.world.remove(device_id);
            core.end_device(device_id, answer).is_ok()
        })
    }

    /// A paired device opens a session that exists only in the fake's lists.
    pub fn connect_device(&self, device_id: &str) {
        self.with(|core| {
            let record = core.world.paired.get_mut(device_id).expect("only a paired device connects");
            record.last_seen_at = Some(now_ms());
            *core.world.virtual_sessions.entry(device_id.to_owned()).or_default() += 1;
            core.announce_arrival();
        });
    }

    pub fn disconnect_device(&self, device_id: &str) {
        self.with(|core| {
            core.world.virtual_sessions.remove(device_id);
            core.announce_presence();
        });
    }

    /// A node whose device is (made) paired asks for its commands; the id of that request.
    pub fn raise_node(&self, spec: &DeviceSpec, commands: &[&str]) -> String {
        self.with(|core| {
            let mut events = Vec::new();
            if !core.world.paired.contains_key(&spec.device_id) {
                events.extend(core.world.pair_silently(spec));
            }
            let commands: Vec<String> = commands.iter().map(ToString::to_string).collect();
            let (id, more) = core.world.request_node(spec, &commands);
            core.broadcast(events.into_iter().chain(more).collect());
            id
        })
    }

    /// A sender writes to the bot for the first time; no event tells.
    pub fn raise_channel(&self, channel: &str, account: &str, sender: &str) -> String {
        self.with(|core| core.world.request_channel(channel, account, sender))
    }

    // What really happened.

    /// What the device may do right now.
    pub fn truth(&self, device_id: &str) -> Option<PairedScopes> {
        self.with(|core| core.world.truth(device_id))
    }

    /// Every grant to the device, oldest first; survives its removal.
    pub fn approvals(&self, device_id: &str) -> Vec<Approval> {
        self.with(|core| core.world.approvals.iter().filter(|one| one.device_id == device_id).cloned().collect())
    }

    /// The current request of the device.
    pub fn pending_id(&self, device_id: &str) -> Option<String> {
        self.with(|core| {
            core.world.prune();
            let found = core.world.pending.iter().find(|one| one.spec.device_id == device_id);
            found.map(|one| one.request_id.clone())
        })
    }

    pub fn paired_node(&self, node_id: &str) -> bool {
        self.with(|core| core.world.nodes.paired.contains_key(node_id))
    }

    pub fn churn_counts(&self) -> ChurnCounts {
        self.with(|core| core.churn.as_ref().map(|churn| churn.counts).unwrap_or_default())
    }
}
