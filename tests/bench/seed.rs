//! Row 10: what seeding costs. A write beside the least a durable write can be, how much a re-run writes where nothing
//! changed, and how much later the gateway starts because of us.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, anyhow, ensure};
use nix::time::{ClockId, clock_gettime};
use openclaw_sidecar::{
    desired::{
        applied::Applied,
        document::Document,
        openclaw_json,
        plan::{self, Facts},
    },
    files,
};
use serde_json::{Map, Value, json};
use tokio::{
    net::TcpListener,
    process::Command,
    time::{Instant, timeout},
};

use crate::{
    lab::Lab,
    report::{Line, Report},
    stats::{Figure, Samples},
    support::machine::{Builder, Machine, Place},
};

const WRITES: usize = 200;
const STARTS: usize = 20;
const START_LIMIT: Duration = Duration::from_secs(30);
const MAX_CONFIG: u64 = 4 * 1024 * 1024;

pub async fn run(lab: &mut Lab, report: &mut Report) -> anyhow::Result<()> {
    let runs = lab.runs(WRITES, WRITES / 2);
    let mut lines = Vec::new();
    for (name, size, limit) in [("2 KB", 2_000, 1.2), ("100 KB", 100_000, 2.0)] {
        let cost = tokio::task::spawn_blocking(move || writes(size, runs)).await??;
        let (ours, bare) = (&cost.whole, &cost.bare);
        lines.push(Line::at_most_times(
            &format!("plan and write openclaw.json of {name}, p50"),
            ours.time(50),
            bare.time(50),
            limit,
        ));
        lines.push(Line::compare("   p90", ours.time(90), bare.time(90)));
        lines.push(Line::compare("   the write alone, p50", cost.write.time(50), bare.time(50)));
        lines.push(Line::info("   CPU time of reading, planning, serialising, p50", cost.plan.time(50), ""));
    }
    let rewritten = converged(lab).await?;
    lines.push(Line::at_most("files and directories touched by a converged re-run", rewritten, Figure::Count(0.0)));
    let title = format!("10. seed; reference: bare write, fsync, rename, fsync(directory), in turns, n = {runs} each");
    report.table(&title, &lines);
    starts(report).await
}

/// What many writes took.
#[derive(Default)]
struct Cost {
    whole: Samples,
    /// Of the whole: CPU time before the write.
    plan: Samples,
    /// Of the whole: from there on.
    write: Samples,
    bare: Samples,
}

/// One file written in turns by what `seed` uses and by the least that is as durable.
fn writes(size: usize, runs: usize) -> anyhow::Result<Cost> {
    // Beside the report: a disk, where a temporary directory may lie in memory.
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench"))?;
    let (path, other) = (dir.path().join("openclaw.json"), dir.path().join("bare.json"));
    let documents = [wish("info")?, wish("debug")?];
    let facts = Facts {
        generation: 1,
        port: 18_789,
        state_dir: dir.path(),
        gateway_version: "2026.9.6",
        fresh_token: "0123456789abcdef0123456789abcdef",
    };
    files::replace(&path, openclaw_json::write(&config(size)?).as_bytes(), 0o600)?;
    let (mut cost, mut applied) = (Cost::default(), Applied::default());
    for run in 0..=runs {
        let (clock, cpu) = (Instant::now(), thread_cpu()?);
        let text = files::read_text(&path, MAX_CONFIG)?;
        let present = openclaw_json::read(&text).map_err(|why| anyhow!(why))?;
        let plan = plan::plan(&present, &documents[run % 2], &applied, &facts);
        let text = openclaw_json::write(&plan.config);
        let (planned, begun) = (thread_cpu()?.saturating_sub(cpu), clock.elapsed());
        files::replace(&path, text.as_bytes(), 0o600)?;
        let whole = clock.elapsed();
        ensure!(plan.changed, "nothing changed");
        applied = plan.applied;

        let clock = Instant::now();
        bare_write(&other, text.as_bytes())?;
        let bare = clock.elapsed();
        // The first one meets new files.
        if run > 0 {
            cost.whole.add_time(whole);
            cost.plan.add_time(planned);
            cost.write.add_time(whole.saturating_sub(begun));
            cost.bare.add_time(bare);
        }
    }
    Ok(cost)
}

/// A busy machine must not count.
fn thread_cpu() -> anyhow::Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

#[expect(clippy::disallowed_methods, reason = "this is what the durable writer is measured against")]
fn bare_write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let staged = path.with_extension("new");
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&staged)?;
    file.write_all(content)?;
    file.sync_all()?;
    fs::rename(&staged, path)?;
    Ok(File::open(path.parent().context("a directory")?)?.sync_all()?)
}

/// What a control plane wants; two of them differ in one member.
fn wish(level: &str) -> anyhow::Result<Document> {
    let document = json!({
        "config": {
            "logging": {"level": level},
            "update": {"checkOnStart": false},
            "models": {"providers": {"openai": {"apiKey": "${OPENAI_API_KEY}"}}},
        },
        "gateway": {"bind": "lan", "allowed_origins": ["https://acme.example"], "trusted_proxies": ["127.0.0.1"]},
    });
    Document::parse(document.to_string().as_bytes()).map_err(|why| anyhow!(why))
}

/// A configuration of about `size` bytes, with what gateways themselves put there most of.
fn config(size: usize) -> anyhow::Result<Map<String, Value>> {
    let mut config = json!({"gateway": {"mode": "local", "auth": {"mode": "token", "token": "t".repeat(64)}}});
    let mut skills = Map::new();
    for n in 0.. {
        config["skills"] = json!({"entries": skills});
        let map = config.as_object().context("an object")?;
        if openclaw_json::write(map).len() + 700 >= size {
            return Ok(map.clone());
        }
        let many = size / 1000 + 1;
        skills.extend((0..many).map(|m| (format!("skill-{n}-{m}"), json!({"enabled": false}))));
    }
    unreachable!("it grows")
}

/// How much of a volume the next start changes when nothing is wanted that is not there, after a real gateway ran and
/// made of its configuration what it makes of it. That start only asks the same gateway's program for its help, so what
/// changes was written by us.
async fn converged(lab: &mut Lab) -> anyhow::Result<Figure> {
    let builder = lab.machine().await?.stop().await?;
    let before = seen(builder.place())?;
    let machine = builder.args(&["--help"]).spawn().await?;
    machine.wait_log(&["exit code 0"], START_LIMIT).await?;
    let builder = machine.stop().await?;
    Ok(touched(&before, &seen(builder.place())?))
}

/// What tells that something was written: inode, times of change of content and of attributes.
type Seen = BTreeMap<PathBuf, [i64; 5]>;

/// The gateway's directory, and what a start may write beside it; not the records of the daemon, which starts too.
fn seen(place: &Place) -> anyhow::Result<Seen> {
    let mut all = Seen::new();
    let mut open = vec![place.gateway_dir()];
    open.extend(["applied.json", "desired.json", "secrets.json"].map(|name| place.sidecar_dir().join(name)));
    open.extend(fs::read_dir(place.volume())?.filter_map(Result::ok).map(|entry| entry.path()));
    open.retain(|path| path.exists() && *path != place.sidecar_dir());
    while let Some(path) = open.pop() {
        let found = fs::symlink_metadata(&path)?;
        if found.is_dir() {
            for entry in fs::read_dir(&path)? {
                open.push(entry?.path());
            }
        }
        let inode = found.ino().cast_signed();
        all.insert(path, [inode, found.mtime(), found.mtime_nsec(), found.ctime(), found.ctime_nsec()]);
    }
    Ok(all)
}

fn touched(before: &Seen, after: &Seen) -> Figure {
    let gone = before.keys().filter(|path| !after.contains_key(*path)).count();
    let changed: Vec<_> = after.iter().filter(|(path, now)| before.get(*path) != Some(now)).collect();
    for (path, _) in &changed {
        eprintln!("written: {}", path.display());
    }
    Figure::count(gone + changed.len())
}

/// From the launcher's start to that of the gateway's program, beside starting that program alone.
async fn starts(report: &mut Report) -> anyhow::Result<()> {
    let stand_in = StandIn::new().await?;
    let (mut bare, mut first, mut again) = (Samples::default(), Samples::default(), Samples::default());
    let mut rewritten = 0.0_f64;
    for _ in 0..STARTS {
        bare.add_time(stand_in.alone().await?);
        let words = stand_in.words()?;
        let builder = Machine::command(&[])?.args(&words.each_ref().map(String::as_str));
        let (builder, took) = stand_in.launched(builder).await?;
        first.add_time(took);
        let before = seen(builder.place())?;
        let (builder, took) = stand_in.launched(builder).await?;
        again.add_time(took);
        rewritten = rewritten.max(touched(&before, &seen(builder.place())?).value());
    }
    let limit = Figure::Time(0.1);
    let lines = [
        Line::at_most("empty volume, p50", first.time(50), limit).beside(bare.time(50)),
        Line::compare("   p90", first.time(90), bare.time(90)),
        Line::at_most("the same volume again, p50", again.time(50), limit).beside(bare.time(50)),
        Line::compare("   p90", again.time(90), bare.time(90)),
        Line::at_most("   files and directories touched", Figure::Count(rewritten), Figure::Count(0.0)),
    ];
    report.table(
        &format!("10. exec of the launcher -> the gateway's program runs; reference: the program alone, n = {STARTS}"),
        &lines,
    );
    Ok(())
}

/// A program in the gateway's place that says at once that it runs: this one, by a connection.
struct StandIn {
    listener: TcpListener,
    /// Holds a copy of the program that every user may execute.
    dir: tempfile::TempDir,
    port: String,
}

impl StandIn {
    async fn new() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port().to_string();
        let dir = tempfile::tempdir()?;
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        let stand_in = Self { listener, dir, port };
        fs::copy(std::env::current_exe()?, stand_in.program())?;
        Ok(stand_in)
    }

    fn program(&self) -> PathBuf {
        self.dir.path().join("stand-in")
    }

    fn words(&self) -> anyhow::Result<[String; 3]> {
        let program = self
            .program()
            .into_os_string()
            .into_string()
            .map_err(|path| anyhow!("{} is not UTF-8", std::path::Path::new(&path).display()))?;
        Ok([program, "started".to_owned(), self.port.clone()])
    }

    async fn runs(&self, since: Instant) -> anyhow::Result<(Duration, tokio::net::TcpStream)> {
        let (stream, _) = timeout(START_LIMIT, self.listener.accept()).await.context("it does not start")??;
        Ok((since.elapsed(), stream))
    }

    async fn alone(&self) -> anyhow::Result<Duration> {
        let [program, arguments @ ..] = self.words()?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
        let clock = Instant::now();
        let mut child = command.spawn()?;
        let (took, _stream) = self.runs(clock).await?;
        child.kill().await?;
        Ok(took)
    }

    /// Boots the machine and stops it again.
    async fn launched(&self, builder: Builder) -> anyhow::Result<(Builder, Duration)> {
        let clock = Instant::now();
        let mut machine = builder.spawn().await?;
        let (took, _stream) = self.runs(clock).await.with_context(|| machine.last_words())?;
        machine.wait_listening().await?;
        Ok((machine.stop().await?, took))
    }
}

/// The stand-in's side: says that it runs, and stays until the bench goes or a signal comes.
pub fn stand_in(port: &str) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(("127.0.0.1", port.parse()?))?;
    let mut end = [0];
    // Nothing is ever sent.
    let _ = stream.read(&mut end)?;
    Ok(())
}
