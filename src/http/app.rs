//! What is served over HTTP: the seam between this server and the programs that use it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use hyper::body::Bytes;
use hyper::header::HeaderMap;
use hyper::{Method, Response, StatusCode};
use tokio::sync::mpsc;

use super::MAX_BODY;
use crate::api::problem::Problem;
use crate::auth::Principal;
use crate::op::Caller;

/// The routes of a program, who may use them, and what they answer.
pub trait App: fmt::Debug + Send + Sync + 'static {
    /// Looks a request up in the route table.
    fn find(&self, method: &Method, path: &str) -> Found;

    /// Who calls, and whether this caller may use the route; without one (no such path) any caller that is known.
    /// `None` for a route that is for anyone. The body was not read yet. `local` is who called over the local socket.
    ///
    /// # Errors
    /// A problem for the caller: who it is was not proven, or it may not do this.
    fn admit<'a>(
        &'a self,
        route: Option<&'a Matched>,
        local: Option<&'a Principal>,
        headers: &'a HeaderMap,
    ) -> BoxFuture<'a, Result<Option<Principal>, Problem>>;

    /// Whether a caller that was let in earlier would still be.
    fn still_valid(&self, principal: &Principal) -> bool;

    /// Answers an admitted call.
    fn answer(self: Arc<Self>, route: Matched, call: Call) -> BoxFuture<'static, Result<Answer, Problem>>;

    /// Counts an answer: the route of the table (never the raw path) and the status.
    fn count(&self, route: &'static str, status: u16);

    /// A problem as a page, where the program has pages; for browsers that ask for one.
    fn page(&self, _problem: &Problem) -> Option<Response<Bytes>> {
        None
    }

    /// Whether a route is called so often that a good answer is no news for the log.
    fn is_routine(&self, _route: &'static str) -> bool {
        false
    }
}

/// What a route table says about a method and path.
#[derive(Debug)]
pub enum Found {
    /// A route.
    Route(Matched),
    /// The path exists, with these other methods.
    OtherMethods(Vec<&'static str>),
    /// No such path.
    Nothing,
}

/// A route as far as the server has to know it.
#[derive(Clone, Debug)]
pub struct Matched {
    /// Its place in the table.
    pub index: usize,
    /// Its path as the table writes it.
    pub path: &'static str,
    /// The name in the path, where the route has one.
    pub name: String,
    /// It changes something: it goes on when its caller hangs up, so that its outcome is put on record.
    pub changes: bool,
    /// What body it takes.
    pub body: Takes,
}

/// What body a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// None.
    Nothing,
    /// JSON of at most so many bytes.
    Json(usize),
    /// A form of a page of ours, of at most so many bytes; the one kind of request a browser may send.
    Form(usize),
}

impl Takes {
    /// Largest body that is read, in bytes; where none is taken, one that came is read and refused.
    pub fn most(self) -> usize {
        match self {
            Self::Nothing => MAX_BODY,
            Self::Json(most) | Self::Form(most) => most,
        }
    }
}

/// An authorised request, without HTTP around it.
#[derive(Debug)]
pub struct Call {
    /// Who asks.
    pub caller: Caller,
    /// Who asks, as the program knows it; none on a route for anyone.
    pub principal: Option<Principal>,
    /// The name in the path, where the route has one.
    pub name: String,
    /// The query text, if any.
    pub query: Option<String>,
    /// The body, already bounded.
    pub body: Bytes,
    /// `If-Match`, if any.
    pub if_match: Option<String>,
    /// `If-None-Match`, if any.
    pub if_none_match: Option<String>,
    /// `Last-Event-ID`, if any.
    pub last_event_id: Option<String>,
    /// All headers.
    pub headers: HeaderMap,
}

/// What a handler answers.
#[derive(Debug)]
pub enum Answer {
    /// JSON with a status and an optional entity tag.
    Json(StatusCode, Bytes, Option<String>),
    /// Text of another media type.
    Text(StatusCode, &'static str, Bytes),
    /// The caller has this already.
    NotModified(String),
    /// A stream of Server-Sent Events.
    Events(Feed),
    /// Anything else, with its own headers.
    Other(Box<Response<Bytes>>),
}

/// What feeds a stream: runs until the reader is gone or has to go; the server ends it at shutdown.
pub struct Feed(pub Box<dyn FnOnce(mpsc::Sender<Bytes>) -> BoxFuture<'static, ()> + Send>);

impl fmt::Debug for Feed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Feed")
    }
}
