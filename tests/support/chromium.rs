//! A real browser: headless Chromium, driven over its DevTools protocol.

mod cdp;

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::fake::codec::from_base64url;
use cdp::Cdp;

const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const START_DEADLINE: Duration = Duration::from_secs(60);
const CLOSE_DEADLINE: Duration = Duration::from_secs(5);
const INSTALL_DEADLINE: Duration = Duration::from_secs(900);
const POLL: Duration = Duration::from_millis(100);
const FLAGS: [&str; 15] = [
    "--headless",
    // The sandbox needs user namespaces, which a container or root often has not; the page is our own gateway's.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-proxy-server",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-breakpad",
    "--hide-scrollbars",
    "--window-size=1280,860",
    "--remote-debugging-port=0",
    "about:blank",
];

/// A running browser; dropping it kills it and removes its profile.
#[derive(Debug)]
pub struct Chromium {
    cdp: Cdp,
    child: Child,
    dir: tempfile::TempDir,
}

/// One open page.
#[derive(Debug)]
pub struct Page<'a> {
    browser: &'a mut Chromium,
    session: String,
}

/// A page that stays open while nobody drives it.
#[derive(Debug)]
pub struct Tab(String);

impl Chromium {
    /// Starts a browser with an empty profile, installing it first where that is possible.
    pub async fn start() -> anyhow::Result<Self> {
        let program = find_or_install().await?;
        let dir = tempfile::Builder::new().prefix("openclaw-chromium-").tempdir()?;
        let log = File::create(dir.path().join("output.log"))?;
        let child = Command::new(program)
            .args(FLAGS)
            .arg(format!("--user-data-dir={}", dir.path().display()))
            .env("HOME", dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .context("cannot start Chromium")?;
        let mut child = KillOnDrop(Some(child));
        let endpoint = debugging_endpoint(dir.path(), child.0.as_mut().context("no child")?).await?;
        let cdp = Cdp::connect(&endpoint).await?;
        Ok(Self { cdp, child: child.0.take().context("no child")?, dir })
    }

    /// Opens `url` in a new page.
    pub async fn open(&mut self, url: &str) -> anyhow::Result<Page<'_>> {
        let target = self.cdp.call(None, "Target.createTarget", json!({ "url": url })).await?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = self.cdp.call(None, "Target.attachToTarget", attach).await?;
        let session = attached["sessionId"].as_str().context("no page session")?.to_owned();
        Ok(Page { browser: self, session })
    }

    /// A page that was left before.
    pub fn page(&mut self, tab: &Tab) -> Page<'_> {
        Page { session: tab.0.clone(), browser: self }
    }

    /// Asks the browser to end, which lets it take its helper processes along.
    pub async fn close(mut self) -> anyhow::Result<()> {
        // It may hang up before it answers.
        let _ = self.cdp.call(None, "Browser.close", json!({})).await;
        let end = Instant::now() + CLOSE_DEADLINE;
        while self.child.try_wait()?.is_none() && Instant::now() < end {
            sleep(POLL).await;
        }
        Ok(())
    }
}

impl Page<'_> {
    /// The value of a JavaScript expression.
    pub async fn evaluate(&mut self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", params).await?;
        ensure!(answer["exceptionDetails"].is_null(), "{expression} threw {}", answer["exceptionDetails"]);
        Ok(answer["result"]["value"].take())
    }

    /// Waits until a JavaScript expression is true; says what the page showed when it never was.
    pub async fn wait_for(&mut self, expression: &str, deadline: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + deadline;
        loop {
            // While a page loads, its old context goes away under the expression.
            if matches!(self.evaluate(expression).await, Ok(Value::Bool(true))) {
                return Ok(());
            }
            if Instant::now() > end {
                let text = self.text().await.unwrap_or_default();
                bail!("not true after {deadline:?}: {expression}\nthe page shows:\n{text}");
            }
            sleep(POLL).await;
        }
    }

    /// Goes to another page of the same site, and returns when it is there: until then the page that is left would answer.
    pub async fn go(&mut self, path: &str, deadline: Duration) -> anyhow::Result<()> {
        self.evaluate(&format!("window.isLeft = true; location.assign({}); 0", json!(path))).await?;
        self.wait_for("!window.isLeft && document.readyState === 'complete'", deadline).await
    }

    /// Waits until the page shows `text`, in whatever upper or lower case.
    pub async fn wait_for_text(&mut self, text: &str, deadline: Duration) -> anyhow::Result<()> {
        self.wait_for(&format!("({VISIBLE_TEXT}).toLowerCase().includes({})", json!(text.to_lowercase())), deadline)
            .await
    }

    /// What a person could read on the page.
    pub async fn text(&mut self) -> anyhow::Result<String> {
        let text = self.evaluate(VISIBLE_TEXT).await?;
        let lines = text.as_str().unwrap_or_default().lines().map(str::trim).filter(|line| !line.is_empty());
        Ok(lines.collect::<Vec<_>>().join("\n"))
    }

    /// Writes what the page looks like to a PNG file.
    pub async fn screenshot(&mut self, path: &Path) -> anyhow::Result<()> {
        let answer = self.call("Page.captureScreenshot", json!({ "format": "png" })).await?;
        // DevTools send standard base64; ours is the URL alphabet without padding.
        let data = answer["data"].as_str().unwrap_or_default().replace('+', "-").replace('/', "_");
        let picture = from_base64url(data.trim_end_matches('=')).context("no picture")?;
        fs::write(path, picture).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Shows the page on a screen of this size, by day or by night.
    pub async fn screen(&mut self, width: u64, height: u64, dark: bool) -> anyhow::Result<()> {
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.call("Emulation.setDeviceMetricsOverride", metrics).await?;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.call("Emulation.setEmulatedMedia", json!({ "features": features })).await.map(drop)
    }

    /// Presses and releases a key.
    pub async fn press(&mut self, key: &str) -> anyhow::Result<()> {
        let text = if key == "Enter" { "\r" } else { key };
        let mut event = json!({ "type": "keyDown", "key": key, "text": text });
        if key == "Enter" {
            event["windowsVirtualKeyCode"] = json!(13);
        }
        self.call("Input.dispatchKeyEvent", event).await?;
        self.call("Input.dispatchKeyEvent", json!({ "type": "keyUp", "key": key })).await.map(drop)
    }

    /// Types a text where the focus is.
    pub async fn type_text(&mut self, text: &str) -> anyhow::Result<()> {
        self.call("Input.insertText", json!({ "text": text })).await.map(drop)
    }

    /// Leaves the page open, to come back to it.
    pub fn leave(self) -> Tab {
        Tab(self.session)
    }

    /// Closes the page, and with it the connections it holds.
    pub async fn close(mut self) -> anyhow::Result<()> {
        self.call("Page.close", json!({})).await.map(drop)
    }

    async fn call(&mut self, method: &str, params: Value) -> anyhow::Result<Value> {
        self.browser.cdp.call(Some(&self.session), method, params).await
    }
}

/// The Control UI is built of web components, whose insides `document.body.innerText` leaves out.
const VISIBLE_TEXT: &str = "(() => { const walk = (root) => { let text = root.innerText ?? ''; \
     const all = root.querySelectorAll ? root.querySelectorAll('*') : []; \
     for (const node of all) if (node.shadowRoot) for (const child of node.shadowRoot.children) text += '\\n' + walk(child); \
     return text; }; return document.body ? walk(document.body) : ''; })()";

impl Drop for Chromium {
    fn drop(&mut self) {
        kill(&mut self.child);
        // Killed, it leaves a directory with a socket that its profile points to; asked to end, it has removed both.
        if let Ok(socket) = fs::read_link(self.dir.path().join("SingletonSocket")) {
            let _ = fs::remove_file(&socket);
            let _ = fs::remove_dir_all(socket.parent().unwrap_or(&socket));
        }
    }
}

/// Keeps a browser that never came up from staying behind.
struct KillOnDrop(Option<Child>);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            kill(child);
        }
    }
}

fn kill(child: &mut Child) {
    let _ = super::gateway::signal_group(child.id(), "KILL");
    let _ = child.wait();
}

/// The browser writes its DevTools port and path into its profile when it listens.
async fn debugging_endpoint(profile: &Path, child: &mut Child) -> anyhow::Result<String> {
    let end = Instant::now() + START_DEADLINE;
    loop {
        let text = fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
        if let Some((port, path)) = text.split_once('\n').filter(|(_, path)| !path.is_empty()) {
            return Ok(format!("ws://127.0.0.1:{port}{path}"));
        }
        if let Some(status) = child.try_wait()? {
            let output = fs::read_to_string(profile.join("output.log")).unwrap_or_default();
            bail!("Chromium ended with {status}:\n{output}");
        }
        ensure!(Instant::now() < end, "Chromium does not listen after {START_DEADLINE:?}");
        sleep(POLL).await;
    }
}

async fn find_or_install() -> anyhow::Result<PathBuf> {
    if let Some(program) = NAMES.into_iter().find_map(find) {
        return Ok(program);
    }
    match find("apt-get") {
        Some(apt) if nix::unistd::geteuid().is_root() => install(&apt).await?,
        _ => bail!("no Chromium here: install the package `chromium` (or Google Chrome)"),
    }
    find(NAMES[0]).context("apt-get installed no chromium: install a Chromium by hand")
}

async fn install(apt: &Path) -> anyhow::Result<()> {
    // On a new machine there is no list of packages yet; where it cannot be renewed, the old one may do.
    let _ = run_apt(apt, &["update"]).await;
    run_apt(apt, &["install", "-y", "--no-install-recommends", "chromium"]).await
}

async fn run_apt(apt: &Path, arguments: &[&str]) -> anyhow::Result<()> {
    let log = tempfile::NamedTempFile::new()?;
    let mut child = tokio::process::Command::new(apt)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(log.reopen()?)
        .stderr(log.reopen()?)
        .kill_on_drop(true)
        .spawn()?;
    let status = tokio::time::timeout(INSTALL_DEADLINE, child.wait()).await.context("apt-get takes too long")??;
    ensure!(status.success(), "apt-get {arguments:?} failed:\n{}", fs::read_to_string(log.path())?);
    Ok(())
}

/// A program on the PATH.
fn find(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|dir| dir.join(name)).find(|file| file.is_file())
}
