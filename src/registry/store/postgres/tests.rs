//! What only this store can meet: other instances, and a server that goes away. The server is real, made by the test.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;

use super::super::conformance::{append, found, lengthen, put_all, refused, row, told};
use super::*;

/// A PostgreSQL server in a temporary directory, reached over a socket.
#[derive(Debug)]
pub(in super::super) struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
}

impl Server {
    /// None, with a line that says so, where PostgreSQL is not installed.
    pub(in super::super) fn start() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var("CI").is_err(), "PostgreSQL is missing: apt-get install -y postgresql");
            eprintln!("NOT TESTED: the PostgreSQL store (to test it: apt-get install -y postgresql)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let server = Self { dir, programs };
        // The server does not run as root: its user has to come to its files.
        std::fs::set_permissions(server.dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let data = server.data();
        server.run("initdb", &["-A", "trust", "-U", "postgres", "--no-sync", "--no-locale", "-E", "UTF8", "-D", &data]);
        server.up();
        Some(server)
    }

    fn data(&self) -> String {
        self.dir.path().join("data").to_str().unwrap().to_owned()
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let path = self.programs.join(program);
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("out")).unwrap();
        let status = command.args(arguments).current_dir("/").stdin(Stdio::null()).stdout(log).status().unwrap();
        assert!(status.success(), "{program} {arguments:?}");
    }

    fn up(&self) {
        let socket = self.dir.path().display();
        // A crash of the server is not one of the machine: the page cache stays, and the tests are quick.
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={socket} -c fsync=off -c full_page_writes=off \
             -c synchronous_commit=on -c deadlock_timeout=200ms"
        );
        let log = format!("{socket}/log");
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-t", "60", "-l", &log, "-o", &options, "start"]);
    }

    fn crash(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-t", "60", "-m", "immediate", "stop"]);
    }

    fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&user=postgres", self.dir.path().display())
    }

    /// A new empty database.
    pub(in super::super) async fn database(&self, name: &str) -> String {
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(name)
    }

    async fn client(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    async fn execute(&self, database: &str, sql: &str) {
        self.client(database).await.batch_execute(sql).await.unwrap();
    }

    async fn kill_connections(&self, database: &str) {
        let sql = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.execute(database, sql).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if Path::new(&self.data()).join("postmaster.pid").exists() {
            let stop = std::panic::AssertUnwindSafe(|| self.crash());
            let _ = std::panic::catch_unwind(stop);
        }
    }
}

fn programs() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
    installed.sort();
    let all = installed.into_iter().rev().chain(std::env::split_paths(&path));
    all.into_iter().find(|dir| dir.join("initdb").exists() && dir.join("pg_ctl").exists())
}

/// How a run through a fault went so far.
#[derive(Debug, Default)]
struct Went {
    kept: AtomicUsize,
    refused: AtomicUsize,
}

impl Went {
    fn so_far(&self) -> (usize, usize) {
        (self.kept.load(Ordering::SeqCst), self.refused.load(Ordering::SeqCst))
    }
}

/// Changes the tenant until the store has refused, and then taken one again.
async fn change_through_a_fault(store: &Postgres, went: &Went) {
    loop {
        let answer = timeout(Duration::from_secs(10), store.amend(vec![lengthen("a")])).await;
        let refused = if answer.expect("answers within its deadline").is_ok() {
            went.kept.fetch_add(1, Ordering::SeqCst);
            went.so_far().1
        } else {
            went.refused.fetch_add(1, Ordering::SeqCst);
            0
        };
        if refused > 0 {
            return;
        }
    }
}

async fn until(done: impl Fn() -> bool) {
    let reached = async {
        while !done() {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(120), reached).await.expect("is reached");
}

/// What is there now is what was acknowledged, and at most those of which nothing was heard.
async fn nothing_is_lost(store: &Postgres, kept: usize, refused: usize) {
    let found = found(store, "a").await.unwrap().label.len();
    assert!((kept..=kept + refused).contains(&found), "{kept} acknowledged, {refused} refused, {found} found");
    assert_eq!(store.entries_after(0, 100_000).await.unwrap().len(), found);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outlives_its_server() {
    let Some(server) = Server::start() else { return };
    let store = Postgres::connect(&server.database("one").await).await.unwrap();
    put_all(&store, &[row("a")]).await;
    assert!(store.leads().await.unwrap());
    let mut changes = store.changes();

    let went = Went::default();
    let crash = async {
        until(|| went.so_far().0 >= 100).await;
        tokio::task::block_in_place(|| server.crash());
        let why = refused(store.tenant("a".to_owned())).await;
        assert!(why.contains("PostgreSQL cannot be reached"), "{why}");
        refused(store.leads()).await;
        refused(store.counts()).await;
        tokio::task::block_in_place(|| server.up());
    };
    tokio::join!(change_through_a_fault(&store, &went), crash);
    let (before, unheard) = went.so_far();
    nothing_is_lost(&store, before, unheard).await;
    let heard = async { while !changes.recv().await.is_ok_and(|told| told.tenant.is_empty()) {} };
    timeout(Duration::from_secs(10), heard).await.expect("is told that it missed something");
    assert!(store.leads().await.unwrap(), "leads again, with a new lock");

    let before = found(&store, "a").await.unwrap().label.len();
    let went = Went::default();
    let kill = async {
        // One that comes between two calls is not noticed: again, until one was.
        while went.so_far().1 == 0 {
            let (kept, _) = went.so_far();
            until(|| went.so_far().0 >= kept + 20 || went.so_far().1 > 0).await;
            server.kill_connections("one").await;
        }
    };
    tokio::join!(change_through_a_fault(&store, &went), kill);
    let (kept, unheard) = went.so_far();
    nothing_is_lost(&store, before + kept, unheard).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_instances_serve_one_fleet() {
    let Some(server) = Server::start() else { return };
    let url = server.database("one").await;
    // Both at once make the schema.
    let (one, two) = tokio::join!(Postgres::connect(&url), Postgres::connect(&url));
    let (one, two) = (one.unwrap(), two.unwrap());
    let ids: Vec<String> = (0..10).map(|n| format!("t{n}")).collect();
    put_all(&one, &ids.iter().map(|id| row(id)).collect::<Vec<_>>()).await;

    let changed = async |store: &Postgres, reverse: bool| {
        for turn in 0..100 {
            let mut order: Vec<&String> = ids.iter().cycle().skip(turn % 7).take(10).collect();
            if reverse {
                order.reverse();
            }
            store.amend(order.into_iter().map(|id| lengthen(id)).collect()).await.unwrap();
        }
    };
    tokio::join!(changed(&one, false), changed(&two, true));
    for id in &ids {
        assert_eq!(found(&one, id).await.unwrap().label.len(), 200, "1,000 changes of each, none lost");
    }
    for (writer, listener) in [(&one, &two), (&two, &one)] {
        let mut changes = listener.changes();
        let seen = async { while told(&mut changes, 1).await.first().map(String::as_str) != Some("other") {} };
        let ((), done) = tokio::join!(seen, writer.amend(vec![append("other", &["x"])]));
        done.unwrap();
    }

    assert!(one.leads().await.unwrap() && one.leads().await.unwrap());
    assert!(!two.leads().await.unwrap(), "one leads");
    // The lock ends with the connection that holds it, and another instance takes it.
    drop(one);
    let leads = async { while !two.leads().await.unwrap() {} };
    timeout(Duration::from_secs(10), leads).await.expect("another leads");

    let other = server.client("one").await;
    other.batch_execute("BEGIN; SELECT id FROM tenant WHERE id = 't3' FOR UPDATE").await.unwrap();
    let why = refused(two.amend(vec![lengthen("t1"), lengthen("t3")])).await;
    assert!(why.contains("lock timeout") || why.contains("did not answer"), "{why}");
    assert_eq!(found(&two, "t1").await.unwrap().label.len(), 200, "nothing of it was kept");
    other.batch_execute("ROLLBACK").await.unwrap();
    join_all((0..20).map(|_| two.amend(vec![lengthen("t1"), lengthen("t3")]))).await.into_iter().for_each(|done| {
        done.unwrap();
    });
    assert_eq!(found(&two, "t3").await.unwrap().label.len(), 220);

    server.execute("one", "INSERT INTO registry_schema VALUES (99)").await;
    let why = Postgres::connect(&url).await.unwrap_err();
    assert!(why.contains("newer version (schema 99, this one knows 1)"), "{why}");
    server
        .execute("postgres", "CREATE DATABASE odd ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
        .await;
    let why = Postgres::connect(&server.url("odd")).await.unwrap_err();
    assert!(why.contains("encoding is LATIN1"), "{why}");
}

#[tokio::test]
async fn says_what_it_cannot_and_never_the_password() {
    for (url, expected) in [
        ("postgres://u:pa55word@localhost/db?sslmode=require", "TLS to PostgreSQL is not built in"),
        ("postgres://u:pa55word@db.example/db", "say sslmode=disable"),
        ("postgres://u:pa55word@[::2]/db", "say sslmode=disable"),
        ("postgres://u:pa55word@localhost/db?pa55word=1", "cannot be read"),
        ("postgres://u:pa55word@127.0.0.1:1/db", "cannot be reached"),
    ] {
        let why = Postgres::connect(url).await.unwrap_err();
        assert!(why.contains(expected), "{url}: {why}");
        assert!(!why.contains("pa55word"), "{why}");
    }
}
