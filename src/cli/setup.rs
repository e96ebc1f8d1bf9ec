//! Making credentials, and checking the audit: what needs no running daemon.

use std::io::Read as _;
use std::path::Path;

use super::{TokenCommand, err, exit, out};
use crate::audit::chain;
use crate::auth::Tier;
use crate::auth::credentials::{Token, entry_json};
use crate::checkin::credential::Credential;
use crate::config::Config;

pub(super) fn token(command: TokenCommand) -> u8 {
    match command {
        TokenCommand::New { id, tier, approver, json } => {
            let tier = if tier == "safe" { Tier::Safe } else { Tier::Dangerous };
            let token = match Token::random() {
                Ok(token) => token,
                Err(why) => {
                    err(&why);
                    return exit::UNAVAILABLE;
                }
            };
            let entry = entry_json(&id, &token, tier, approver);
            if let Err(why) = crate::auth::credentials::parse(&format!("[{entry}]")) {
                err(&why);
                return exit::USAGE;
            }
            if json {
                out(&format!("{{\"token\":\"{}\",\"entry\":{entry}}}\n", token.expose()));
            } else {
                out(&format!("token for the holder (shown only now):\n  {}\n\n", token.expose()));
                out(&format!("entry for the credentials file (a JSON list of such entries):\n  {entry}\n"));
            }
            exit::OK
        }
        TokenCommand::Registry => exit::USAGE,
        TokenCommand::Hash => {
            let mut text = String::new();
            let read = std::io::stdin().take(4096).read_to_string(&mut text).map_err(|e| e.to_string());
            match read.and_then(|_| Token::parse(&text)) {
                Ok(token) => {
                    out(&format!("{}\n", token.sha256()));
                    exit::OK
                }
                Err(why) => {
                    err(&why);
                    exit::NO
                }
            }
        }
    }
}

/// Never the credential itself: whoever may run this need not be able to speak for the machine.
pub(super) fn registry_credential(config: &Config) -> u8 {
    match Credential::find(config) {
        Ok(credential) => {
            out(&format!("{}\n", credential.sha256()));
            exit::OK
        }
        Err(why) => {
            err(&why);
            exit::CONFIG
        }
    }
}

pub(super) fn verify(dir: &Path) -> u8 {
    let files = chain::segments(dir);
    if files.is_empty() {
        err(&format!("{}: holds no audit", dir.display()));
        return exit::NO;
    }
    let mut count = 0u64;
    match chain::walk(&files, |_| count += 1) {
        Ok(Ok(head)) => {
            out(&format!("ok: {count} records, up to {} with hash {}\n", head.n, head.hash));
            set_aside(dir)
        }
        Ok(Err(broken)) => {
            err(&format!("BROKEN at record {}: {}", broken.n, broken.why));
            exit::NO
        }
        Err(e) => {
            err(&e.to_string());
            exit::UNAVAILABLE
        }
    }
}

/// Says so when an earlier chain was found broken and set aside by the daemon.
fn set_aside(dir: &Path) -> u8 {
    let names = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok).map(|entry| entry.file_name());
    let mut broken: Vec<String> = names.map(|n| n.to_string_lossy().into_owned()).collect();
    broken.retain(|name| name.starts_with("audit.broken-"));
    broken.sort();
    for name in &broken {
        err(&format!("BROKEN before that: {name} was set aside; keep it elsewhere once it is looked into"));
    }
    if broken.is_empty() { exit::OK } else { exit::NO }
}
