//! The control plane of the demo: `curl`, so that every request shown can be copied and repeated.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout, Command},
    time::{Instant, timeout},
};

use crate::{registry::private, tenant::Tenant, terminal};

const CALL_DEADLINE: Duration = Duration::from_secs(60);

pub struct ControlPlane {
    base: String,
    dir: PathBuf,
    certificate: PathBuf,
    authorization: PathBuf,
}

impl ControlPlane {
    /// Puts the sidecar's certificate and the control credential where the commands shown find them.
    pub fn new(address: SocketAddr, certificate: &Path, token: &str, dir: &Path) -> anyhow::Result<Self> {
        let plane = Self {
            base: format!("https://{address}"),
            dir: dir.to_owned(),
            certificate: dir.join("tls.crt"),
            authorization: dir.join("authorization"),
        };
        fs::copy(certificate, &plane.certificate)?;
        // A header file keeps the token out of the process list.
        private("authorization", &format!("Authorization: Bearer {token}"))?;
        Ok(plane)
    }

    /// Opens the event stream, and returns once it is open.
    pub async fn follow(&self) -> anyhow::Result<Follower> {
        self.show(&["--no-buffer"], None, "/v1/events");
        // The head is printed first, which tells that nothing from here on is missed.
        let mut curl = self.curl(&["--no-buffer", "--include"], "/v1/events").stdout(Stdio::piped()).spawn()?;
        let lines = BufReader::new(curl.stdout.take().context("no output")?).lines();
        let mut follower = Follower { lines, _curl: curl };
        let head = timeout(CALL_DEADLINE, follower.paragraph()).await.context("no event stream")??;
        ensure!(head.starts_with("HTTP/1.1 200"), "no event stream: {head}");
        Ok(follower)
    }

    /// Approves one request and waits until the device is in.
    pub async fn approve(&self, request_id: &str) -> anyhow::Result<(Value, Duration)> {
        let body = json!({ "kind": "device", "request_id": request_id }).to_string();
        let path = "/v1/pairing/approve?wait_connected_s=20";
        self.show(&[], Some(&body), path);
        let mut curl = self.curl(&["-H", "Content-Type: application/json", "-d", &body], path);
        let clock = Instant::now();
        let answer = json_of(&mut curl).await?;
        Ok((answer, clock.elapsed()))
    }

    /// What `/v1/pairing` says about one approved device.
    pub async fn approved_device(&self, device_id: &str) -> anyhow::Result<Value> {
        let mut pairing = self.read("/v1/pairing").await?;
        let approved = pairing["approved"].as_array_mut().context("no list of approved devices")?;
        let found = approved.iter_mut().find(|device| device["device_id"] == device_id);
        Ok(found.context("the device is not in /v1/pairing")?.take())
    }

    /// Reads `path` in passing.
    pub async fn read(&self, path: &str) -> anyhow::Result<Value> {
        json_of(&mut self.curl(&[], path)).await
    }

    /// Reads `path` as a step of the story.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.show(&[], None, path);
        self.read(path).await
    }

    /// Sends a body by a file, so that the command fits the screen and no secret is in the process list.
    pub async fn put(&self, path: &str, file: &str, generation: Option<u64>, body: &Value) -> anyhow::Result<Value> {
        let data = format!("@{}", private(file, &body.to_string())?.display());
        let condition = generation.map(|generation| format!("If-Match: \"{generation}\""));
        let mut flags = vec!["-X", "PUT", "-H", "Content-Type: application/json"];
        flags.extend(condition.iter().flat_map(|condition| ["-H", condition.as_str()]));
        flags.extend(["-d", &data]);
        self.show(&flags, None, path);
        let answer = json_of(&mut self.curl(&flags, path)).await?;
        ensure!(answer["code"].is_null(), "PUT {path}: {answer}");
        Ok(answer)
    }

    /// Things to try by hand.
    pub fn show_commands(&self, tenant: &Tenant) {
        terminal::say("State, waiting requests, the event stream, and approving the only one that waits:");
        self.show(&[], None, "/v1/state");
        self.show(&[], None, "/v1/pairing");
        self.show(&["--no-buffer"], None, "/v1/events");
        let body = json!({ "kind": "device", "only_pending": true }).to_string();
        self.show(&[], Some(&body), "/v1/pairing/approve?wait_connected_s=20");
        terminal::say("The gateway's life:");
        self.show(&["-X", "POST"], None, "/v1/gateway/restart");
        terminal::say("On the machine itself, over the local socket:");
        for command in ["status", "pairing list"] {
            let socket = tenant.machine.place().socket();
            let program = "target/debug/openclaw-sidecar";
            terminal::command(&format!("OPENCLAW_SIDECAR_LISTEN_UNIX={} {program} {command}", socket.display()));
        }
    }

    fn curl(&self, flags: &[&str], path: &str) -> Command {
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "--cacert"])
            .arg(&self.certificate)
            .arg("-H")
            .arg(format!("@{}", self.authorization.display()))
            .args(flags)
            .arg(format!("{}{path}", self.base))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        curl
    }

    /// The command as a person would type it.
    fn show(&self, flags: &[&str], body: Option<&str>, path: &str) {
        // Many flags take a line of their own.
        let mut typed = if flags.len() > 2 { " \\\n ".to_owned() } else { String::new() };
        for flag in flags {
            let quoted = flag.contains([' ', '"']);
            let quote = if quoted { "'" } else { "" };
            typed.extend([" ", quote, flag, quote]);
        }
        let body =
            body.map_or_else(String::new, |body| format!(" \\\n  -H 'Content-Type: application/json' -d '{body}'"));
        terminal::command(&format!(
            "curl --cacert {} -H @{}{typed}{body} \\\n  '{}{path}'",
            self.certificate.display(),
            self.authorization.display(),
            self.base
        ));
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // Of no use without the sidecar they belong to.
        for name in ["tls.crt", "authorization", "secret.json", "desired.json"] {
            let _ = fs::remove_file(self.dir.join(name));
        }
    }
}

/// An open event stream.
pub struct Follower {
    lines: Lines<BufReader<ChildStdout>>,
    // Ends with the follower.
    _curl: Child,
}

impl Follower {
    /// The next event that mentions `needle`.
    pub async fn wait_for(&mut self, needle: &str, deadline: Duration) -> anyhow::Result<String> {
        let read = async {
            loop {
                let event = self.paragraph().await?;
                if event.contains(needle) {
                    return Ok(event);
                }
            }
        };
        timeout(deadline, read).await.context("no event about the request")?
    }

    /// Lines up to an empty one: the head, or one event.
    async fn paragraph(&mut self) -> anyhow::Result<String> {
        let mut lines = Vec::new();
        while let Some(line) = self.lines.next_line().await? {
            match line.trim_end() {
                "" => return Ok(lines.join("\n")),
                line => lines.push(line.to_owned()),
            }
        }
        anyhow::bail!("the event stream ended")
    }
}

/// What a request answered.
pub async fn json_of(curl: &mut Command) -> anyhow::Result<Value> {
    let output = timeout(CALL_DEADLINE, curl.output()).await.context("curl does not end")??;
    ensure!(output.status.success(), "curl failed: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))
}
