//! A real registry as a process of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use openclaw_sidecar::auth::Tier;
use openclaw_sidecar::auth::credentials::{Token, entry_json};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::client::Client;

const STARTS: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(20);

/// What outlives one run: where its data lies, and who may call.
#[derive(Debug)]
pub struct Place {
    dir: TempDir,
    admin: Token,
    support: Token,
    settings: Vec<(&'static str, String)>,
}

impl Place {
    pub fn new() -> anyhow::Result<Self> {
        let token = || Token::random().map_err(anyhow::Error::msg);
        Ok(Self { dir: TempDir::new()?, admin: token()?, support: token()?, settings: Vec::new() })
    }

    /// With a key of the configuration set, named as the rest of its variable's name.
    #[must_use]
    pub fn setting(mut self, key: &'static str, value: impl ToString) -> Self {
        self.settings.push((key, value.to_string()));
        self
    }

    pub fn admin_key(&self) -> &str {
        self.admin.expose()
    }

    pub fn state_dir(&self) -> PathBuf {
        self.dir.path().join("state")
    }
}

#[derive(Debug)]
pub struct Service {
    child: Child,
    place: Place,
    edge: SocketAddr,
    tls: SocketAddr,
    fingerprint: String,
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
        let entries = [("admin", &place.admin, Tier::Dangerous), ("support", &place.support, Tier::Safe)];
        let entries: Vec<String> =
            entries.iter().map(|(id, token, tier)| entry_json(id, token, *tier, false)).collect();
        let any = "127.0.0.1:0".to_owned();
        let mut child = Command::new(super::sidecar::binary().with_file_name("openclaw-registry"))
            .arg("serve")
            .env_clear()
            .env("OPENCLAW_REGISTRY_STATE_DIR", place.state_dir())
            .env("OPENCLAW_REGISTRY_SECRET", "0123456789abcdef0123456789abcdef")
            .env("OPENCLAW_REGISTRY_AUTH_CREDENTIALS", format!("[{}]", entries.join(",")))
            .env("OPENCLAW_REGISTRY_LISTEN_TLS", tls.map_or(any.clone(), |address| address.to_string()))
            .env("OPENCLAW_REGISTRY_LISTEN_EDGE", any)
            .env("OPENCLAW_REGISTRY_CHECKIN_INTERVAL_S", "15")
            .env("OPENCLAW_REGISTRY_LOG_FORMAT", "json")
            .envs(place.settings.iter().map(|(key, value)| (format!("OPENCLAW_REGISTRY_{key}"), value)))
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
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

    /// Somebody without a key.
    pub fn stranger(&self) -> Client {
        Client::tcp(self.edge, None)
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

    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The cookie of a session in the console, as a browser gets it.
    pub async fn session(&self) -> anyhow::Result<String> {
        let form = format!("key={}", self.place.support.expose());
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let reply = self.stranger().request("POST", "/login", &headers, Some(form.into_bytes())).await?;
        let cookie = reply.header("set-cookie").and_then(|cookie| cookie.split(';').next());
        Ok(cookie.with_context(|| format!("no session: {}", reply.text()))?.to_owned())
    }

    pub async fn enrol(&self, tenant: &str) -> anyhow::Result<Enrolled> {
        let reply = self.admin().post("/v1/admin/tenants", &json!({ "id": tenant })).await?;
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
        let reply = self.support().get(&format!("/v1/support/tenants/{id}/timeline?limit=200")).await?.json();
        let kinds = reply["entries"].as_array().context("entries")?.iter().map(|e| e["kind"].as_str());
        Ok(kinds.map(|kind| kind.unwrap_or_default().to_owned()).collect())
    }

    /// Ends it at once; its place can be used again.
    pub async fn kill(mut self) -> anyhow::Result<Place> {
        self.child.kill().await?;
        Ok(self.place)
    }
}
