//! Which request a caller means, from what we know: a pure question to the book.

use super::book::{Book, Fate};
use super::expect::Expect;
use crate::op::Refused;
use crate::state::{Approved, Kind, Pending};

/// Which request is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The request with this id.
    Request(Kind, String),
    /// Whatever this device asks for now.
    Device(String),
    /// The only device request that waits, if there is exactly one (that is within the expectation).
    OnlyPending,
    /// A messenger request, by channel, account and id.
    Channel {
        /// E.g. `telegram`.
        channel: String,
        /// The channel's account; `None` where it has only one.
        account: Option<String>,
        /// The gateway's id of the request.
        request_id: String,
    },
    /// A messenger request by the code its sender was shown; no RPC takes it.
    ChannelCode {
        /// E.g. `telegram`.
        channel: String,
        /// The account, where the channel has several.
        account: Option<String>,
        /// The code.
        code: String,
    },
}

impl Target {
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Request(Kind::Node, id) => format!("node request:{id}"),
            Self::Request(_, id) => format!("device request:{id}"),
            Self::Device(id) => format!("device:{id}"),
            Self::OnlyPending => "device request:only_pending".to_owned(),
            Self::Channel { channel, request_id, .. } => format!("channel {channel} request:{request_id}"),
            Self::ChannelCode { .. } => "channel request by code".to_owned(),
        }
    }
}

/// What resolving a target finds.
#[derive(Debug)]
pub(super) enum Found {
    Waiting(Pending),
    Already(Approved),
}

/// Finds the request that is meant, or why there is none.
pub(super) fn resolve(book: &Book, target: &Target, expect: &Expect) -> Result<Found, Refused> {
    match target {
        Target::Request(kind, id) => resolve_request(book, *kind, id, expect),
        Target::Device(id) => resolve_device(book, Kind::Device, id),
        _ => only_pending(&book.all_pending(Kind::Device), expect).map(Found::Waiting),
    }
}

fn resolve_request(book: &Book, kind: Kind, request_id: &str, expect: &Expect) -> Result<Found, Refused> {
    if let Some(request) = book.pending(kind, request_id) {
        return Ok(Found::Waiting(request.clone()));
    }
    let Some((fate, device_id)) = book.fate(kind, request_id) else {
        return Err(Refused::NoPendingRequest(format!("no request {request_id} waits")));
    };
    match fate {
        Fate::Superseded(_) => match book.pending_of(kind, &device_id) {
            // The caller said what is acceptable, so the device's new request may stand in for the old one.
            Some(newer) if !expect.is_empty() => Ok(Found::Waiting(newer.clone())),
            Some(newer) => {
                let what = "the device asked again, for something else".to_owned();
                Err(Refused::Superseded(what, Box::new(newer.clone())))
            }
            None => resolve_device(book, kind, &device_id),
        },
        Fate::Approved => resolve_device(book, kind, &device_id),
        Fate::Expired => Err(Refused::Expired("the request waited more than five minutes and lapsed".to_owned())),
        Fate::Rejected => Err(Refused::NoPendingRequest("the request was rejected".to_owned())),
        Fate::Withdrawn => Err(Refused::NoPendingRequest("the request is gone from the gateway".to_owned())),
    }
}

fn resolve_device(book: &Book, kind: Kind, device_id: &str) -> Result<Found, Refused> {
    if let Some(request) = book.pending_of(kind, device_id) {
        return Ok(Found::Waiting(request.clone()));
    }
    if let Some(device) = book.approved(kind, device_id) {
        return Ok(Found::Already(device.clone()));
    }
    Err(match book.last_fate_of(kind, device_id) {
        Some(Fate::Expired) => Refused::Expired("the device's request lapsed; it has to try again".to_owned()),
        _ => Refused::NoPendingRequest("this device waits for nothing and is not paired".to_owned()),
    })
}

/// The safe form of "the latest": exactly one request, or none.
fn only_pending(waiting: &[Pending], expect: &Expect) -> Result<Pending, Refused> {
    match waiting {
        [] => Err(Refused::NoPendingRequest("no device request waits".to_owned())),
        [one] => Ok(one.clone()),
        many => {
            let fitting: Vec<&Pending> = many.iter().filter(|p| expect.check(p).is_ok()).collect();
            match fitting[..] {
                [one] if !expect.is_empty() => Ok(one.clone()),
                _ => Err(Refused::Ambiguous(many.to_vec())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::UnixMs;

    fn waiting(id: &str, scopes: &[&str]) -> Pending {
        Pending {
            kind: Kind::Device,
            request_id: id.into(),
            device_id: format!("device-of-{id}"),
            label: String::new(),
            client_id: String::new(),
            platform: String::new(),
            role: "operator".into(),
            scopes: scopes.iter().map(|s| (*s).into()).collect(),
            commands: Vec::new(),
            remote_ip: String::new(),
            is_upgrade: false,
            requested_at: UnixMs(1),
            expires_at: None,
            channel: String::new(),
            account: String::new(),
        }
    }

    #[test]
    fn only_pending_acts_on_exactly_one() {
        let (read, admin) = (waiting("r", &["operator.read"]), waiting("a", &["operator.admin"]));
        let any = Expect::default();
        let narrow = Expect { max_scopes: Some(vec!["operator.read".into()]), ..Expect::default() };
        assert_eq!(only_pending(&[], &any).unwrap_err().code(), "no_pending_request");
        assert_eq!(only_pending(std::slice::from_ref(&admin), &any).unwrap().request_id, "a");
        assert_eq!(only_pending(&[read.clone(), admin.clone()], &any).unwrap_err().code(), "ambiguous");
        assert_eq!(only_pending(&[read.clone(), admin], &narrow).unwrap().request_id, "r");
        assert_eq!(only_pending(&[read.clone(), read], &narrow).unwrap_err().code(), "ambiguous");
    }
}
