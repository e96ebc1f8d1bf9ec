//! The end of a tenant: two persons have to want it, nothing of the tenant stays, and nothing starts again.

use anyhow::ensure;
use serde_json::{Value, json};

use super::{SOON, found_below, put, until};
use crate::support::client::{Client, Reply};
use crate::support::machine::script::OBEDIENT;
use crate::support::machine::{Machine, proc};

const PATH: &str = "/v1/decommission";
const SECRET: &str = "sk-decommission-51c7";

#[tokio::test]
async fn it_takes_two_persons_and_leaves_nothing() -> anyhow::Result<()> {
    let machine = Machine::script(OBEDIENT)?.approver().start().await?;
    let tenant = machine.place().gateway_dir().join("tenant.txt");
    until("the tenant wrote something", SOON, || tenant.exists()).await?;
    let client = machine.client();
    let stored = put(&client, "/v1/secrets/TENANT_KEY", None, &json!({"value": SECRET})).await?;
    ensure!(stored.status == 200, "{}", stored.text());

    let grant = asked_for(&machine).await?;
    nobody_alone_can_grant(&machine, &grant).await?;
    ensure!(tenant.exists() && machine.gateway_pid().is_some(), "before anybody agreed");

    let agreed = call(&machine.approver_client(), &format!("/v1/grants/{grant}")).await?;
    ensure!(agreed.status == 200, "{} {}", agreed.status, agreed.text());
    ensure!(tenant.exists(), "an agreement alone does nothing");
    // The agreement is for the one who asked.
    let other = call(&machine.approver_client(), PATH).await?;
    ensure!(other.status != 200 && tenant.exists(), "{} {}", other.status, other.text());
    let acted = call(&client, PATH).await?;
    ensure!(acted.status == 200, "{} {}", acted.status, acted.text());
    everything_is_gone(&machine).await?;
    it_stays_stopped(machine).await
}

/// Neither call takes a body.
async fn call(client: &Client, path: &str) -> anyhow::Result<Reply> {
    client.request("POST", path, &[], None).await
}

/// The first call has no effect but the question.
async fn asked_for(machine: &Machine) -> anyhow::Result<String> {
    let read_only = call(&machine.support_client(), PATH).await?;
    ensure!(read_only.status == 403, "{} {}", read_only.status, read_only.text());
    let asked = call(&machine.client(), PATH).await?;
    let body = asked.json();
    ensure!(asked.status == 202 && body["expires_at"].is_string(), "{} {body}", asked.status);
    Ok(body["grant"].as_str().expect("an id").to_owned())
}

async fn nobody_alone_can_grant(machine: &Machine, grant: &str) -> anyhow::Result<()> {
    let path = format!("/v1/grants/{grant}");
    for (who, client) in [("the caller", machine.client()), ("support", machine.support_client())] {
        let refused = call(&client, &path).await?;
        ensure!(matches!(refused.status, 403 | 409), "{who}: {} {}", refused.status, refused.text());
    }
    let unknown = call(&machine.approver_client(), "/v1/grants/no-such-grant").await?;
    ensure!(unknown.status == 404, "{} {}", unknown.status, unknown.text());
    let again = call(&machine.client(), PATH).await?;
    ensure!(again.status == 202, "asking twice is no agreement: {} {}", again.status, again.text());
    Ok(())
}

async fn everything_is_gone(machine: &Machine) -> anyhow::Result<()> {
    machine.wait_phase("stopped", SOON).await?;
    ensure!(machine.gateway_pid().is_none());
    let left = std::fs::read_dir(machine.place().gateway_dir()).map(Iterator::count).unwrap_or_default();
    ensure!(left == 0, "{left} files of the tenant are left");
    let secrets = machine.support_client().get("/v1/secrets").await?.json();
    ensure!(secrets["secrets"].as_array().is_some_and(Vec::is_empty), "{secrets}");
    ensure!(found_below(&machine.volume(), "TENANT_KEY").is_none_or(|path| path.contains("audit")), "a secret is left");
    // Who did it stays on record.
    let audit = machine.support_client().get("/v1/audit?limit=50").await?.text();
    ensure!(audit.contains("decommission") && audit.contains("second"), "{audit}");
    Ok(())
}

async fn it_stays_stopped(machine: Machine) -> anyhow::Result<()> {
    machine.kill_daemon().await?;
    machine.wait_phase("stopped", SOON).await?;
    let machine = machine.stop().await?.start().await?;
    let stays = |s: &Value| s["phase"] == "stopped" && s["supervisor"]["starts"] == 0;
    machine.wait_state(stays, SOON).await?;
    let refused = machine.client().post("/v1/gateway/start?wait_s=1", &json!({})).await?;
    ensure!(refused.status >= 400, "{} {}", refused.status, refused.text());
    machine.wait_state(stays, SOON).await?;
    ensure!(machine.pids().gateways().is_empty() && proc::children(machine.launcher_pid()).len() == 1);
    Ok(())
}
