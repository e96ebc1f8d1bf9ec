//! The observer: keeps the published view equal to the gateway's, and says what phase the gateway is in.
//!
//! Events are quick but incomplete (expiry, removal and channel requests raise none, slow readers lose some), so the
//! lists are asked for after every connect, after a gap, when an event hints at more, and on a timer. The same call is
//! the proof of life: an authenticated answer. A port that accepts connections proves nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Pairings;
use crate::gateway::{CallError, Down, Link, Notice, Session};
use crate::pulse::{self, PULSE};
use crate::state::{Code, Found, GatewayInfo, Kind, Phase};

/// Between two looks while nothing hints at news: below [`DEGRADED_AFTER`], so that silence is noticed in time.
const LOOK_EVERY: Duration = PULSE;
/// Between two looks in any case: whoever floods us with hints must not make us flood the gateway.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// Several approvals in a row are written down as one.
const KEEP_AFTER: Duration = Duration::from_secs(1);
/// Every so many looks nodes and channels are listed too.
const OTHERS_EVERY: u32 = 4;
/// Without an authenticated answer for so long the gateway is degraded.
const DEGRADED_AFTER: Duration = Duration::from_millis(9_500);
/// One look may take as long as a badly throttled gateway needs (13 s measured for one call).
const LOOK_DEADLINE: Duration = Duration::from_secs(30);

/// Findings that a refusal of the gateway opens, by its code; anything else is `gateway_refuses_us`.
const REFUSALS: [(&str, Code); 7] = [
    ("port_squatted", Code::GatewayPortTaken),
    ("no_token", Code::GatewayTokenMissing),
    ("AUTH_TOKEN_MISSING", Code::GatewayTokenMissing),
    ("AUTH_TOKEN_MISMATCH", Code::GatewayTokenMismatch),
    ("AUTH_PASSWORD_MISMATCH", Code::GatewayTokenMismatch),
    ("AUTH_UNAUTHORIZED", Code::GatewayTokenMismatch),
    ("PROTOCOL_MISMATCH", Code::GatewayVersionUnsupported),
];

impl Pairings {
    /// Runs until `stop`.
    pub async fn observe(self: Arc<Self>, mut notices: mpsc::Receiver<Notice>, stop: CancellationToken) {
        let taking_notices = async {
            while let Some(notice) = notices.recv().await {
                self.take_notice(notice).await;
            }
        };
        let observing = async {
            tokio::select! {
                () = stop.cancelled() => {}
                () = taking_notices => {}
                () = self.follow_link() => {}
            }
        };
        tokio::join!(observing, self.keep_approvers(&stop));
    }

    /// Writes down who approved what, a moment after it changed, and at the end. Never two at a time.
    async fn keep_approvers(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            tokio::select! {
                () = stop.cancelled() => {}
                () = async {
                    self.unkept.notified().await;
                    tokio::time::sleep(KEEP_AFTER).await;
                } => {}
            }
            self.keep_credits().await;
        }
    }

    /// Whether the lists of session `number` were seen whole.
    pub(super) fn synced(&self, number: u64) -> bool {
        let snapshot = self.state.now();
        snapshot.seen.0 == Phase::Ready && snapshot.gateway.as_ref().is_some_and(|g| g.connects == number)
    }

    async fn take_notice(&self, notice: Notice) {
        match notice {
            Notice::Requested(request) if request.device_id == self.gateway.device_id() => {}
            Notice::Requested(request) => {
                // Before 2026.9 a node's event says less than the list.
                if request.kind == Kind::Node {
                    self.look.notify_one();
                }
                self.update(|book| book.requested(*request)).await;
            }
            Notice::Resolved(kind, request_id, approved) => {
                // Of our own approvals the gateway's answer tells all there is.
                if !self.book().is_ours(kind, &request_id) {
                    self.look.notify_one();
                }
                self.update(|book| book.resolved(kind, &request_id, approved)).await;
            }
            Notice::Presence(connected) => {
                self.update(|book| {
                    book.presence(connected);
                    Vec::new()
                })
                .await;
            }
            Notice::Changed | Notice::Gap => self.look.notify_one(),
        }
    }

    async fn follow_link(&self) {
        let mut link = self.gateway.watch();
        loop {
            let now = link.borrow_and_update().clone();
            match now {
                Link::Down(down) => {
                    self.publish_down(&down);
                    if link.changed().await.is_err() {
                        return;
                    }
                }
                Link::Up(session) => tokio::select! {
                    changed = link.changed() => if changed.is_err() { return },
                    () = self.keep_looking(&session) => {}
                },
            }
        }
    }

    /// Looks at the lists for as long as the session lasts.
    async fn keep_looking(&self, session: &Session) {
        let mut others = 0;
        let opened = Instant::now();
        loop {
            self.look_once(session, opened, others == 0).await;
            others = (others + 1) % OTHERS_EVERY;
            let looked = Instant::now();
            tokio::select! {
                () = tokio::time::sleep_until(pulse::last(LOOK_EVERY) + LOOK_EVERY) => {}
                () = self.look.notified() => {
                    // A hint may concern any kind.
                    others = 0;
                    tokio::time::sleep_until(looked + LOOK_PAUSE).await;
                }
            }
        }
    }

    async fn look_once(&self, session: &Session, opened: Instant, others: bool) {
        let started = Instant::now();
        let last_answer = self.gateway.stats().since_last_ok().and_then(|ago| started.checked_sub(ago));
        let silent_since = last_answer.map_or(opened, |at| at.max(opened));
        let look = self.look_at_lists(started + LOOK_DEADLINE, others);
        tokio::pin!(look);
        let answer = tokio::select! {
            answer = &mut look => answer,
            () = tokio::time::sleep_until(silent_since + DEGRADED_AFTER) => {
                self.publish_degraded("it has not answered an authenticated call for 10 s");
                look.await
            }
        };
        match answer {
            Ok(()) => self.publish_ready(session),
            Err(CallError::Down(_) | CallError::Lost) => {}
            Err(CallError::TimedOut) => self.publish_degraded("it has not answered an authenticated call for 30 s"),
            Err(error) => {
                tracing::warn!(?error, "the gateway's lists cannot be read");
                self.publish_degraded("its lists cannot be read");
            }
        }
    }

    async fn look_at_lists(&self, deadline: Instant, others: bool) -> Result<(), CallError> {
        self.refresh(Kind::Device, deadline).await?;
        if others {
            for kind in [Kind::Node, Kind::Channel] {
                // Either may be missing in this version, which the answers themselves teach, or be refused.
                match self.refresh(kind, deadline).await {
                    Err(CallError::Unsupported | CallError::Rejected(_) | CallError::Malformed(_)) | Ok(()) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    fn publish_ready(&self, session: &Session) {
        let info = GatewayInfo {
            version: session.version.clone(),
            protocol: session.protocol,
            boot_id: session.boot_id.clone(),
            capabilities: session.capabilities(),
            connects: self.gateway.stats().connects.load(Ordering::Relaxed),
        };
        self.state.publish(|draft| {
            draft.snapshot.gateway = Some(info);
            draft.snapshot.enter(Phase::Ready, "");
            close_refusals(&mut draft.snapshot, None);
        });
    }

    fn publish_degraded(&self, why: &str) {
        self.state.publish(|draft| draft.snapshot.enter(Phase::Degraded, why));
    }

    fn publish_down(&self, down: &Down) {
        let (phase, reason) = match down {
            Down::Connecting => (Phase::Starting, "the gateway was not reached yet".to_owned()),
            Down::Starting => (Phase::Starting, "the gateway starts or restarts".to_owned()),
            Down::Stopped => (Phase::Stopped, "nothing listens at the gateway's address".to_owned()),
            Down::Mute => (Phase::Degraded, "it accepts connections but does not answer".to_owned()),
            Down::Lost(why) => (Phase::Degraded, format!("the connection broke: {why}")),
            Down::Unauthorized(refusal) => (Phase::Unauthorized, refusal.summary.clone()),
        };
        self.state.publish(|draft| {
            draft.snapshot.enter(phase, &reason);
            if let Down::Unauthorized(refusal) = down {
                let code = finding_of(&refusal.code);
                close_refusals(&mut draft.snapshot, Some(code));
                let found = Found::new(refusal.summary.as_str()).remedy(refusal.remedy.as_str());
                let found = refusal.evidence.iter().fold(found, |found, (key, value)| found.fact(key, value));
                draft.snapshot.set_finding(code, Some(found));
            }
        });
    }
}

fn finding_of(refusal: &str) -> Code {
    REFUSALS.iter().find(|(code, _)| *code == refusal).map_or(Code::GatewayRefusesUs, |(_, finding)| *finding)
}

/// Closes the findings of earlier refusals, except `keep`.
fn close_refusals(snapshot: &mut crate::state::Snapshot, keep: Option<Code>) {
    for code in REFUSALS.iter().map(|(_, finding)| *finding).chain([Code::GatewayRefusesUs]) {
        if Some(code) != keep {
            snapshot.set_finding(code, None);
        }
    }
}
