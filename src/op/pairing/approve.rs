//! Approving a request: resolve which one is meant, check what it asks for, approve it, and say `approved` only on
//! the gateway's own record of the paired device.
//!
//! ```text
//!  resolve --> within expectation? --> on record --> approve --> record checked --> (connected?) --> answer
//!     ^                                                 |
//!     '-- unknown id: the device asked anew ------------'   a lost answer: look at the lists what became of it
//! ```

use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::expect::Expect;
use super::resolve::{Found, Target, resolve};
use super::{Pairings, on_record};
use crate::clock::UnixMs;
use crate::gateway::{CallError, Method};
use crate::op::{Caller, Patience, Refused};
use crate::state::{Approved, Kind, Pending};

/// A device that asks anew faster than we approve is given up on after so many rounds.
const ROUNDS: u32 = 8;

/// Answers about something else before the gateway is blamed.
const ODD_ANSWERS: u32 = 2;

/// Taking back what was granted too much gets this time, even when the caller's is over.
const TAKE_BACK: Duration = Duration::from_secs(5);

const REMOVED: &str = "the gateway granted more than was asked for, so the device was removed again";

/// How often the gateway is asked whether a device connected, while a caller waits for it.
const ASK_CONNECTED: Duration = Duration::from_millis(500);

/// The whole wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApproveCommand {
    /// Which request.
    pub target: Target,
    /// What it may ask for.
    pub expect: Expect,
    /// How long to wait.
    pub patience: Patience,
}

/// An approval that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Approval {
    /// Approved now, or it was already.
    pub already: bool,
    /// The request that was approved; empty when it was already.
    pub request_id: String,
    /// The gateway's record; `None` for messenger requests.
    pub device: Option<Approved>,
    /// Whether the device is connected, if the caller wanted to wait for it.
    pub connected: Option<bool>,
}

/// What stays the same while one approval is attempted.
struct Ask<'a> {
    expect: &'a Expect,
    caller: &'a Caller,
    deadline: Instant,
}

/// One round's result.
enum Round {
    Done(Box<Approval>),
    /// The lists have to tell which request is meant now.
    Again,
    /// The same, after an answer that was not about this request.
    Odd,
    /// The same, after a connection that broke; `sent`: only the answer was lost.
    Broken {
        sent: bool,
    },
}

fn done(approval: Approval) -> Round {
    Round::Done(Box::new(approval))
}

impl Pairings {
    /// Approves a request.
    ///
    /// # Errors
    /// See [`Refused`]; nothing is approved then, except that `GatewayUnreachable { sent: true }` may still take effect.
    pub async fn approve(&self, command: &ApproveCommand, caller: &Caller) -> Result<Approval, Refused> {
        let deadline = Instant::now() + command.patience.gateway;
        let target = command.target.describe();
        let intent = self.record_intent(caller, "pairing.approve", &target).await?;
        let result = self.approve_on_record(command, caller, deadline).await;
        let (outcome, detail) = match &result {
            Ok(approval) => (if approval.already { "already_paired" } else { "approved" }, granted(approval)),
            Err(refused) => (refused.code(), String::new()),
        };
        let device = result.as_ref().ok().and_then(|a| a.device.as_ref());
        let target = device.map_or(target, |d| on_record(d.kind, &d.device_id));
        self.record_outcome(caller, "pairing.approve", &target, (outcome, &detail), intent).await;
        let mut approval = result?;
        if let (false, Some(device)) = (command.patience.connected.is_zero(), &approval.device) {
            approval.connected = Some(self.wait_connected(&device.device_id, command.patience.connected).await);
            approval.device = self.book().approved(device.kind, &device.device_id).cloned().or(approval.device);
        }
        Ok(approval)
    }

    async fn approve_on_record(
        &self,
        command: &ApproveCommand,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Approval, Refused> {
        match &command.target {
            Target::ChannelCode { .. } => {
                return Err(Refused::NeedsLaunchMode("the gateway takes codes only from its own command line"));
            }
            Target::Channel { channel, account, request_id } => {
                return self.approve_channel(channel, account.as_deref(), request_id, caller, deadline).await;
            }
            _ => {}
        }
        let session = self.gateway.session(deadline).await?;
        // 2026.2.9 widens a waiting request under its old id and says nothing: only a fresh list shows it. It is also
        // the version that cannot remove a device again.
        let widens_silently = !session.offers(Method::DeviceRemove);
        let mut fresh = command.target == Target::OnlyPending || widens_silently || !self.synced(session.number);
        let (mut anew, mut odd, mut lost) = (0, 0, false);
        while anew < ROUNDS {
            match self.approve_once(command, caller, fresh, deadline).await? {
                Round::Done(approval) => return Ok(*approval),
                Round::Again => anew += 1,
                Round::Odd => (anew, odd) = (anew + 1, odd + 1),
                // Not the device's doing: the deadline ends it.
                Round::Broken { sent } => lost |= sent,
            }
            if odd > ODD_ANSWERS {
                return Err(Refused::GatewayError("it keeps answering about something else and lets nobody in".into()));
            }
            fresh = true;
        }
        Err(match resolve(&self.book(), &command.target, &command.expect) {
            Ok(Found::Waiting(_)) if lost => Refused::GatewayUnreachable { sent: true },
            Ok(Found::Waiting(now)) => {
                let what = "the device keeps asking anew; approve it by device_id with an expectation";
                Refused::Superseded(what.to_owned(), Box::new(now))
            }
            Ok(Found::Already(_)) => Refused::GatewayUnreachable { sent: true },
            Err(refused) => refused,
        })
    }

    async fn approve_once(
        &self,
        command: &ApproveCommand,
        caller: &Caller,
        fresh: bool,
        deadline: Instant,
    ) -> Result<Round, Refused> {
        let mut found = if fresh { None } else { resolve(&self.book(), &command.target, &command.expect).ok() };
        if found.is_none() {
            let kind = if let Target::Request(kind, _) = command.target { kind } else { Kind::Device };
            self.refresh_for(kind, deadline).await?;
            found = Some(resolve(&self.book(), &command.target, &command.expect)?);
        }
        let request = match found {
            Some(Found::Waiting(request)) => request,
            Some(Found::Already(device)) => return already(device, &command.expect).map(done),
            None => return Ok(Round::Again),
        };
        command.expect.check(&request).map_err(Refused::ExceedsExpectation)?;
        caller.check_standing()?;
        self.send(&request, &Ask { expect: &command.expect, caller, deadline }).await
    }

    /// Sends the approval of `request` and judges the answer.
    async fn send(&self, request: &Pending, ask: &Ask<'_>) -> Result<Round, Refused> {
        let before = self.book().approved(request.kind, &request.device_id).cloned();
        self.book().sending(request, &ask.caller.actor, ask.expect);
        let answer = match request.kind {
            Kind::Node => self.gateway.node_approve(&request.request_id, ask.deadline).await,
            _ => self.gateway.device_approve(&request.request_id, ask.deadline).await,
        };
        match answer {
            Ok(record) if record.device_id == request.device_id && record.kind == request.kind => {
                self.confirm(record, request, before.as_ref(), ask).await.map(done)
            }
            Err(CallError::Rejected(error)) if error.is_unknown_id() => {
                self.update(|book| book.not_sent(request.kind, &request.request_id, UnixMs::now())).await;
                Ok(Round::Again)
            }
            // It may have taken effect, or the answer cannot be believed: the lists tell.
            Err(CallError::Lost) => match self.look_what_happened(request, before, ask).await? {
                Round::Again => Ok(Round::Broken { sent: true }),
                judged => Ok(judged),
            },
            Ok(_) | Err(CallError::Malformed(_)) => match self.look_what_happened(request, before, ask).await? {
                Round::Again => Ok(Round::Odd),
                judged => Ok(judged),
            },
            Err(CallError::TimedOut) => Err(Refused::GatewayUnreachable { sent: true }),
            Err(CallError::Down(_)) => {
                self.update(|book| book.not_sent(request.kind, &request.request_id, UnixMs::now())).await;
                self.gateway.session(ask.deadline).await?;
                Ok(Round::Broken { sent: false })
            }
            Err(error) => {
                self.update(|book| book.not_sent(request.kind, &request.request_id, UnixMs::now())).await;
                Err(error.into())
            }
        }
    }

    /// After a lost answer: the device is paired anew, or the request still waits, or both are gone.
    async fn look_what_happened(
        &self,
        request: &Pending,
        before: Option<Approved>,
        ask: &Ask<'_>,
    ) -> Result<Round, Refused> {
        let lost = |refused: Refused| match refused {
            Refused::GatewayStarting | Refused::GatewayStopped | Refused::GatewayUnreachable { .. } => {
                Refused::GatewayUnreachable { sent: true }
            }
            other => other,
        };
        self.gateway.session(ask.deadline).await.map_err(|down| lost(down.into()))?;
        self.refresh_for(request.kind, ask.deadline).await.map_err(lost)?;
        let now = self.book().approved(request.kind, &request.device_id).cloned();
        match now {
            Some(record) if before.as_ref().is_none_or(|b| b.approved_at != record.approved_at) => {
                self.confirm(record, request, before.as_ref(), ask).await.map(done)
            }
            _ => Ok(Round::Again),
        }
    }

    /// Believes the gateway's record, but not beyond the expectation: what was granted too much is taken back.
    async fn confirm(
        &self,
        record: Approved,
        request: &Pending,
        before: Option<&Approved>,
        ask: &Ask<'_>,
    ) -> Result<Approval, Refused> {
        if let Err(what) = ask.expect.check_record(&record, before) {
            return Err(self.take_back(&record, &what).await);
        }
        let (now, id) = (UnixMs::now(), request.request_id.clone());
        self.update(|book| book.approved_by_us(record.clone(), &id, &ask.caller.actor, now)).await;
        // It may have been removed again meanwhile: what was granted is still what was granted.
        let known = self.book().approved(record.kind, &record.device_id).cloned();
        let device = known.unwrap_or(Approved { approved_by: ask.caller.actor.clone(), ..record });
        Ok(Approval { already: false, request_id: id, device: Some(device), connected: None })
    }

    /// Removes what the gateway let in beyond the expectation.
    pub(super) async fn take_back(&self, record: &Approved, what: &str) -> Refused {
        let deadline = Instant::now() + TAKE_BACK;
        let (method, params) = match record.kind {
            Kind::Node => (Method::NodeRemove, json!({ "nodeId": record.device_id })),
            _ => (Method::DeviceRemove, json!({ "deviceId": record.device_id })),
        };
        let removed = self.gateway.act(method, params, deadline).await;
        self.look.notify_one();
        let ending = match removed {
            Ok(()) => REMOVED,
            Err(CallError::Rejected(error)) if error.is_unknown_id() => REMOVED,
            Err(_) => "the gateway granted more than was asked for and could not remove it: REVOKE THE DEVICE BY HAND",
        };
        tracing::error!(device.id = record.device_id, exceeded = what, "{ending}");
        Refused::ExceedsExpectation(format!("{what}; {ending}"))
    }

    async fn approve_channel(
        &self,
        channel: &str,
        account: Option<&str>,
        request_id: &str,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Approval, Refused> {
        self.gateway.session(deadline).await?;
        caller.check_standing()?;
        let account = self.channel_account(channel, account, request_id, deadline).await?;
        let params = json!({ "channel": channel, "accountId": account, "requestId": request_id });
        match self.gateway.act(Method::ChannelApprove, params, deadline).await {
            Ok(()) => {
                self.update(|book| book.resolved(Kind::Channel, request_id, true)).await;
                Ok(Approval { already: false, request_id: request_id.to_owned(), device: None, connected: None })
            }
            Err(CallError::Rejected(error)) if error.is_unknown_id() => {
                Err(Refused::NoPendingRequest("the gateway knows no such channel request (any more)".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// The account of a channel request: given, or the one in the list.
    pub(super) async fn channel_account(
        &self,
        channel: &str,
        given: Option<&str>,
        request_id: &str,
        deadline: Instant,
    ) -> Result<String, Refused> {
        if let Some(account) = given {
            return Ok(account.to_owned());
        }
        self.refresh(Kind::Channel, deadline).await?;
        let listed = self.book().pending(Kind::Channel, request_id).filter(|p| p.channel == channel).cloned();
        let found = listed.map(|p| p.account);
        found.ok_or_else(|| Refused::NoPendingRequest(format!("no such request waits on channel {channel}")))
    }

    /// Refreshes a list, across lost connections.
    async fn refresh_for(&self, kind: Kind, deadline: Instant) -> Result<(), Refused> {
        loop {
            match self.refresh(kind, deadline).await {
                Ok(()) => return Ok(()),
                // Reading again is always safe.
                Err(CallError::Lost | CallError::Down(_)) => {
                    self.gateway.session(deadline).await?;
                    tokio::task::yield_now().await;
                }
                Err(CallError::TimedOut) => return Err(Refused::GatewayUnreachable { sent: false }),
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn wait_connected(&self, device_id: &str, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state.watch();
        loop {
            let connected = state
                .borrow_and_update()
                .pairing
                .approved
                .iter()
                .any(|a| a.device_id == device_id && a.connected == Some(true));
            if connected {
                return true;
            }
            if Instant::now() >= deadline {
                return false;
            }
            // Old gateways tell nobody that a device connected: ask.
            self.look.notify_one();
            let soon = deadline.min(Instant::now() + ASK_CONNECTED);
            if let Ok(Err(_)) = tokio::time::timeout_at(soon, state.changed()).await {
                return false;
            }
        }
    }
}

/// A device that is paired already: fine, unless it holds more than the caller expects.
fn already(device: Approved, expect: &Expect) -> Result<Approval, Refused> {
    expect.check_record(&device, None).map_err(|what| {
        Refused::ExceedsExpectation(format!("the device is already paired with more: {what}; revoke it if unwanted"))
    })?;
    Ok(Approval { already: true, request_id: String::new(), device: Some(device), connected: None })
}

fn granted(approval: &Approval) -> String {
    let device = approval.device.as_ref();
    device.map_or_else(String::new, |d| format!("{} {} [{}]", d.device_id, d.role, d.scopes.join(",")))
}
