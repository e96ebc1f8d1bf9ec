//! Launch mode: the daemon under all its hardening, the launcher's own goodbyes, and secrets that stay at home.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::{AT_ONCE, SOON};
use crate::support::machine::script::OBEDIENT;
use crate::support::machine::{Builder, Machine, READY, needs_root};
use crate::support::registry::{Does, Received, Registry};

fn told_of(builder: Builder, registry: &Registry) -> Builder {
    registry.settings().iter().fold(builder, |builder, (key, value)| builder.setting(key, value))
}

fn bye(registry: &Registry) -> anyhow::Result<Value> {
    let all = registry.received();
    ensure!(all.iter().filter(|m| !m.json()["bye"].is_null()).count() == 1, "one goodbye");
    Ok(all.last().context("messages")?.json())
}

/// A real gateway, launched: the registry hears of its boot, of who waits, and of its planned end, within the budget
/// also when it hangs.
#[tokio::test]
async fn a_machine_is_heard_of_from_boot_to_goodbye() -> anyhow::Result<()> {
    if !needs_root("a_machine_is_heard_of_from_boot_to_goodbye") {
        return Ok(());
    }
    let registry = Registry::start().await?;
    let secret = "canary0machine0secret0canary0machine0secret";
    let builder = told_of(Machine::real("2026.9.6")?, &registry).setting("MACHINE_SECRET", secret);
    let machine = builder.start().await?;
    let message = registry.wait(0, |m| m.json()["state"]["phase"] == "ready", READY).await?.json();
    let state = &message["state"];
    ensure!(state["mode"] == "launch" && state["gateway"]["starts"] == 1, "{state}");
    ensure!(state["sidecar"]["isolation"] == "separate-uids" && state["desired"]["generation"] == 1, "{state}");
    ensure!(state["host"]["disk_free_mib"].as_u64() > Some(0), "{state}");
    ensure!(registry.received().iter().any(|m| m.json()["state"]["phase"] != "ready"), "the boot was told");

    let (client, value) = (machine.client(), json!({"value": "canary-openai-value"}).to_string().into_bytes());
    let headers = [("content-type", "application/json")];
    let put = client.request("PUT", "/v1/secrets/OPENAI_API_KEY", &headers, Some(value));
    ensure!(put.await?.status == 200);
    let (seen, asked) = (registry.received().len(), Instant::now());
    let mut browser = machine.browser()?;
    let request = browser.attempt().await?.request_id()?.to_owned();
    let shown = |m: &Received| m.json()["state"]["pairing"]["pending"].to_string().contains(&request);
    let message = registry.wait(seen, shown, SOON).await?;
    ensure!(message.at - asked <= AT_ONCE, "{:?}", message.at - asked);

    let token = machine.gateway_token()?;
    registry.does(Does::Hangs);
    let began = Instant::now();
    machine.stop().await?;
    println!("ended {:?} after SIGTERM, with a registry that hangs", began.elapsed());
    ensure!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    let last = bye(&registry)?;
    ensure!(last["bye"]["intent"] == "stop" && last["state"]["phase"] == "draining", "{last}");
    for message in registry.received() {
        let said = format!("{}\n{}", message.head, message.text);
        for canary in [secret, "canary-openai-value", token.as_str()] {
            ensure!(!said.contains(canary), "{canary}: {said}");
        }
    }
    Ok(())
}

/// With every layer of hardening that this kernel has; where it has all of them, they are required.
#[tokio::test]
async fn check_ins_work_under_all_hardening() -> anyhow::Result<()> {
    if !needs_root("check_ins_work_under_all_hardening") {
        return Ok(());
    }
    let registry = Registry::start().await?;
    let machine = told_of(Machine::script(OBEDIENT)?, &registry).start().await?;
    registry.wait(0, |_| true, SOON).await?;
    let hardening = machine.state().await?["sidecar"]["hardening"].clone();
    ensure!(hardening["seccomp"] == "on" && hardening["no_new_privs"] == "on", "{hardening}");
    let builder = machine.stop().await?;
    if hardening["landlock"]["files"] == "on" && hardening["landlock"]["tcp"] == "on" {
        let seen = registry.received().len();
        let machine = builder.setting("HARDENING_MODE", "require").start().await?;
        registry.wait(seen, |_| true, SOON).await?;
        machine.stop().await?;
    } else {
        println!("SKIPPED in part: this kernel has no Landlock for files and ports: {}", hardening["landlock"]);
    }
    Ok(())
}

/// The intent is the launcher's: to sleep, to stop, or, for a gateway that is only restarted, none.
#[tokio::test]
async fn the_goodbye_says_whether_it_sleeps() -> anyhow::Result<()> {
    for (running, sleep) in [(true, true), (false, true), (true, false), (false, false)] {
        let registry = Registry::start().await?;
        let mut machine = told_of(Machine::script(OBEDIENT)?, &registry).start().await?;
        let client = machine.client();
        let starts = |n: u64| move |m: &Received| m.json()["state"]["gateway"]["starts"] == n;
        registry.wait(0, starts(1), SOON).await?;
        client.post("/v1/gateway/restart?wait_s=1", &json!({})).await?;
        machine.wait_state(|s| s["supervisor"]["starts"] == 2, SOON).await?;
        if !running {
            client.post("/v1/gateway/stop?wait_s=10", &json!({})).await?;
            machine.wait_phase("stopped", SOON).await?;
        }
        ensure!(registry.received().iter().all(|m| m.json()["bye"].is_null()), "the machine stays");
        if sleep {
            let answer = client.post("/v1/sleep", &json!({"force": true})).await;
            let answer = answer.with_context(|| format!("running: {running}\n{}", machine.log_text()))?;
            ensure!(answer.status == 200, "{}", answer.text());
        } else {
            machine.signal(Signal::SIGTERM)?;
        }
        machine.wait_exit(SOON).await?;
        let last = bye(&registry)?;
        ensure!(last["bye"]["intent"] == if sleep { "sleep" } else { "stop" }, "{running} {sleep}: {last}");
    }
    Ok(())
}
