//! What the daemon may ask of the launcher, and what the launcher tells: one JSON object a line, over a socketpair.
//!
//! The set is closed: no command line, no path and no environment crosses it. Both sides check what they receive; the
//! daemon listens to the network, so the launcher believes it no more than it must.

use serde::{Deserialize, Serialize};

use super::machine::{Health, State, Then};
use crate::clock::UnixMs;
use crate::desired::applied::Applied;
use crate::secret::Secret;

/// Longest line either side takes, in bytes: a configuration of 1 MiB, escaped.
pub const MAX_LINE: usize = 4 * 1024 * 1024;

/// One request of the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Repeated in the reply.
    pub id: u64,
    /// What is asked.
    pub verb: Verb,
}

/// What may be asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Verb {
    /// The daemon serves its API.
    Serving,
    /// What the daemon's calls say of the gateway.
    Health(Health),
    /// Everybody who wanted to know of the stop was told.
    GoodbyeSaid,
    /// Start the gateway if it does not run.
    Start,
    /// Stop the gateway.
    Stop,
    /// Stop and start it.
    Restart,
    /// Stop it and end: the machine may sleep.
    Sleep,
    /// The text of the gateway's configuration.
    ReadConfig,
    /// Whether this listening socket belongs to the gateway.
    Listener {
        /// The socket's inode.
        inode: u64,
    },
    /// Run one of the gateway's own tools.
    Run(Tool),
    /// Wipe the gateway's directory. Only while it is stopped.
    Wipe,
}

/// The gateway's own tools that may be run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Tool {
    /// `doctor`, with `--fix` if told so.
    Doctor {
        /// Whether it repairs what it finds.
        fix: bool,
    },
    /// `pairing approve <channel> <code>`.
    ChannelApprove {
        /// E.g. `telegram`.
        channel: String,
        /// The code its sender was shown.
        code: String,
        /// The account, where the channel has several.
        account: Option<String>,
    },
    /// `dashboard --json`: a link that lets one browser in, once (gateway 2026.8 and later).
    Handoff,
}

impl Tool {
    /// The arguments after the gateway's program.
    ///
    /// # Errors
    /// A text that is no channel, code or account: nothing that could be taken for an option.
    pub fn arguments(&self) -> Result<Vec<String>, String> {
        let word = |text: &String, what: &str| {
            let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            let plain = text.chars().all(legal) && text.starts_with(|c: char| c.is_ascii_alphanumeric());
            if plain && text.len() <= 64 {
                Ok(text.clone())
            } else {
                Err(format!("{what}: must have 1 to 64 letters, digits, '-', '_' or '.'"))
            }
        };
        let owned = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
        Ok(match self {
            Self::Doctor { fix: true } => owned(&["doctor", "--fix", "--non-interactive"]),
            Self::Doctor { fix: false } => owned(&["doctor", "--non-interactive"]),
            Self::ChannelApprove { channel, code, account } => {
                let mut all = owned(&["pairing", "approve"]);
                all.extend([word(channel, "channel")?, word(code, "code")?]);
                if let Some(account) = account {
                    all.extend(["--account".to_owned(), word(account, "account")?]);
                }
                all
            }
            Self::Handoff => owned(&["dashboard", "--json"]),
        })
    }
}

/// How a tool ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// Its exit code; absent when a signal or the deadline ended it.
    pub code: Option<i32>,
    /// What it printed, cut at 64 KiB.
    pub output: String,
}

/// What the launcher says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The answer to a request.
    Reply {
        /// The request's id.
        id: u64,
        /// What came of it.
        result: Result<serde_json::Value, String>,
    },
    /// The present state; sent at every change.
    Status(Box<Status>),
    /// The gateway will be stopped in so many milliseconds: say goodbye.
    Goodbye {
        /// Time left, in milliseconds.
        within_ms: u64,
        /// What follows the stop.
        then: Then,
    },
    /// The machine was suspended for about so long.
    Resumed {
        /// In milliseconds.
        asleep_ms: u64,
    },
}

/// How the gateway's process is doing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Status {
    /// What the launcher is doing with it.
    pub state: State,
    /// Since when.
    pub since: UnixMs,
    /// Why, in plain words; empty when ready.
    pub reason: String,
    /// Its process id, while it runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pid: Option<i32>,
    /// How often it was started since the launcher began.
    pub starts: u64,
    /// How it ended the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_exit: Option<LastExit>,
    /// Lines of output that were dropped because nobody took them.
    pub output_dropped: u64,
    /// The generation of the desired state it was started with; 0 without one.
    pub generation: u64,
    /// A generation that kept it from becoming ready and was rolled back.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_generation: Option<u64>,
    /// The version found in its package; absent where none was found.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The version before, where this start changed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub previous_version: Option<String>,
    /// What seeding did that somebody should know.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub notes: Vec<String>,
    /// Whether gateway and sidecar have users of their own: `separate-uids` or `shared-uid`.
    pub isolation: String,
}

/// How the gateway ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct LastExit {
    /// When.
    pub at: UnixMs,
    /// In plain words.
    pub reason: String,
    /// Its exit code, if it had one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i32>,
    /// The signal that ended it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// The kernel killed a process here for lack of memory.
    pub oom: bool,
    /// How long it ran.
    pub uptime_s: u64,
    /// The last lines it printed, redacted.
    pub last_lines: Vec<String>,
}

/// What `seed` reports before it becomes the gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Seeded {
    /// The generation of the desired state that was used.
    pub generation: u64,
    /// The gateway's version, where it was found.
    pub version: Option<String>,
    /// The version before, where it is another one now.
    #[serde(default)]
    pub previous_version: Option<String>,
    /// What somebody should know.
    pub notes: Vec<String>,
    /// What it applied, for the launcher to keep.
    #[serde(default)]
    pub applied: Option<Applied>,
    /// Names of variables that the gateway did not get.
    #[serde(default)]
    pub dropped: Vec<String>,
    /// What no line that is kept or logged may show.
    #[serde(default, serialize_with = "exposed")]
    pub hide: Vec<Secret>,
    /// Why it cannot go on; then it exits.
    pub failed: Option<String>,
    /// The failure is the configuration's: repairing may help.
    pub config_class: bool,
}

/// The one place where secrets are written out: from `seed` to its parent.
fn exposed<S: serde::Serializer>(secrets: &[Secret], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(secrets.iter().map(Secret::expose))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_an_option_or_more_than_one_word() {
        for bad in ["", "-x", "--fix", "a b", "a;b", "../x", "é", "a\n", &"a".repeat(65)] {
            let channel = Tool::ChannelApprove { channel: bad.to_owned(), code: "A".into(), account: None };
            assert!(channel.arguments().is_err(), "{bad:?}");
            let code = Tool::ChannelApprove { channel: "telegram".into(), code: bad.to_owned(), account: None };
            assert!(code.arguments().unwrap_err().starts_with("code:"));
        }
        let fine = Tool::ChannelApprove { channel: "telegram".into(), code: "ABCD2345".into(), account: None };
        assert_eq!(fine.arguments().unwrap(), ["pairing", "approve", "telegram", "ABCD2345"]);
    }

    #[test]
    fn a_verb_we_do_not_know_is_refused() {
        for bad in [
            r#"{"id":1,"verb":"exec"}"#,
            r#"{"id":1,"verb":"start","cmd":"x"}"#,
            r#"{"id":1,"verb":{"run":{"doctor":{"fix":true,"args":"x"}}}}"#,
        ] {
            assert!(serde_json::from_str::<Request>(bad).is_err(), "{bad}");
        }
        let fine: Request = serde_json::from_str(r#"{"id":1,"verb":{"run":{"doctor":{"fix":true}}}}"#).unwrap();
        assert_eq!(fine.verb, Verb::Run(Tool::Doctor { fix: true }));
    }
}
