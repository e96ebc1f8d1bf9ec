//! Files that somebody else removes, empties, cuts, replaces or writes into.

use std::os::unix::fs::FileExt;

use super::*;

/// The files as a process that is killed now would leave them.
async fn as_if_killed(path: &Path, tenant: &str) -> Option<Row> {
    let dir = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal"] {
        let _ = std::fs::copy(files::with(path, suffix), files::with(&dir.path().join("copy.db"), suffix));
    }
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    found(&Sqlite::open(&dir.path().join("copy.db")).unwrap(), tenant).await
}

#[tokio::test]
async fn a_log_that_is_removed_costs_nothing_that_was_acknowledged() {
    for removed in [["-wal"].as_slice(), &["-shm"], &["-wal", "-shm"]] {
        let (_dir, path) = database();
        let store = Sqlite::open(&path).unwrap();
        put_all(&store, &[row("a")]).await;
        assert_eq!(found(&store, "a").await, Some(row("a")));
        for suffix in removed {
            std::fs::remove_file(files::with(&path, suffix)).unwrap();
        }
        assert_eq!(found(&store, "a").await, Some(row("a")), "without {removed:?}");
        put_all(&store, &[row("b")]).await;
        assert_eq!(found(&store, "b").await, Some(row("b")), "without {removed:?}");
        for tenant in ["a", "b"] {
            assert_eq!(as_if_killed(&path, tenant).await, Some(row(tenant)), "without {removed:?}");
        }
        assert_eq!(store.counts().await.unwrap().status["ready"], 2);
    }
}

#[tokio::test]
async fn a_file_that_is_replaced_keeps_what_is_acknowledged_from_then_on() {
    let (_dir, path) = database();
    let copy = path.with_file_name("copy.db");
    let store = Sqlite::open(&path).unwrap();
    put_all(&store, &[row("a")]).await;
    assert_eq!(found(&store, "a").await, Some(row("a")), "by a connection that is kept");
    backup(&path, &copy).unwrap();
    put_all(&store, &[row("b")]).await;
    crate::files::rename(&copy, &path).unwrap();
    for tenant in ["c", "d"] {
        put_all(&store, &[row(tenant)]).await;
        assert_eq!(found(&store, tenant).await, Some(row(tenant)));
    }
    assert_eq!(found(&store, "b").await, None, "what was replaced is gone");
    for tenant in ["a", "c", "d"] {
        assert_eq!(as_if_killed(&path, tenant).await, Some(row(tenant)));
    }
}

#[tokio::test]
async fn a_log_that_others_wrote_into_is_not_brought_into_the_file() {
    for truncate in [true, false] {
        let (_dir, path) = database();
        let store = settled(&path).await;
        store.amend(vec![lengthen("t1")]).await.unwrap();
        let log = std::fs::OpenOptions::new().write(true).open(files::with(&path, "-wal")).unwrap();
        if truncate {
            log.set_len(0).unwrap();
        } else {
            log.write_all_at(&[0x55; 5000], 100).unwrap();
        }
        store.amend(vec![lengthen("t2")]).await.unwrap();
        assert_eq!(found(&store, "t2").await.unwrap().label, "x");
        assert_eq!(found(&store, "t7").await, Some(row("t7")), "what was in the file is whole");
        assert_eq!(as_if_killed(&path, "t2").await.unwrap().label, "x", "what is acknowledged from then on is kept");
    }
}

#[tokio::test]
async fn what_the_last_run_left_is_looked_at() {
    let (_dir, path) = database();
    let young = Sqlite::open(&path).unwrap();
    put_all(&young, &[row("a")]).await;
    // As a process that is killed leaves it, and somebody who tidies up afterwards.
    let killed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(killed.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    let at = killed.path().join("registry.db");
    for suffix in ["", "-wal", ".lock"] {
        std::fs::copy(files::with(&path, suffix), files::with(&at, suffix)).unwrap();
    }
    let whole = std::fs::read(files::with(&at, "-wal")).unwrap();
    std::fs::remove_file(files::with(&at, "-wal")).unwrap();
    let why = Sqlite::open(&at).unwrap_err();
    assert!(why.contains("was emptied"), "it had everything: {why}");
    let head = std::fs::read(&path).unwrap();
    for short in [0, 1, 511] {
        std::fs::write(files::with(&at, "-wal"), &whole).unwrap();
        std::fs::write(&at, &head[..short]).unwrap();
        assert!(Sqlite::open(&at).unwrap_err().contains("was emptied"), "{short} bytes");
        assert_eq!(std::fs::read(files::with(&at, "-wal")).unwrap(), whole, "{short} bytes");
    }
    std::fs::remove_file(&at).unwrap();
    assert_eq!(found(&Sqlite::open(&at).unwrap(), "a").await, None);
    assert_eq!(std::fs::read(files::with(&at, ".lost-log")).unwrap(), whole, "nothing is thrown away");
}

#[test]
fn nothing_is_touched_that_is_not_ours() {
    let (_dir, path) = database();
    let place = path.parent().unwrap();
    crate::files::private_dir(place).unwrap();
    std::fs::write(&path, "a text, and not a short one").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
    for (wrong, said) in
        [(path.as_path(), "or no database"), (place, "is no file"), (Path::new("/dev/null"), "is no file")]
    {
        let before = std::fs::metadata(wrong).unwrap().permissions().mode();
        let why = Sqlite::open(wrong).unwrap_err();
        assert!(why.contains(said), "{why}");
        assert_eq!(std::fs::metadata(wrong).unwrap().permissions().mode(), before);
        assert!(!files::with(wrong, ".lock").exists(), "{}", wrong.display());
    }
}

#[tokio::test]
async fn a_file_that_is_emptied_in_place_is_not_taken_for_a_new_one() {
    let (_dir, path) = database();
    let young = Sqlite::open(&path).unwrap();
    put_all(&young, &[row("a")]).await;
    let empty = || std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(0).unwrap();
    empty();
    put_all(&young, &[row("b")]).await;
    assert_eq!(as_if_killed(&path, "a").await, Some(row("a")), "the log had it all");
    drop(young);

    let store = settled(&path).await;
    assert_eq!(found(&store, "t7").await, Some(row("t7")));
    empty();
    for _ in 0..2 {
        let why = refused(store.amend(vec![lengthen("t7")])).await;
        assert!(why.contains("was emptied; restore a backup"), "{why}");
    }
    drop(store);
    let why = Sqlite::open(&path).unwrap_err();
    assert!(why.contains("was emptied; restore a backup"), "{why}");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(found(&Sqlite::open(&path).unwrap(), "t7").await, None);
}

#[tokio::test]
async fn a_file_that_is_overwritten_in_place_is_missed_until_it_is_mended() {
    let (_dir, path) = database();
    let store = settled(&path).await;
    let whole = std::fs::read(&path).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    for from in [0, 4096] {
        file.write_all_at(&vec![0x55; whole.len() - from], from as u64).unwrap();
        for _ in 0..2 {
            let why = refused(store.amend(vec![lengthen("t7")])).await;
            assert!(why.contains("is damaged; restore a backup"), "{why}");
        }
        file.write_all_at(&whole, 0).unwrap();
        store.amend(vec![lengthen("t7")]).await.unwrap();
        assert_eq!(store.counts().await.unwrap().status["ready"], 200);
        drop(found(&store, "t7").await.unwrap());
        // What was written meanwhile is in the file, and not in `whole`.
        file.write_all_at(&whole, 0).unwrap();
    }
}
