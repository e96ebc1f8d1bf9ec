//! The central registry: the tenant's machine phones home to it by itself, and support reads it in a browser.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::{process::Command, time::Instant};

use crate::{
    DIR,
    control_plane::json_of,
    let_in::{PAGE_DEADLINE, picture},
    support::{
        chromium::{Chromium, Page, Tab},
        machine::Builder,
        service::{Enrolled, Place, Service},
        sidecar::new_token,
    },
    tenant::Tenant,
    terminal::{command, done, output, say, step},
};

const TENANT: &str = "tenant-7";
/// The service's default: nothing that support sees sooner came because the time was up.
const CHECKIN_INTERVAL_S: u64 = 300;
const WATCH: &str = "window.came = {}; window.left = {}; new MutationObserver(() => { \
     for (const { id } of document.querySelectorAll('[id^=request-]')) came[id] ??= Date.now(); \
     for (const id in came) if (!document.getElementById(id)) left[id] ??= Date.now(); \
     }).observe(document.getElementById('main'), { childList: true, subtree: true, attributes: true }); 0";
const LIVE: &str = "document.getElementById('live')?.dataset.state === 'live'";

/// A running registry that knows the tenant; dropping it kills it.
pub struct Registry {
    service: Service,
    enrolled: Enrolled,
    authorization: PathBuf,
    support_key: PathBuf,
}

impl Registry {
    /// Starts it and creates the tenant there, as a control plane does.
    pub async fn start() -> anyhow::Result<Self> {
        step("A central registry, where support looks");
        command("openclaw-registry serve");
        let clock = Instant::now();
        let place = Place::new()?.with("SECRET", new_token()).with("CHECKIN_INTERVAL_S", CHECKIN_INTERVAL_S);
        let service = Service::start(place.apart(), None).await?;
        let (tls, edge) = (service.tls(), service.edge());
        done(&format!("machines phone home to https://{tls}, people read http://{edge}"), clock.elapsed());
        let authorization = private("registry-authorization", &bearer(service.place().admin_key()))?;
        let support_key = private("support-key", service.place().support_key())?;
        say("The control plane creates the tenant there, and gets what its machine needs to phone home:");
        let (body, url) = (json!({"id": TENANT, "label": "Acme Ltd"}), format!("http://{edge}/v1/admin/tenants"));
        let (header, body) = (format!("@{}", authorization.display()), body.to_string());
        command(&format!("curl -H {header} -H 'Content-Type: application/json' \\\n  -d '{body}' '{url}'"));
        let mut curl = Command::new("curl");
        curl.args(["--silent", "--show-error", "--noproxy", "*", "-H", &header, "-H"]);
        curl.args(["Content-Type: application/json", "-d", &body, &url]).kill_on_drop(true);
        let answer = json_of(&mut curl).await?;
        let text = |name: &str| answer.pointer(name).and_then(|value| value.as_str()).map(str::to_owned);
        let enrolled =
            text("/credential").zip(text("/tickets/0")).map(|(credential, ticket)| Enrolled { credential, ticket });
        let enrolled = enrolled.with_context(|| format!("the tenant was not created: {answer}"))?;
        output(&format!(
            "{{\"id\": \"{TENANT}\", \"credential\": \"{}…\", \"tickets\": [\"…\"]}}",
            &enrolled.credential[..8]
        ));
        Ok(Self { service, enrolled, authorization, support_key })
    }

    /// A machine that phones home here.
    pub fn told(&self, builder: Builder) -> Builder {
        let settings = self.service.settings(TENANT, &self.enrolled);
        settings.iter().fold(builder, |builder, (key, value)| builder.setting(key, value))
    }

    /// Support signs in and opens the tenant.
    pub async fn sign_in(&self, mut browser: Chromium, tenant: &Tenant) -> anyhow::Result<Support> {
        step("Support opens the console");
        self.show();
        let mut page = browser.open(&self.address()).await?;
        page.wait_for("document.activeElement?.id === 'key'", PAGE_DEADLINE).await?;
        page.type_text(self.service.place().support_key()).await?;
        page.press("Enter").await?;
        page.wait_for(&format!("!!document.querySelector('a.open') && {LIVE}"), PAGE_DEADLINE).await?;
        page.evaluate("document.querySelector('a.open').click()").await?;
        let tab = page.leave();
        let mut support = Support { browser, tab };
        let clock = Instant::now();
        if let Err(error) = support.reads("Ready").await {
            let state = tenant.control_plane.read("/v1/state").await?;
            return Err(error.context(format!("support does not see what the sidecar says: {}", state["registry"])));
        }
        done("it reads: Ready", clock.elapsed());
        say("Nothing on this page can change a machine: it shows, and says what to do.");
        support.watch().await?;
        Ok(support)
    }

    /// Where people read it, and with what.
    pub fn show(&self) {
        say(&format!("{} with the key in {} (mode 0600)", self.address(), self.support_key.display()));
    }

    fn address(&self) -> String {
        format!("http://{}/", self.service.edge())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        for file in [&self.authorization, &self.support_key] {
            let _ = fs::remove_file(file);
        }
    }
}

/// Whoever is at support, on the tenant's page; they only look.
pub struct Support {
    browser: Chromium,
    tab: Tab,
}

impl Support {
    /// A request is on the page, by itself, so long after `since`.
    pub async fn sees(&mut self, request_id: &str, since: SystemTime) -> anyhow::Result<()> {
        done("support's page showed the request, without a reload", self.noted("came", request_id, since).await?);
        picture(&mut self.page(), "support-1-waiting.png").await
    }

    /// The request is gone from the page, so long after `since`.
    pub async fn no_longer_sees(&mut self, request_id: &str, since: SystemTime) -> anyhow::Result<()> {
        done("support's page no longer shows the request", self.noted("left", request_id, since).await?);
        Ok(())
    }

    /// The machine is stopped, and says goodbye before it ends.
    pub async fn sees_it_stop(&mut self, tenant: &mut Tenant) -> anyhow::Result<()> {
        let clock = Instant::now();
        let reads = async {
            self.reads("Asleep").await?;
            anyhow::Ok(clock.elapsed())
        };
        let (stopped, asleep) = tokio::join!(tenant.stop(), reads);
        done("exit code 0, no process is left", stopped?);
        let reason = self.page().evaluate("document.querySelector('.verdict .reason').innerText").await?;
        let reason = reason.as_str().unwrap_or_default();
        ensure!(reason.contains("the machine stops"), "support's page does not say why: {reason}");
        done(&format!("support's page says: Asleep, {reason}"), asleep?);
        picture(&mut self.page(), "support-2-asleep.png").await
    }

    pub async fn close(self) -> anyhow::Result<()> {
        self.browser.close().await
    }

    fn page(&mut self) -> Page<'_> {
        self.browser.page(&self.tab)
    }

    async fn reads(&mut self, status: &str) -> anyhow::Result<()> {
        let reads = format!("document.querySelector('.verdict strong')?.textContent === '{status}' && {LIVE}");
        self.page().wait_for(&reads, PAGE_DEADLINE).await
    }

    /// From now on the page notes when a request comes and goes: looking from time to time would tell later.
    async fn watch(&mut self) -> anyhow::Result<()> {
        self.page().evaluate(WATCH).await.map(drop)
    }

    /// How long after `since` the page noted it.
    async fn noted(&mut self, what: &str, request_id: &str, since: SystemTime) -> anyhow::Result<Duration> {
        let note = format!("window.{what}['request-{request_id}']");
        self.page().wait_for(&format!("{note} !== undefined"), PAGE_DEADLINE).await?;
        let at = self.page().evaluate(&note).await?.as_u64().context("the page noted no time")?;
        // Whole milliseconds, so it may seem to be the earlier one.
        Ok((SystemTime::UNIX_EPOCH + Duration::from_millis(at)).duration_since(since).unwrap_or_default())
    }
}

/// A file of the demo that only its user reads.
pub fn private(name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(DIR).join(name);
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    file.write_all(text.as_bytes())?;
    Ok(path)
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}
