//! A PostgreSQL server in a temporary directory, as it comes: durable, with its own defaults; reached over a socket.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::process::Process;

pub struct Postgres {
    dir: tempfile::TempDir,
    programs: PathBuf,
}

impl Postgres {
    /// None where it is not installed.
    pub async fn start() -> anyhow::Result<Option<Self>> {
        let Some(programs) = programs() else { return Ok(None) };
        let server = Self { dir: tempfile::tempdir()?, programs };
        // The server does not run as root: its user has to come to its files.
        std::fs::set_permissions(server.dir.path(), std::fs::Permissions::from_mode(0o777))?;
        let (data, place) = (server.data(), server.dir.path().display().to_string());
        let data = data.to_str().context("a path")?;
        server.run("initdb", &["-A", "trust", "-U", "postgres", "--no-locale", "-E", "UTF8", "-D", data]).await?;
        let options = format!("-c listen_addresses= -c unix_socket_directories={place}");
        let log = format!("{place}/log");
        server.run("pg_ctl", &["-D", data, "-w", "-t", "60", "-l", &log, "-o", &options, "start"]).await?;
        Ok(Some(server))
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn url(&self) -> String {
        format!("postgres:///postgres?host={}&user=postgres", self.dir.path().display())
    }

    /// The server's first process and those it started.
    pub fn processes(&self) -> anyhow::Result<Vec<Process>> {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid"))?;
        let pid: u32 = pid.lines().next().context("a pid")?.parse()?;
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        let children = children.split_whitespace().map(str::parse).collect::<Result<Vec<u32>, _>>()?;
        Ok([pid].into_iter().chain(children).map(Process).collect())
    }

    async fn run(&self, program: &str, arguments: &[&str]) -> anyhow::Result<()> {
        let status = self.command(program, arguments)?.status().await?;
        ensure!(status.success(), "{program}: {status}; see {}", self.dir.path().display());
        Ok(())
    }

    fn command(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Command> {
        let path = self.programs.join(program);
        let mut command = if nix::unistd::geteuid().is_root() {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--"]).arg(path);
            command
        } else {
            Command::new(path)
        };
        let said = std::fs::OpenOptions::new().create(true).append(true).open(self.dir.path().join("said"))?;
        command.args(arguments).current_dir("/").stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said);
        Ok(command)
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let data = self.data();
        let stop =
            data.to_str().map(|data| self.command("pg_ctl", &["-D", data, "-w", "-t", "60", "-m", "fast", "stop"]));
        if let Some(Ok(mut stop)) = stop {
            let _ = stop.as_std_mut().status();
        }
    }
}

fn programs() -> Option<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut installed: Vec<PathBuf> = installed.map(|version| version.path().join("bin")).collect();
    installed.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |dir: &PathBuf| ["initdb", "pg_ctl"].iter().all(|name| Path::new(dir).join(name).exists());
    installed.into_iter().rev().chain(std::env::split_paths(&path)).find(there)
}
