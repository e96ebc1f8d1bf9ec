//! A machine with a real gateway and a secret in every place that takes one.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use openclaw_sidecar::http::tls::Certificate;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use serde_json::{Value, json};
use tokio::time::sleep;

use super::SOON;
use super::rooms::Rooms;
use super::secrets::Canaries;
use super::tape::Tape;
use crate::support::client::Client;
use crate::support::machine::{Builder, GATEWAY_UID, Machine, READY, STRANGER_UID};
use crate::support::sidecar::{credential, new_token};

const PASSPHRASE: &str = "quartz lantern meadow & \"whisper\" orchard";

/// The machine, what was planted in it, and what it said.
pub struct Life {
    pub machine: Machine,
    pub canaries: Canaries,
    certificate: CertificateDer<'static>,
    pub tape: Tape,
    began: Instant,
}

impl Life {
    pub async fn begin() -> anyhow::Result<Self> {
        let began = Instant::now();
        let mut canaries = plant();
        let builder = Machine::real("2026.9.6")?;
        let (cert, key) = given_certificate(&builder, &mut canaries)?;
        let credentials = builder.place().credentials();
        let place = builder.place();
        place.put(&credentials, &callers(&canaries, "control token").to_string(), 0, 0o600)?;
        own_config(&builder, &canaries)?;
        let text = |path: &PathBuf| path.display().to_string();
        let certificate = CertificateDer::from_pem_file(&cert)?;
        let builder = builder
            .without_credentials()
            .setting("AUTH_CREDENTIALS_FILE", &text(&credentials))
            .setting("TLS_CERT_FILE", &text(&cert))
            .setting("TLS_KEY_FILE", &text(&key))
            .setting("MACHINE_SECRET", canaries.value("machine secret"))
            .setting("LAUNCH_ENV_PASS", "TMPDIR,npm_config_offline,NO_COLOR,CANARY_PASSED")
            .env("CANARY_PASSED", canaries.value("variable passed on"))
            .env("CANARY_KEPT", canaries.value("variable not passed on"));
        let machine = builder.spawn().await?;
        Ok(Self { machine, canaries, certificate, tape: Tape::default(), began })
    }

    pub fn client(&self, slot: &str) -> Client {
        let address = self.machine.place().tls_address();
        Client::tls(address, &self.certificate, Some(self.canaries.value(slot)))
    }

    pub async fn serves(&self) -> anyhow::Result<()> {
        let end = Instant::now() + SOON;
        while !self.client("control token").get("/livez").await.is_ok_and(|reply| reply.status == 200) {
            ensure!(Instant::now() < end, "no API\n{}", self.machine.last_words());
            sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    pub async fn wait(&self, slot: &str, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let state = self.client(slot).wait_until("/v1/state", wanted, READY).await;
        state.with_context(|| self.machine.last_words())
    }

    /// Nothing that was said so far, and nothing that others can read now, holds a secret.
    pub async fn nothing_shows(&self, when: &str) -> anyhow::Result<()> {
        println!("{when}: {:?}", self.began.elapsed());
        let rooms = Rooms::new(&self.canaries)?;
        let mut wrong = Vec::new();
        for uid in [STRANGER_UID, GATEWAY_UID] {
            wrong.extend(rooms.files(&self.machine, uid).await?);
            wrong.extend(rooms.environments(uid).await?);
        }
        wrong.extend(self.tape.hits(&self.canaries));
        let ours = |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|line| line["fields"].is_object());
        let seeds: Vec<String> = self.machine.output_text().lines().filter(ours).map(str::to_owned).collect();
        for (name, text) in [("our log", self.machine.log_text()), ("the log of seed", seeds.join("\n"))] {
            wrong.extend(self.canaries.hits(&text).into_iter().map(|hit| format!("{name}: {hit}")));
        }
        ensure!(wrong.is_empty(), "{when}:\n{}", wrong.join("\n"));
        Ok(())
    }
}

/// A prefix tells which it is, should one be found.
fn plant() -> Canaries {
    let mut canaries = Canaries::default();
    for slot in ["control token", "second control token", "approver's token"] {
        canaries.plant(slot, &new_token());
    }
    for (slot, value) in [
        ("machine secret", "canary-machine/2f8a+c41d9e7b06532af18c4d+e6"),
        ("provider's key", "sk-canary-provider-93d1f0ab57c2e8d6410b"),
        ("passphrase", PASSPHRASE),
        ("gateway token in its file", "canary-gateway-0e7d41b8a93f5c26d817"),
        ("gateway token by name", "canary-named-5b2c90e1f7a84d36be59"),
        ("variable passed on", "canary-passed-c7e2094fd1b68a35"),
        ("variable not passed on", "canary-kept-18fd5e0b7a9c3246"),
        ("tenant's key", "canary-tenant-a61f3d920cb7e854"),
    ] {
        canaries.plant(slot, value);
    }
    canaries
}

pub fn callers(canaries: &Canaries, control: &'static str) -> Value {
    let mut approver = credential("second", canaries.value("approver's token"), "dangerous");
    approver["approver"] = json!(true);
    json!([credential("control", canaries.value(control), "dangerous"), approver])
}

/// A certificate as a platform gives it, and its key; another key of its kind is one of the gateway's secrets.
fn given_certificate(builder: &Builder, canaries: &mut Canaries) -> anyhow::Result<(PathBuf, PathBuf)> {
    let made = || -> anyhow::Result<(String, String)> {
        let dir = tempfile::tempdir()?;
        let tls = openclaw_sidecar::config::Tls { cert_file: None, key_file: None, server_names: Vec::new() };
        Certificate::load(&tls, dir.path()).map_err(|e| anyhow::anyhow!(e))?;
        let both = std::fs::read_to_string(dir.path().join("tls.pem"))?;
        let (key, cert) = both.split_at(both.find("-----BEGIN CERT").context("no certificate")?);
        Ok((cert.to_owned(), key.to_owned()))
    };
    let (cert, key) = made()?;
    let place = builder.place();
    let paths = (place.root().join("etc/tls.crt"), place.root().join("etc/tls.key"));
    place.put(&paths.0, &cert, 0, 0o644)?;
    place.put(&paths.1, &canaries.plant("certificate's key", &key), 0, 0o600)?;
    canaries.plant("private key", &made()?.1);
    Ok(paths)
}

/// The configuration of a tenant from before, with a token and a key of its own.
fn own_config(builder: &Builder, canaries: &Canaries) -> anyhow::Result<()> {
    let place = builder.place();
    std::fs::create_dir(place.gateway_dir())?;
    std::os::unix::fs::chown(place.gateway_dir(), Some(GATEWAY_UID), Some(GATEWAY_UID))?;
    let config = json!({
        "gateway": {"mode": "local", "auth": {"mode": "token", "token": canaries.value("gateway token in its file")}},
        "skills": {"entries": {"composio": {"enabled": true, "apiKey": canaries.value("tenant's key")}}},
    });
    place.put(&place.config_path(), &config.to_string(), GATEWAY_UID, 0o600)
}
