//! The gateway's pairing methods, typed.

use std::collections::HashSet;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::frames::Presence;
use super::records::{
    ApprovedDevice, ApprovedNode, MAX_PENDING, WireChannel, WireChannels, WireDevice, WireList, WireNode,
};
use super::records::{Lists, connected};
use super::{CallError, Gateway, Method};
use crate::state::{Approved, Pending};

impl Gateway {
    /// Devices: those that wait and those that were approved. Our own is left out.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn device_list(&self, deadline: Instant) -> Result<Lists, CallError> {
        let list: WireList = self.call(Method::DeviceList, json!({}), deadline).await?;
        Ok(list.into_lists(WireDevice::pending, WireDevice::approved, self.device_id()))
    }

    /// Nodes: capability requests that wait and nodes that were approved.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn node_list(&self, deadline: Instant) -> Result<Lists, CallError> {
        let list: WireList = self.call(Method::NodeList, json!({}), deadline).await?;
        Ok(list.into_lists(WireNode::pending, WireNode::approved, self.device_id()))
    }

    /// Requests of people who wrote to a messenger channel.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn channel_list(&self, deadline: Instant) -> Result<Vec<Pending>, CallError> {
        let list: WireChannels = self.call(Method::ChannelList, json!({}), deadline).await?;
        Ok(list.requests.into_iter().take(MAX_PENDING).filter_map(WireChannel::pending).collect())
    }

    /// Who is connected, for gateways whose device list does not say it (2026.2.9 to 2026.6.11).
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn presence(&self, deadline: Instant) -> Result<HashSet<String>, CallError> {
        let list: Vec<Presence> = self.call(Method::Presence, json!({}), deadline).await?;
        Ok(connected(&list))
    }

    /// Approves a device's request; the answer is the gateway's own record of the paired device.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn device_approve(&self, request_id: &str, deadline: Instant) -> Result<Approved, CallError> {
        let answer: ApprovedDevice =
            self.call(Method::DeviceApprove, json!({ "requestId": request_id }), deadline).await?;
        answer.device.approved().ok_or_else(|| CallError::Malformed("the approved device has no usable id".into()))
    }

    /// Approves a node's capability request.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn node_approve(&self, request_id: &str, deadline: Instant) -> Result<Approved, CallError> {
        let answer: ApprovedNode = self.call(Method::NodeApprove, json!({ "requestId": request_id }), deadline).await?;
        answer.node.approved().ok_or_else(|| CallError::Malformed("the approved node has no usable id".into()))
    }

    /// Calls a method for its effect alone.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn act(&self, method: Method, params: Value, deadline: Instant) -> Result<(), CallError> {
        self.call::<serde::de::IgnoredAny>(method, params, deadline).await.map(|_| ())
    }
}
