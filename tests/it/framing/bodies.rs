//! Bodies: what is wrong is said with the field, and what follows a body is never taken for a request by mistake.

use openclaw_sidecar::api::routes::ROUTES;
use openclaw_sidecar::auth::Tier;
use openclaw_sidecar::http::MAX_BODY;

use super::super::auth_matrix::scene::{LIMIT, Scene};
use super::super::auth_matrix::wire::{Wire, answers};
use super::{both, exchange};

fn request(token: &str, path: &str, length: usize, extra: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {token}\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n{extra}\r\n"
    )
}

/// A body and what the refusal has to name.
fn broken(scene: &Scene) -> Vec<(Vec<u8>, &'static str)> {
    let id = &scene.request_id;
    let good = format!(r#"{{"kind":"device","request_id":"{id}"}}"#);
    let text = |text: String, named| (text.into_bytes(), named);
    let fixed = |text: &str, named| (text.as_bytes().to_vec(), named);
    let nested = format!(r#"{{"kind":"device","request_id":"{id}","expect":{{"scopes":[]}}}}"#);
    vec![
        fixed("", ""),
        fixed("null", ""),
        fixed("[]", ""),
        fixed("\"device\"", ""),
        fixed("{", ""),
        fixed("{}", "kind"),
        text(format!(r#"{{"kind":"device","request_id":"{id}","force":true}}"#), "force"),
        text(format!(r#"{{"kind":"device","request_id":"{id}","Request_Id":"x"}}"#), "Request_Id"),
        text(format!(r#"{{"kind":"device","kind":"device","request_id":"{id}"}}"#), "kind"),
        text(format!(r#"{{"kind":"device","request_id":"other","request_id":"{id}"}}"#), "request_id"),
        text(format!(r#"{{"kind":"device","request_id":"{id}","request\u005fid":"{id}"}}"#), "request_id"),
        text(nested, "expect"),
        fixed(r#"{"kind":"device","request_id":7}"#, "request_id"),
        fixed(r#"{"kind":"device","request_id":null}"#, "request_id"),
        fixed(r#"{"kind":"device","request_id":["a"]}"#, "request_id"),
        fixed(r#"{"kind":"Device","only_pending":true}"#, "kind"),
        fixed(r#"{"kind":"device","only_pending":false}"#, "only_pending"),
        fixed(r#"{"kind":"device","only_pending":"true"}"#, "only_pending"),
        text(format!(r#"{{"kind":"device","only_pending":true,"request_id":"{id}"}}"#), "request_id"),
        text(format!(r#"{{"kind":"device","request_id":"{id}","channel":"telegram"}}"#), "channel"),
        text(format!("{good} {good}"), ""),
        text(format!("{good}x"), ""),
        text(format!("{good}\0"), ""),
        text(format!("\u{feff}{good}"), ""),
        text(format!("{{\"kind\":\"device\",\"request_id\":\"{id}\0\"}}"), "request_id"),
        text(format!(r#"{{"kind":"device","request_id":"{id}\u0000"}}"#), "request_id"),
        ([&good.as_bytes()[..good.len() - 2], b"\xff\"}"].concat(), ""),
        ("[".repeat(20_000).into_bytes(), ""),
        text("{\"expect\":".repeat(6_000), "expect"),
        text(format!(r#"{{"kind":"device","request_id":"{}"}}"#, "x".repeat(60_000)), "request_id"),
    ]
}

#[tokio::test]
async fn a_broken_body_is_refused_by_name() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let before = scene.still().await?;
    let token = scene.sidecar.control_token();
    for (listener, client) in both(&scene) {
        for (body, named) in broken(&scene) {
            let shown = String::from_utf8_lossy(&body[..body.len().min(120)]).into_owned();
            let head = request(token, "/v1/pairing/approve", body.len(), "Connection: close\r\n");
            let answers = exchange(&client, &shown, &[head.as_bytes(), &body].concat()).await?;
            let [answer] = answers.as_slice() else { panic!("{listener}: {shown}: {answers:?}") };
            assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_body"), "{listener}: {shown}");
            let problem: serde_json::Value = serde_json::from_str(&answer.body)?;
            let detail = problem["detail"].as_str().unwrap_or_default();
            assert!(detail.contains(named), "{shown}: {named:?} is not named in {detail:?}");
            assert!(answer.body.len() < 4_096, "{shown}: the answer repeats the body: {} bytes", answer.body.len());
        }
    }
    assert!(scene.still().await? == before);
    Ok(())
}

/// Exactly the limit is read whole; the fault is the field, not the size.
#[tokio::test]
async fn a_body_of_exactly_the_limit_is_read() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let filled = |length: usize| {
        let frame = r#"{"kind":"device","padding":""}"#;
        frame.replace(r#":"""#, &format!(r#":"{}""#, "x".repeat(length - frame.len())))
    };
    for (listener, client) in both(&scene) {
        for (length, status, code) in [(MAX_BODY, 400, "invalid_body"), (MAX_BODY + 1, 413, "body_too_large")] {
            let body = filled(length);
            assert_eq!(body.len(), length);
            let head = request(scene.sidecar.control_token(), "/v1/pairing/approve", length, "Connection: close\r\n");
            let answers = exchange(&client, code, format!("{head}{body}").as_bytes()).await?;
            let got: Vec<(u16, String)> = answers.iter().map(|a| (a.status, a.code())).collect();
            assert_eq!(got, [(status, code.to_owned())], "{listener}");
        }
    }
    Ok(())
}

/// More bytes than announced: they are no second request that has an effect, whatever the first one came to.
#[tokio::test]
async fn what_follows_a_refused_body_is_not_carried_out() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let before = scene.still().await?;
    let token = scene.sidecar.control_token();
    let route = ROUTES.iter().find(|r| r.path == "/v1/pairing/approve").expect("the route");
    let body = scene.effective_body(route).expect("a body").to_string();
    let second = format!("{}{body}", request(token, "/v1/pairing/approve", body.len(), ""));
    let approve = |length, extra| request(token, "/v1/pairing/approve", length, extra);
    for (name, first) in [
        ("invalid body", format!("{}{{}}", approve(2, ""))),
        ("too large", approve(70_000, "")),
        ("chunked", format!("{}0\r\n\r\n", approve(5, "Transfer-Encoding: chunked\r\n"))),
        ("no credential", format!("{}{{}}", request("nobody", "/v1/pairing/approve", 2, ""))),
        ("two hosts", format!("{}{{}}", approve(2, "Host: localhost\r\n"))),
        ("malformed head", "GET /v1/state HTTP/1.1\r\nbroken\r\n\r\n".to_owned()),
    ] {
        for (listener, client) in both(&scene) {
            let answers = exchange(&client, name, format!("{first}{second}").as_bytes()).await?;
            assert_eq!(answers.len(), 1, "{listener}: {name}: {answers:?}");
            assert!(answers[0].status >= 400, "{listener}: {name}");
        }
    }
    assert!(scene.still().await? == before);
    Ok(())
}

/// Refusals that leave a body unread may keep the connection, but never read the body as a request.
#[tokio::test]
async fn an_unread_body_is_never_taken_for_a_request() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let before = scene.still().await?;
    let control = scene.sidecar.control_token();
    let hidden = request(control, "/v1/pairing/approve", 0, "");
    let support = scene.sidecar.support_token();
    for (name, head) in [
        ("forbidden", request(support, "/v1/pairing/approve", hidden.len(), "")),
        ("no such route", request(support, "/v1/nothing", hidden.len(), "")),
        ("wrong method", request(support, "/v1/state", hidden.len(), "")),
        ("misdirected", request(control, "/v1/state", hidden.len(), "").replace("localhost", "evil.example")),
        ("origin", request(control, "/v1/state", hidden.len(), "Origin: a\r\n")),
        ("encoded", request(control, "/v1/state", hidden.len(), "Content-Encoding: br\r\n")),
        ("public with a body", request(control, "/livez", hidden.len(), "").replacen("POST", "GET", 1)),
    ] {
        for (listener, client) in both(&scene) {
            let raw = client.raw(format!("{head}{hidden}").as_bytes(), std::time::Duration::from_millis(500)).await?;
            let answers = answers(&raw)?;
            assert_eq!(answers.len(), 1, "{listener}: {name}: {answers:?}");
        }
    }
    assert!(scene.still().await? == before);
    Ok(())
}

/// Two whole requests at once are two answers in order, and the connection stays.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let mut wire = Wire::open(scene.sidecar.edge_addr()).await?;
    let auth = format!("Host: localhost\r\nAuthorization: Bearer {}\r\n\r\n", scene.sidecar.control_token());
    let text =
        format!("GET /v1/state HTTP/1.1\r\n{auth}GET /v1/nothing HTTP/1.1\r\n{auth}GET /livez HTTP/1.1\r\n{auth}");
    wire.send(text.as_bytes()).await?;
    for wanted in [200, 404, 200] {
        assert_eq!(wire.answer(LIMIT).await?.map(|a| a.status), Some(wanted));
    }
    assert_eq!(wire.get("/v1/state", scene.sidecar.control_token(), LIMIT).await?.map(|a| a.status), Some(200));
    Ok(())
}

#[tokio::test]
async fn a_get_with_a_body_is_refused() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    for route in ROUTES.iter().filter(|r| r.method.as_str() == "GET" && r.guard >= Tier::Public) {
        let head = request(scene.sidecar.control_token(), route.path, 2, "Connection: close\r\n");
        let text = format!("{}{{}}", head.replacen("POST", "GET", 1));
        let answers = exchange(&scene.sidecar.client(), route.path, text.as_bytes()).await?;
        assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [400], "{}", route.path);
    }
    Ok(())
}
