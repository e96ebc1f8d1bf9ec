//! A real registry as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use openclaw_sidecar::auth::Tier;
use openclaw_sidecar::auth::credentials::{Token, entry_json};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::client::{Client, EventStream, Reply};

const STARTS: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// Signs the tickets, sessions and webhooks of every registry here.
pub const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// What outlives one run: where its data lies, who may call, and what else is set.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
    admin: Arc<Token>,
    support: Arc<Token>,
    settings: Vec<(String, String)>,
    apart: bool,
}

impl Place {
    pub fn new() -> anyhow::Result<Self> {
        let token = || Token::random().map(Arc::new).map_err(anyhow::Error::msg);
        Ok(Self { dir: TempDir::new()?, admin: token()?, support: token()?, settings: Vec::new(), apart: false })
    }

    /// Of another instance of the same registry.
    pub fn beside(&self) -> anyhow::Result<Self> {
        let (admin, support) = (self.admin.clone(), self.support.clone());
        Ok(Self { dir: TempDir::new()?, admin, support, settings: self.settings.clone(), apart: self.apart })
    }

    /// Ctrl-C at the terminal is for whoever started it, and does not end it.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }

    /// With a key of the configuration, by the rest of its variable's name.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.to_owned(), value.to_string()));
        self
    }

    pub fn admin_key(&self) -> &str {
        self.admin.expose()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn database(&self) -> PathBuf {
        self.state_dir().join("registry.db")
    }

    pub fn support_key(&self) -> &str {
        self.support.expose()
    }

    /// The program with this configuration.
    pub fn command(&self, words: &[&str]) -> Command {
        let entries = [("admin", &self.admin, Tier::Dangerous), ("support", &self.support, Tier::Safe)];
        let entries: Vec<String> =
            entries.iter().map(|(id, token, tier)| entry_json(id, token, *tier, false)).collect();
        let mut command = Command::new(binary());
        command
            .args(words)
            .env_clear()
            .env("OPENCLAW_REGISTRY_STATE_DIR", self.state_dir())
            .env("OPENCLAW_REGISTRY_SECRET", SECRET)
            .env("OPENCLAW_REGISTRY_AUTH_CREDENTIALS", format!("[{}]", entries.join(",")))
            .env("OPENCLAW_REGISTRY_LISTEN_TLS", "127.0.0.1:0")
            .env("OPENCLAW_REGISTRY_LISTEN_EDGE", "127.0.0.1:0")
            .env("OPENCLAW_REGISTRY_CHECKIN_INTERVAL_S", "15")
            .env("OPENCLAW_REGISTRY_LOG_FORMAT", "json")
            .envs(self.settings.iter().map(|(name, value)| (format!("OPENCLAW_REGISTRY_{name}"), value)))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        if self.apart {
            command.process_group(0);
        }
        command
    }

    /// How a command ends, and what it prints.
    pub async fn run(&self, words: &[&str]) -> anyhow::Result<(ExitStatus, String)> {
        let output = timeout(STARTS, self.command(words).output()).await.context("it does not end")??;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status, String::from_utf8_lossy(&said).into_owned()))
    }
}

/// The program under test.
pub fn binary() -> PathBuf {
    super::sidecar::binary().with_file_name("openclaw-registry")
}

#[derive(Debug)]
pub struct Service {
    child: Child,
    place: Place,
    edge: SocketAddr,
    tls: SocketAddr,
    fingerprint: String,
}

/// A browser with a session, as far as a program needs one.
#[derive(Debug)]
pub struct Console {
    client: Client,
    cookie: String,
}

impl Console {
    /// As a browser sends it.
    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    pub async fn page(&self, path: &str) -> anyhow::Result<Reply> {
        // As browsers do.
        let headers = [("cookie", self.cookie.as_str()), ("accept", "text/html,*/*;q=0.8")];
        self.client.request("GET", path, &headers, None).await
    }

    pub async fn events(&self) -> anyhow::Result<EventStream> {
        self.client.events_with("/console/events", &[("cookie", &self.cookie)]).await
    }
}

/// What a machine needs to phone home.
#[derive(Debug)]
pub struct Enrolled {
    pub credential: String,
    pub ticket: String,
}

impl Service {
    /// Starts on ports of the system's choice, or on those of an earlier run.
    pub async fn start(place: Place, tls: Option<SocketAddr>) -> anyhow::Result<Self> {
        let mut command = place.command(&["serve"]);
        if let Some(address) = tls {
            command.env("OPENCLAW_REGISTRY_LISTEN_TLS", address.to_string());
        }
        let mut child = command.stderr(Stdio::piped()).spawn().context("cannot start openclaw-registry")?;
        let mut lines = BufReader::new(child.stderr.take().context("piped")?).lines();
        let (mut edge, mut tls) = (None, None);
        while edge.is_none() || tls.is_none() {
            let line = timeout(STARTS, lines.next_line()).await.context("the registry does not listen")??;
            let line: Value = serde_json::from_str(&line.context("the registry ended")?)?;
            let fields = &line["fields"];
            let address = || fields["address"].as_str().and_then(|text| text.parse::<SocketAddr>().ok());
            match fields["listener"].as_str() {
                Some("edge") => edge = address(),
                Some("tls") => tls = address().zip(fields["certificate_sha256"].as_str().map(str::to_owned)),
                _ => {}
            }
        }
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let ((tls, fingerprint), edge) = tls.zip(edge).context("both listeners")?;
        Ok(Self { child, place, edge, tls, fingerprint })
    }

    pub fn admin(&self) -> Client {
        Client::tcp(self.edge, Some(self.place.admin.expose()))
    }

    pub fn support(&self) -> Client {
        Client::tcp(self.edge, Some(self.place.support.expose()))
    }

    /// Somebody without a credential.
    pub fn public(&self) -> Client {
        Client::tcp(self.edge, None)
    }

    /// A person who signed in at the console.
    pub async fn console(&self) -> anyhow::Result<Console> {
        let form = format!("key={}", self.place.support_key()).into_bytes();
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let client = self.public();
        let reply = client.request("POST", "/login", &headers, Some(form)).await?;
        let cookie = reply.header("set-cookie").and_then(|set| set.split(';').next()).context("no session")?;
        Ok(Console { client, cookie: cookie.to_owned() })
    }

    pub fn place(&self) -> &Place {
        &self.place
    }

    pub fn with(&self, token: &str) -> Client {
        Client::tcp(self.edge, Some(token))
    }

    pub fn tls(&self) -> SocketAddr {
        self.tls
    }

    pub fn edge(&self) -> SocketAddr {
        self.edge
    }

    /// SHA-256 of its certificate.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub fn pid(&self) -> anyhow::Result<u32> {
        self.child.id().context("it has ended")
    }

    pub async fn enrol(&self, tenant: &str) -> anyhow::Result<Enrolled> {
        self.enrol_as(tenant, "").await
    }

    /// With a name for people.
    pub async fn enrol_as(&self, tenant: &str, label: &str) -> anyhow::Result<Enrolled> {
        let reply = self.admin().post("/v1/admin/tenants", &json!({ "id": tenant, "label": label })).await?;
        ensure!(reply.status == 201, "{}", reply.text());
        let body = reply.json();
        let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
        Ok(Enrolled { credential: text(&body["credential"])?, ticket: text(&body["tickets"][0])? })
    }

    /// The keys of a sidecar that phones home here, as the rest of their variables' names.
    pub fn settings(&self, tenant: &str, enrolled: &Enrolled) -> Vec<(&'static str, String)> {
        vec![
            ("REGISTRY_URL", format!("https://{}", self.tls)),
            ("REGISTRY_TENANT", tenant.to_owned()),
            ("REGISTRY_CREDENTIAL", enrolled.credential.clone()),
            ("REGISTRY_TICKET", enrolled.ticket.clone()),
            ("REGISTRY_PIN_SHA256", self.fingerprint.clone()),
            ("REGISTRY_ALLOW_PRIVATE", "true".to_owned()),
        ]
    }

    /// The tenant once it is as wanted.
    pub async fn wait(&self, id: &str, wanted: impl Fn(&Value) -> bool, limit: Duration) -> anyhow::Result<Value> {
        let (end, client) = (Instant::now() + limit, self.support());
        loop {
            let reply = client.get(&format!("/v1/support/tenants/{id}")).await?;
            if reply.status == 200 && wanted(&reply.json()) {
                return Ok(reply.json());
            }
            if Instant::now() >= end {
                bail!("{id} did not become what was wanted within {limit:?}; last: {}", reply.text());
            }
            sleep(POLL).await;
        }
    }

    /// Kinds of the tenant's history lines, newest first.
    pub async fn history(&self, id: &str) -> anyhow::Result<Vec<String>> {
        let kind = |entry: Value| entry["kind"].as_str().unwrap_or_default().to_owned();
        Ok(self.timeline(id).await?.into_iter().map(kind).collect())
    }

    /// The tenant's history lines, newest first.
    pub async fn timeline(&self, id: &str) -> anyhow::Result<Vec<Value>> {
        let (client, mut lines, mut before) = (self.support(), Vec::new(), String::new());
        loop {
            let page = client.get(&format!("/v1/support/tenants/{id}/timeline?limit=200{before}")).await?.json();
            lines.extend(page["entries"].as_array().context("entries")?.iter().cloned());
            let Some(next) = page["next"].as_u64() else { return Ok(lines) };
            before = format!("&before={next}");
        }
    }

    /// Asks it to end, which it does in order and in time.
    pub async fn stop(mut self) -> anyhow::Result<Place> {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok()).context("it has ended")?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)?;
        let status = timeout(STARTS, self.child.wait()).await.context("it does not stop")??;
        ensure!(status.success(), "{status}");
        Ok(self.place)
    }

    /// Ends it at once; its place can be used again.
    pub async fn kill(mut self) -> anyhow::Result<Place> {
        self.child.kill().await?;
        Ok(self.place)
    }
}
