//! What only this store can meet: its file, its lock, its disk, its process.

#[path = "../../../../tests/support/small_disk.rs"]
mod small_disk;
mod tampered;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Stdio};

use super::super::conformance::{
    append, comes_from_the_first_schema, digest, found, lengthen, of_the_first_schema, put, put_all, refused, row,
};
use super::connect::{MIGRATIONS, connect, migrate};
use super::*;
use small_disk::SmallDisk;

fn database() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("data/registry.db");
    (dir, path)
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn one_process_has_it_and_nobody_else_may_read_it() {
    let (_dir, path) = database();
    let store = Sqlite::open(&path).unwrap();
    put_all(&store, &[row("a")]).await;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in std::fs::read_dir(path.parent().unwrap()).unwrap() {
        assert_eq!(mode(&file.unwrap().path()), 0o600);
    }
    assert!(Sqlite::open(&path).unwrap_err().contains("another process has it open"));
    assert_eq!(found(&store, "a").await, Some(row("a")));
    drop(store);
    assert!(!files::with(&path, "-wal").exists(), "one file is all there is without a registry");
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(found(&store, "a").await, Some(row("a")));
    assert_eq!(store.counts().await.unwrap().status["ready"], 1, "counted when it is opened");
    let common = path.with_file_name("common");
    std::fs::create_dir(&common).unwrap();
    std::fs::set_permissions(&common, std::fs::Permissions::from_mode(0o777)).unwrap();
    assert!(Sqlite::open(&common.join("x.db")).unwrap_err().contains("others may write there"));
}

#[test]
fn schemas_go_forward_only() {
    let (_dir, path) = database();
    drop(Sqlite::open(&path).unwrap());
    // A file of the schema before, with data, and a step that changes it.
    let mut steps = MIGRATIONS.to_vec();
    let (mut connection, _) = connect(&path).unwrap();
    connection.execute("INSERT INTO alive VALUES (1, 5)", []).unwrap();
    steps.push("ALTER TABLE alive ADD COLUMN instance TEXT NOT NULL DEFAULT 'one'");
    migrate(&mut connection, &steps).unwrap();
    migrate(&mut connection, &steps).unwrap();
    let read = |row: &rusqlite::Row<'_>| Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?));
    let kept = connection.query_row("SELECT at, instance FROM alive", [], read).unwrap();
    assert_eq!(kept, (5, "one".to_owned()));
    // A step that fails is not half done.
    steps.push("CREATE TABLE half (x); SELECT nonsense");
    migrate(&mut connection, &steps).unwrap_err();
    steps.pop();
    migrate(&mut connection, &steps).unwrap();
    assert!(connection.prepare("SELECT x FROM half").is_err());
    drop(connection);
    let newer = Sqlite::open(&path).unwrap_err();
    assert!(newer.contains(&format!("newer version (schema {}, this one knows", steps.len())), "{newer}");
    let foreign = path.with_file_name("foreign.db");
    Connection::open(&foreign).unwrap().execute("CREATE TABLE other (x)", []).unwrap();
    assert!(Sqlite::open(&foreign).unwrap_err().contains("another program's database"));
    let text = path.with_file_name("notes.txt");
    crate::files::replace(&text, &b"no database at all ".repeat(100), 0o600).unwrap();
    assert!(Sqlite::open(&text).unwrap_err().contains("is damaged"));
}

#[tokio::test]
async fn a_database_of_the_first_schema_is_taken_over() {
    let (_dir, path) = database();
    drop(Claim::take(&path).unwrap());
    let (mut connection, _) = connect(&path).unwrap();
    migrate(&mut connection, &MIGRATIONS[..1]).unwrap();
    connection.execute_batch(&of_the_first_schema("x''")).unwrap();
    drop(connection);
    comes_from_the_first_schema(&Sqlite::open(&path).unwrap()).await;
}

#[test]
fn what_sweeps_read_is_found_by_an_index() {
    let (_dir, path) = database();
    drop(Sqlite::open(&path).unwrap());
    let (connection, _) = connect(&path).unwrap();
    let mut statement = connection.prepare(&format!("EXPLAIN QUERY PLAN {}", rows::OVERDUE)).unwrap();
    let plan = statement.query_map(rusqlite::params![1, 1, "", 10], |row| row.get::<_, String>(3)).unwrap();
    let plan: Vec<String> = plan.map(Result::unwrap).collect();
    for index in ["tenant_untold", "said_due"] {
        assert!(plan.iter().any(|step| step.contains(index)), "{plan:?}");
    }
}

/// Not a test by itself: the process that [`nothing_acknowledged_is_lost_with_the_process`] kills.
#[tokio::test]
#[ignore = "runs as a child of another test"]
async fn writer_process() {
    let Ok(path) = std::env::var("REGISTRY_TEST_PATH") else { return };
    let store = Sqlite::open(Path::new(&path)).unwrap();
    put_all(&store, &[row("a")]).await;
    for n in 1_u64.. {
        store.amend(vec![lengthen("a")]).await.unwrap();
        println!("\nacknowledged {n}");
    }
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_with_the_process() {
    let (_dir, path) = database();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", "--nocapture", "registry::store::sqlite::tests::writer_process"])
        .env("REGISTRY_TEST_PATH", &path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut heard = lines.filter_map(|line| line.strip_prefix("acknowledged ").and_then(|n| n.parse::<usize>().ok()));
    let mut acknowledged = heard.by_ref().find(|n| *n == 200).unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged = heard.last().unwrap_or(acknowledged);
    let store = Sqlite::open(&path).unwrap();
    let kept = found(&store, "a").await.unwrap().label.len();
    assert!((acknowledged..=acknowledged + 1).contains(&kept), "{acknowledged} acknowledged, {kept} kept");
    assert_eq!(store.entries_after(0, 100_000).await.unwrap().len(), kept);
}

#[tokio::test]
async fn waits_for_a_lock_then_says_so_then_goes_on() {
    let (_dir, path) = database();
    let store = Sqlite::open(&path).unwrap();
    put_all(&store, &[row("a")]).await;
    let (other, _) = connect(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let why = refused(store.amend(vec![lengthen("a")])).await;
    assert!(why.contains("is locked by another process"), "{why}");
    assert_eq!(found(&store, "a").await, Some(row("a")), "it can be read meanwhile");
    other.execute_batch("ROLLBACK").unwrap();
    store.amend(vec![lengthen("a")]).await.unwrap();
    assert_eq!(found(&store, "a").await.unwrap().label, "x", "what was refused was not kept");
    assert_eq!(store.counts().await.unwrap().status["ready"], 1);
}

#[tokio::test]
async fn a_call_that_is_given_up_is_not_made() {
    let (_dir, path) = database();
    let store = Sqlite::open(&path).unwrap();
    put_all(&store, &[row("a")]).await;
    let (other, _) = connect(&path).unwrap();
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    let mut given_up = store.amend(vec![lengthen("a")]);
    assert!(futures_util::poll!(&mut given_up).is_pending());
    drop(given_up);
    other.execute_batch("ROLLBACK").unwrap();
    store.amend(vec![append("a", &["after"])]).await.unwrap();
    assert_eq!(found(&store, "a").await, Some(row("a")));
}

#[tokio::test]
async fn a_full_disk_refuses_writes_until_there_is_space() {
    let dir = tempfile::tempdir().unwrap();
    let Some(disk) = SmallDisk::new(dir.path()) else { return };
    let store = Sqlite::open(&disk.path().join("registry.db")).unwrap();
    put_all(&store, &[row("a")]).await;
    disk.fill();
    let mut kept = 0;
    let why = loop {
        match store.amend(vec![lengthen("a"), append("a", &[&"8 KiB".repeat(1639)])]).await {
            Ok(_) => kept += 1,
            Err(Unavailable(why)) => break why,
        }
    };
    assert!(why.contains("the disk is full"), "{why}");
    assert_eq!(found(&store, "a").await.unwrap().label.len(), kept, "it can be read meanwhile");
    disk.clear();
    store.amend(vec![lengthen("a")]).await.unwrap();
    assert_eq!(found(&store, "a").await.unwrap().label.len(), kept + 1);
    assert_eq!(store.counts().await.unwrap().status["ready"], 1);
}

#[tokio::test]
async fn a_file_that_is_gone_is_missed_and_taken_again() {
    let (_dir, path) = database();
    let store = Sqlite::open(&path).unwrap();
    put_all(&store, &[row("a")]).await;
    let aside = path.with_file_name("aside.db");
    crate::files::rename(&path, &aside).unwrap();
    for why in [
        refused(store.amend(vec![put(&row("b"))])).await,
        refused(store.tenant("a".to_owned())).await,
        refused(store.owner(digest(1))).await,
        refused(store.counts()).await,
        refused(store.leads()).await,
        refused(store.alive(UnixMs(1), 1)).await,
    ] {
        assert!(why.contains("file is gone"), "{why}");
    }
    crate::files::rename(&aside, &path).unwrap();
    store.amend(vec![lengthen("a")]).await.unwrap();
    assert_eq!(found(&store, "a").await.unwrap().label, "x");
    assert_eq!(found(&store, "b").await, None);
    assert_eq!(store.counts().await.unwrap().status["ready"], 1);
    assert!(!aside.exists());
}

/// A database that has more in its file than in its log.
async fn settled(path: &Path) -> Sqlite {
    let store = Sqlite::open(path).unwrap();
    let rows: Vec<_> = (0..200).map(|n| row(&format!("t{n}"))).collect();
    put_all(&store, &rows).await;
    drop(store);
    Sqlite::open(path).unwrap()
}

#[tokio::test]
async fn a_damaged_file_is_said_to_be() {
    let (_dir, path) = database();
    let store = Sqlite::open(&path).unwrap();
    let rows: Vec<_> = (0..200).map(|n| row(&format!("t{n}"))).collect();
    put_all(&store, &rows).await;
    drop(store);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[4096..].fill(0x55);
    crate::files::replace(&path, &bytes, 0o600).unwrap();
    let why = Sqlite::open(&path).unwrap_err();
    assert!(why.contains("is damaged; restore a backup"), "{why}");
}

#[tokio::test]
async fn a_damaged_database_is_not_backed_up() {
    let (_dir, path) = database();
    drop(settled(&path).await);
    let mut bytes = std::fs::read(&path).unwrap();
    // Its first pages are whole, so that it looks like one of ours.
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0x55);
    crate::files::replace(&path, &bytes, 0o600).unwrap();
    let copy = path.with_file_name("copy.db");
    let why = backup(&path, &copy).unwrap_err();
    assert!(why.contains("is damaged, so no backup is written"), "{why}");
    assert!(!copy.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backups_are_made_while_it_runs_and_put_back_while_it_does_not() {
    let (_dir, path) = database();
    let store = Sqlite::open(&path).unwrap();
    put_all(&store, &[row("a")]).await;
    let copy = path.with_file_name("copy.db");
    let writes = async {
        for _ in 0..100 {
            store.amend(vec![lengthen("a"), append("b", &["x"])]).await.unwrap();
        }
    };
    let (from, to) = (path.clone(), copy.clone());
    let (made, ()) = tokio::join!(tokio::task::spawn_blocking(move || backup(&from, &to)), writes);
    made.unwrap().unwrap();
    assert_eq!(mode(&copy), 0o600);
    assert!(backup(&path, &copy).unwrap_err().contains("exists already"));
    assert!(restore(&copy, &path).unwrap_err().contains("another process has it open"));
    put_all(&store, &[row("later")]).await;
    drop(store);
    restore(&copy, &path).unwrap();
    let store = Sqlite::open(&path).unwrap();
    let kept = found(&store, "a").await.unwrap().label.len();
    assert_eq!(store.entries_after(0, 1000).await.unwrap().len(), kept * 2, "of one moment");
    assert_eq!(found(&store, "later").await, None);
    drop(store);
    let replaced = Sqlite::open(&path.with_file_name("registry.db.replaced")).unwrap();
    assert_eq!(found(&replaced, "later").await, Some(row("later")), "what was replaced is still there");
    let why = restore(&copy, &path).unwrap_err();
    assert!(why.contains("registry.db.replaced: is what an earlier restore replaced; move it away first"), "{why}");
    drop(replaced);
    std::fs::remove_file(path.with_file_name("registry.db.replaced")).unwrap();
    let why = restore(&path.with_file_name("none.db"), &path).unwrap_err();
    assert!(why.contains("none.db: cannot be restored: there is no such file; nothing was changed"), "{why}");
    let part = path.with_file_name("part.db");
    std::fs::copy(&copy, &part).unwrap();
    connect(&part).unwrap().0.execute("DROP TABLE entry", []).unwrap();
    let why = restore(&part, &path).unwrap_err();
    assert!(why.contains("part.db: cannot be restored: ") && why.contains("no such table: entry"), "{why}");
    let nowhere = path.with_file_name("nowhere").join("registry.db");
    assert!(restore(&copy, &nowhere).unwrap_err().contains("does not exist; create it"));
    // A damaged backup replaces nothing.
    let mut bytes = std::fs::read(&copy).unwrap();
    bytes[4096..].fill(0x55);
    let bad = path.with_file_name("bad.db");
    crate::files::replace(&bad, &bytes, 0o600).unwrap();
    let before = std::fs::read(&path).unwrap();
    let why = restore(&bad, &path).unwrap_err();
    assert!(why.contains("cannot be restored: ") && !why.contains("restore a backup"), "{why}");
    assert_eq!(std::fs::read(&path).unwrap(), before);
    restore(&copy, &path.with_file_name("fresh.db")).unwrap();
    assert!(Sqlite::open(&path.with_file_name("fresh.db")).is_ok());
}
