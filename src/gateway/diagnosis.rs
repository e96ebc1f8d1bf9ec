//! What the gateway tells about its own troubles: channels that are down, and the few lines of its log that prove
//! something. All of it is the tenant's, so it is bounded, typed, and never more than evidence.

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::records::tidy;
use super::{CallError, Gateway, Method};
use crate::clock::UnixMs;

/// Lines and bytes taken at a time; what a chattier log says in between is passed over.
const LINES: u32 = 200;
const BYTES: u32 = 64 * 1024;
const MAX_CHANNELS: usize = 16;

/// A channel's account that ought to be connected and is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelDown {
    /// E.g. `telegram/default`.
    pub name: String,
    /// What the gateway says about it; may be empty.
    pub why: String,
}

/// What one line of the log proves, as far as the line is to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// A browser was turned away because of where its page comes from.
    OriginRefused(String),
    /// Somebody sent forwarding headers that are not trusted; the peer, where the line names it.
    ForwardingIgnored(String),
    /// A changed configuration was not taken; what the gateway says is wrong with it.
    ConfigRefused(String),
}

/// A piece of the log.
#[derive(Debug, Default)]
pub struct Tail {
    /// Where the next piece begins.
    pub cursor: Option<u64>,
    /// What its lines prove, and when they were written; lines without a time are left out.
    pub said: Vec<(UnixMs, Said)>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireChannels {
    channel_accounts: std::collections::BTreeMap<String, Vec<WireAccount>>,
    status_issues: Vec<WireIssue>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireAccount {
    account_id: String,
    enabled: Option<bool>,
    configured: Option<bool>,
    running: Option<bool>,
    connected: Option<bool>,
    last_error: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WireIssue {
    channel: String,
    account_id: String,
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WireTail {
    cursor: Option<u64>,
    lines: Vec<String>,
}

impl Gateway {
    /// Enabled channels that are not connected.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn channels_down(&self, deadline: Instant) -> Result<Vec<ChannelDown>, CallError> {
        let wire: WireChannels = self.call(Method::ChannelStatus, json!({}), deadline).await?;
        Ok(down(wire))
    }

    /// What the log says after `cursor`; without one only where it ends now, and what its last lines say.
    ///
    /// # Errors
    /// See [`CallError`].
    pub async fn log_tail(&self, cursor: Option<u64>, deadline: Instant) -> Result<Tail, CallError> {
        let mut params = json!({ "limit": LINES, "maxBytes": BYTES });
        if let Some(cursor) = cursor {
            params["cursor"] = cursor.into();
        }
        let wire: WireTail = self.call(Method::LogsTail, params, deadline).await?;
        let said = wire.lines.iter().take(LINES as usize).filter_map(|line| said(line)).collect();
        Ok(Tail { cursor: wire.cursor, said })
    }
}

fn down(wire: WireChannels) -> Vec<ChannelDown> {
    let mut found = Vec::new();
    for (channel, accounts) in wire.channel_accounts {
        for account in accounts {
            let wanted = account.enabled != Some(false) && account.configured != Some(false);
            if !wanted || (account.running != Some(false) && account.connected != Some(false)) {
                continue;
            }
            let about = |i: &&WireIssue| i.channel == channel && i.account_id == account.account_id;
            let issue = || wire.status_issues.iter().find(about).map(|i| i.message.clone());
            let why = account.last_error.clone().filter(|why| !why.is_empty()).or_else(issue).unwrap_or_default();
            let name = tidy(&format!("{channel}/{}", account.account_id));
            found.push(ChannelDown { name, why: crate::launcher::output::redact(&tidy(&why)) });
        }
    }
    found.truncate(MAX_CHANNELS);
    found
}

/// Lines are JSON objects with the text as `message` (2026.9), `1` or `2`, and the context as an object in `1`.
fn said(line: &str) -> Option<(UnixMs, Said)> {
    const MARKERS: [&str; 5] = [
        "origin-mismatch",
        "origin not allowed",
        "proxy-shaped traffic",
        "Proxy headers detected from untrusted",
        "config reload skipped (invalid config)",
    ];
    // Most lines are none of ours, and are not parsed.
    let marker = MARKERS.iter().position(|marker| line.contains(marker))?;
    let line: Value = serde_json::from_str(line).ok()?;
    let at = UnixMs::parse(line["_meta"]["date"].as_str()?)?;
    let texts = ["message", "2", "1"];
    let text = texts.iter().find_map(|name| line[*name].as_str()).unwrap_or_default();
    // A name or an address, not whatever words a client sent along.
    let word = |key: &str| {
        let after = text.split(key).nth(1).unwrap_or_default();
        after.split_ascii_whitespace().next().unwrap_or_default().trim_end_matches(';').to_owned()
    };
    let said = match marker {
        0 | 1 => {
            let origin = line["1"]["origin"].as_str().map_or_else(|| word(" origin="), str::to_owned);
            Said::OriginRefused(origin_of(&origin)?)
        }
        2 | 3 => Said::ForwardingIgnored(tidy(&word("traffic from "))),
        _ => {
            let (_, why) = text.split_once(MARKERS[4])?;
            Said::ConfigRefused(crate::launcher::output::redact(&tidy(why.trim_start_matches([':', ' ']))))
        }
    };
    Some((at, said))
}

/// An origin in its plain form, nothing else.
fn origin_of(text: &str) -> Option<String> {
    let (scheme, host) = text.split_once("://")?;
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let fine = matches!(scheme, "http" | "https") && !host.is_empty() && host.len() <= 120 && host.chars().all(plain);
    fine.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As 2026.9.6 and 2026.4.9 wrote them, shortened.
    #[test]
    fn lines_that_prove_something_are_told_from_others() {
        let what = |mut line: Value| {
            line["_meta"] = json!({ "date": "2026-11-21T15:56:51.748Z" });
            said(&line.to_string()).map(|(at, said)| (at.rfc3339(), said).1)
        };
        let text = "closed before connect conn=x origin=https://evil.example code=1008";
        let origin = json!({"1": {"cause": "origin-mismatch", "origin": "https://evil.example"}, "2": text});
        assert_eq!(what(origin), Some(Said::OriginRefused("https://evil.example".into())));
        let text = "closed before connect origin=https://old.example host=h reason=origin not allowed (open the";
        assert_eq!(what(json!({ "1": text })), Some(Said::OriginRefused("https://old.example".into())));
        let text = "gateway: observed unattributable proxy-shaped traffic from 127.0.0.1; Gateway-authenticated";
        assert_eq!(what(json!({ "1": text })), Some(Said::ForwardingIgnored("127.0.0.1".into())));
        let text = "config reload skipped (invalid config): gateway: Unrecognized key: \"bananas\"";
        let refused = "gateway: Unrecognized key: \"bananas\"";
        assert_eq!(what(json!({ "message": text })), Some(Said::ConfigRefused(refused.into())));
        let hostile = json!({"1": {"origin": "javascript:x"}, "2": "origin not allowed"});
        assert_eq!(what(hostile), None);
        for other in ["", "{}", "origin-mismatch", r#"{"2":"origin not allowed origin=https://a.example"}"#] {
            assert_eq!(said(other), None, "{other}");
        }
    }

    /// As 2026.9.6 answered without a network.
    #[test]
    fn a_channel_is_down_when_it_should_be_up() {
        let wire = json!({
            "channelAccounts": {
                "telegram": [{"accountId": "default", "enabled": true, "configured": true, "running": true,
                              "connected": false, "lastError": null}],
                "signal": [{"accountId": "off", "enabled": false, "running": false}],
                "slack": [{"accountId": "old", "running": true}],
            },
            "statusIssues": [{"channel": "telegram", "accountId": "default", "message": "is disconnected"}],
        });
        let found = down(serde_json::from_value(wire).unwrap());
        assert_eq!(found, [ChannelDown { name: "telegram/default".into(), why: "is disconnected".into() }]);
    }
}
