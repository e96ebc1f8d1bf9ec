//! The tenant's agent, as the gateway's user, against what is the sidecar's: all of it is refused by the kernel.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use serde_json::json;

use super::put;
use crate::support::machine::script::OBEDIENT;
use crate::support::machine::{GATEWAY_UID, Machine, Ran, needs_root, proc, run_as};

/// Connects to the UNIX socket it is given, asks for the state, and prints what comes.
const ASK: &str = r#"
const socket = require("node:net").connect(process.argv[1]);
socket.on("error", (error) => console.log(error.code));
socket.on("data", (data) => console.log(data.toString()));
socket.on("connect", () => socket.write("GET /v1/state HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"));
setTimeout(() => socket.destroy(), 3000).unref();
"#;

async fn agent(program: &str, args: &[&str]) -> anyhow::Result<Ran> {
    run_as(GATEWAY_UID, program, args).await
}

/// Fails, and for lack of permission: not because there is nothing to be had.
async fn refused(program: &str, args: &[&str]) -> anyhow::Result<()> {
    let ran = agent(program, args).await?;
    let denied = ["ermission denied", "not permitted"].iter().any(|text| ran.err.contains(text));
    ensure!(!ran.ok && denied, "{program} {args:?} was not refused: {ran:?}");
    Ok(())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test]
async fn the_agent_gets_at_nothing_of_the_sidecar() -> anyhow::Result<()> {
    if !needs_root("launch::neighbour") {
        return Ok(());
    }
    let machine = Machine::script(OBEDIENT)?.credentials_file().start().await?;
    machine.wait_phase("starting", super::SOON).await?;
    let stored = put(&machine.client(), "/v1/secrets/NEIGHBOUR_KEY", None, &json!({"value": "sk-neighbour-1"})).await?;
    ensure!(stored.status == 200, "{}", stored.text());
    let stored = put(&machine.client(), "/v1/desired", Some(0), &json!({"env": {"A": "b"}})).await?;
    ensure!(stored.status == 200, "{}", stored.text());
    let (daemon, launcher) = (machine.daemon_pid().context("a daemon")?, machine.launcher_pid());
    let before = names(&machine.volume())?;

    it_can_do_what_is_its_own(&machine).await?;
    for pid in [daemon, launcher] {
        memory_is_closed(pid).await?;
        signals_are_refused(pid).await?;
    }
    files_are_closed(&machine).await?;
    nothing_can_be_planted(&machine).await?;
    the_socket_is_closed(&machine).await?;

    ensure!(machine.daemon_pid() == Some(daemon), "another daemon");
    ensure!(names(&machine.volume())? == before, "{:?}", names(&machine.volume())?);
    machine.state().await?;
    Ok(())
}

fn names(dir: &Path) -> anyhow::Result<BTreeSet<String>> {
    let entries = std::fs::read_dir(dir)?;
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

/// Otherwise everything below would be refused for a wrong reason.
async fn it_can_do_what_is_its_own(machine: &Machine) -> anyhow::Result<()> {
    let gateway = machine.gateway_pid().context("a gateway")?;
    let environ = agent("cat", &[&format!("/proc/{gateway}/environ")]).await?;
    ensure!(environ.ok && environ.out.contains("OPENCLAW_STATE_DIR"), "{environ:?}");
    let own = machine.place().gateway_dir().join("agent-was-here");
    let touched = agent("touch", &[text(&own)]).await?;
    ensure!(touched.ok, "{touched:?}");
    Ok(())
}

async fn memory_is_closed(pid: u32) -> anyhow::Result<()> {
    for name in ["mem", "environ", "maps", "auxv", "stack", "syscall"] {
        refused("dd", &[&format!("if=/proc/{pid}/{name}"), "of=/dev/null", "count=1"]).await?;
    }
    refused("ls", &["-l", &format!("/proc/{pid}/fd")]).await?;
    for name in ["exe", "cwd", "root"] {
        refused("readlink", &["-v", &format!("/proc/{pid}/{name}")]).await?;
    }
    let pid = pid.to_string();
    let mut tried = 0;
    for (tracer, args) in [("strace", vec!["-p", &pid]), ("gdb", vec!["-nx", "-batch", "-p", &pid])] {
        // Not on every machine.
        let Ok(ran) = agent(tracer, &args).await else { continue };
        tried += 1;
        ensure!((ran.err + &ran.out).contains("not permitted"), "{tracer} {pid} attached");
    }
    if tried == 0 {
        println!("SKIPPED: neither strace nor gdb is here to try ptrace with");
    }
    Ok(())
}

async fn signals_are_refused(pid: u32) -> anyhow::Result<()> {
    for name in ["STOP", "TERM", "KILL", "USR1"] {
        refused("/bin/sh", &["-c", r#"kill -s "$1" "$2""#, "sh", name, &pid.to_string()]).await?;
    }
    let state = proc::stat(pid).context("it is gone")?.state;
    ensure!(!matches!(state, 'T' | 't' | 'Z'), "it is in state {state}");
    Ok(())
}

async fn files_are_closed(machine: &Machine) -> anyhow::Result<()> {
    let place = machine.place();
    let sidecar = place.sidecar_dir();
    refused("ls", &[text(&sidecar)]).await?;
    let ours = ["secrets.json", "desired.json", "audit.jsonl", "approvals.json", "identity.pk8", "tls.pem"];
    for name in ours {
        let path = sidecar.join(name);
        // Some come into being only when there is something to write.
        ensure!(path.exists() || name == "approvals.json", "{name} is not there");
        refused("cat", &[text(&path)]).await?;
    }
    refused("cat", &[text(&place.credentials())]).await?;
    // Whatever else the launcher keeps on the volume.
    for name in names(&machine.volume())?.iter().filter(|name| *name != "openclaw") {
        let path = machine.volume().join(name);
        refused(if path.is_dir() { "ls" } else { "touch" }, &[text(&path)]).await?;
    }
    Ok(())
}

async fn nothing_can_be_planted(machine: &Machine) -> anyhow::Result<()> {
    let (place, volume) = (machine.place(), machine.volume());
    let (sidecar, aside) = (place.sidecar_dir(), volume.join("aside"));
    refused("mv", &[text(&sidecar), text(&aside)]).await?;
    refused("mv", &[text(&place.gateway_dir()), text(&aside)]).await?;
    refused("ln", &["-s", "/etc", text(&aside)]).await?;
    refused("mkdir", &[text(&aside)]).await?;
    refused("touch", &[text(&sidecar.join("credentials.json"))]).await?;
    refused("chmod", &["0777", text(&volume)]).await?;
    refused("chmod", &["0777", text(&sidecar)]).await?;
    refused("rm", &["-rf", text(&sidecar)]).await?;
    refused("mv", &[text(&place.socket()), text(&place.socket().with_extension("old"))]).await?;
    refused("touch", &[text(&place.credentials())]).await
}

async fn the_socket_is_closed(machine: &Machine) -> anyhow::Result<()> {
    let socket = machine.place().socket();
    ensure!(socket.exists());
    let node = machine.again().node()?;
    let asked = agent(&node, &["-e", ASK, text(&socket)]).await?;
    ensure!(asked.ok && !asked.out.contains("HTTP/1.1"), "{asked:?}");
    // The same program as root gets its answer.
    let asked = run_as(0, &node, &["-e", ASK, text(&socket)]).await?;
    ensure!(asked.out.contains("HTTP/1.1 200"), "{asked:?}");
    Ok(())
}

/// The daemon itself could not do much with the gateway's files either.
#[tokio::test]
async fn the_daemon_cannot_touch_the_gateway() -> anyhow::Result<()> {
    if !needs_root("launch::neighbour") {
        return Ok(());
    }
    let machine = Machine::script(OBEDIENT)?.start().await?;
    machine.wait_phase("starting", super::SOON).await?;
    let gateway = machine.gateway_pid().context("a gateway")?;
    let uid = crate::support::machine::SIDECAR_UID;
    let seen = run_as(uid, "ls", &[text(&machine.place().gateway_dir())]).await?;
    ensure!(!seen.ok, "{seen:?}");
    let killed = run_as(uid, "/bin/sh", &["-c", r#"kill -s KILL "$1""#, "sh", &gateway.to_string()]).await?;
    ensure!(!killed.ok && proc::is_alive(gateway), "{killed:?}");
    proc::signal(gateway, Signal::SIGCONT)
}
