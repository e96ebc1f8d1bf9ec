//! `doctor`: what is wrong on this machine, worst first. The daemon knows; without it, what can be seen from here.

use std::path::Path;

use serde_json::{Value, json};

use super::client::Client;
use super::{err, exit, out, show};
use crate::config::{Config, Env};
use crate::{daemon, files};

/// One thing that is wrong although no daemon could be asked.
struct Check {
    what: String,
    remedy: &'static str,
}

/// Prints the findings; the exit code counts errors only.
pub(super) fn run(file: Option<&Path>, env: &Env, json: bool) -> u8 {
    let loaded = Config::load(file, env);
    let asked = loaded.as_ref().ok().map(|config| Client::new(config).and_then(|client| client.get("/v1/state")));
    match asked {
        Some(Ok(reply)) if reply.status == 200 => tell(&reply.body, json),
        Some(Ok(reply)) => {
            err(&show::problem(&reply.body));
            exit::NO
        }
        Some(Err(why)) => alone(file, env, Some(&why), json),
        None => alone(file, env, None, json),
    }
}

fn tell(state: &Value, json: bool) -> u8 {
    let findings = state["findings"].as_array().map_or(&[][..], Vec::as_slice);
    if json {
        out(&show::pretty(&json!({ "daemon": true, "phase": state["phase"], "findings": findings })));
    } else if findings.is_empty() {
        out("no problems found\n");
    } else {
        out(&findings.iter().map(show::finding).collect::<Vec<_>>().join("\n"));
    }
    let broken = findings.iter().any(|finding| finding["severity"] == "error");
    if broken { exit::NO } else { exit::OK }
}

/// Without a daemon something is wrong in any case.
fn alone(file: Option<&Path>, env: &Env, unreachable: Option<&str>, json: bool) -> u8 {
    let mut checks = Vec::new();
    match Config::load_for(file, env, daemon::faults) {
        Ok(config) => checks.extend(state_dir(&config)),
        Err(faults) => checks.extend(faults.0.into_iter().map(|fault| Check {
            what: format!("{}: {}", fault.key, fault.what),
            remedy: "Correct the configuration; `openclaw-sidecar config check` says whether it is right.",
        })),
    }
    checks.extend(unreachable.map(|why| Check {
        what: format!("the daemon cannot be asked: {why}"),
        remedy: "Start `openclaw-sidecar run`, or look at its log for why it ended; call this as root or as its user.",
    }));
    if json {
        let shown = |check: &Check| json!({ "summary": check.what, "remedy": check.remedy });
        let checks: Vec<Value> = checks.iter().map(shown).collect();
        out(&show::pretty(&json!({ "daemon": false, "findings": [], "checks": checks })));
    } else {
        let shown = |check: &Check| format!("error: {}\n          -> {}\n", check.what, check.remedy);
        out(&checks.iter().map(shown).collect::<String>());
    }
    exit::NO
}

fn state_dir(config: &Config) -> Option<Check> {
    let dir = config.state_dir_in_use();
    let missing = !files::exists(&dir);
    missing.then(|| Check {
        what: format!("state_dir: {} does not exist: no daemon ever ran here", dir.display()),
        remedy: "Nothing, if this is the first start; otherwise see whether the volume is mounted.",
    })
}
