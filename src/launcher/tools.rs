//! The gateway's own tools, run as its user with its environment: bounded in time and output.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use nix::unistd::Pid;

use super::gateway::pid_of;
use super::machine::Event;
use super::process::{self, Ended};
use super::verbs::{Ran, Told, Tool};
use super::{Launcher, Role};

/// A tool costs seconds of processor time; a throttled machine has a sixteenth of a core.
const DEADLINE: Duration = Duration::from_secs(180);
const MAX_OUTPUT: u64 = 64 * 1024;
/// Tools at once: each takes as much memory as half a gateway.
const MOST: usize = 2;

/// A tool that runs.
#[derive(Debug)]
pub struct Running {
    wanted_by: For,
    output: Arc<Mutex<Vec<u8>>>,
    deadline: Instant,
    /// The desktop link is a credential: its answer is passed on as it is.
    raw: bool,
}

/// Who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum For {
    /// The request of this id.
    Daemon(u64),
    /// The check of a listening socket, for the request of this id.
    Check(u64),
    /// Repairing the configuration.
    Repair,
}

impl Launcher {
    pub(super) fn run_tool(&mut self, tool: &Tool, wanted_by: For) {
        let started = tool.arguments().and_then(|arguments| {
            let command = [self.program()?, arguments].concat();
            self.spawn_tool(&["tool".to_owned()], &command, wanted_by, *tool == Tool::Handoff)
        });
        if let Err(why) = started {
            self.tool_answers(wanted_by, Err(why));
        }
    }

    pub(super) fn run_listener_check(&mut self, inode: u64, id: u64) {
        let Some(group) = self.gateway.pid else { return self.tool_answers(For::Check(id), Ok(false.into())) };
        let arguments =
            ["listener".to_owned(), "--inode".to_owned(), inode.to_string(), "--group".to_owned(), group.to_string()];
        if let Err(why) = self.spawn_tool(&arguments, &[], For::Check(id), false) {
            self.tool_answers(For::Check(id), Err(why));
        }
    }

    /// The gateway's program without its own subcommand: what stands before the word `gateway`.
    fn program(&self) -> Result<Vec<String>, String> {
        let end = self.command.iter().position(|word| word == "gateway").filter(|at| *at > 0);
        let end = end.ok_or("the gateway's command has no word `gateway`, so its other tools are not known")?;
        Ok(self.command[..end].to_vec())
    }

    fn spawn_tool(&mut self, mission: &[String], command: &[String], wanted_by: For, raw: bool) -> Result<(), String> {
        let heavy = |role: &&Role| matches!(role, Role::Tool(tool) if !matches!(tool.wanted_by, For::Check(_)));
        if !matches!(wanted_by, For::Check(_)) && self.children.values().filter(heavy).count() >= MOST {
            return Err("other tools of the gateway run; try again when they have ended".to_owned());
        }
        let (pipe, out) = std::io::pipe().map_err(|e| e.to_string())?;
        let mut seed = process::own_program(&["seed"]);
        seed.args(mission).arg("--").args(command).env_clear().envs(&self.env);
        let errors = out.try_clone().map_err(|e| e.to_string())?;
        seed.stdin(Stdio::null()).stdout(out).stderr(errors);
        let child = seed.process_group(0).spawn().map_err(|e| e.to_string())?;
        drop(seed);
        let output = Arc::<Mutex<Vec<u8>>>::default();
        let kept = output.clone();
        let read = move || {
            let mut pipe = pipe;
            let mut buffer = [0u8; 4096];
            while let Ok(n @ 1..) = pipe.read(&mut buffer) {
                let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                let room = usize::try_from(MAX_OUTPUT).unwrap_or(0).saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..n.min(room)]);
            }
        };
        std::thread::Builder::new().name("tool".to_owned()).spawn(read).map_err(|e| e.to_string())?;
        let running = Running { wanted_by, output, deadline: Instant::now() + DEADLINE, raw };
        self.children.insert(pid_of(&child), Role::Tool(running));
        Ok(())
    }

    pub(super) fn tool_ended(&mut self, tool: &Running, ended: Ended) {
        let text = String::from_utf8_lossy(&tool.output.lock().unwrap_or_else(PoisonError::into_inner)).into_owned();
        let answer = match tool.wanted_by {
            For::Check(_) if ended.code.is_some_and(|code| code <= 1) => Ok((ended.code == Some(0)).into()),
            For::Check(_) => Err(format!("the check ended with {ended}: {text}")),
            _ => {
                let output = if tool.raw {
                    text
                } else {
                    text.lines().map(|line| self.output.redact(line)).collect::<Vec<_>>().join("\n")
                };
                serde_json::to_value(Ran { code: ended.code, output }).map_err(|e| e.to_string())
            }
        };
        self.tool_answers(tool.wanted_by, answer);
    }

    fn tool_answers(&mut self, wanted_by: For, result: Result<serde_json::Value, String>) {
        match wanted_by {
            For::Daemon(id) | For::Check(id) => self.daemon.tell(&Told::Reply { id, result }),
            For::Repair => {
                let said = result.map_or_else(|why| why, |ran| ran["output"].as_str().unwrap_or_default().to_owned());
                tracing::warn!(said, "the gateway's own repair ended");
                self.happened(Event::Doctored);
            }
        }
    }

    /// Ends tools that take too long; what they printed is answered when they are reaped.
    pub(super) fn end_late_tools(&mut self) {
        let late = |role: &Role| matches!(role, Role::Tool(tool) if tool.deadline <= Instant::now());
        for (pid, _) in self.children.iter().filter(|(_, role)| late(role)) {
            process::kill_group(*pid);
        }
    }

    /// The gateway starts: nothing may repair its files meanwhile.
    pub(super) fn end_repair(&mut self) {
        let repairs = |role: &Role| matches!(role, Role::Tool(tool) if tool.wanted_by == For::Repair);
        let pids: Vec<Pid> = self.children.iter().filter(|(_, role)| repairs(role)).map(|(pid, _)| *pid).collect();
        for pid in pids {
            process::kill_group(pid);
        }
    }
}
