//! Most of these run as root and again as an ordinary user, each on its own volume.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt as _, chown, lchown, symlink};
use std::os::unix::process::CommandExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::stat::Mode;

use super::*;

const TENANT_UID: u32 = 12001;
const SIDECAR_UID: u32 = 12002;

#[derive(Clone, Copy, PartialEq)]
enum Stop {
    Kill,
    Fail,
}

thread_local! {
    static STOP: Cell<Option<(usize, Stop)>> = const { Cell::new(None) };
}

/// Called before each change on disk; the work is killed or fails there when a test said so.
pub(in crate::launcher) fn step() -> io::Result<()> {
    let Some((left, how)) = STOP.get() else { return Ok(()) };
    if left > 0 {
        STOP.set(Some((left - 1, how)));
        return Ok(());
    }
    STOP.set(None);
    match how {
        Stop::Kill => resume_unwind(Box::new("killed")),
        Stop::Fail => Err(io::Error::other("the disk is broken")),
    }
}

fn is_root() -> bool {
    Owner::of_process().uid == 0
}

/// For tests that make no sense otherwise: `if !root("name") { return }`.
fn root(name: &str) -> bool {
    if !is_root() {
        eprintln!("SKIPPED launcher::layout::{name}: needs root");
    }
    is_root()
}

struct Rig {
    _dir: tempfile::TempDir,
    layout: Layout,
    gateway: Owner,
    sidecar: Owner,
}

/// Not root, a temporary directory with a read-only one in it would stay for ever.
impl Drop for Rig {
    fn drop(&mut self) {
        let _ = tree::remove(&self.layout.volume);
    }
}

impl Rig {
    /// An empty volume that belongs to the tenant. In memory where possible: a sync there waits for nobody else.
    fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let volume = dir.path().join("volume");
        fs::create_dir(&volume).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let me = Owner::of_process();
        let of = |uid| if is_root() { Owner { uid, gid: uid } } else { me };
        let rig = Self { layout: Layout::new(&volume), gateway: of(TENANT_UID), sidecar: of(SIDECAR_UID), _dir: dir };
        fs::set_permissions(&volume, fs::Permissions::from_mode(0o700)).unwrap();
        rig.give_away(&volume);
        rig
    }

    fn give_away(&self, path: &Path) {
        lchown(path, Some(self.gateway.uid), Some(self.gateway.gid)).unwrap();
    }

    fn at(&self, path: &str) -> PathBuf {
        self.layout.volume.join(path)
    }

    fn dir(&self, path: &str) -> PathBuf {
        fs::create_dir(self.at(path)).unwrap();
        self.give_away(&self.at(path));
        self.at(path)
    }

    fn file(&self, path: &str, content: &str, mode: u32) {
        fs::write(self.at(path), content).unwrap();
        fs::set_permissions(self.at(path), fs::Permissions::from_mode(mode)).unwrap();
        self.give_away(&self.at(path));
    }

    /// A tenant with all kinds of files, its state in `state` ("" or ".openclaw/").
    fn flat(state: &str) -> Self {
        let rig = Self::new();
        if !state.is_empty() {
            rig.dir(state);
        }
        rig.file(&format!("{state}openclaw.json"), "{}", 0o600);
        let agents = rig.dir(&format!("{state}agents"));
        rig.dir(&format!("{state}agents/main"));
        rig.file(&format!("{state}agents/main/session.jsonl"), &format!("{}/main", agents.display()), 0o640);
        rig.dir(&format!("{state}state"));
        rig.file(&format!("{state}state/openclaw.sqlite"), &"page".repeat(5000), 0o600);
        rig.dir("workspace");
        rig.file("workspace/run", "#!/bin/sh", 0o755);
        fs::hard_link(rig.at("workspace/run"), rig.at("workspace/run-too")).unwrap();
        rig.dir("workspace/locked");
        rig.file("workspace/locked/note", "read only", 0o400);
        fs::set_permissions(rig.at("workspace/locked"), fs::Permissions::from_mode(0o500)).unwrap();
        symlink("run", rig.at("workspace/link")).unwrap();
        symlink(rig.at("workspace"), rig.at("current")).unwrap();
        nix::unistd::mkfifo(&rig.at("workspace/fifo"), Mode::S_IRWXU).unwrap();
        for path in ["workspace/link", "current", "workspace/fifo"] {
            rig.give_away(&rig.at(path));
        }
        let long_ago = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        fs::File::open(rig.at("workspace/run")).unwrap().set_modified(long_ago).unwrap();
        fs::File::open(rig.at("workspace")).unwrap().set_modified(long_ago).unwrap();
        rig
    }

    /// As if the tenant had run as root.
    fn of_root(self) -> Self {
        for path in self.snapshot().keys().filter(|_| is_root()) {
            let mode = fs::symlink_metadata(self.layout.volume.join(path)).unwrap().permissions();
            lchown(self.layout.volume.join(path), Some(0), Some(0)).unwrap();
            if !self.at("").join(path).is_symlink() {
                fs::set_permissions(self.layout.volume.join(path), mode).unwrap();
            }
        }
        self
    }

    fn prepare(&self) -> Result<Vec<String>, Refused> {
        self.layout.prepare(self.gateway, self.sidecar, true)
    }

    /// Runs until stopped before change number `steps`; `None` when killed.
    fn prepare_stopped(&self, steps: usize, how: Stop) -> Option<Result<Vec<String>, Refused>> {
        STOP.set(Some((steps, how)));
        let result = catch_unwind(AssertUnwindSafe(|| self.prepare())).ok();
        STOP.set(None);
        result
    }

    fn refusal(&self) -> String {
        let before = self.snapshot();
        let refusal = self.prepare().unwrap_err().to_string();
        assert_eq!(before, self.snapshot(), "a refusal touches nothing");
        refusal
    }

    fn snapshot(&self) -> BTreeMap<PathBuf, String> {
        snapshot(&self.layout.volume)
    }
}

/// Everything there is to know about a tree, except when directories changed.
fn snapshot(dir: &Path) -> BTreeMap<PathBuf, String> {
    let mut all = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(path) = todo.pop() {
        let found = fs::symlink_metadata(&path).unwrap();
        let what = if found.is_dir() {
            todo.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
            "directory".to_owned()
        } else if found.is_symlink() {
            // Where it leads inside the volume is the same on every volume.
            fs::read_link(&path).unwrap().display().to_string().replace(&dir.display().to_string(), "<volume>")
        } else if found.file_type().is_fifo() {
            "fifo".to_owned()
        } else {
            let content = fs::read(&path).map_err(|e| e.to_string());
            let content = content.map(|c| String::from_utf8_lossy(&c).replace(&dir.display().to_string(), "<volume>"));
            let old = found.mtime() == 1_000_000;
            format!("{content:?} {} {old}", found.nlink())
        };
        let line = format!("{:o} {}:{} {what}", bits(&found), found.uid(), found.gid());
        all.insert(path.strip_prefix(dir).unwrap().to_owned(), line);
    }
    all
}

fn owner_of(path: &Path) -> (u32, u32) {
    let found = fs::symlink_metadata(path).unwrap();
    (found.uid(), bits(&found))
}

#[test]
fn an_empty_volume_is_laid_out_once() {
    let rig = Rig::new();
    let said = rig.prepare().unwrap();
    assert!(said.iter().any(|line| line.contains("openclaw")), "{said:?}");
    assert_eq!(owner_of(&rig.layout.volume), (Owner::of_process().uid, 0o755));
    assert_eq!(owner_of(&rig.layout.gateway), (rig.gateway.uid, 0o700));
    assert_eq!(owner_of(&rig.layout.sidecar), (rig.sidecar.uid, 0o700));
    rig.file("openclaw/openclaw.json", "{}", 0o600);
    let after = rig.snapshot();
    assert_eq!(rig.prepare().unwrap(), Vec::<String>::new());
    assert_eq!(after, rig.snapshot());
    fs::set_permissions(&rig.layout.sidecar, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(rig.prepare().unwrap()[0].contains("set right"));
    assert_eq!(after, rig.snapshot());
}

#[test]
fn a_flat_tenant_is_moved_and_a_copy_is_kept() {
    for state in ["", ".openclaw/"] {
        let rig = Rig::flat(state);
        let before = rig.snapshot();
        let said = rig.prepare().unwrap().join("\n");
        assert!(said.contains("workspace/fifo"), "{said}");
        let after = rig.snapshot();

        let mut copy = snapshot(&rig.at(COPY));
        let mut expected = before.clone();
        expected.remove(Path::new("workspace/fifo"));
        let second_name = |line: &mut String| *line = line.replace(" 2 true", " 1 true");
        expected.values_mut().for_each(second_name);
        assert!(copy.remove(Path::new("")).unwrap().starts_with(&format!("700 {}", Owner::of_process().uid)));
        expected.remove(Path::new(""));
        for path in ["agents/main/session.jsonl", "current"].map(|path| Path::new(path).to_owned()) {
            let path = if path.starts_with("agents") { Path::new(state).join(path) } else { path };
            // These name the volume, in which the copy lies deeper.
            assert!(copy.remove(&path).is_some() && expected.remove(&path).is_some());
        }
        assert_eq!(copy, expected);
        assert!(fs::metadata(rig.at(COPY).join("workspace")).unwrap().mtime() == 1_000_000);

        for (path, what) in &before {
            let path = path.strip_prefix(".openclaw").unwrap_or(path);
            if path == Path::new("") {
                continue;
            }
            assert_eq!(&after[&Path::new(GATEWAY).join(path)], what, "{path:?}");
        }
        assert_eq!(fs::read_link(rig.at("workspace")).unwrap(), Path::new("openclaw/workspace"));
        assert_eq!(owner_of(&rig.at("workspace")).0, Owner::of_process().uid);
        let session = fs::read_to_string(rig.layout.gateway.join("agents/main/session.jsonl")).unwrap();
        assert!(Path::new(&session).join("session.jsonl").is_file(), "{session} leads nowhere");
        assert!(!there(&rig.at(CONFIG)));
        assert_eq!(owner_of(&rig.layout.gateway), (rig.gateway.uid, 0o700));

        assert_eq!(rig.prepare().unwrap(), Vec::<String>::new());
        assert_eq!(after, rig.snapshot());
        fs::remove_file(rig.at(MARKER)).unwrap();
        rig.prepare().unwrap();
        assert_eq!(after, rig.snapshot(), "a lost marker does no harm");
    }
}

#[test]
fn killed_or_failing_before_any_change_it_is_finished_by_the_next_start() {
    let flat = |state| if state == "root's" { Rig::flat("").of_root() } else { Rig::flat(state) };
    for (state, how) in [("", Stop::Kill), ("", Stop::Fail), ("root's", Stop::Kill), (".openclaw/", Stop::Kill)] {
        let reference = flat(state);
        let before = reference.snapshot();
        reference.prepare().unwrap();
        let expected = reference.snapshot();
        for k in 0.. {
            assert!(k < 500, "never finished");
            let rig = flat(state);
            let first = rig.prepare_stopped(k, how);
            if matches!(first, Some(Ok(_))) {
                assert!(k > 30, "only {k} changes?");
                break;
            }
            let untouched = rig.snapshot() == before;
            assert!(how == Stop::Kill || untouched || there(&rig.at(MARKER)), "step {k}: neither given back nor begun");
            let _ = rig.prepare_stopped(k / 3, how);
            // Whether or not migration is wanted by now, what is half moved is finished.
            let wanted = !matches!(rig.layout.progress().unwrap(), Progress::Moving(_));
            rig.layout.prepare(rig.gateway, rig.sidecar, wanted).unwrap_or_else(|e| panic!("step {k}: {e}"));
            assert_eq!(rig.snapshot(), expected, "step {k}");
        }
    }
}

#[test]
#[ignore = "started and killed by the next test"]
fn migrates_what_the_environment_names() {
    let volume = PathBuf::from(std::env::var("KILLED_VOLUME").unwrap());
    let uid = |name| std::env::var(name).unwrap().parse().unwrap();
    let gateway = Owner { uid: uid("KILLED_GATEWAY"), gid: uid("KILLED_GATEWAY") };
    let sidecar = Owner { uid: uid("KILLED_SIDECAR"), gid: uid("KILLED_SIDECAR") };
    Layout::new(&volume).prepare(gateway, sidecar, true).unwrap();
}

#[test]
fn kill_nine_at_any_moment_loses_nothing() {
    let filled = || {
        let rig = Rig::flat("");
        for k in 0..400 {
            rig.file(&format!("workspace/file-{k}"), &k.to_string(), 0o644);
            rig.file(&format!("top-{k}"), &k.to_string(), 0o644);
        }
        rig
    };
    let reference = filled();
    reference.prepare().unwrap();
    let expected = reference.snapshot();
    let start = |rig: &Rig| {
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "launcher::layout::tests::migrates_what_the_environment_names", "--ignored"])
            .env("KILLED_VOLUME", &rig.layout.volume)
            .env("KILLED_GATEWAY", rig.gateway.uid.to_string())
            .env("KILLED_SIDECAR", rig.sidecar.uid.to_string())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    for round in 0..3 {
        let rig = filled();
        for kill in 0.. {
            let mut child = start(&rig);
            // The moment of the kill is the fault that is injected; later ones let it come further.
            std::thread::sleep(Duration::from_micros(2000 + 300 * round).mul_f64(1.2_f64.powi(kill)));
            let _ = child.kill();
            if child.wait().unwrap().success() {
                break;
            }
            assert!(kill < 60, "never finished");
        }
        assert_eq!(rig.snapshot(), expected);
    }
}

#[test]
fn what_cannot_be_migrated_is_refused_untouched() {
    let rig = Rig::flat("");
    let off = rig.layout.prepare(rig.gateway, rig.sidecar, false).unwrap_err();
    assert!(off.remedy.contains("launch.migrate"), "{off}");

    // More than any disk here has; a file with holes takes no room until it is copied.
    fs::File::options().write(true).open(rig.at(CONFIG)).unwrap().set_len(1 << 43).unwrap();
    let text = rig.layout.prepare(rig.gateway, rig.sidecar, true).unwrap_err().to_string();
    assert!(text.contains("free") && text.contains("Extend the volume"), "{text}");
    assert!(dry_run(&rig.layout.volume).is_err());
    assert!(!there(&rig.at(MARKER)) && owner_of(&rig.layout.volume) == (rig.gateway.uid, 0o700));
    rig.file(CONFIG, "{}", 0o600);

    rig.dir(COPY);
    assert!(rig.refusal().contains("is there already"));
    fs::remove_dir(rig.at(COPY)).unwrap();

    for dir in [GATEWAY, SIDECAR] {
        rig.dir(dir);
        rig.file(&format!("{dir}/agents"), "", 0o600);
        if is_root() {
            chown(rig.at(dir), Some(SIDECAR_UID), None).unwrap();
        }
        assert!(rig.refusal().contains("is not empty"));
        fs::remove_dir_all(rig.at(dir)).unwrap();
    }
    symlink("workspace", rig.at(GATEWAY)).unwrap();
    assert!(rig.refusal().contains("is a symbolic link"));
    fs::remove_file(rig.at(GATEWAY)).unwrap();

    let mut deep = rig.dir("deep");
    for _ in 0..110 {
        deep.push("d");
        fs::create_dir(&deep).unwrap();
    }
    assert!(rig.refusal().contains("deeper than 100"));
    fs::remove_dir_all(rig.at("deep")).unwrap();

    let nested = Rig::flat(".openclaw/");
    nested.dir(".openclaw/workspace");
    assert!(nested.refusal().contains("is both in"));
    rig.prepare().unwrap();
}

#[test]
fn two_states_are_never_mixed() {
    // Half of it has moved; then somebody starts the old way and writes a new configuration.
    let stopped = |k| {
        let rig = Rig::flat("");
        assert!(rig.prepare_stopped(k, Stop::Kill).is_none(), "it never stopped half way");
        rig
    };
    let rig = (0..500).map(stopped).find(|rig| there(&rig.layout.gateway.join(CONFIG))).unwrap();
    fs::write(rig.at(CONFIG), "newer").unwrap();
    let text = rig.prepare().unwrap_err().to_string();
    assert!(text.contains("is both in"), "{text}");
    assert_eq!(fs::read_to_string(rig.at(CONFIG)).unwrap(), "newer");
    assert_eq!(fs::read_to_string(rig.layout.gateway.join(CONFIG)).unwrap(), "{}");
}

#[test]
fn a_dry_run_tells_all_and_touches_nothing() {
    for state in ["", ".openclaw/"] {
        let rig = Rig::flat(state);
        rig.file("two\nlines", "", 0o600);
        let before = rig.snapshot();
        let lines = dry_run(&rig.layout.volume).unwrap();
        assert_eq!(before, rig.snapshot());
        let text = lines.join("\n");
        let line =
            format!("move {:?} (28 KiB) to {:?}, leaving a link", rig.at("workspace"), rig.at("openclaw/workspace"));
        assert!(text.contains(&line) && text.contains("copy ") && text.contains("workspace/fifo"), "{text}");
        assert!(text.contains("two\\nlines") && !text.contains("two\nlines"), "{text}");
        rig.prepare().unwrap();
        assert!(dry_run(&rig.layout.volume).unwrap()[0].contains("nothing to migrate"));
    }
    let empty = Rig::new();
    assert!(dry_run(&empty.layout.volume).unwrap()[0].contains("nothing to migrate"));
}

#[test]
fn unsafe_places_are_refused() {
    let rig = Rig::new();
    let base = rig.layout.volume.parent().unwrap().to_owned();
    let refusal = |volume: &Path| {
        let layout = Layout::new(volume);
        layout.prepare(rig.gateway, rig.sidecar, true).unwrap_err().to_string()
    };
    symlink(&rig.layout.volume, base.join("link")).unwrap();
    assert!(refusal(&base.join("link")).contains("is a symbolic link"));
    fs::create_dir(rig.at("inner")).unwrap();
    assert!(refusal(&base.join("link/inner")).contains("is a symbolic link"));
    assert!(refusal(&base.join("absent")).contains("Mount or create it"));
    assert!(refusal(Path::new("volume")).contains("not an absolute path"));
    assert!(refusal(&base.join("volume/../volume")).contains("not an absolute path"));
    fs::write(base.join("file"), "").unwrap();
    assert!(refusal(&base.join("file")).contains("is not a directory"));
    fs::set_permissions(&base, fs::Permissions::from_mode(0o775)).unwrap();
    let text = refusal(&rig.layout.volume);
    assert!(text.contains("can be written by others") && text.contains(&format!("{base:?}")), "{text}");
    fs::set_permissions(&base, fs::Permissions::from_mode(0o1777)).unwrap();
    rig.prepare().unwrap();

    for name in [GATEWAY, SIDECAR] {
        let rig = Rig::new();
        symlink("elsewhere", rig.at(name)).unwrap();
        rig.give_away(&rig.at(name));
        assert!(rig.prepare().is_err());
        assert!(!there(&rig.at("elsewhere")));
    }
}

#[test]
fn the_sidecars_directory_may_lie_elsewhere() {
    let mut rig = Rig::flat("");
    let base = rig.layout.volume.parent().unwrap().to_owned();
    rig.dir(SIDECAR);
    rig.file("sidecar/notes", "the tenant's own", 0o600);
    rig.layout = rig.layout.clone().with_sidecar(&base.join("var/sidecar/"));
    assert!(rig.prepare().unwrap_err().to_string().contains("var"));
    fs::create_dir(base.join("var")).unwrap();
    rig.prepare().unwrap();
    assert_eq!(owner_of(&base.join("var/sidecar")), (rig.sidecar.uid, 0o700));
    assert_eq!(fs::read_to_string(rig.at("openclaw/sidecar/notes")).unwrap(), "the tenant's own");
}

#[test]
fn what_a_tenant_prepared_is_not_taken_for_ours() {
    if !root("what_a_tenant_prepared_is_not_taken_for_ours") {
        return;
    }
    for rig in [Rig::new(), Rig::flat("")] {
        rig.dir(SIDECAR);
        assert!(rig.refusal().contains("belongs to uid 12001, not to the sidecar"));
    }

    let rig = Rig::flat("");
    rig.file(MARKER, "done\n", 0o644);
    assert!(rig.refusal().contains("was not made by this sidecar"));
    fs::remove_file(rig.at(MARKER)).unwrap();
    symlink("openclaw.json", rig.at(MARKER)).unwrap();
    assert!(rig.refusal().contains("was not made by this sidecar"));
    fs::remove_file(rig.at(MARKER)).unwrap();
    // The name under which the marker is written.
    let victim = rig.layout.volume.parent().unwrap().join("victim");
    fs::write(&victim, "precious").unwrap();
    symlink(&victim, rig.at("..sidecar-layout.new")).unwrap();
    rig.prepare().unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");

    let rig = Rig::flat("");
    chown(&rig.layout.volume, Some(12003), None).unwrap();
    assert!(rig.refusal().contains("belongs to uid 12003, not to root or the gateway"));

    let rig = Rig::new();
    rig.prepare().unwrap();
    rig.give_away(&rig.layout.volume);
    assert!(rig.refusal().contains("can exchange what lies in it"));
    chown(&rig.layout.volume, Some(0), None).unwrap();
    fs::set_permissions(&rig.layout.volume, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(rig.refusal().contains("can be written by others"));
}

#[test]
fn only_the_tenants_own_files_change_their_owner() {
    if !root("only_the_tenants_own_files_change_their_owner") {
        return;
    }
    let rig = Rig::flat("");
    let outside = rig.layout.volume.parent().unwrap().join("shadow");
    fs::write(&outside, "secret").unwrap();
    fs::hard_link(&outside, rig.at("workspace/shadow")).unwrap();
    symlink(&outside, rig.at("workspace/to-shadow")).unwrap();
    // What remains of a file that root has replaced elsewhere.
    fs::write(rig.at("workspace/orphan"), "old secret").unwrap();
    // Made by an image with another group.
    chown(rig.at("workspace/locked"), None, Some(7)).unwrap();
    let said = rig.prepare().unwrap().join("\n");
    assert!(said.contains("workspace/shadow") && said.contains("workspace/orphan"), "{said}");
    assert!(!said.contains("workspace/run"), "{said}");
    assert_eq!(owner_of(&outside).0, 0);
    assert_eq!(owner_of(&rig.at("openclaw/workspace/orphan")).0, 0);
    assert_eq!(fs::metadata(rig.at("openclaw/workspace/locked")).unwrap().gid(), TENANT_UID);
}

#[test]
fn a_tenant_that_ran_as_root_is_given_what_has_one_name() {
    if !root("a_tenant_that_ran_as_root_is_given_what_has_one_name") {
        return;
    }
    let rig = Rig::flat("").of_root();
    let device = nix::sys::stat::makedev(1, 3);
    let made = nix::sys::stat::mknod(&rig.at("workspace/null"), nix::sys::stat::SFlag::S_IFCHR, Mode::S_IRUSR, device);
    fs::hard_link(rig.at("workspace/locked/note"), rig.layout.volume.parent().unwrap().join("note")).unwrap();
    let expected = rig.prepare().unwrap().join("\n");
    assert_eq!(owner_of(&rig.at("openclaw/workspace/run")).0, 0, "its second name may lie outside");
    assert_eq!(owner_of(&rig.at("openclaw/workspace/locked/note")).0, 0, "its second name lies outside");
    assert_eq!(owner_of(&rig.at("openclaw/openclaw.json")).0, TENANT_UID);
    assert_eq!(owner_of(&rig.at("openclaw/workspace/link")).0, TENANT_UID);
    assert_eq!(owner_of(&rig.at("openclaw/agents/main")).0, TENANT_UID);
    assert!(made.is_err() || owner_of(&rig.at("openclaw/workspace/null")).0 == 0, "a device was given away");
    assert!(expected.contains("run-too"), "{expected}");

    // Root's volume that others could write: the tenant need not have been root.
    let rig = Rig::flat("");
    chown(&rig.layout.volume, Some(0), Some(0)).unwrap();
    fs::set_permissions(&rig.layout.volume, fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(rig.at("workspace/orphan"), "old secret").unwrap();
    rig.prepare().unwrap();
    assert_eq!(owner_of(&rig.at("openclaw/workspace/orphan")).0, 0);
    assert_eq!(owner_of(&rig.layout.volume), (0, 0o755));
}

#[test]
fn a_tenant_that_exchanges_files_after_the_look_at_them_leads_nowhere() {
    let rig = Rig::new();
    let base = rig.layout.volume.parent().unwrap().to_owned();
    let precious = base.join("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("secret"), "precious").unwrap();
    let put = || {
        rig.dir("dir");
        rig.file("dir/secret", "mine", 0o600);
        rig.file("file", "mine", 0o600);
        rig.file("pipe", "mine", 0o600);
    };
    // Called when a name was looked at, before anything is done about it.
    let exchange = |path: &Path| {
        let here = rig.layout.volume.join(path);
        let away = rig.layout.volume.join(path).with_extension("away");
        if !["dir", "file", "pipe"].iter().any(|name| path == Path::new(name)) || there(&away) {
            return;
        }
        fs::rename(&here, &away).unwrap();
        match path.to_str() {
            Some("dir") => symlink(&precious, &here).unwrap(),
            Some("file") => symlink(precious.join("secret"), &here).unwrap(),
            _ => nix::unistd::mkfifo(&here, Mode::S_IRWXU).unwrap(),
        }
    };
    for only in ["dir", "file", "pipe"] {
        put();
        let to = base.join(format!("copy-of-{only}"));
        fs::create_dir(&to).unwrap();
        let wanted = |path: &Path| path.starts_with(only) && (exchange(path), true).1;
        let copied = tree::copy(&tree::open(&rig.layout.volume).unwrap(), &to, &wanted, true);
        assert_eq!(copied.is_ok(), only == "dir", "{only}: {copied:?}");
        assert_eq!(fs::read_to_string(to.join("dir/secret")).ok().as_deref(), (only == "dir").then_some("mine"));
        assert!(!there(&to.join("file")) && !there(&to.join("pipe")));
        fs::remove_dir_all(&rig.layout.volume).unwrap();
        fs::create_dir(&rig.layout.volume).unwrap();
    }
    put();
    let given = tree::each(&tree::open(&rig.layout.volume).unwrap(), &mut |entry, leaving| {
        exchange(entry.path);
        if is_root() {
            tree::chown(entry, 12007, 12007)?;
        }
        Ok(!leaving)
    });
    given.unwrap();
    assert_eq!(owner_of(&precious).0, Owner::of_process().uid);
    assert_eq!(owner_of(&precious.join("secret")).0, Owner::of_process().uid);
    assert!(!is_root() || owner_of(&rig.at("dir.away")).0 == 12007);
}

#[test]
fn all_of_this_again_without_root() {
    if !root("all_of_this_again_without_root") {
        return;
    }
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["launcher::layout", "launcher::backup", "--skip", "without_root", "--test-threads", "2"])
        .uid(12009)
        .gid(12009)
        .current_dir("/")
        .status();
    match status {
        Ok(status) => assert!(status.success()),
        Err(e) => eprintln!(
            "SKIPPED launcher::layout::all_of_this_again_without_root: {e}: the tests are not executable by others"
        ),
    }
}
