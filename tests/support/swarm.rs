//! Many machines in one process: each with the daemon's own check-ins and audit, and a state that is written here
//! instead of by a gateway. What they say goes over HTTPS to a real registry.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Error, ensure};
use futures_util::future::try_join_all;
use openclaw_sidecar::audit::Audit;
use openclaw_sidecar::audit::chain::Entry;
use openclaw_sidecar::checkin::report::{Surroundings, report};
use openclaw_sidecar::checkin::wire::{Intent, Report};
use openclaw_sidecar::checkin::{BYE, CheckIns, Sources, Status};
use openclaw_sidecar::clock::{RegistryClock, UnixMs};
use openclaw_sidecar::config::{Config, Env};
use openclaw_sidecar::gateway::identity::Identity;
use openclaw_sidecar::gateway::{Gateway, connection};
use openclaw_sidecar::metrics::Metrics;
use openclaw_sidecar::state::{Code, Found, GatewayInfo, Kind, Pending, Phase, State};
use serde_json::Value;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::fake::codec::{random_bytes, sha256_hex};
use super::service::Service;

/// Machines enrolled at once.
const AT_ONCE: usize = 32;

/// A fleet of machines; all of them sleep at first.
#[derive(Debug)]
pub struct Swarm {
    pub machines: Vec<Machine>,
    _dir: TempDir,
}

/// One machine: what is on its volume, and its daemon while it is awake.
#[derive(Debug)]
pub struct Machine {
    pub id: String,
    config: Config,
    gateway: Gateway,
    /// Audit records so far.
    pub audited: u64,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    state: State,
    checkins: CheckIns,
    audit: Audit,
    stop: CancellationToken,
}

impl Drop for Life {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Swarm {
    /// Enrols so many machines with the registry.
    pub async fn enrolled(count: usize, service: &Service) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let gateway = nobody(dir.path().join("identity"))?;
        let mut machines = Vec::new();
        for from in (0..count).step_by(AT_ONCE) {
            let some = (from..count.min(from + AT_ONCE)).map(|n| {
                Machine::enrolled(format!("machine-{n:05}"), dir.path().join(n.to_string()), gateway.clone(), service)
            });
            machines.extend(try_join_all(some).await?);
        }
        Ok(Self { machines, _dir: dir })
    }

    /// How the check-ins of all that are awake are going.
    pub fn statuses(&self) -> Vec<Status> {
        self.machines.iter().filter_map(|m| m.life.as_ref()).map(|life| life.checkins.status()).collect()
    }

    /// Whether the registry took all that anybody has to say.
    pub fn all_told(&self) -> bool {
        self.untold().is_empty()
    }

    /// How it goes for those of whom the registry has not taken all.
    pub fn untold(&self) -> Vec<Status> {
        let told = |s: &Status| s.spooled == 0 && s.last_error.is_none() && s.last_ok_at.is_some();
        self.statuses().into_iter().filter(|status| !told(status)).collect()
    }
}

impl Machine {
    async fn enrolled(id: String, dir: PathBuf, gateway: Gateway, service: &Service) -> anyhow::Result<Self> {
        std::fs::create_dir(&dir)?;
        let enrolled = service.enrol(&id).await?;
        let settings = service.settings(&id, &enrolled);
        let mut env: Env =
            settings.into_iter().map(|(key, value)| (format!("OPENCLAW_SIDECAR_{key}"), value)).collect();
        env.insert("OPENCLAW_SIDECAR_STATE_DIR".to_owned(), dir.display().to_string());
        let config = Config::parse("", &env).map_err(|faults| Error::msg(faults.to_string()))?;
        Ok(Self { id, config, gateway, audited: 0, life: None })
    }

    pub fn is_awake(&self) -> bool {
        self.life.is_some()
    }

    /// Its daemon starts.
    pub async fn wake(&mut self) -> anyhow::Result<()> {
        ensure!(self.life.is_none(), "it is awake");
        let state = State::new(sha256_hex(&random_bytes::<16>())[..32].to_owned());
        let sources = Sources {
            env: &Env::new(),
            state: &state,
            gateway: &self.gateway,
            metrics: &Arc::new(Metrics::default()),
            certificate: &Arc::new(Mutex::new(None)),
            registry_clock: &RegistryClock::default(),
        };
        let checkins = CheckIns::start(&self.config, sources, false);
        let audit = Audit::open(&self.config.state_dir)?;
        let stop = CancellationToken::new();
        tokio::spawn(checkins.clone().follow(audit.clone(), stop.clone()));
        self.life = Some(Life { state, checkins, audit, stop });
        Ok(())
    }

    /// Its daemon says goodbye and ends.
    pub async fn sleep(&mut self) -> anyhow::Result<()> {
        let life = self.life.take().context("it sleeps")?;
        life.checkins.bye(Intent::Sleep, "SIGTERM", BYE).await;
        Ok(())
    }

    fn life(&self) -> anyhow::Result<&Life> {
        self.life.as_ref().context("it sleeps")
    }

    /// Its gateway answers.
    pub fn ready(&self) -> anyhow::Result<()> {
        self.life()?.state.publish(|draft| {
            draft.snapshot.enter(Phase::Ready, "");
            draft.snapshot.gateway = Some(GatewayInfo { version: "2026.9.6".to_owned(), ..GatewayInfo::default() });
        });
        Ok(())
    }

    /// Somebody asks to be let in.
    pub fn asked(&self, request_id: &str) -> anyhow::Result<()> {
        let request = Pending {
            kind: Kind::Device,
            request_id: request_id.to_owned(),
            device_id: sha256_hex(request_id.as_bytes()),
            label: "Chrome on Windows".to_owned(),
            client_id: "openclaw-control-ui".to_owned(),
            platform: "Win32".to_owned(),
            role: "operator".to_owned(),
            scopes: vec!["operator.admin".to_owned()],
            commands: Vec::new(),
            remote_ip: "192.0.2.7".to_owned(),
            is_upgrade: false,
            requested_at: UnixMs::now(),
            expires_at: None,
            channel: String::new(),
            account: String::new(),
        };
        self.life()?.state.publish(|draft| Arc::make_mut(&mut draft.snapshot.pairing).pending.push(request));
        Ok(())
    }

    /// Nobody asks any more, and the decision is on record.
    pub async fn decided(&mut self) -> anyhow::Result<()> {
        self.life()?.state.publish(|draft| Arc::make_mut(&mut draft.snapshot.pairing).pending.clear());
        self.on_record(1).await
    }

    pub fn troubled(&self, trouble: Option<&str>) -> anyhow::Result<()> {
        let found = trouble.map(Found::new);
        self.life()?.state.publish(|draft| draft.snapshot.set_finding(Code::DiskLow, found));
        Ok(())
    }

    /// So many more audit records, durable.
    pub async fn on_record(&mut self, count: u64) -> anyhow::Result<()> {
        for _ in 0..count {
            self.audited += 1;
            let entry = Entry {
                at: UnixMs::now().rfc3339(),
                actor: "control".to_owned(),
                verb: "pairing.approve".to_owned(),
                target: format!("device:{}", self.audited),
                outcome: "approved".to_owned(),
                ..Entry::default()
            };
            self.life()?.audit.append(entry).await?.wait().await?;
        }
        Ok(())
    }

    /// How its check-ins are going.
    pub fn status(&self) -> Option<Status> {
        self.life.as_ref().map(|life| life.checkins.status())
    }

    /// Whether support sees what is so.
    pub fn is_seen_by(&self, view: &Value) -> bool {
        let Some(life) = &self.life else { return view["status"] == "asleep" };
        let seen: Option<Report> = serde_json::from_value(view["report"].clone()).ok();
        let says = |report: &Report| {
            let pending: BTreeSet<String> = report.pairing.pending.iter().map(|p| p.request_id.clone()).collect();
            let findings: Vec<_> = report.findings.iter().map(|f| (f.code.clone(), f.summary.clone())).collect();
            (report.phase.clone(), report.gateway.version.clone(), pending, findings)
        };
        let now = report(&life.state.now(), &Surroundings::default(), UnixMs::now());
        seen.is_some_and(|seen| says(&seen) == says(&now))
            && !["asleep", "unreachable"].contains(&view["status"].as_str().unwrap_or_default())
    }
}

/// A gateway that nobody dials.
fn nobody(identity: PathBuf) -> anyhow::Result<Gateway> {
    let config = Config::parse("", &Env::new()).map_err(|faults| Error::msg(faults.to_string()))?;
    let identity = Identity::load_or_create(&identity)?;
    Ok(connection::new(config.gateway, tokio::sync::watch::Sender::new(Env::new()).subscribe(), identity, None).1)
}
