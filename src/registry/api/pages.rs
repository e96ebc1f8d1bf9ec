//! The console's pages and what they load.

use std::sync::Arc;
use std::time::Duration;

use hyper::body::Bytes;
use hyper::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, LOCATION, REFERRER_POLICY, SET_COOKIE};
use hyper::{Response, StatusCode};
use tokio::time::sleep;

use super::routes::KEY;
use super::{Answer, Call, Context, Endpoint, support};
use crate::api::problem::Problem;
use crate::http::query::Query;
use crate::registry::callers::COOKIE_NAME;
use crate::registry::console::{self, FleetPage, TenantPage};
use crate::registry::store::{Order, Unavailable};
use crate::registry::tenant::is_id;

/// Nothing from elsewhere, nothing inline, nobody may frame it.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
     form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
);
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Tenants on a page of the fleet.
const PAGE: usize = 50;
/// History lines on a page of a tenant.
const LINES: usize = 40;
/// A wrong key costs so long: guessing 256 bits is hopeless, but noise is not welcome either.
const WRONG_KEY: Duration = Duration::from_millis(500);

pub(super) async fn answer(
    context: &Arc<Context>,
    endpoint: Endpoint,
    call: &Call,
    query: &Query,
) -> Result<Answer, Problem> {
    let user = call.principal.as_ref().map(|principal| principal.id.clone());
    let done = match (endpoint, user) {
        (Endpoint::Style, _) => return Ok(asset("text/css; charset=utf-8", console::CSS)),
        (Endpoint::Script, _) => return Ok(asset("text/javascript; charset=utf-8", console::JS)),
        (Endpoint::Login, _) => return Ok(login(context, call).await),
        (Endpoint::Logout, _) => return Ok(logout()),
        (Endpoint::PageEvents, None) => return Err(Problem::new("registry_unauthorized", "no session")),
        (Endpoint::PageEvents, Some(_)) => return events(context, call, query).await,
        (_, None) => return Ok(answer_page(StatusCode::UNAUTHORIZED, console::login_page(None))),
        (Endpoint::TenantPage, Some(user)) => tenant(context, call, query, user).await,
        (_, Some(user)) => fleet(context, query, user).await,
    };
    Ok(match done {
        Ok(html) => answer_page(StatusCode::OK, html),
        Err(problem) => shown(&problem),
    })
}

async fn fleet(context: &Context, query: &Query, user: String) -> Result<String, Problem> {
    let (filter, order) = (support::filter(query), support::order(query, true)?);
    let first = matches!(order, Order::Urgency(None));
    let summary = support::read_summary(context).await.map_err(away)?;
    let fleet = support::read_fleet(context, filter.clone(), order, PAGE).await.map_err(away)?;
    Ok(console::fleet_page(&FleetPage { summary, fleet, filter, first, user }))
}

async fn tenant(context: &Context, call: &Call, query: &Query, user: String) -> Result<String, Problem> {
    let before = query.number("before");
    let view = support::read_tenant(context, &call.name).await.map_err(away)?;
    let view = view.ok_or_else(|| super::no_tenant(&call.name))?;
    let timeline = support::read_timeline(context, &call.name, before, LINES).await.map_err(away)?;
    Ok(console::tenant_page(&TenantPage { view, timeline, before, user }))
}

async fn events(context: &Arc<Context>, call: &Call, query: &Query) -> Result<Answer, Problem> {
    match query.text("tenant") {
        None => Ok(support::events(context, call, None)),
        Some(id) if !is_id(id) => Err(Problem::new("invalid_query", "tenant is no id of a tenant")),
        Some(id) => support::tenant_events(context, call, id).await,
    }
}

async fn login(context: &Context, call: &Call) -> Answer {
    let form = Query::decode(&call.body, &[KEY]).ok();
    let key = form.as_ref().and_then(|form| form.text("key"));
    let Some(principal) = key.and_then(|key| context.callers.by_key(key.trim())) else {
        context.metrics.unauthorized.inc();
        sleep(WRONG_KEY).await;
        let html = console::login_page(Some("This key is not known here, or it was taken back."));
        return answer_page(StatusCode::UNAUTHORIZED, html);
    };
    tracing::info!(key = principal.id, "a session began in the console");
    go_home(&context.callers.session_cookie(&principal))
}

fn logout() -> Answer {
    go_home(&format!("{COOKIE_NAME}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Strict"))
}

fn go_home(cookie: &str) -> Answer {
    let mut response = Response::new(Bytes::new());
    *response.status_mut() = StatusCode::SEE_OTHER;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("/"));
    if let Ok(cookie) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(SET_COOKIE, cookie);
    }
    Answer::Other(Box::new(response))
}

/// A problem as people see it: strangers are asked for their key first.
pub(super) fn problem_page(problem: &Problem) -> Response<Bytes> {
    let remedy = problem.remedy.as_deref().unwrap_or_default();
    let html = match problem.code {
        "registry_unauthorized" => console::login_page(None),
        "tenant_not_found" => {
            console::problem_page(problem.status, problem.title, &problem.detail, "Find it in the fleet by its name.")
        }
        "route_not_found" => {
            console::problem_page(problem.status, "There is no such page", &problem.detail, "Begin with the fleet.")
        }
        _ => console::problem_page(problem.status, problem.title, &problem.detail, remedy),
    };
    page(problem.status(), html)
}

/// The same as an answer.
pub(super) fn shown(problem: &Problem) -> Answer {
    Answer::Other(Box::new(problem_page(problem)))
}

fn answer_page(status: StatusCode, html: String) -> Answer {
    Answer::Other(Box::new(page(status, html)))
}

fn page(status: StatusCode, html: String) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(html));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HTML);
    headers.insert(CONTENT_SECURITY_POLICY, POLICY);
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn asset(media_type: &'static str, text: &'static str) -> Answer {
    Answer::Text(StatusCode::OK, media_type, Bytes::from_static(text.as_bytes()))
}

fn away(why: Unavailable) -> Problem {
    super::unavailable(why)
}
