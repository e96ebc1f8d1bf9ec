//! A configuration the gateway refuses, whoever put it there: it comes back by itself with what worked.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::{SOON, desired, document, done, starts, wish};
use crate::support::machine::{Machine, READY};

async fn poisoned(version: &str) -> anyhow::Result<()> {
    let machine = Machine::real(version)?.start().await?;
    machine.wait_phase("ready", READY).await?;
    let token = machine.gateway_token()?;
    machine.place().put(&machine.place().gateway_dir().join("tenant.txt"), "mine", 12_001, 0o600)?;

    let mut config = machine.config()?;
    config["gateway"]["bananas"] = json!(true);
    config["logging"] = json!({"level": "debug"});
    comes_back(&machine, &config.to_string(), "an unknown key").await?;
    ensure!(machine.config()?["gateway"]["bananas"].is_null(), "{}", machine.config()?);

    comes_back(&machine, "{ this is no JSON", "a broken file").await?;
    ensure!(machine.gateway_token()? == token, "every paired browser and every link would have to be made anew");
    ensure!(machine.place().gateway_dir().join("tenant.txt").exists());

    a_refused_generation_is_rolled_back(&machine).await?;
    ensure!(machine.gateway_token()? == token);
    ensure!(machine.pids().overlaps().is_empty(), "{:?}", machine.pids().overlaps());
    machine.stop().await?;
    Ok(())
}

async fn comes_back(machine: &Machine, poison: &str, what: &str) -> anyhow::Result<()> {
    let client = machine.client();
    machine.place().poison_config(poison)?;
    let before = starts(&machine.state().await?);
    let asked = client.post("/v1/gateway/restart?wait_s=1", &json!({})).await?;
    println!("{what}: restart answered {}", asked.status);
    let again = |s: &Value| s["phase"] == "ready" && starts(s) > before;
    machine.wait_state(again, READY).await.with_context(|| what.to_owned())?;
    Ok(())
}

/// Set while the gateway is down, so that it cannot be asked beforehand.
async fn a_refused_generation_is_rolled_back(machine: &Machine) -> anyhow::Result<()> {
    let client = machine.client();
    done(&client, "/v1/gateway/stop", json!({})).await?;
    machine.wait_phase("stopped", SOON).await?;
    let good = desired(&client).await?;
    let wrong = document(json!({"config": {"update": {"checkOnStart": false}, "gateway": {"bananas": true}}}));
    let generation = wish(&client, "", &wrong).await?;
    ensure!(desired(&client).await?["status"] == "at_next_start");
    let started = client.post("/v1/gateway/start?wait_s=1", &json!({})).await?;
    println!("start answered {}", started.status);
    let state = machine.wait_phase("ready", READY).await?;
    ensure!(
        state["desired"]["generation"] == generation && state["desired"]["status"] == "failed",
        "{}",
        state["desired"]
    );
    ensure!(state["supervisor"]["generation"] == good["generation"], "{}", state["supervisor"]);
    let now = desired(&client).await?;
    let error = now["error"].as_str().unwrap_or_default();
    // 2026.6.11 names the section, not the key.
    ensure!(now["status"] == "failed" && error.contains("gateway: "), "{now}");
    let entry = now["history"].as_array().into_iter().flatten().find(|e| e["generation"] == generation);
    ensure!(entry.is_some_and(|e| e["status"] == "failed" && e["set_by"] == "control"), "{now}");
    ensure!(machine.config()?["gateway"]["bananas"].is_null());
    Ok(())
}

#[tokio::test]
async fn on_2026_9_6() {
    poisoned("2026.9.6").await.unwrap();
}

#[tokio::test]
async fn on_2026_6_11() {
    poisoned("2026.6.11").await.unwrap();
}

#[tokio::test]
async fn on_2026_4_9() {
    poisoned("2026.4.9").await.unwrap();
}
