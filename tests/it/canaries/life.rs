//! A machine's whole life with a real gateway, all secrets in their places, and everything that is said on the way.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::SOON;
use super::rooms::{GATEWAYS_ENVIRONMENT, Rooms};
use super::scene::{Life, callers};
use super::tape::CommandLines;
use crate::it::durability::table;
use crate::support::device::RemoteDevice;
use crate::support::machine::{GATEWAY_UID, STRANGER_UID, hosted_document, needs_root, proc};

fn document(config: Value) -> Value {
    let mut document = hosted_document();
    document["config"] = config;
    document
}

#[tokio::test]
async fn of_a_machine_shows_no_secret() -> anyhow::Result<()> {
    if !needs_root("canaries::life") {
        return Ok(());
    }
    let command_lines = CommandLines::watch();
    let life = Life::begin().await?;
    life.serves().await?;
    life.tape.follow_events(&life.client("approver's token")).await?;
    life.wait("control token", |state| state["phase"] == "ready").await?;
    ensure!(life.machine.gateway_token()? == life.canaries.value("gateway token in its file"), "it was not taken over");
    a_browser_is_let_in(&life).await?;
    secrets_are_stored(&life).await?;
    callers_make_mistakes(&life).await?;
    life.nothing_shows("after the first start").await?;
    the_token_moves(&life).await?;
    life.nothing_shows("after the second start").await?;
    a_generation_fails(&life).await?;
    credentials_change(&life).await?;
    everything_ends_at_some_time(&life).await?;
    life.nothing_shows("after everything").await?;
    what_is_planted_is_found(&life).await?;
    ensure!(table::unlisted(&life.machine.volume()).is_empty(), "{:?}", table::unlisted(&life.machine.volume()));
    it_stops(life, &command_lines).await
}

async fn a_browser_is_let_in(life: &Life) -> anyhow::Result<()> {
    let client = life.client("control token");
    let mut browser = RemoteDevice::browser(life.machine.port(), life.canaries.value("gateway token in its file"));
    let request = browser.attempt().await?.request_id()?.to_owned();
    let body = json!({"kind": "device", "request_id": request});
    let key = [("idempotency-key", "no-secret-at-all")];
    let path = "/v1/pairing/approve?wait_s=20";
    let approved = life.tape.call(&client, "POST", path, &key, Some(&body.to_string())).await?;
    ensure!(approved.status == 200, "{}", approved.text());
    browser.connect_when_approved(SOON).await?;
    let unknown = json!({"kind": "device", "request_id": "none"});
    let refused = life.tape.post(&client, "/v1/pairing/approve?wait_s=1", &unknown).await?;
    ensure!(refused.status == 404, "{}", refused.text());
    Ok(())
}

async fn secrets_are_stored(life: &Life) -> anyhow::Result<()> {
    let client = life.client("control token");
    for (name, slot) in [
        ("PROVIDER_KEY", "provider's key"),
        ("PASSPHRASE", "passphrase"),
        ("PRIVATE_KEY", "private key"),
        ("GATEWAY_TOKEN", "gateway token by name"),
        ("FORGOTTEN", "passphrase"),
    ] {
        let body = json!({"value": life.canaries.value(slot)});
        let put = life.tape.put(&client, &format!("/v1/secrets/{name}"), &body).await?;
        ensure!(put.status == 200, "{name}: {}", put.text());
    }
    let removed = life.tape.call(&client, "DELETE", "/v1/secrets/FORGOTTEN", &[], None).await?;
    ensure!(removed.status == 200, "{}", removed.text());
    life.tape.read_all(&client).await
}

/// Secrets in places where they do not belong come back in no answer and no log.
async fn callers_make_mistakes(life: &Life) -> anyhow::Result<()> {
    let (client, tape) = (life.client("control token"), &life.tape);
    let secret = life.canaries.value("provider's key");
    let quoted = serde_json::to_string(secret)?;
    for (name, body) in [
        ("MISTAKE", format!("{{\"valeu\": {quoted}}}")),
        ("MISTAKE", format!("{{\"value\": {quoted}")),
        ("MISTAKE", format!("{{\"value\": {quoted}, \"value\": {quoted}}}")),
        ("MISTAKE", format!("{{\"value\": [{quoted}]}}")),
        ("MISTAKE", format!("{{\"value\": \"x\", \"expires_at\": {quoted}}}")),
        ("MISTAKE", quoted.clone()),
        ("MISTAKE", format!("{{\"value\": \"{}\"}}", secret.repeat(1000))),
        ("PATH", format!("{{\"value\": {quoted}}}")),
        ("not-a-name", format!("{{\"value\": {quoted}}}")),
    ] {
        let reply = tape.call(&client, "PUT", &format!("/v1/secrets/{name}"), &[], Some(&body)).await?;
        ensure!((400..500).contains(&reply.status), "{body}: {}", reply.text());
    }
    // What the document says in clear is refused, not repeated.
    for config in
        [json!({"gateway": {"auth": {"token": secret}}}), json!({"channels": {"telegram": {"botToken": secret}}})]
    {
        let reply = tape.put(&client, "/v1/desired?dry_run=true", &document(config)).await?;
        ensure!((400..500).contains(&reply.status), "a secret in clear was taken: {}", reply.text());
    }
    let control = life.canaries.value("control token").to_owned();
    for (path, headers) in [
        (format!("/v1/state?access_token={control}"), vec![]),
        ("/v1/state".to_owned(), vec![("authorization", format!("Basic {control}"))]),
        ("/v1/state".to_owned(), vec![("authorization", format!("Bearer {control}x"))]),
        ("/v1/state".to_owned(), vec![("authorization", control.clone())]),
        ("/v1/state".to_owned(), vec![("x-api-key", control.clone())]),
    ] {
        let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let reply = tape.call(&client, "GET", &path, &headers, None).await?;
        ensure!(reply.status == 200 || (400..500).contains(&reply.status), "{path}: {}", reply.status);
    }
    // Whoever takes it for a part of the path is told the path; the log is not.
    ensure!(client.get(&format!("/v1/{control}")).await?.status == 404);
    Ok(())
}

/// The token is now a stored secret that the configuration names.
async fn the_token_moves(life: &Life) -> anyhow::Result<()> {
    let client = life.client("control token");
    let wishes = document(json!({
        "update": {"checkOnStart": false},
        "gateway": {"auth": {"mode": "token", "token": "${GATEWAY_TOKEN}"}},
    }));
    let dry = life.tape.put(&client, "/v1/desired?dry_run=true", &wishes).await?;
    ensure!(dry.status == 200 && dry.text().contains("gateway.auth.token"), "{}", dry.text());
    let put = life.tape.put(&client, "/v1/desired?apply=restart&wait_s=1", &wishes).await?;
    ensure!(put.status == 200, "{}", put.text());
    let generation = put.json()["generation"].clone();
    let applied = |s: &Value| {
        s["phase"] == "ready" && s["desired"]["generation"] == generation && s["desired"]["status"] == "applied"
    };
    life.wait("control token", applied).await?;
    // Otherwise nothing would be shown for a wrong reason.
    let environment = life.machine.gateway_environment()?;
    for slot in GATEWAYS_ENVIRONMENT {
        let given = environment.values().any(|value| value == life.canaries.value(slot));
        ensure!(given, "{slot} did not reach the gateway");
    }
    ensure!(life.machine.gateway_token()? == "${GATEWAY_TOKEN}", "{}", life.machine.gateway_token()?);
    life.tape.read_all(&client).await
}

async fn a_generation_fails(life: &Life) -> anyhow::Result<()> {
    let client = life.client("control token");
    let wrong = document(json!({
        "update": {"checkOnStart": false},
        "gateway": {"bananas": true, "auth": {"mode": "token", "token": "${GATEWAY_TOKEN}"}},
    }));
    let put = life.tape.put(&client, "/v1/desired?apply=restart&wait_s=1", &wrong).await?;
    ensure!(put.status == 200, "{}", put.text());
    let generation = put.json()["generation"].clone();
    let failed = |s: &Value| {
        s["phase"] == "ready" && s["desired"]["generation"] == generation && s["desired"]["status"] == "failed"
    };
    life.wait("control token", failed).await?;
    life.tape.read_all(&client).await?;
    // On a busy machine it takes longer than anybody waits.
    match life.tape.post(&client, "/v1/gateway/doctor", &json!({"fix": false})).await {
        Ok(doctor) => ensure!(doctor.status == 200, "{}", doctor.text()),
        Err(error) => println!("SKIPPED: the doctor's words: {error:#}"),
    }
    Ok(())
}

/// From now on the other token counts, and the first is nobody's.
async fn credentials_change(life: &Life) -> anyhow::Result<()> {
    let place = life.machine.place();
    let staged = place.root().join("credentials.staged");
    place.put(&staged, &callers(&life.canaries, "second control token").to_string(), 0, 0o600)?;
    std::fs::rename(staged, place.credentials())?;
    life.wait("second control token", |state| state["mode"] == "launch").await?;
    let refused = life.tape.call(&life.client("control token"), "GET", "/v1/state", &[], None).await?;
    ensure!(refused.status == 401, "{}", refused.status);
    // What cannot be read is said without being quoted.
    let broken = format!("[{{\"id\": \"x\", \"sha256\": \"{}\"", life.canaries.value("control token"));
    place.put(&place.credentials(), &broken, 0, 0o600)?;
    let said = |state: &Value| state["findings"].to_string().contains("credentials_unreadable");
    life.wait("second control token", said).await?;
    life.tape.read_all(&life.client("second control token")).await?;
    place.put(&place.credentials(), &callers(&life.canaries, "second control token").to_string(), 0, 0o600)?;
    life.wait("second control token", |state| !said(state)).await.map(drop)
}

async fn everything_ends_at_some_time(life: &Life) -> anyhow::Result<()> {
    let slot = "second control token";
    let daemon = life.machine.daemon_pid().context("a daemon")?;
    proc::signal(daemon, Signal::SIGKILL)?;
    let end = Instant::now() + 2 * SOON;
    while life.machine.daemon_pid().is_none_or(|pid| pid == daemon) {
        ensure!(Instant::now() < end, "no other daemon");
        sleep(Duration::from_millis(20)).await;
    }
    life.serves().await?;
    life.tape.follow_events(&life.client("approver's token")).await?;
    let before = life.machine.gateway_pid().context("a gateway")?;
    let restart = life.tape.post(&life.client(slot), "/v1/gateway/restart?wait_s=1", &json!({})).await?;
    ensure!(restart.status < 400, "{}", restart.text());
    // The next one is killed while it boots.
    let another = |pid: &u32| *pid != before;
    let gateway = loop {
        match life.machine.gateway_pid().filter(another) {
            Some(gateway) => break gateway,
            None => ensure!(Instant::now() < end, "no other gateway"),
        }
        sleep(Duration::from_millis(20)).await;
    };
    proc::signal(gateway, Signal::SIGKILL)?;
    life.wait(slot, |state| state["supervisor"]["last_exit"]["signal"] == "SIGKILL").await?;
    for path in ["/v1/decommission", "/v1/grants/none", "/v1/gateway/handoff", "/v1/sleep"] {
        // Refused or only asked for.
        life.tape.call(&life.client(slot), "POST", path, &[], Some("{\"no\": \"such field\"}")).await?;
    }
    let asked = life.tape.call(&life.client(slot), "POST", "/v1/decommission", &[], None).await?;
    ensure!(asked.status == 202, "{}", asked.text());
    life.tape.read_all(&life.client(slot)).await
}

/// The search itself finds what is there: in any form, and in a file that only the gateway's user can read.
async fn what_is_planted_is_found(life: &Life) -> anyhow::Result<()> {
    let (place, rooms) = (life.machine.place(), Rooms::new(&life.canaries)?);
    let leak = place.gateway_dir().join("leak.txt");
    for (slot, text) in [
        (
            "control token",
            data_encoding::BASE64.encode(format!("a:{}", life.canaries.value("control token")).as_bytes()),
        ),
        ("machine secret", life.canaries.value("machine secret").to_owned()),
    ] {
        place.put(&leak, &text, GATEWAY_UID, 0o600)?;
        let found = rooms.files(&life.machine, GATEWAY_UID).await?;
        ensure!(found.len() == 1 && found[0].contains(slot), "{slot}: {found:?}");
        ensure!(rooms.files(&life.machine, STRANGER_UID).await?.is_empty(), "a stranger reads the gateway's files");
    }
    std::fs::remove_file(leak)?;
    let own = rooms.found_in(GATEWAY_UID, &place.config_path()).await?;
    ensure!(own == ["tenant's key"], "the gateway's own configuration: {own:?}");
    life.tape.note("planted", &format!("Error: {}", life.canaries.value("passphrase")));
    ensure!(life.tape.hits(&life.canaries).len() == 1);
    Ok(())
}

async fn it_stops(life: Life, command_lines: &CommandLines) -> anyhow::Result<()> {
    let Life { mut machine, canaries, tape, .. } = life;
    ensure!(tape.count("event ") > 5 && tape.count("GET ") > 30, "too little was said");
    machine.signal(Signal::SIGTERM)?;
    let status = machine.wait_exit(SOON).await?;
    ensure!(status.code() == Some(0), "{status}");
    let mut wrong = canaries.hits(&machine.log_text());
    wrong.extend(canaries.hits(&command_lines.text()).into_iter().map(|hit| format!("a command line: {hit}")));
    // As root: sealed, hashed or not there at all.
    let rooms = Rooms::new(&canaries)?;
    let ours = rooms.found_in(0, &machine.place().sidecar_dir()).await?;
    wrong.extend(ours.iter().map(|slot| format!("{slot} lies in clear in the sidecar's directory")));
    ensure!(command_lines.text().contains("openclaw-sidecar"), "no command line was seen");
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
