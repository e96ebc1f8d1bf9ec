//! Generated from the route table: a new route is covered the moment it is in the table.

use std::collections::BTreeSet;

use openclaw_sidecar::api::routes::{ROUTES, Route};
use openclaw_sidecar::auth::Tier;
use serde_json::{Value, json};

use super::scene::{LIMIT, Scene};
use super::wire::answers;
use crate::support::client::{Client, Reply};
use crate::support::sidecar::{Builder, credential, new_token};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Nobody,
    Support,
    Control,
}

/// What somebody sends to prove who they are.
#[derive(Debug)]
struct Shown {
    name: &'static str,
    authorization: Vec<String>,
    who: Who,
}

fn shown(name: &'static str, authorization: &[&str], who: Who) -> Shown {
    Shown { name, authorization: authorization.iter().map(ToString::to_string).collect(), who }
}

struct Tokens {
    expired: String,
    early: String,
}

fn with_dated_entries(builder: Builder, tokens: &Tokens) -> Builder {
    let mut list = builder.default_credentials();
    let dated = |id: &str, token: &str, field: &str, time: &str| {
        let mut entry = credential(id, token, "dangerous");
        entry[field] = json!(time);
        entry
    };
    let entries = list.as_array_mut().expect("a list");
    entries.push(dated("expired", &tokens.expired, "not_after", "2020-01-01T00:00:00Z"));
    entries.push(dated("early", &tokens.early, "not_before", "2120-01-01T00:00:00Z"));
    builder.credentials(list)
}

fn all_shown(scene: &Scene, tokens: &Tokens) -> Vec<Shown> {
    let (control, support) = (scene.sidecar.control_token(), scene.sidecar.support_token());
    let bearer = |token: &str| format!("Bearer {token}");
    let flipped = |token: &str| {
        let last = if token.ends_with('A') { "B" } else { "A" };
        format!("Bearer {}{last}", &token[..token.len() - 1])
    };
    vec![
        shown("no header", &[], Who::Nobody),
        shown("empty", &[""], Who::Nobody),
        shown("scheme only", &["Bearer"], Who::Nobody),
        shown("scheme and space", &["Bearer "], Who::Nobody),
        shown("basic", &[&format!("Basic {control}")], Who::Nobody),
        shown("token without scheme", &[control], Who::Nobody),
        shown("doubled header", &[&bearer(control), &bearer(control)], Who::Nobody),
        shown("two different headers", &[&bearer(support), &bearer(control)], Who::Nobody),
        shown("two in one header", &[&format!("Bearer {control}, Bearer {control}")], Who::Nobody),
        shown("wrong token", &["Bearer wrong"], Who::Nobody),
        shown("null", &["Bearer null"], Who::Nobody),
        shown("unknown token of the right shape", &[&bearer(&new_token())], Who::Nobody),
        shown("last character changed", &[&flipped(control)], Who::Nobody),
        shown("one character more", &[&format!("Bearer {control}A")], Who::Nobody),
        shown("64 KB", &[&bearer(&"x".repeat(65_536))], Who::Nobody),
        shown("expired", &[&bearer(&tokens.expired)], Who::Nobody),
        shown("not valid yet", &[&bearer(&tokens.early)], Who::Nobody),
        shown("scheme in lower case", &[&format!("bearer {control}")], Who::Control),
        shown("support", &[&bearer(support)], Who::Support),
        shown("control", &[&bearer(control)], Who::Control),
    ]
}

fn expected(route: &Route, who: Who) -> u16 {
    match (route.guard, who) {
        (Tier::Public, _) => 200,
        (_, Who::Nobody) => 401,
        (Tier::Dangerous | Tier::Destructive, Who::Support) | (Tier::Approver, _) => 403,
        // Let in: but this sidecar launches nothing.
        _ if needs_launch_mode(route) => 501,
        (Tier::Safe, Who::Support | Who::Control) => 200,
        // Let in: it is the empty body that is wrong.
        (Tier::Dangerous | Tier::Destructive, Who::Control) => 400,
    }
}

fn needs_launch_mode(route: &Route) -> bool {
    ["/v1/desired", "/v1/secrets", "/v1/gateway/", "/v1/access", "/v1/sleep", "/v1/decommission", "/v1/grants/"]
        .iter()
        .any(|start| route.path.starts_with(start))
}

/// A path of the route, with a name where it takes one.
fn path_of(route: &Route) -> String {
    route.path.replace("{name}", "A_NAME").replace("{id}", "0123456789abcdef")
}

async fn send(client: &Client, shown: &Shown, method: &str, path: &str, body: &Value) -> anyhow::Result<Reply> {
    let mut headers: Vec<(&str, &str)> = shown.authorization.iter().map(|v| ("authorization", v.as_str())).collect();
    let body = matches!(method, "POST" | "PUT").then(|| {
        headers.push(("content-type", "application/json"));
        body.to_string().into_bytes()
    });
    client.request(method, path, &headers, body).await
}

/// The body without what differs in every answer.
fn without_id(reply: &Reply) -> String {
    let mut body = reply.json();
    assert_eq!(body["request_id"].as_str(), reply.header("x-request-id"));
    body.as_object_mut().expect("an object").remove("request_id");
    body.to_string()
}

async fn check_route(scene: &Scene, client: &Client, route: &Route, shown: &Shown) -> anyhow::Result<Option<String>> {
    let case = format!("{} {} with {}", route.method, route.path, shown.name);
    let wanted = expected(route, shown.who);
    if route.path == "/v1/events" && wanted == 200 {
        // A stream that is let in does not end by itself.
        let token = shown.authorization[0].split(' ').nth(1);
        client.with_token(token).events(route.path, None).await?.next(LIMIT).await?;
        return Ok(None);
    }
    let effective = scene.effective_body(route).unwrap_or_default();
    let body = if shown.who == Who::Control { json!({}) } else { effective };
    let reply = send(client, shown, route.method.as_str(), &path_of(route), &body).await?;
    assert_eq!(reply.status, wanted, "{case}: {}", reply.text());
    match wanted {
        401 => {
            assert_eq!((reply.code().as_str(), reply.header("www-authenticate")), ("unauthorized", Some("Bearer")));
            assert_eq!(reply.header("content-type"), Some("application/problem+json"), "{case}");
            return Ok(Some(without_id(&reply)));
        }
        403 => {
            assert_eq!(reply.code(), "forbidden", "{case}");
            let detail = reply.json()["detail"].as_str().unwrap_or_default().to_owned();
            assert!(detail.contains(&format!("needs {}", route.guard.name())), "{case}: {detail}");
        }
        400 => assert_eq!(reply.code(), "invalid_body", "{case}"),
        501 => assert_eq!(reply.code(), "needs_launch_mode", "{case}"),
        _ => {}
    }
    Ok(None)
}

#[tokio::test]
async fn every_route_with_every_kind_of_credential() -> anyhow::Result<()> {
    let tokens = Tokens { expired: new_token(), early: new_token() };
    let scene = Scene::start_with(|builder| with_dated_entries(builder.edge(), &tokens)).await?;
    let before = scene.still().await?;
    let mut refusals = BTreeSet::new();
    for client in [scene.sidecar.client(), scene.sidecar.edge_client()].map(|c| c.with_token(None)) {
        for shown in all_shown(&scene, &tokens) {
            for route in ROUTES {
                refusals.extend(check_route(&scene, &client, route, &shown).await?);
            }
        }
    }
    assert_eq!(refusals.len(), 1, "a refusal tells nothing about its reason: {refusals:#?}");
    assert_eq!(scene.still().await?, before, "a refused request changed something");
    Ok(())
}

const UNKNOWN: [&str; 12] = [
    "/",
    "/v1",
    "/v1/",
    "/v1/nothing",
    "/v1/pairing/",
    "/v1/pairing/approve/",
    "/V1/state",
    "/v1/State",
    "/livez/",
    "/v1/state;a=b",
    "/v1/../v1/state",
    "/v1/pairing/approve%00",
];

#[tokio::test]
async fn paths_and_methods_are_told_to_known_callers_only() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let before = scene.still().await?;
    let (support, body) = (scene.sidecar.support_token(), json!({"kind": "device", "request_id": scene.request_id}));
    let nobody = shown("nobody", &[], Who::Nobody);
    let support = shown("support", &[&format!("Bearer {support}")], Who::Support);
    for client in [scene.sidecar.client(), scene.sidecar.edge_client()].map(|c| c.with_token(None)) {
        for path in UNKNOWN {
            for method in ["GET", "HEAD", "POST", "DELETE"] {
                let refused = send(&client, &nobody, method, path, &body).await?;
                assert_eq!(refused.status, 401, "{method} {path}");
                let told = send(&client, &support, method, path, &body).await?;
                assert_eq!(told.status, 404, "{method} {path}");
                assert!(method == "HEAD" || told.code() == "route_not_found", "{method} {path}: {}", told.text());
            }
        }
        for route in ROUTES {
            for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "NONSENSE"] {
                let path = path_of(route);
                let there: Vec<&str> =
                    ROUTES.iter().filter(|other| other.path == route.path).map(|other| other.method.as_str()).collect();
                if there.contains(&method) || (method == "HEAD" && there.contains(&"GET")) {
                    continue;
                }
                let case = format!("{method} {path}");
                assert_eq!(send(&client, &nobody, method, &path, &body).await?.status, 401, "{case}");
                let told = send(&client, &support, method, &path, &body).await?;
                let allowed = there.join(", ");
                assert_eq!((told.status, told.header("allow")), (405, Some(allowed.as_str())), "{case}");
            }
        }
    }
    assert_eq!(scene.still().await?, before);
    Ok(())
}

#[tokio::test]
async fn a_nul_byte_in_the_credential_ends_the_connection() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let before = scene.still().await?;
    let token = scene.sidecar.control_token();
    let body = scene.effective_body(ROUTES.iter().find(|r| r.path.ends_with("approve")).expect("a route"));
    let body = body.expect("a body").to_string();
    for authorization in [format!("Bearer {token}\0"), format!("Bearer \0{token}"), format!("Be\0arer {token}")] {
        let request = format!(
            "POST /v1/pairing/approve HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
             Authorization: {authorization}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        for client in [scene.sidecar.client(), scene.sidecar.edge_client()] {
            let started = std::time::Instant::now();
            let answer = answers(&client.raw(request.as_bytes(), LIMIT).await?)?;
            assert!(started.elapsed() < LIMIT, "the connection stays open");
            assert_eq!(answer.iter().map(|a| a.status).collect::<Vec<_>>(), [400]);
        }
    }
    assert_eq!(scene.still().await?, before);
    Ok(())
}
