//! Beside a real gateway that somebody else started: everything its visitors and its owner can get wrong, in one boot.

use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::{LOOKED, finding, found, gone};
use crate::support::client::Client;
use crate::support::device::{Attempt, RemoteDevice};
use crate::support::gateway::{Gateway, GatewayOptions};
use crate::support::sidecar::{Builder, Sidecar};

const NEWEST: &str = "2026.9.6";
const SOON: Duration = Duration::from_secs(30);
/// Somebody waits a minute, and a channel is looked at every half.
const A_MINUTE: Duration = Duration::from_secs(120);
const TELEGRAM: &str = "123456:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

struct Lab {
    gateway: Gateway,
    sidecar: Sidecar,
    client: Client,
    _files: tempfile::TempDir,
}

#[tokio::test]
async fn a_gateway_with_everything_wrong_around_it() -> anyhow::Result<()> {
    let gateway = gateway().await?;
    let hidden = visitors_come(&gateway).await?;
    let lab = beside(gateway).await?;
    known_at_once(&lab).await?;
    visitors_came_in_all_wrong_ways(&lab, &hidden).await?;
    a_change_is_passed_over(&lab).await?;
    let (browser, node) = they_ask(&lab).await?;
    it_falls_silent(&lab).await?;
    who_waits_is_shown(&lab).await?;
    somebody_else_approves(&lab, browser, node).await?;
    authentication_is_turned_off(&lab).await?;
    the_file_is_broken(&lab).await?;
    lab.sidecar.stop().await.map(drop)
}

#[tokio::test]
async fn without_a_gateway_that_is_said() -> anyhow::Result<()> {
    let mut gateway = Gateway::prepare(NEWEST, GatewayOptions::default())?;
    let builder = Sidecar::builder().gateway_config(gateway.port(), &gateway.config_path());
    let sidecar = builder.env("OPENCLAW_SIDECAR_GATEWAY_TOKEN", gateway.token()).start().await?;
    let client = sidecar.client();
    found(&client, "gateway_absent", &[&format!("port={}", gateway.port())], A_MINUTE).await?;
    gateway.launch().await?;
    gone(&client, "gateway_absent", LOOKED).await?;
    sidecar.stop().await.map(drop)
}

async fn gateway() -> anyhow::Result<Gateway> {
    let telegram = json!({"channels": {"telegram": {"enabled": true, "botToken": TELEGRAM, "dmPolicy": "pairing"}}});
    let options = GatewayOptions {
        trusted_proxies: Vec::new(),
        config: telegram,
        env: vec![("OPENCLAW_SKIP_CHANNELS".to_owned(), "0".to_owned())],
        ..GatewayOptions::default()
    };
    Gateway::start(NEWEST, options).await
}

async fn beside(gateway: Gateway) -> anyhow::Result<Lab> {
    let files = tempfile::tempdir()?;
    let builder = Sidecar::builder().gateway_config(gateway.port(), &gateway.config_path());
    let builder = with_certificate(builder, files.path(), 10)?
        // As on a machine that was meant to launch, whose platform put the gateway in the entrypoint's place.
        .env("OPENCLAW_SIDECAR_LAUNCH_VOLUME", files.path().to_str().expect("a UTF-8 path"))
        .env("OPENCLAW_SIDECAR_GATEWAY_TOKEN", gateway.token())
        .env("FLY_MACHINE_ID", "d8d9e0a1");
    let sidecar = builder.start().await?;
    let client = sidecar.client();
    client.wait_until("/v1/state", |state| state["phase"] == "ready", SOON).await?;
    Ok(Lab { gateway, sidecar, client, _files: files })
}

/// Gives it a certificate that ends in so many days and was made for ten times as long: `cert.pem` and `key.pem` in
/// `dir`. Clients of the test look for it where a self-signed one would lie.
pub(super) fn with_certificate(builder: Builder, dir: &Path, days: u32) -> anyhow::Result<Builder> {
    let pair = rcgen::KeyPair::generate()?;
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()])?;
    params.subject_alt_names.push(rcgen::SanType::IpAddress([127, 0, 0, 1].into()));
    let (now, day) = (std::time::SystemTime::now(), Duration::from_secs(24 * 3600));
    params.not_before = (now - day * days * 9).into();
    params.not_after = (now + day * days).into();
    let text = |name: &str| dir.join(name).to_str().expect("a UTF-8 path").to_owned();
    let certificate = params.self_signed(&pair)?.pem();
    std::fs::create_dir(dir.join("state"))?;
    for (name, content) in
        [("cert.pem", &certificate), ("key.pem", &pair.serialize_pem()), ("state/tls.crt", &certificate)]
    {
        std::fs::write(dir.join(name), content)?;
    }
    let builder = builder.state_dir(&dir.join("state")).env("OPENCLAW_SIDECAR_TLS_CERT_FILE", &text("cert.pem"));
    Ok(builder.env("OPENCLAW_SIDECAR_TLS_KEY_FILE", &text("key.pem")))
}

async fn known_at_once(lab: &Lab) -> anyhow::Result<()> {
    found(&lab.client, "certificate_expiring", &["not_after=20"], SOON).await?;
    found(&lab.client, "launched_around", &["mode=attach", "configured=launch", "platform=fly", "pid1="], SOON).await?;
    Ok(())
}

/// Without forwarding headers, with headers that nobody trusts, and from a page that is not allowed: before the sidecar
/// is there, which finds it in the log. Returns the device that was let in.
async fn visitors_come(gateway: &Gateway) -> anyhow::Result<RemoteDevice> {
    let browser = || RemoteDevice::browser(gateway.port(), gateway.token());
    let mut hidden = browser();
    hidden.forwarded_for = None;
    ensure!(matches!(hidden.attempt().await?, Attempt::Connected { .. }), "the gateway takes it for a local one");
    let refused = browser().attempt().await?;
    ensure!(matches!(&refused, Attempt::Refused { code, .. } if code == "HTTP_403"), "{refused:?}");
    let mut elsewhere = browser();
    elsewhere.forwarded_for = None;
    elsewhere.origin = Some("https://evil.example".to_owned());
    let refused = elsewhere.attempt().await?;
    ensure!(matches!(&refused, Attempt::Refused { code, .. } if code.contains("ORIGIN")), "{refused:?}");
    Ok(hidden)
}

async fn visitors_came_in_all_wrong_ways(lab: &Lab, hidden: &RemoteDevice) -> anyhow::Result<()> {
    let id = format!("device_id={}", hidden.device_id());
    found(&lab.client, "proxy_makes_everyone_local", &[&id, "via=silent", "source=gateway"], LOOKED).await?;
    found(&lab.client, "origin_not_allowed", &["origin=https://evil.example", "source=log"], LOOKED).await?;
    found(&lab.client, "forwarding_headers_untrusted", &["source=log", "peer=127.0.0.1"], LOOKED).await?;
    // What says so is a log that the tenant can write, so it is no error.
    let state = lab.client.get("/v1/state").await?.json();
    for code in ["origin_not_allowed", "forwarding_headers_untrusted"] {
        ensure!(finding(&state, code).is_some_and(|one| one["severity"] == "warning"), "{state}");
    }
    Ok(())
}

/// The file gets a member that no gateway knows; the running one passes the change over. Corrected, and with a trusted
/// proxy, nothing is left of either.
async fn a_change_is_passed_over(lab: &Lab) -> anyhow::Result<()> {
    let mut config = lab.gateway.read_config()?;
    let mut wrong = config.clone();
    wrong["gateway"]["bananas"] = json!(1);
    lab.gateway.write_config(&wrong)?;
    found(&lab.client, "config_change_refused", &["path=gateway.bananas", "source=log"], LOOKED).await?;
    config["gateway"]["trustedProxies"] = json!(["127.0.0.1"]);
    config["gateway"]["controlUi"]["allowedOrigins"] = json!(["https://acme.example", "https://evil.example"]);
    lab.gateway.write_config(&config)?;
    for code in ["config_change_refused", "forwarding_headers_untrusted", "origin_not_allowed"] {
        gone(&lab.client, code, LOOKED).await?;
    }
    Ok(())
}

/// A browser from outside, and a node whose device is let in at once and whose commands are not.
async fn they_ask(lab: &Lab) -> anyhow::Result<(RemoteDevice, RemoteDevice)> {
    let mut browser = RemoteDevice::browser(lab.gateway.port(), lab.gateway.token());
    browser.attempt().await?.request_id()?;
    let mut node = RemoteDevice::node(lab.gateway.port(), lab.gateway.token());
    let request = node.attempt().await?.request_id()?.to_owned();
    let shown = |body: &Value| body["pending"].to_string().contains(&request);
    lab.client.wait_until("/v1/pairing", shown, SOON).await?;
    let reply = lab.client.post("/v1/pairing/approve", &json!({"kind": "device", "request_id": request})).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    node.connect_when_approved(SOON).await?;
    let waits = |body: &Value| body["pending"].as_array().is_some_and(|all| all.iter().any(|p| p["kind"] == "node"));
    lab.client.wait_until("/v1/pairing", waits, SOON).await?;
    Ok((browser, node))
}

/// Stopped by a signal: it still accepts connections.
async fn it_falls_silent(lab: &Lab) -> anyhow::Result<()> {
    lab.gateway.signal("STOP")?;
    let silent = found(&lab.client, "gateway_mute", &["reason="], Duration::from_secs(60)).await;
    lab.gateway.signal("CONT")?;
    silent?;
    gone(&lab.client, "gateway_mute", SOON).await?;
    Ok(())
}

async fn who_waits_is_shown(lab: &Lab) -> anyhow::Result<()> {
    found(&lab.client, "pairing_required", &["waiting=1", "client=openclaw-control-ui", "from=203.0.113.9"], A_MINUTE)
        .await?;
    found(&lab.client, "node_commands_unapproved", &["waiting=1", "request_id="], A_MINUTE).await?;
    found(&lab.client, "channel_down", &["channel=telegram/default", "source=gateway"], A_MINUTE).await?;
    let state = lab.client.get("/v1/state").await?.text();
    ensure!(!state.contains(lab.gateway.token()) && !state.contains(TELEGRAM), "a secret is shown");
    Ok(())
}

/// Somebody else with the token approves; the sidecar approves the node's commands. Nobody waits any more.
async fn somebody_else_approves(lab: &Lab, mut browser: RemoteDevice, _node: RemoteDevice) -> anyhow::Result<()> {
    let request = browser.attempt().await?.request_id()?.to_owned();
    let mut operator = crate::support::device::Operator::connect(lab.gateway.port(), lab.gateway.token()).await?;
    operator.approve(&request).await?;
    let id = format!("device_id={}", browser.device_id());
    found(&lab.client, "out_of_band_approval", &[&id, "client=openclaw-control-ui"], SOON).await?;
    gone(&lab.client, "pairing_required", SOON).await?;
    let pairing = lab.client.get("/v1/pairing").await?.json();
    let node = pairing["pending"].as_array().into_iter().flatten().find(|p| p["kind"] == "node").cloned();
    let body = json!({"kind": "node", "request_id": node.unwrap_or_default()["request_id"]});
    let reply = lab.client.post("/v1/pairing/approve", &body).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    gone(&lab.client, "node_commands_unapproved", SOON).await?;
    let reply =
        lab.client.post("/v1/pairing/revoke", &json!({"kind": "device", "device_id": browser.device_id()})).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    gone(&lab.client, "out_of_band_approval", SOON).await?;
    Ok(())
}

async fn authentication_is_turned_off(lab: &Lab) -> anyhow::Result<()> {
    let mut config = lab.gateway.read_config()?;
    config["gateway"]["auth"] = json!({"mode": "none"});
    lab.gateway.write_config(&config)?;
    let one = found(&lab.client, "gateway_auth_off", &["gateway.auth.mode=none"], LOOKED).await?;
    ensure!(one["severity"] == "error", "{one}");
    Ok(())
}

async fn the_file_is_broken(lab: &Lab) -> anyhow::Result<()> {
    std::fs::write(lab.gateway.config_path(), "{\n  \"gateway\": {\n")?;
    found(&lab.client, "gateway_config_invalid", &["line", "source=config"], LOOKED).await?;
    Ok(())
}
