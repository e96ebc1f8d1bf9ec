//! A gateway that prints all it knows before it dies: its own log may have that, but nothing that we show of it.

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::SOON;
use super::secrets::Canaries;
use super::tape::Tape;
use crate::support::machine::Machine;

/// Prints the variables that it is told, and the token of its configuration, each in another sentence, and fails.
pub const SPILLS: &str = r#"
const { readFileSync } = require("node:fs");
const names = ["PROVIDER_KEY", "PASSPHRASE", "SHORT_WORD", "PRIVATE_KEY", "CANARY_PASSED"];
const say = (text) => console.error(text);
for (const name of names) say(`${name}=${process.env[name]}`);
for (const name of names) say(`the value ${process.env[name]} was refused`);
const config = JSON.parse(readFileSync(process.env.OPENCLAW_CONFIG_PATH, "utf8"));
say(`Error: the token ${config.gateway.auth.token} is invalid, and so is "${process.env.PASSPHRASE}"`);
setTimeout(() => process.exit(3), 200);
"#;

#[tokio::test]
async fn what_a_gateway_prints_is_not_repeated() -> anyhow::Result<()> {
    let mut canaries = Canaries::default();
    let key = canaries.plant("provider's key", "sk-canary-provider-93d1f0ab57c2e8d6410b");
    let passphrase = canaries.plant("passphrase", "quartz lantern meadow whisper orchard");
    let word = canaries.plant("short word", "zanzibar");
    let pem =
        canaries.plant("private key", &format!("-----BEGIN KEY-----\n{}\n-----END KEY-----\n", "Ab/+".repeat(16)));
    let passed = canaries.plant("variable passed on", "canary-passed-c7e2094fd1b68a35");
    let token = canaries.plant("gateway token in its file", "canary gateway token of words only");

    let builder = Machine::script(SPILLS)?.setting("LAUNCH_ENV_PASS", "CANARY_PASSED").env("CANARY_PASSED", &passed);
    let place = builder.place();
    std::fs::create_dir(place.gateway_dir())?;
    let config = json!({"gateway": {"auth": {"mode": "token", "token": token}}});
    place.put(
        &place.gateway_dir().join("openclaw.json"),
        &config.to_string(),
        crate::support::machine::GATEWAY_UID,
        0o600,
    )?;
    if crate::support::machine::is_root() {
        let uid = Some(crate::support::machine::GATEWAY_UID);
        std::os::unix::fs::chown(place.gateway_dir(), uid, uid)?;
    }
    let machine = builder.start().await?;
    let (client, tape) = (machine.client(), Tape::default());
    tape.follow_events(&client).await?;
    for (name, value) in
        [("PROVIDER_KEY", &key), ("PASSPHRASE", &passphrase), ("SHORT_WORD", &word), ("PRIVATE_KEY", &pem)]
    {
        let put = tape.put(&client, &format!("/v1/secrets/{name}"), &json!({"value": value})).await?;
        ensure!(put.status == 200, "{}", put.text());
    }
    // A wish that fails, and the repair's own words.
    let put = tape.put(&client, "/v1/desired", &json!({"env": {"ANOTHER": "start"}})).await?;
    ensure!(put.status == 200, "{}", put.text());
    let restart = tape.post(&client, "/v1/gateway/restart?wait_s=1", &json!({})).await?;
    ensure!(restart.status < 500, "{}", restart.text());
    let spilled = |state: &Value| {
        let lines = state["supervisor"]["last_exit"]["last_lines"].to_string();
        lines.contains("SHORT_WORD=") && !lines.contains("SHORT_WORD=undefined")
    };
    machine.wait_state(spilled, 2 * SOON).await.context("the gateway's last lines")?;
    ensure!(machine.output_text().contains(&passphrase), "it printed nothing that could be repeated");
    tape.post(&client, "/v1/gateway/doctor", &json!({"fix": false})).await?;
    tape.read_all(&client).await?;
    let mut wrong = tape.hits(&canaries);
    wrong.extend(canaries.hits(&machine.log_text()).into_iter().map(|hit| format!("our log: {hit}")));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
