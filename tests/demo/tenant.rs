//! The tenant's machine of the demo: an empty volume, and `openclaw-sidecar run -- <gateway command>`.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt,
    path::Path,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};
use tokio::{
    process::Command,
    time::{Instant, sleep, timeout},
};

use crate::{
    DIR,
    control_plane::ControlPlane,
    process::Process,
    support::{
        client::Client,
        gateway::{VERSIONS, installed},
        machine::{self, Builder, GATEWAY_UID, Machine, READY, SIDECAR_UID, proc, run_as},
        sidecar::{credential, new_token},
    },
    terminal::{command, done, output, say, step},
};

/// The newest gateway.
pub const VERSION: &str = VERSIONS[0];
/// What is killed is gone by then.
const GONE: Duration = Duration::from_secs(10);
const CLI_DEADLINE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(2);
/// What a platform gives a machine to end, and some.
const STOP_DEADLINE: Duration = Duration::from_secs(30);

/// How to boot the machine, and the token of its control plane. Clones share the volume; the last one removes it.
pub fn builder(origins: &[String]) -> anyhow::Result<(Builder, String)> {
    let token = new_token();
    let credentials = json!([credential("control", &token, "dangerous")]).to_string();
    let mut document = machine::hosted_document();
    document["gateway"]["allowed_origins"] = json!(origins);
    let builder = Machine::real(VERSION)?.document(document).without_credentials();
    Ok((builder.setting("AUTH_CREDENTIALS", &credentials), token))
}

/// A booted machine; dropping it kills all of it.
pub struct Tenant {
    pub machine: Machine,
    pub control_plane: ControlPlane,
    token: String,
}

/// What a command of the gateway said and cost.
pub struct CliRun {
    pub status: ExitStatus,
    pub stderr: String,
    pub wall: Duration,
    pub cpu: Duration,
    pub peak_rss_kib: u64,
}

pub async fn boot((builder, token): (Builder, String)) -> anyhow::Result<Tenant> {
    step("A tenant's machine: an empty volume, and one command");
    let empty = fs::read_dir(builder.place().volume())?.next().is_none();
    ensure!(empty, "the volume is not empty");
    command(&format!("openclaw-sidecar run -- node openclaw.mjs gateway --port {}", builder.place().port()));
    let clock = Instant::now();
    let machine = builder.start().await?;
    let address = machine.place().tls_address();
    done(&format!("the control API answers on https://{address}, while the gateway still boots"), clock.elapsed());
    let certificate = machine.place().sidecar_dir().join("tls.crt");
    let control_plane = ControlPlane::new(address, &certificate, &token, Path::new(DIR))?;
    let tenant = Tenant { machine, control_plane, token };
    let state = tenant.wait(|state| state["phase"] == "ready", READY).await?;
    ensure!(state["gateway"]["version"] == VERSION, "another gateway: {}", state["gateway"]);
    done(&format!("OpenClaw gateway {VERSION} is ready"), clock.elapsed());
    tenant.introduce(&state).await?;
    Ok(tenant)
}

/// Waits until nothing of the machine runs any more.
pub async fn wait_gone(builder: &Builder) {
    let end = Instant::now() + GONE;
    while !proc::of_machine(builder.place().id()).is_empty() && Instant::now() < end {
        sleep(POLL).await;
    }
}

impl Tenant {
    pub fn gateway_address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.machine.port()).into()
    }

    /// As the control plane, on connections of its own.
    pub fn client(&self) -> Client {
        self.machine.client().with_token(Some(&self.token))
    }

    /// Waits for a state of the machine.
    pub async fn wait(&self, wanted: impl Fn(&Value) -> bool, deadline: Duration) -> anyhow::Result<Value> {
        let state = self.client().wait_until("/v1/state", wanted, deadline).await;
        state.with_context(|| self.machine.last_words())
    }

    pub fn daemon(&self) -> anyhow::Result<Process> {
        Ok(Process(self.machine.daemon_pid().context("the daemon does not run")?))
    }

    /// Who owns what, and that it holds.
    async fn introduce(&self, state: &Value) -> anyhow::Result<()> {
        ensure!(self.machine.gateway_token()?.len() >= 32, "the gateway has no token of its own");
        say("Nobody wrote a configuration: the gateway got a token of its own, a workspace, and lets nobody in.");
        if !machine::is_root() {
            ensure!(state["supervisor"]["isolation"] == "shared-uid", "{}", state["supervisor"]);
            say("Gateway and sidecar run as your own user here; started by root, each gets a user of its own.");
            return Ok(());
        }
        ensure!(state["supervisor"]["isolation"] == "separate-uids", "{}", state["supervisor"]);
        let place = self.machine.place();
        for (dir, owner, whose) in [
            (place.gateway_dir(), GATEWAY_UID, "the gateway's: state, configuration, workspace"),
            (place.sidecar_dir(), SIDECAR_UID, "the sidecar's: keys, sealed secrets, desired state, audit"),
        ] {
            let found = fs::metadata(&dir)?;
            ensure!(found.uid() == owner && found.mode() & 0o777 == 0o700, "{} is not private", dir.display());
            let name = dir.file_name().and_then(|name| name.to_str()).context("a directory has a name")?;
            output(&format!("drwx------ {owner}  data/{name:<10}{whose}"));
        }
        let key = place.sidecar_dir().join("identity.pk8");
        let daemon = self.daemon()?.0.to_string();
        for (program, arguments) in [("cat", vec![key.to_str().context("UTF-8")?]), ("kill", vec!["-9", &daemon])] {
            let ran = run_as(GATEWAY_UID, program, &arguments).await?;
            ensure!(!ran.ok, "the gateway's user may {program} {arguments:?}");
        }
        say("Two users: whatever takes over the gateway can neither read the sidecar's keys nor end it (tried).");
        Ok(())
    }

    /// `openclaw <arguments>` as it would be run inside the machine, measured.
    pub async fn cli(&self, arguments: &[&str]) -> anyhow::Result<CliRun> {
        let mut openclaw = Command::new(self.machine.again().node()?);
        openclaw.arg(installed(VERSION)?).args(arguments).env_clear().envs(self.machine.gateway_environment()?);
        if machine::is_root() {
            openclaw.uid(GATEWAY_UID).gid(GATEWAY_UID);
        }
        openclaw.current_dir(self.machine.place().home()).kill_on_drop(true);
        openclaw.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let before = cpu_of_children()?;
        let clock = Instant::now();
        let child = openclaw.spawn().context("cannot run openclaw")?;
        let process = Process(child.id().context("openclaw ended at once")?);
        let ended = timeout(CLI_DEADLINE, child.wait_with_output());
        tokio::pin!(ended);
        let mut peak_rss_kib = 0;
        let output = loop {
            tokio::select! {
                output = &mut ended => break output.context("openclaw does not end")??,
                () = sleep(POLL) => peak_rss_kib = peak_rss_kib.max(process.peak_kib().unwrap_or(0)),
            }
        };
        let wall = clock.elapsed();
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Ok(CliRun { status: output.status, stderr, wall, cpu: cpu_of_children()?.saturating_sub(before), peak_rss_kib })
    }

    /// SIGTERM to the launcher; how long it took until everything had ended.
    pub async fn stop(&mut self) -> anyhow::Result<Duration> {
        let clock = Instant::now();
        self.machine.signal(nix::sys::signal::Signal::SIGTERM)?;
        let status = self.machine.wait_exit(STOP_DEADLINE).await?;
        let took = clock.elapsed();
        ensure!(status.success(), "the launcher ended with {status}\n{}", self.machine.last_words());
        let left = self.machine.survivors();
        ensure!(left.is_empty(), "still running: {left:?}");
        Ok(took)
    }
}

/// CPU time of the children that have ended; nothing else of the demo's ends while a command is measured.
fn cpu_of_children() -> anyhow::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let time = |time: nix::sys::time::TimeVal| -> anyhow::Result<Duration> {
        Ok(Duration::new(time.tv_sec().try_into()?, u32::try_from(time.tv_usec())? * 1000))
    };
    Ok(time(usage.user_time())? + time(usage.system_time())?)
}
