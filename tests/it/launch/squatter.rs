//! Somebody else listens on the gateway's port, before the boot and during a restart, and gets no credential.

use anyhow::ensure;
use serde_json::json;

use super::{NEWEST, SOON, last_exit, starts, supervisor_says, until};
use crate::support::device::Operator;
use crate::support::machine::{GATEWAY_UID, Machine, READY, STRANGER_UID, Squatter, needs_root};

/// In every connect request.
const INTRODUCED: &str = "\"method\":\"connect\"";

#[tokio::test]
async fn a_listener_in_the_gateways_place_learns_no_token() -> anyhow::Result<()> {
    if !needs_root("launch::squatter") {
        return Ok(());
    }
    let builder = Machine::real(NEWEST)?;
    let stranger = Squatter::start(builder.place(), STRANGER_UID, "stranger")?;
    stranger.wait_bound(SOON).await?;
    it_would_notice(builder.place().port(), &stranger).await?;
    let machine = builder.start().await?;
    explained_and_nothing_told(&machine, &stranger, 0).await?;
    stranger.leave().await?;
    machine.wait_phase("ready", READY).await?;

    // The same user, and so the harder case: the tenant's agent waits for its moment.
    let agent = Squatter::start(machine.place(), GATEWAY_UID, "agent")?;
    let before = starts(&machine.state().await?);
    let client = machine.client();
    let restart = tokio::spawn(async move { client.post("/v1/gateway/restart?wait_s=1", &json!({})).await });
    agent.wait_bound(READY).await?;
    explained_and_nothing_told(&machine, &agent, before).await?;
    // A daemon that knows nothing of before believes it as little.
    machine.kill_daemon().await?;
    let before = starts(&machine.state().await?);
    explained_and_nothing_told(&machine, &agent, before).await?;
    agent.leave().await?;
    machine.wait_phase("ready", READY).await?;
    restart.await??;
    ensure!(machine.pids().overlaps().is_empty(), "{:?}", machine.pids().overlaps());
    Ok(())
}

/// A client that trusts whoever listens gives itself away.
async fn it_would_notice(port: u16, squatter: &Squatter) -> anyhow::Result<()> {
    let trusting = tokio::spawn(async move { Operator::connect(port, "given-to-anybody").await.map(drop) });
    let told = || squatter.record().contains("given-to-anybody") && squatter.record().contains(INTRODUCED);
    until("the squatter hears a token", SOON, told).await?;
    trusting.abort();
    squatter.forget()
}

/// The gateway tried once more and ended; the state says why, and the squatter was told nothing.
async fn explained_and_nothing_told(machine: &Machine, squatter: &Squatter, before: u64) -> anyhow::Result<()> {
    let port = machine.port().to_string();
    let explained = |s: &serde_json::Value| {
        let tried = starts(s) > before;
        tried && s["phase"] != "ready" && !last_exit(s).is_null() && supervisor_says(s, &["in use", &port])
    };
    let state = machine.wait_state(explained, READY).await?;
    ensure!(last_exit(&state)["code"].as_i64().is_some_and(|code| code != 0), "{state}");
    let (record, token) = (squatter.record(), machine.gateway_token()?);
    ensure!(!record.contains(&token), "the squatter has the gateway's token");
    ensure!(!record.contains(INTRODUCED), "the squatter was introduced to:\n{record}");
    Ok(())
}
