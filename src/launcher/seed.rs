//! The process that becomes the gateway: it begins with every privilege, reads the desired state and unseals the
//! secrets, gives all privileges up for good, writes configuration and files as the gateway's user, and then executes
//! the gateway's program. The gateway can swap any of these files: as its own user, nothing is gained by that.

use std::collections::BTreeMap;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::{Map, Value};

use super::backup;
use super::layout::Layout;
use super::process::{self, Account};
use super::verbs::Seeded;
use crate::clock::UnixMs;
use crate::config::{Config, ENV_PREFIX, Env};
use crate::desired::applied::{self, Applied};
use crate::desired::document::Document;
use crate::desired::history::{self, History};
use crate::desired::plan::{self, Facts};
use crate::desired::secrets::{Store, Vault};
use crate::desired::{files as seeded_files, openclaw_json};
use crate::files;
use crate::secret::Secret;

/// Where we keep what we know of the gateway's files, among them.
const OWN_DIR: &str = ".sidecar";
/// What we last applied, in the sidecar's state directory.
pub const APPLIED: &str = "applied.json";
const MAX_CONFIG: u64 = 4 * 1024 * 1024;
/// Copies of unreadable configurations that are kept.
const ASIDE_KEPT: usize = 3;

/// Variables the gateway gets from the machine, by their beginning.
const PASSED: [&str; 10] = ["PATH", "HOME", "TZ", "LANG", "LANGUAGE", "LC_", "NODE_", "FLY_", "RAILWAY_", "OPENCLAW_"];

/// What one such process is for.
#[derive(Clone, Debug, PartialEq, Eq, clap::Subcommand)]
pub enum Mission {
    /// Write everything and become the gateway
    Launch {
        /// A generation that is not to be used
        #[arg(long)]
        avoid: Option<u64>,
        /// Put the last configuration that worked back
        #[arg(long)]
        restore: bool,
        /// The gateway's command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Take over what the gateway made of its configuration
    Adopt {
        /// The gateway's command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Become one of the gateway's tools
    Tool {
        /// The tool's command
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
    /// Tell by the exit code whether a process group holds a socket open
    Listener {
        /// The socket
        #[arg(long)]
        inode: u64,
        /// The process group
        #[arg(long)]
        group: i32,
    },
}

/// Why it cannot go on.
#[derive(Debug)]
struct Stop {
    why: String,
    config_class: bool,
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Self { why, config_class: false }
    }
}

impl From<io::Error> for Stop {
    fn from(e: io::Error) -> Self {
        e.to_string().into()
    }
}

/// Carries the mission out. Where it goes well and has a command, this process becomes that command.
///
/// # Errors
/// In plain words, why not. The launcher was told already where it waits for that.
pub fn run(mission: Mission, config: &Config, env: &Env) -> Result<u8, String> {
    let root = nix::unistd::geteuid().is_root();
    let account = |text: &str| if root { Account::find(text) } else { Ok(Account::own()) };
    let sidecar_uid = account(&config.launch.sidecar_user)?.uid;
    let account = account(&config.launch.gateway_user)?;
    let dir = Layout::new(&config.launch.volume).gateway;
    let mut seed =
        Seed { dir, config, env, account, sidecar_uid, unusable: false, previous_version: None, notes: Vec::new() };
    match mission {
        Mission::Launch { avoid, restore, command } => {
            // A session of its own: no process that an earlier gateway left behind can join this one's group.
            nix::unistd::setsid().map_err(|e| format!("setsid: {e}"))?;
            let report = own_report()?;
            let prepared = seed.launch(avoid, restore, &command);
            seed.finish(report, prepared, &command)
        }
        Mission::Adopt { .. } => {
            let report = own_report()?;
            let before = seed.applied();
            seed.account.become_it()?;
            let applied = seed.adopt(&before).map_err(|e| e.to_string())?;
            send(report, &Seeded { applied: Some(applied), ..Seeded::default() }).map(|()| 0)
        }
        Mission::Tool { command } => {
            let secrets = seed.secrets();
            seed.account.become_it()?;
            let wishes = seed.wishes(None).ok().flatten();
            let document = wishes.map(|(_, document)| document).unwrap_or_default();
            Err(seed.execute(&command, &document, &secrets))
        }
        Mission::Listener { inode, group } => {
            seed.account.become_it()?;
            Ok(u8::from(!process::group_holds(group, inode)))
        }
    }
}

struct Seed<'a> {
    config: &'a Config,
    env: &'a Env,
    account: Account,
    sidecar_uid: u32,
    /// The gateway's directory.
    dir: PathBuf,
    /// What lies in the configuration's place is not what the plan began with.
    unusable: bool,
    previous_version: Option<String>,
    notes: Vec<String>,
}

/// What is ready to be executed.
struct Prepared {
    generation: u64,
    version: Option<String>,
    document: Document,
    secrets: BTreeMap<String, Secret>,
    /// For the launcher to keep, where the gateway cannot change it.
    applied: Option<Applied>,
}

impl Seed<'_> {
    fn launch(&mut self, avoid: Option<u64>, restore: bool, command: &[String]) -> Result<Prepared, Stop> {
        // With privileges: what belongs to the sidecar.
        let applied = self.applied();
        let wishes = self.wishes(avoid);
        let secrets = self.secrets();
        self.account.become_it()?;
        // A launcher that is killed takes the gateway with it: the next one starts its own.
        nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).map_err(|e| e.to_string())?;
        // Without: everything that is written.
        files::private_dir(&self.dir.join(OWN_DIR))?;
        let path = self.env.get("PATH").map_or("", String::as_str);
        let version = backup::gateway_version(command, path);
        self.copy_aside(&applied, version.as_deref());
        let present = self.present(restore)?;
        let (generation, document) = match wishes {
            Ok(Some((generation, document))) => (generation, document),
            Ok(None) => (0, Document::default()),
            // Without knowing what is wanted nothing is taken away: the gateway runs with what is there.
            Err(why) if !present.is_empty() => {
                self.notes.push(format!("the desired state cannot be read, the configuration stays as it is: {why}"));
                return Ok(Prepared {
                    generation: applied.generation,
                    version,
                    document: Document::default(),
                    secrets,
                    applied: None,
                });
            }
            Err(why) => return Err(why.into()),
        };
        let applied = self.write(&present, &document, &applied, generation, version.as_deref())?;
        self.check_token(&document, &secrets)?;
        Ok(Prepared { generation, version, document, secrets, applied: Some(applied) })
    }

    /// The generation to use, read with privileges from the sidecar's directory: no link is followed there.
    fn wishes(&self, avoid: Option<u64>) -> Result<Option<(u64, Document)>, String> {
        let path = self.config.state_dir.join(history::FILE);
        let history = if files::exists(&path) {
            let text =
                files::read_owned_text(&path, history::MAX_FILE, Some(self.sidecar_uid)).map_err(|e| e.to_string())?;
            History::parse(&text).map_err(|e| format!("{}: {e}", path.display()))?
        } else {
            History::first_boot(&self.config.launch)?
        };
        Ok(history.to_use(avoid).map(|g| (g.generation, g.document.clone())))
    }

    fn secrets(&mut self) -> BTreeMap<String, Secret> {
        let opened = || {
            let store = Store::load(&self.config.state_dir.join("secrets.json"))?;
            if store.is_empty() {
                return Ok(BTreeMap::new());
            }
            let secret = self.config.machine.find()?.ok_or("machine.secret is not set")?;
            store.open_all(&Vault::new(&secret)?)
        };
        let opened: Result<_, String> = opened();
        opened.unwrap_or_else(|why| {
            self.notes.push(format!("the gateway starts without its stored secrets: {why}"));
            BTreeMap::new()
        })
    }

    fn own(&self, name: &str) -> PathBuf {
        self.dir.join(OWN_DIR).join(name)
    }

    fn config_path(&self) -> PathBuf {
        self.dir.join("openclaw.json")
    }

    /// What was applied last, as the launcher keeps it: the gateway could forge what lies among its own files.
    fn applied(&self) -> Applied {
        let text = files::read_owned_text(&self.config.state_dir.join(APPLIED), MAX_CONFIG, None).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    fn copy_aside(&mut self, applied: &Applied, version: Option<&str>) {
        let (was, Some(is)) = (applied.gateway_version.as_str(), version) else { return };
        if was.is_empty() || was == is {
            return;
        }
        self.previous_version = Some(was.to_owned());
        match backup::aside_for_version(&self.dir, was, is) {
            Ok(Some(copy)) => self.notes.push(format!(
                "the gateway's version changed from {was} to {is}; configuration and state were copied to {}",
                copy.display()
            )),
            Ok(None) => {}
            Err(e) => self
                .notes
                .push(format!("the gateway's version changed from {was} to {is}, and no copy could be made: {e}")),
        }
    }

    /// The configuration there is. One that cannot be read is set aside, never replaced by an empty one.
    fn present(&mut self, restore: bool) -> Result<Map<String, Value>, Stop> {
        let path = self.config_path();
        let read = match files::read_text(&path, MAX_CONFIG) {
            Ok(text) => openclaw_json::read(&text),
            Err(e) if e.kind() == io::ErrorKind::NotFound && !files::exists(&path) => return Ok(self.missing()),
            Err(e) => Err(e.to_string()),
        };
        let why = match read {
            Ok(present) if !restore => return Ok(present),
            Ok(_) => "the gateway refuses it".to_owned(),
            Err(why) => why,
        };
        let candidates =
            [self.own("last-good.json"), self.dir.join("openclaw.json.last-good"), self.dir.join("openclaw.json.bak")];
        let good = candidates.iter().find_map(|candidate| {
            let text = files::read_text(candidate, MAX_CONFIG).ok()?;
            Some((candidate, openclaw_json::read(&text).ok()?))
        });
        let Some((from, good)) = good else {
            let what = format!("openclaw.json cannot be used and there is no earlier one: {why}");
            return Err(Stop { why: what, config_class: true });
        };
        let aside = self.dir.join(format!("openclaw.json.unusable-{}", UnixMs::now().0));
        // A second name, not another one: a start that found none would begin a new tenant, with a new token.
        if std::fs::hard_link(&path, &aside).is_err() {
            files::rename(&path, &aside)?;
        }
        self.unusable = true;
        self.forget_old_asides();
        self.notes.push(format!(
            "openclaw.json could not be used ({why}); it lies at {} and {} took its place",
            aside.display(),
            from.display()
        ));
        Ok(good)
    }

    /// No configuration at all: the first start, or somebody removed it.
    fn missing(&mut self) -> Map<String, Value> {
        let text = files::read_text(&self.own("last-good.json"), MAX_CONFIG).unwrap_or_default();
        let good = openclaw_json::read(&text).unwrap_or_default();
        if !good.is_empty() {
            self.notes.push("openclaw.json was missing; the last one that worked took its place".to_owned());
        }
        good
    }

    fn forget_old_asides(&self) {
        let names = std::fs::read_dir(&self.dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        let ours = |path: &PathBuf| {
            path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("openclaw.json.unusable-"))
        };
        let mut asides: Vec<PathBuf> = names.filter(ours).collect();
        asides.sort();
        for old in asides.iter().rev().skip(ASIDE_KEPT) {
            let _ = files::remove_if_present(old);
        }
    }

    fn write(
        &mut self,
        present: &Map<String, Value>,
        document: &Document,
        before: &Applied,
        generation: u64,
        version: Option<&str>,
    ) -> Result<Applied, Stop> {
        let facts = Facts {
            generation,
            port: self.config.gateway.address.port(),
            state_dir: &self.dir,
            gateway_version: version.unwrap_or_default(),
            fresh_token: &fresh_token()?,
        };
        let mut plan = plan::plan(present, document, before, &facts);
        if plan.changed || self.unusable || !files::exists(&self.config_path()) {
            files::replace(&self.config_path(), openclaw_json::write(&plan.config).as_bytes(), 0o600)?;
        }
        let workspace = plan::workspace(&plan.config).map_or_else(|| self.dir.join("workspace"), |w| self.at_home(&w));
        plan.applied.files = seeded_files::write(&self.dir, &workspace, &document.files, &before.files)?;
        Ok(plan.applied)
    }

    /// The gateway takes a path that begins with `~/` from its home.
    fn at_home(&self, path: &str) -> PathBuf {
        path.strip_prefix("~/").map_or_else(|| PathBuf::from(path), |rest| self.home().join(rest))
    }

    /// A token that names a variable nobody sets: 2026.9.6 would start with a random one that nobody knows.
    fn check_token(&self, document: &Document, secrets: &BTreeMap<String, Secret>) -> Result<(), String> {
        let text = files::read_text(&self.config_path(), MAX_CONFIG).unwrap_or_default();
        let config = openclaw_json::read(&text).unwrap_or_default();
        let token = config.get("gateway").and_then(|g| g.pointer("/auth/token")).and_then(Value::as_str);
        let name = token.and_then(|token| token.strip_prefix("${")?.strip_suffix('}'));
        match name {
            Some(name) if !self.environment(document, secrets).contains_key(name) => Err(format!(
                "gateway.auth.token is ${{{name}}}, and nothing sets {name}: store it with PUT /v1/secrets/{name}"
            )),
            _ => Ok(()),
        }
    }

    /// The gateway works: what it made of its configuration is what we applied, and what we would go back to.
    fn adopt(&self, before: &Applied) -> io::Result<Applied> {
        let text = files::read_text(&self.config_path(), MAX_CONFIG)?;
        let present = openclaw_json::read(&text).map_err(io::Error::other)?;
        let good = self.own("last-good.json");
        if !files::read_text(&good, MAX_CONFIG).is_ok_and(|known| known == text) {
            files::replace(&good, text.as_bytes(), 0o600)?;
        }
        Ok(applied::adopt(&present, before))
    }

    /// Reports, and becomes the gateway.
    fn finish(self, report: UnixStream, prepared: Result<Prepared, Stop>, command: &[String]) -> Result<u8, String> {
        let mut seeded = Seeded::default();
        (seeded.notes, seeded.previous_version) = (self.notes.clone(), self.previous_version.clone());
        let why = match prepared {
            Ok(prepared) => {
                (seeded.generation, seeded.version) = (prepared.generation, prepared.version);
                seeded.applied = prepared.applied;
                seeded.hide = self.hidden(&prepared.secrets);
                seeded.dropped = self.dropped();
                // Found out before the report: afterwards the launcher believes that the gateway boots.
                match self.runnable(command) {
                    Ok(()) => {
                        send(report, &seeded)?;
                        return Err(self.execute(command, &prepared.document, &prepared.secrets));
                    }
                    Err(why) => why,
                }
            }
            Err(stop) => {
                seeded.config_class = stop.config_class;
                stop.why
            }
        };
        seeded.failed = Some(why.clone());
        send(report, &seeded)?;
        Err(why)
    }

    /// What the gateway may print and nobody else should: the stored secrets, line by line, and its own token.
    fn hidden(&self, secrets: &BTreeMap<String, Secret>) -> Vec<Secret> {
        let text = files::read_text(&self.config_path(), MAX_CONFIG).unwrap_or_default();
        let config = openclaw_json::read(&text).unwrap_or_default();
        let auth = config.get("gateway").and_then(|gateway| gateway.get("auth"));
        let own = ["token", "password"].iter().filter_map(|name| auth?.get(name)?.as_str());
        let stored = secrets.values().flat_map(|secret| secret.expose().lines());
        stored.chain(own).map(|text| Secret::new(text.trim().to_owned())).collect()
    }

    fn runnable(&self, command: &[String]) -> Result<(), String> {
        let Some(program) = command.first() else { return Err("the gateway's command is empty".to_owned()) };
        let path = self.env.get("PATH").map_or("", String::as_str);
        let places: Vec<PathBuf> = if program.contains('/') {
            vec![program.into()]
        } else {
            path.split(':').map(|dir| Path::new(dir).join(program)).collect()
        };
        let Some(found) = places.iter().find(|place| place.is_file()) else {
            return Err(format!("the gateway's command {program:?} does not exist"));
        };
        nix::unistd::access(found, nix::unistd::AccessFlags::X_OK)
            .map_err(|_| format!("the gateway's command {} is not executable for its user", found.display()))
    }

    /// Replaces this process; returns only why that failed.
    fn execute(&self, command: &[String], document: &Document, secrets: &BTreeMap<String, Secret>) -> String {
        let Some((program, arguments)) = command.split_first() else { return "the command is empty".to_owned() };
        let mut gateway = Command::new(program);
        gateway.args(arguments).stdin(Stdio::null()).env_clear().envs(self.environment(document, secrets));
        format!("{program}: {}", gateway.exec())
    }

    fn passes(&self, name: &String) -> bool {
        let usual = PASSED.iter().any(|p| if p.ends_with('_') { name.starts_with(p) } else { name == p });
        (usual || self.config.launch.env_pass.contains(name)) && !name.starts_with(ENV_PREFIX)
    }

    fn dropped(&self) -> Vec<String> {
        self.env.keys().filter(|name| !self.passes(name) && !name.starts_with(ENV_PREFIX)).cloned().collect()
    }

    /// What the platform gives, over it what the desired state and the stored secrets say, over all what we must set.
    fn environment(&self, document: &Document, secrets: &BTreeMap<String, Secret>) -> BTreeMap<String, String> {
        let kept = self.env.iter().filter(|(name, _)| self.passes(name));
        let mut kept: BTreeMap<String, String> = kept.map(|(name, value)| (name.clone(), value.clone())).collect();
        let text = |path: &Path| path.display().to_string();
        let path = kept.get("PATH").cloned().unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
        let own = [
            ("PATH", format!("{}:{path}", text(&self.dir.join("bin")))),
            ("HOME", text(&self.home())),
            // The daemon looks for it there, whatever the platform says.
            ("OPENCLAW_GATEWAY_PORT", self.config.gateway.address.port().to_string()),
            ("OPENCLAW_STATE_DIR", text(&self.dir)),
            ("OPENCLAW_CONFIG_PATH", text(&self.config_path())),
            // Without it old versions fork, and restart as somebody else's child.
            ("OPENCLAW_NO_RESPAWN", "1".to_owned()),
            // Without multicast, 2026.4.9 ends with an error when it is stopped early.
            ("OPENCLAW_DISABLE_BONJOUR", "1".to_owned()),
        ];
        kept.extend(document.env.clone());
        kept.extend(secrets.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned())));
        kept.extend(own.map(|(name, value)| (name.to_owned(), value)));
        kept
    }

    /// The user's home where it can be written; else one on the volume.
    fn home(&self) -> PathBuf {
        let writable = |home: &PathBuf| nix::unistd::access(home, nix::unistd::AccessFlags::W_OK).is_ok();
        let home = self.account.home.clone().filter(|home| home.is_dir() && writable(home));
        home.unwrap_or_else(|| {
            let home = self.dir.join("home");
            let _ = files::private_dir(&home);
            home
        })
    }
}

fn own_report() -> Result<UnixStream, String> {
    io::stdin().as_fd().try_clone_to_owned().map(UnixStream::from).map_err(|e| e.to_string())
}

fn send(mut report: UnixStream, seeded: &Seeded) -> Result<(), String> {
    let text = serde_json::to_vec(seeded).map_err(|e| e.to_string())?;
    report.write_all(&text).map_err(|e| e.to_string())
}

fn fresh_token() -> Result<String, String> {
    let mut bytes = zeroize::Zeroizing::new([0u8; 32]);
    aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| "the system's random source failed".to_owned())?;
    Ok(data_encoding::HEXLOWER.encode(&*bytes))
}
