//! Every captured refusal, provoked on the fake: the same error, the same close.

use serde_json::{Value, json};

use super::wire::{Key, REMOTE, Seen, Wire, browser, operator};
use crate::support::fake::codec::now_ms;
use crate::support::fake::{DeviceSpec, Fake, Options, Refusal, Times, Version};

#[tokio::test]
async fn refusals_are_the_captured_ones() -> anyhow::Result<()> {
    for version in Version::ALL {
        for captured in version.captured_refusals() {
            let case = captured["case"].as_str().expect("a case has a name").to_owned();
            let (error, close) = provoke(version, &case).await.map_err(|cause| cause.context(case.clone()))?;
            let frames = captured["frames"].as_array().expect("frames");
            let answered = frames.iter().find(|entry| entry["dir"] == "in");
            let expected = answered.map_or(Value::Null, |entry| entry["frame"]["error"].clone());
            assert_eq!(neutral(&error), neutral(&expected), "{version:?} {case}");
            let frame = &frames.last().expect("a close")["frame"];
            let reason = frame["reason"].as_str().unwrap_or_default();
            let expected = (frame["code"].as_u64().unwrap_or_default(), without_id(reason).to_owned());
            let Seen::Close(code, reason) = close else { panic!("{version:?} {case}: {close:?}") };
            assert_eq!((u64::from(code), without_id(&reason).to_owned()), expected, "{version:?} {case}");
        }
    }
    Ok(())
}

/// Ids and the scopes a recording happened to ask for differ; that they are there does not.
fn neutral(error: &Value) -> Value {
    let mut error = error.clone();
    if let Some(details) = error.get_mut("details").and_then(Value::as_object_mut) {
        for key in ["requestId", "deviceId", "requestedScopes", "approvedScopes"] {
            details.entry(key).and_modify(|value| *value = json!("…"));
        }
    }
    if let Some(after) = error.get_mut("retryAfterMs") {
        *after = json!("…");
    }
    error
}

fn without_id(reason: &str) -> &str {
    reason.split(" (requestId").next().unwrap_or(reason)
}

async fn provoke(version: Version, case: &str) -> anyhow::Result<(Value, Seen)> {
    let allowed_origins = Some(vec!["https://acme.example".to_owned()]);
    let fake = Fake::start_with(version, Options { allowed_origins, ..Options::default() }).await;
    let key = Key::new();
    let headers = headers_of(case);
    if case == "not-json" {
        let mut wire = Wire::open(&fake, &headers).await?;
        wire.send("hello".into()).await?;
        return Ok((Value::Null, wire.end().await?));
    }
    prepare(&fake, &key, case);
    let mut wire = Wire::open(&fake, &headers).await?;
    let params = ask(&fake, &wire, &key, case);
    let method = if case == "not-connect" { "health" } else { "connect" };
    let answer = wire.call(method, params).await?;
    Ok((answer["error"].clone(), wire.end().await?))
}

fn headers_of(case: &str) -> Vec<(&'static str, &'static str)> {
    match case {
        "not-paired"
        | "scope-upgrade"
        | "role-upgrade"
        | "metadata-upgrade"
        | "device-token-mismatch"
        | "device-token-property"
        | "control-ui-without-device" => REMOTE.to_vec(),
        "node-not-paired" => vec![REMOTE[0]],
        "origin-not-allowed" => vec![("origin", "https://evil.example")],
        _ => Vec::new(),
    }
}

/// What has to be true of the device before it connects.
fn prepare(fake: &Fake, key: &Key, case: &str) {
    if case == "rate-limited" {
        fake.reject_connect(Refusal::rate_limited(299_994), Times::Next(1));
    }
    if !["scope-upgrade", "role-upgrade", "metadata-upgrade"].contains(&case) {
        return;
    }
    let device_id = key.device_id();
    let scopes = ["operator.read", "operator.pairing"];
    let paired = DeviceSpec { device_id: device_id.clone(), ..DeviceSpec::browser().with_scopes(&scopes) };
    fake.approve_out_of_band(&fake.raise(&paired));
    if case == "role-upgrade" {
        let revoked = fake.with(|core| core.world.revoke_token(&device_id, "operator"));
        revoked.expect("a token to revoke");
    }
}

fn ask(fake: &Fake, wire: &Wire, key: &Key, case: &str) -> Value {
    let token = fake.token();
    let mut params = match case {
        "not-paired" | "scope-upgrade" => browser(&token, &["operator.read", "operator.admin"]),
        "role-upgrade" | "metadata-upgrade" | "origin-not-allowed" => browser(&token, &["operator.read"]),
        "control-ui-without-device" => return browser(&token, &["operator.read"]),
        "device-token-mismatch" | "device-token-property" => {
            let mut params = browser(&token, &["operator.read"]);
            params["auth"] = json!({"deviceToken": "not-a-token"});
            params
        }
        _ => operator(&token),
    };
    match case {
        "unknown-client-id" => params["client"]["id"] = json!("my-sidecar"),
        "unknown-client-mode" => params["client"]["mode"] = json!("operator"),
        "unexpected-property" => params["foo"] = json!(1),
        "token-mismatch" | "token-mismatch-with-device" => params["auth"]["token"] = json!("nope"),
        "no-credentials" => drop(params.as_object_mut().expect("an object").remove("auth")),
        "protocol-mismatch" => {
            let wrong = if fake.version().protocol() == 3 { 4 } else { 3 };
            (params["minProtocol"], params["maxProtocol"]) = (json!(wrong), json!(wrong));
        }
        "invalid-role" => params["role"] = json!("emperor"),
        "metadata-upgrade" => params["client"]["platform"] = json!("Win32"),
        "node-without-device" => params["role"] = json!("node"),
        "node-not-paired" => {
            params["client"] = json!({"id": "node-host", "mode": "node", "version": "1", "platform": "linux"});
            (params["role"], params["scopes"]) = (json!("node"), json!([]));
        }
        "token-missing" => {
            params["client"] = json!({"id": "cli", "mode": "cli", "version": "0.1.0", "platform": "linux"});
            params.as_object_mut().expect("an object").remove("auth");
        }
        _ => {}
    }
    let bare = ["token-mismatch", "no-credentials", "node-without-device", "unexpected-property"];
    if bare.contains(&case) {
        return params;
    }
    sign(wire, key, case, params)
}

fn sign(wire: &Wire, key: &Key, case: &str, mut params: Value) -> Value {
    let (mut signed_at, mut nonce) = (wire.ts, wire.nonce.as_str());
    match case {
        "signature-expired" => signed_at = now_ms() - 300_000,
        "nonce-mismatch" => nonce = "abc",
        _ => {}
    }
    params["device"] = key.sign(&params, "v2", signed_at, nonce);
    match case {
        "signature-invalid" => {
            params["device"]["signature"] = key.sign(&params, "v1", signed_at, nonce)["signature"].take()
        }
        "device-id-mismatch" => params["device"]["id"] = json!("0".repeat(64)),
        _ => {}
    }
    params
}
