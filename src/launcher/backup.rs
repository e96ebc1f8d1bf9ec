//! What is kept before another version of the gateway touches it: configuration, database, pairings. Runs as the
//! gateway's user, so what it reads and writes is the tenant's and can hurt the tenant only.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::tree::{self, Size};
use crate::clock::UnixMs;
use crate::files;

/// What a backup holds, of what is there; files and directories only.
const KEPT: &[&str] = &[
    "openclaw.json",
    "state/openclaw.sqlite",
    "state/openclaw.sqlite-wal",
    "state/openclaw.sqlite-shm",
    "devices",
    "nodes",
    "identity",
    "credentials",
];
/// So many backups stay.
const BACKUPS: usize = 3;
/// A `package.json`, at most.
const MAX_PACKAGE: u64 = 1024 * 1024;

/// Copies what matters of `state_dir` aside before a gateway of version `to` starts on what `from` left, and returns
/// where to; nothing happens when the version is the same, or nothing is there yet. The gateway must be down: the
/// database and its log are copied one after the other.
///
/// # Errors
/// There is no room for it ([`io::ErrorKind::StorageFull`]), or any error of the file system: no backup was made then.
pub fn aside_for_version(state_dir: &Path, from: &str, to: &str) -> io::Result<Option<PathBuf>> {
    if from == to {
        return Ok(None);
    }
    let wanted = |path: &Path| KEPT.iter().any(|kept| path.starts_with(kept) || Path::new(kept).starts_with(path));
    let source = tree::open(state_dir)?;
    let (mut size, mut found) = (Size::default(), false);
    tree::each(&source, &mut |entry, leaving| {
        if leaving || !wanted(entry.path) {
            return Ok(false);
        }
        size.add(&entry.meta);
        found |= entry.meta.is_file();
        Ok(true)
    })?;
    if !found {
        return Ok(None);
    }
    size.fits(&source)?;
    let backups = state_dir.join(".sidecar/backups");
    files::private_dir(&state_dir.join(".sidecar"))?;
    files::private_dir(&backups)?;
    let partial = backups.join(".partial");
    tree::remove(&partial)?;
    DirBuilder::new().mode(0o700).create(&partial)?;
    // The record of the last version is a file of the tenant's.
    let from = if is_version(from) { from } else { "unknown" };
    let stamp = UnixMs::now().rfc3339().replace(['-', ':', '.'], "");
    let made = backups.join(format!("{from}-{stamp}"));
    let copied = tree::copy(&source, &partial, &wanted, false).and_then(|_| Ok(nix::unistd::syncfs(&source)?));
    if let Err(e) = copied.and_then(|()| files::rename(&partial, &made)) {
        let _ = tree::remove(&partial);
        return Err(e);
    }
    // One that cannot be removed is in nobody's way.
    let _ = prune(&backups, &made);
    Ok(Some(made))
}

/// Keeps the newest backups, and `made` whatever the clock says.
fn prune(backups: &Path, made: &Path) -> io::Result<()> {
    let mut old: Vec<PathBuf> =
        fs::read_dir(backups)?.flatten().map(|e| e.path()).filter(|path| path != made).collect();
    // The version may hold a hyphen, the moment does not.
    let moment = |path: &PathBuf| path.to_string_lossy().rsplit('-').next().map(str::to_owned);
    old.sort_by_cached_key(|path| std::cmp::Reverse(moment(path)));
    old.iter().skip(BACKUPS - 1).try_for_each(|path| tree::remove(path))
}

/// The version of the gateway that `command` starts: that of the package around the first of its words that is a file
/// of one, be it a script, or a program on `path_env`.
pub fn gateway_version(command: &[String], path_env: &str) -> Option<String> {
    command.iter().find_map(|word| version_around(&file_of(word, path_env)?))
}

fn file_of(word: &str, path_env: &str) -> Option<PathBuf> {
    let on_path = std::env::split_paths(path_env).filter(|_| !word.contains('/')).map(|dir| dir.join(word));
    std::iter::once(PathBuf::from(word)).chain(on_path).find(|path| path.is_file())?.canonicalize().ok()
}

fn version_around(file: &Path) -> Option<String> {
    file.ancestors().skip(1).find_map(|dir| {
        let text = files::read_text(&dir.join("package.json"), MAX_PACKAGE).ok()?;
        let package: serde_json::Value = serde_json::from_str(&text).ok()?;
        let version = package.get("version")?.as_str()?;
        (package.get("name")? == "openclaw" && is_version(version)).then(|| version.to_owned())
    })
}

/// Whether a text can be a version, and a part of a file's name.
fn is_version(text: &str) -> bool {
    let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'+' | b'-');
    (1..=64).contains(&text.len()) && !text.starts_with('.') && text.bytes().all(known)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    /// Not root, a temporary directory with a read-only one in it would stay for ever.
    struct Tenant(tempfile::TempDir);

    impl Drop for Tenant {
        fn drop(&mut self) {
            let _ = tree::remove(self.path());
        }
    }

    impl Tenant {
        fn path(&self) -> &Path {
            self.0.path()
        }
    }

    fn tenant() -> Tenant {
        let dir = Tenant(tempfile::tempdir().unwrap());
        for (path, content) in [
            ("openclaw.json", "{}"),
            ("openclaw.json.bak", "old"),
            ("state/openclaw.sqlite", "pages"),
            ("state/openclaw.sqlite-wal", "log"),
            ("state/other.sqlite", "not ours"),
            ("devices/paired.json", "{}"),
            ("credentials/whatsapp/default/creds.json", "{}"),
            ("workspace/big", "tenant's"),
        ] {
            fs::create_dir_all(dir.path().join(path).parent().unwrap()).unwrap();
            fs::write(dir.path().join(path), content).unwrap();
        }
        symlink("/etc/passwd", dir.path().join("credentials/link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("credentials/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::set_permissions(dir.path().join("credentials/whatsapp"), fs::Permissions::from_mode(0o500)).unwrap();
        dir
    }

    fn files_below(dir: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let seen = tree::each(&tree::open(dir).unwrap(), &mut |entry, leaving| {
            if !leaving && !entry.meta.is_dir() {
                found.push(entry.path.display().to_string());
            }
            Ok(true)
        });
        seen.unwrap();
        found.sort();
        found
    }

    #[test]
    fn keeps_what_another_version_may_spoil() {
        let dir = tenant();
        assert_eq!(aside_for_version(dir.path(), "2026.4.9", "2026.4.9").unwrap(), None);
        let made = aside_for_version(dir.path(), "2026.4.9", "2026.9.6").unwrap().unwrap();
        assert!(made.file_name().unwrap().to_string_lossy().starts_with("2026.4.9-2"), "{made:?}");
        assert_eq!(fs::metadata(&made).unwrap().permissions().mode() & 0o777, 0o700);
        let kept = [
            "credentials/whatsapp/default/creds.json",
            "devices/paired.json",
            "openclaw.json",
            "state/openclaw.sqlite",
            "state/openclaw.sqlite-wal",
        ];
        assert_eq!(files_below(&made), kept);
        assert_eq!(fs::read_to_string(made.join("state/openclaw.sqlite")).unwrap(), "pages");
    }

    #[test]
    fn the_newest_three_stay_whatever_the_version() {
        let dir = tenant();
        let backups = dir.path().join(".sidecar/backups");
        for old in ["2026.9.6-1-20260101T000000000Z", "2026.2.9-20260301T000000000Z", "2026.9.6-20990101T000000000Z"] {
            fs::create_dir_all(backups.join(old).join("locked/inner")).unwrap();
            fs::set_permissions(backups.join(old).join("locked"), fs::Permissions::from_mode(0o500)).unwrap();
        }
        fs::create_dir(backups.join(".partial")).unwrap();
        let made = aside_for_version(dir.path(), "../../x", "2026.9.6").unwrap().unwrap();
        assert!(made.starts_with(&backups) && made.file_name().unwrap().to_string_lossy().starts_with("unknown-2"));
        let mut left: Vec<_> = fs::read_dir(&backups).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        let made = made.file_name().unwrap().to_owned();
        assert_eq!(left, ["2026.2.9-20260301T000000000Z".into(), "2026.9.6-20990101T000000000Z".into(), made]);
    }

    #[test]
    fn nothing_to_keep_too_much_to_keep_and_a_planted_link() {
        let empty = tempfile::tempdir().unwrap();
        assert_eq!(aside_for_version(empty.path(), "1", "2").unwrap(), None);
        assert_eq!(fs::read_dir(empty.path()).unwrap().count(), 0);

        let dir = tenant();
        fs::File::options().write(true).open(dir.path().join("openclaw.json")).unwrap().set_len(1 << 43).unwrap();
        let error = aside_for_version(dir.path(), "1", "2").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull, "{error}");
        assert!(!dir.path().join(".sidecar").exists());

        let (dir, elsewhere) = (tenant(), tempfile::tempdir().unwrap());
        symlink(elsewhere.path(), dir.path().join(".sidecar")).unwrap();
        assert!(aside_for_version(dir.path(), "1", "2").is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn the_version_is_that_of_the_package_around_the_script() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("lib/openclaw/dist")).unwrap();
        fs::create_dir_all(at("bin")).unwrap();
        fs::write(at("lib/openclaw/dist/index.js"), "").unwrap();
        fs::write(at("lib/openclaw/dist/package.json"), r#"{"type":"module"}"#).unwrap();
        fs::write(at("lib/openclaw/package.json"), r#"{"name":"openclaw","version":"2026.9.6-1"}"#).unwrap();
        fs::write(at("bin/node"), "").unwrap();
        symlink("../lib/openclaw/dist/index.js", at("bin/openclaw")).unwrap();
        let path_env = format!("/nowhere:{}", at("bin").display());
        let version = |words: &[&str]| {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            gateway_version(&words, &path_env)
        };
        let script = at("lib/openclaw/dist/index.js").display().to_string();
        let found = Some("2026.9.6-1".to_owned());
        assert_eq!(version(&["node", "--max-old-space-size=900", &script, "gateway"]), found);
        assert_eq!(version(&["tini", "-s", "--", "node", &script, "gateway"]), found);
        assert_eq!(version(&["openclaw", "gateway"]), found);
        assert_eq!(version(&["node", "gateway"]), None);
        assert_eq!(version(&[]), None);
        for bad in [r#"{"name":"openclaw","version":"1;rm"}"#, r#"{"name":"openclaw","version":""}"#, "[", "{}"] {
            fs::write(at("lib/openclaw/package.json"), bad).unwrap();
            assert_eq!(version(&["openclaw"]), None, "{bad}");
        }
    }
}
