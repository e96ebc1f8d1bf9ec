//! One connection's requests, in the order of the checks; the one place that writes answers, log lines and counters.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http_body_util::{BodyExt as _, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONNECTION, CONTENT_TYPE, ETAG, EXPECT, HeaderMap, HeaderValue, IF_MATCH,
    IF_NONE_MATCH, RETRY_AFTER, WWW_AUTHENTICATE,
};
use hyper::{Method, Request, Response, StatusCode};
use tokio::time::{Instant, timeout};

use super::app::{Answer, Call, Found, Matched, Takes};
use super::connections::{Permit, Use};
use super::screen::screen;
use super::stream::{self, AnswerBody};
use super::{BODY, MAX_BODY, Shared};
use crate::api::problem::Problem;
use crate::auth::Principal;
use crate::op::{Caller, Standing};

/// Longest value kept of a header that is put on record.
const MAX_KEPT: usize = 128;
/// A body that is refused is read and dropped up to this size and for so long: closing on one that still comes would take
/// the answer from its sender.
const MAX_DROPPED: u64 = 1024 * 1024;
const DROPPING: Duration = Duration::from_secs(1);

/// What one connection is.
#[derive(Debug)]
pub struct Peer {
    /// Its place in the table of connections.
    pub permit: Permit,
    /// Who it is, where the socket itself tells (the local one).
    pub local: Option<Principal>,
    /// Whether it completed a request yet.
    pub served: AtomicBool,
}

type Answered = Response<AnswerBody>;

/// Answers one request, whatever comes.
///
/// # Errors
/// Never: every error becomes an answer.
pub async fn serve(shared: Arc<Shared>, peer: Arc<Peer>, request: Request<Incoming>) -> Result<Answered, Infallible> {
    let started = Instant::now();
    let request_id = random_id();
    let method = request.method().clone();
    let pages = method == Method::GET && takes_pages(request.headers());
    let mut seen = Seen { route: "other", actor: String::new() };
    peer.served.store(true, Ordering::Relaxed);
    let answered = match attempt(&shared, &peer, request, &request_id, &mut seen).await {
        Ok(answered) => answered,
        Err(problem) => match shared.app.page(&problem).filter(|_| pages) {
            Some(page) => page.map(AnswerBody::whole),
            None => problem_answer(problem, &request_id),
        },
    };
    let answered = finish(answered, &request_id);
    let status = answered.status().as_u16();
    shared.app.count(seen.route, status);
    let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (route, actor) = (seen.route, seen.actor);
    if status >= 500 && status != 503 {
        tracing::warn!(http.method = %method, http.route = route, http.status = status, duration_ms, actor, request_id, "request");
    } else if !actor.is_empty() && (status >= 400 || (method != Method::GET && !shared.app.is_routine(route))) {
        tracing::info!(http.method = %method, http.route = route, http.status = status, duration_ms, actor, request_id, "request");
    } else {
        // Neither polls nor strangers may fill the log; both are counted.
        tracing::debug!(http.method = %method, http.route = route, http.status = status, duration_ms, actor, request_id, "request");
    }
    Ok(answered)
}

/// What the log line says besides the status.
struct Seen {
    route: &'static str,
    actor: String,
}

async fn attempt(
    shared: &Arc<Shared>,
    peer: &Peer,
    request: Request<Incoming>,
    request_id: &str,
    seen: &mut Seen,
) -> Result<Answered, Problem> {
    let (route, principal) = match admit(shared, peer, &request, seen).await {
        Ok(admitted) => admitted,
        Err(problem) => {
            drop_body(request).await;
            return Err(problem);
        }
    };
    if let Some(principal) = &principal {
        seen.actor.clone_from(&principal.id);
        peer.permit.set(Use::Busy);
    }
    let answered = carry_out(shared, route, principal, request, request_id).await;
    if !matches!(&answered, Ok(a) if matches!(a.body(), AnswerBody::Pieces(_))) && !seen.actor.is_empty() {
        peer.permit.set(Use::Idle);
    }
    answered
}

/// All that is decided from the head: what is asked for, and by whom.
async fn admit(
    shared: &Shared,
    peer: &Peer,
    request: &Request<Incoming>,
    seen: &mut Seen,
) -> Result<(Matched, Option<Principal>), Problem> {
    let found = shared.app.find(request.method(), request.uri().path());
    let route = if let Found::Route(route) = &found { Some(route) } else { None };
    screen(request, &shared.host_names, route.map_or(Takes::Json(MAX_BODY), |route| route.body))?;
    if let Some(route) = route {
        seen.route = route.path;
    }
    // Without a credential even "no such route" is not told.
    let principal = shared.app.admit(route, peer.local.as_ref(), request.headers()).await?;
    match found {
        Found::Route(route) => Ok((route, principal)),
        Found::OtherMethods(methods) => {
            let allowed = methods.join(", ");
            let problem = Problem::new("method_not_allowed", format!("this route takes {allowed}"));
            Err(Problem { allow: Some(allowed), ..problem })
        }
        Found::Nothing => Err(Problem::new("route_not_found", request.uri().path())),
    }
}

/// Reads what is left of a request that is refused, in bounds, and forgets it.
async fn drop_body(request: Request<Incoming>) {
    let small = request.body().size_hint().exact().is_some_and(|size| (1..=MAX_DROPPED).contains(&size));
    // Who waits to be asked for the body does not send it.
    if small && !request.headers().contains_key(EXPECT) {
        let mut body = request.into_body();
        let _ = timeout(DROPPING, async { while let Some(Ok(_)) = body.frame().await {} }).await;
    }
}

/// Whether a person looks at the answer.
fn takes_pages(headers: &HeaderMap) -> bool {
    headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).is_some_and(|accept| accept.contains("text/html"))
}

/// Reads the body, only now, and hands the call to the program.
async fn carry_out(
    shared: &Arc<Shared>,
    route: Matched,
    principal: Option<Principal>,
    request: Request<Incoming>,
    request_id: &str,
) -> Result<Answered, Problem> {
    let (head, body) = request.into_parts();
    let body = read_body(body, route.body.most()).await?;
    if route.body == Takes::Nothing && !body.is_empty() {
        return Err(Problem::new("invalid_body", "this call takes no body"));
    }
    let caller = Caller {
        actor: principal.as_ref().map(|p| p.id.clone()).unwrap_or_default(),
        request_id: request_id.to_owned(),
        idempotency_key: kept(&head.headers, "idempotency-key"),
        traceparent: kept(&head.headers, "traceparent"),
        standing: principal.clone().map(|principal| {
            let app = shared.app.clone();
            Standing(Arc::new(move || app.still_valid(&principal)))
        }),
    };
    let call = Call {
        caller,
        principal,
        name: route.name.clone(),
        query: head.uri.query().map(str::to_owned),
        body,
        if_match: head.headers.get(IF_MATCH).and_then(|v| v.to_str().ok()).map(str::to_owned),
        if_none_match: head.headers.get(IF_NONE_MATCH).and_then(|v| v.to_str().ok()).map(str::to_owned),
        last_event_id: kept(&head.headers, "last-event-id"),
        headers: head.headers,
    };
    let (changes, answer) = (route.changes, shared.app.clone().answer(route, call));
    let answer = if changes {
        // A change goes on when its caller hangs up, so that its outcome is put on record.
        shared.tasks.spawn(answer).await.unwrap_or_else(|e| {
            tracing::error!(error = %e, request_id, "a handler failed");
            Err(Problem::new("internal", "the handler failed"))
        })
    } else {
        answer.await
    };
    render(shared, answer?)
}

async fn read_body(body: Incoming, most: usize) -> Result<Bytes, Problem> {
    match timeout(BODY, Limited::new(body, most).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(e)) if e.is::<http_body_util::LengthLimitError>() => {
            Err(Problem::new("body_too_large", format!("at most {most} bytes are taken")))
        }
        Ok(Err(_)) => Err(Problem::new("bad_request", "the body broke off")),
        Err(_) => Err(Problem::new("bad_request", format!("the body did not arrive within {} s", BODY.as_secs()))),
    }
}

/// A header put on record as the caller gave it, if it is short and printable.
fn kept(headers: &HeaderMap, name: &str) -> Option<String> {
    let value = headers.get(name)?.to_str().ok()?;
    (!value.is_empty() && value.len() <= MAX_KEPT).then(|| value.to_owned())
}

fn render(shared: &Arc<Shared>, answer: Answer) -> Result<Answered, Problem> {
    let (status, media_type, body, tag) = match answer {
        Answer::Json(status, bytes, tag) => (status, "application/json", AnswerBody::whole(bytes), tag),
        Answer::Text(status, media_type, bytes) => (status, media_type, AnswerBody::whole(bytes), None),
        Answer::NotModified(tag) => (StatusCode::NOT_MODIFIED, "application/json", AnswerBody::Whole(None), Some(tag)),
        Answer::Events(feed) => {
            let body = stream::events(shared, feed)
                .ok_or_else(|| Problem::new("too_many_streams", "every event stream is taken"))?;
            (StatusCode::OK, "text/event-stream", body, None)
        }
        Answer::Other(response) => return Ok(response.map(AnswerBody::whole)),
    };
    let mut answered = Response::new(body);
    *answered.status_mut() = status;
    answered.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    if let Some(tag) = tag.and_then(|t| HeaderValue::from_str(&t).ok()) {
        answered.headers_mut().insert(ETAG, tag);
    }
    Ok(answered)
}

fn problem_answer(mut problem: Problem, request_id: &str) -> Answered {
    request_id.clone_into(&mut problem.request_id);
    let text = serde_json::to_vec(&problem).unwrap_or_default();
    let mut answered = Response::new(AnswerBody::whole(Bytes::from(text)));
    *answered.status_mut() = problem.status();
    let headers = answered.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = problem.retry_after_s {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(allowed) = problem.allow.and_then(|allowed| HeaderValue::from_str(&allowed).ok()) {
        headers.insert(ALLOW, allowed);
    }
    if problem.status == 401 {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    // Whatever of the request is left unread by now is not waited for.
    if matches!(problem.status, 400 | 401 | 411 | 413) {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answered
}

fn finish(mut answered: Answered, request_id: &str) -> Answered {
    let headers = answered.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-content-type-options", HeaderValue::from_static("nosniff"));
    if let Ok(value) = HeaderValue::from_str(request_id) {
        headers.insert("x-request-id", value);
    }
    answered
}

/// 16 random hexadecimal digits.
pub fn random_id() -> String {
    let mut bytes = [0u8; 8];
    // Without randomness ids would repeat, which harms nothing but the log.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    data_encoding::HEXLOWER.encode(&bytes)
}
