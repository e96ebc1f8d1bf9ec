//! A real PostgreSQL server, made by the test that needs one. The store's own tests use it too.
#![allow(dead_code, reason = "each of those who include this uses a part of it")]
#![allow(clippy::disallowed_methods, reason = "what is written here need not outlive a crash")]

use std::fs::Permissions;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tokio_postgres::NoTls;

/// A PostgreSQL server in a temporary directory, reached over a socket. Dropping it ends it.
#[derive(Debug)]
pub(crate) struct Server {
    dir: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
    more: String,
}

impl Server {
    /// None, with a line that says so, where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        let server = Self::prepare()?;
        server.up();
        Some(server)
    }

    /// One that also listens on 127.0.0.1, with TLS; `user` needs TLS and this password there.
    pub(crate) async fn start_secure(certificate: &str, key: &str, user: &str, password: &str) -> Option<Self> {
        let mut server = Self::prepare()?;
        server.port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|any| any.local_addr()).unwrap().port();
        "-c ssl=on -c listen_addresses=127.0.0.1".clone_into(&mut server.more);
        let rules = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n";
        for (name, text) in [("server.crt", certificate), ("server.key", key), ("pg_hba.conf", rules)] {
            server.own_file(name, text);
        }
        server.up();
        server.execute("postgres", &format!("CREATE ROLE {user} SUPERUSER LOGIN PASSWORD '{password}'")).await;
        Some(server)
    }

    fn prepare() -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var("CI").is_err(), "PostgreSQL is missing: apt-get install -y postgresql");
            eprintln!("NOT TESTED: the PostgreSQL store (to test it: apt-get install -y postgresql)");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let server = Self { dir, programs, port: 5432, more: "-c listen_addresses=".to_owned() };
        // The server does not run as root: its user has to come to its files.
        std::fs::set_permissions(server.dir.path(), Permissions::from_mode(0o777)).unwrap();
        let data = server.data();
        server.run("initdb", &["-A", "trust", "-U", "postgres", "--no-sync", "--no-locale", "-E", "UTF8", "-D", &data]);
        Some(server)
    }

    fn data(&self) -> String {
        self.dir.path().join("data").to_str().unwrap().to_owned()
    }

    /// A file in its data directory that nobody else may read.
    fn own_file(&self, name: &str, text: &str) {
        let path = Path::new(&self.data()).join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        let owner = std::fs::metadata(self.data()).unwrap();
        let (uid, gid) = (std::os::unix::fs::MetadataExt::uid(&owner), std::os::unix::fs::MetadataExt::gid(&owner));
        std::os::unix::fs::chown(&path, Some(uid), Some(gid)).unwrap();
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

    pub(crate) fn up(&self) {
        let socket = self.dir.path().display();
        // A crash of the server is not one of the machine: the page cache stays, and the tests are quick.
        let options = format!(
            "{} -c port={} -c unix_socket_directories={socket} -c fsync=off -c full_page_writes=off \
             -c synchronous_commit=on -c deadlock_timeout=200ms",
            self.more, self.port
        );
        let log = format!("{socket}/log");
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-t", "60", "-l", &log, "-o", &options, "start"]);
    }

    pub(crate) fn crash(&self) {
        self.run("pg_ctl", &["-D", &self.data(), "-w", "-t", "60", "-m", "immediate", "stop"]);
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn url(&self, database: &str) -> String {
        format!("postgres:///{database}?host={}&port={}&user=postgres", self.dir.path().display(), self.port)
    }

    /// A new empty database.
    pub(crate) async fn database(&self, name: &str) -> String {
        self.execute("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(name)
    }

    /// All of a database, as text.
    pub(crate) fn dump(&self, database: &str) -> String {
        let mut command = Command::new(self.programs.join("pg_dump"));
        command.args(["--inserts", "--dbname", &self.url(database)]);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) async fn client(&self, database: &str) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(database), NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub(crate) async fn execute(&self, database: &str, sql: &str) {
        self.client(database).await.batch_execute(sql).await.unwrap();
    }

    pub(crate) async fn kill_connections(&self, database: &str) {
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
