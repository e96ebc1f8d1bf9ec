//! Rejecting a request, revoking a device or node, renaming one.

use serde_json::{Value, json};
use tokio::time::Instant;

use super::Pairings;
use super::book::Fate;
use crate::gateway::{CallError, Method};
use crate::op::{Caller, Patience, Refused};
use crate::state::Kind;

/// What to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChangeCommand {
    /// Turn a request down.
    Reject {
        /// Device, node or channel.
        kind: Kind,
        /// The request.
        request_id: String,
        /// The channel and its account, for channel requests.
        channel: Option<(String, Option<String>)>,
    },
    /// Take a pairing back; live sessions of it are closed by the gateway.
    Revoke {
        /// Device or node.
        kind: Kind,
        /// Its id.
        device_id: String,
    },
    /// Give a device or node a name for people.
    Rename {
        /// Device or node.
        kind: Kind,
        /// Its id.
        device_id: String,
        /// The name, 1 to 64 characters.
        label: String,
    },
}

/// A change that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// The request was turned down now.
    Rejected,
    /// It had been before.
    AlreadyRejected,
    /// The pairing was taken back now.
    Revoked,
    /// The name was given.
    Renamed,
}

impl Changed {
    /// The outcome's name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::AlreadyRejected => "already_rejected",
            Self::Revoked => "revoked",
            Self::Renamed => "renamed",
        }
    }
}

impl ChangeCommand {
    fn verb(&self) -> &'static str {
        match self {
            Self::Reject { .. } => "pairing.reject",
            Self::Revoke { .. } => "pairing.revoke",
            Self::Rename { .. } => "pairing.rename",
        }
    }

    fn describe(&self) -> String {
        let name = |kind: &Kind| match kind {
            Kind::Device => "device",
            Kind::Node => "node",
            Kind::Channel => "channel",
        };
        match self {
            Self::Reject { kind, request_id, .. } => format!("{} request:{request_id}", name(kind)),
            Self::Revoke { kind, device_id } => format!("{}:{device_id}", name(kind)),
            Self::Rename { kind, device_id, label } => format!("{}:{device_id} label:{label}", name(kind)),
        }
    }
}

impl Pairings {
    /// Carries out a change.
    ///
    /// # Errors
    /// See [`Refused`].
    pub async fn change(
        &self,
        command: &ChangeCommand,
        patience: Patience,
        caller: &Caller,
    ) -> Result<Changed, Refused> {
        let deadline = Instant::now() + patience.gateway;
        let (verb, target) = (command.verb(), command.describe());
        let intent = self.record_intent(caller, verb, &target).await?;
        let result = self.change_on_record(command, caller, deadline).await;
        let outcome = match &result {
            Ok(changed) => changed.name(),
            Err(refused) => refused.code(),
        };
        self.record_outcome(caller, verb, &target, (outcome, ""), intent).await;
        result
    }

    async fn change_on_record(
        &self,
        command: &ChangeCommand,
        caller: &Caller,
        deadline: Instant,
    ) -> Result<Changed, Refused> {
        self.gateway.session(deadline).await?;
        caller.check_standing()?;
        match command {
            ChangeCommand::Reject { kind, request_id, channel } => {
                self.reject(*kind, request_id, channel.as_ref(), deadline).await
            }
            ChangeCommand::Revoke { kind, device_id } => self.revoke(*kind, device_id, deadline).await,
            ChangeCommand::Rename { kind, device_id, label } => {
                let (method, params) = match kind {
                    Kind::Node => (Method::NodeRename, json!({ "nodeId": device_id, "displayName": label })),
                    _ => (Method::DeviceRename, json!({ "deviceId": device_id, "label": label })),
                };
                self.act_on_paired(method, params, *kind, device_id, deadline).await?;
                Ok(Changed::Renamed)
            }
        }
    }

    async fn reject(
        &self,
        kind: Kind,
        request_id: &str,
        channel: Option<&(String, Option<String>)>,
        deadline: Instant,
    ) -> Result<Changed, Refused> {
        let (method, params) = match (kind, channel) {
            (Kind::Channel, Some((channel, account))) => {
                let account = self.channel_account(channel, account.as_deref(), request_id, deadline).await?;
                let params = json!({ "channel": channel, "accountId": account, "requestId": request_id });
                (Method::ChannelDismiss, params)
            }
            (Kind::Node, _) => (Method::NodeReject, json!({ "requestId": request_id })),
            _ => (Method::DeviceReject, json!({ "requestId": request_id })),
        };
        match self.gateway.act(method, params, deadline).await {
            Ok(()) => {
                self.update(|book| book.rejected_by_us(kind, request_id)).await;
                Ok(Changed::Rejected)
            }
            Err(CallError::Rejected(error)) if error.is_unknown_id() => {
                self.refresh(kind, deadline).await?;
                self.not_rejectable(kind, request_id)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Why a request that the gateway does not know cannot be rejected.
    fn not_rejectable(&self, kind: Kind, request_id: &str) -> Result<Changed, Refused> {
        let book = self.book();
        match book.fate(kind, request_id) {
            Some((Fate::Rejected, _)) => Ok(Changed::AlreadyRejected),
            Some((Fate::Expired, _)) => Err(Refused::Expired("the request had lapsed before".to_owned())),
            Some((Fate::Superseded(_), device_id)) => match book.pending_of(kind, &device_id) {
                Some(newer) => {
                    let what = "the device asked again, for something else".to_owned();
                    Err(Refused::Superseded(what, Box::new(newer.clone())))
                }
                None => Err(Refused::NoPendingRequest("the request is gone".to_owned())),
            },
            Some((Fate::Approved, _)) => {
                Err(Refused::NoPendingRequest("the request was approved; revoke it".to_owned()))
            }
            _ => Err(Refused::NoPendingRequest(format!("no request {request_id} waits"))),
        }
    }

    async fn revoke(&self, kind: Kind, device_id: &str, deadline: Instant) -> Result<Changed, Refused> {
        let (method, params) = match kind {
            Kind::Node => (Method::NodeRemove, json!({ "nodeId": device_id })),
            _ => (Method::DeviceRemove, json!({ "deviceId": device_id })),
        };
        self.act_on_paired(method, params, kind, device_id, deadline).await?;
        // Believed only when it is gone from the gateway's own list.
        if self.book().approved(kind, device_id).is_some() {
            return Err(Refused::GatewayError("it says the device was removed, but still lists it".to_owned()));
        }
        Ok(Changed::Revoked)
    }

    /// Acts on a paired device or node and looks at the list afterwards. Ourselves we do not find.
    async fn act_on_paired(
        &self,
        method: Method,
        params: Value,
        kind: Kind,
        device_id: &str,
        deadline: Instant,
    ) -> Result<(), Refused> {
        let unknown = || Refused::NotFound(format!("nothing with id {device_id} is paired"));
        if device_id == self.gateway.device_id() {
            return Err(unknown());
        }
        match self.gateway.act(method, params, deadline).await {
            Ok(()) => Ok(self.refresh(kind, deadline).await?),
            Err(CallError::Rejected(error)) if error.is_unknown_id() => Err(unknown()),
            Err(CallError::Unsupported) => Err(Refused::UnsupportedByGateway(method.name())),
            Err(error) => Err(error.into()),
        }
    }
}
