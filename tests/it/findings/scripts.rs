//! Gateways that end as told: stand-ins, because a real one cannot be made to in a moment.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::{finding, found, gone};
use crate::support::machine::script::{EXITS, INVALID, OBEDIENT};
use crate::support::machine::{Machine, SIDECAR_UID};

const SOON: Duration = Duration::from_secs(30);
/// Five ends with a second, two, four and eight between them, a quarter more or less.
const FIVE_ENDS: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_crash_loop_shows_how_it_ended() -> anyhow::Result<()> {
    let machine = Machine::script(EXITS)?.start().await?;
    let evidence = ["exit=3", "signal=none", "oom=false", "said=boom: the database is gone"];
    let one = found(&machine.client(), "gateway_crash_loop", &evidence, FIVE_ENDS).await?;
    ensure!(one["severity"] == "error", "{one}");
    machine.stop().await.map(drop)
}

#[tokio::test]
async fn a_refused_configuration_names_the_member() -> anyhow::Result<()> {
    let machine = Machine::script(INVALID)?.start().await?;
    found(&machine.client(), "gateway_config_invalid", &["exit=1", "path=gateway.bananas"], SOON).await?;
    machine.stop().await.map(drop)
}

/// The package changes between two starts, then the tenant ends.
#[tokio::test]
async fn another_version_is_told() -> anyhow::Result<()> {
    let package = |version: &str| json!({"name": "openclaw", "version": version}).to_string();
    let builder = Machine::script(OBEDIENT)?;
    let path = builder.place().programs().join("package.json");
    builder.place().put(&path, &package("2026.6.11"), 0, 0o644)?;
    let machine = builder.start().await?;
    let runs = |state: &Value| state["supervisor"]["version"] == "2026.6.11" && state["phase"] == "starting";
    let state = machine.wait_state(runs, SOON).await?;
    ensure!(finding(&state, "version_changed").is_none(), "{state}");
    let builder = machine.stop().await?;
    builder.place().put(&path, &package("2026.9.6"), 0, 0o644)?;
    let machine = builder.start().await?;
    let client = machine.client();
    found(&client, "version_changed", &["was=2026.6.11", "is=2026.9.6"], SOON).await?;
    found(&client, "seed_notes", &[], SOON).await?;
    let builder = machine.stop().await?;
    let mark = builder.place().sidecar_dir().join("decommissioned");
    builder.place().put(&mark, "", SIDECAR_UID, 0o600)?;
    let machine = builder.start().await?;
    found(&machine.client(), "decommissioned", &[], SOON).await?;
    gone(&machine.client(), "version_changed", SOON).await?;
    machine.stop().await.map(drop)
}

#[tokio::test]
async fn a_first_document_that_is_none() -> anyhow::Result<()> {
    let machine = Machine::script(OBEDIENT)?.setting("LAUNCH_DESIRED", "{").start().await?;
    found(&machine.client(), "desired_unreadable", &[], SOON).await?;
    machine.stop().await.map(drop)
}
