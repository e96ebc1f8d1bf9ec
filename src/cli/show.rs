//! Answers of the API as text for people.

use std::fmt::Write as _;

use serde_json::Value;

/// JSON, indented.
pub(super) fn pretty(body: &Value) -> String {
    let mut text = serde_json::to_string_pretty(body).unwrap_or_default();
    text.push('\n');
    text
}

/// The state on one screen.
pub(super) fn state(body: &Value) -> String {
    let mut text = String::new();
    let (gateway, sidecar, pairing) = (&body["gateway"], &body["sidecar"], &body["pairing"]);
    let _ = write!(text, "gateway   {} since {}", word(&body["phase"]), word(&body["phase_since"]));
    if gateway.is_object() {
        let version = word(&gateway["version"]);
        let _ = write!(text, "  OpenClaw {version}, answers in {} ms", gateway["rpc_ms"]);
    }
    let reason = word(&body["phase_reason"]);
    if !reason.is_empty() {
        let _ = write!(text, "\n          {reason}");
    }
    text.push_str(&supervisor(body));
    let _ = write!(text, "\nsidecar   {}, up {}", word(&sidecar["version"]), span(&sidecar["uptime_s"]));
    if let Some(isolation) = body["supervisor"]["isolation"].as_str() {
        let _ = write!(text, ", {isolation}");
    }
    for listener in items(&sidecar["listeners"]) {
        let _ = write!(text, "\n          {} {}", word(&listener["kind"]), word(&listener["address"]));
    }
    if let Some(fingerprint) = sidecar["certificate_sha256"].as_str() {
        let _ = write!(text, "\n          certificate sha256 {fingerprint}");
    }
    let waiting = items(&pairing["pending"]);
    let _ = writeln!(
        text,
        "\npairing   {} waiting, {} paired, {} connected",
        waiting.len(),
        pairing["approved_count"],
        pairing["connected_count"]
    );
    if !waiting.is_empty() {
        text.push('\n');
        text.push_str(&requests(waiting));
    }
    if let Some(device) = pairing["last_out_of_band"]["device_id"].as_str() {
        let when = word(&pairing["last_out_of_band"]["noticed_at"]);
        let _ = writeln!(text, "          not approved by this sidecar: {device} (noticed {when})");
    }
    for found in items(&body["findings"]) {
        let _ = write!(text, "\n{}", finding(found));
    }
    text
}

/// One problem: what, why we think so, what to do.
pub(super) fn finding(found: &Value) -> String {
    let (severity, code, since) = (word(&found["severity"]), word(&found["code"]), word(&found["since"]));
    let mut text = format!("{severity}: {code} since {since}\n          {}\n", word(&found["summary"]));
    for fact in items(&found["evidence"]) {
        let _ = writeln!(text, "          | {}", word(fact));
    }
    let _ = writeln!(text, "          -> {}", word(&found["remedy"]));
    text
}

/// The gateway's process and its desired state; nothing in attach mode.
fn supervisor(body: &Value) -> String {
    let mut text = String::new();
    let (supervisor, desired) = (&body["supervisor"], &body["desired"]);
    if !supervisor.is_object() {
        return text;
    }
    let pid = supervisor["pid"].as_i64().map_or_else(|| "no process".to_owned(), |pid| format!("pid {pid}"));
    let _ = write!(text, "\nprocess   {pid}, started {} times", supervisor["starts"]);
    let exit = &supervisor["last_exit"];
    if exit.is_object() {
        let _ = write!(text, "\n          last end {}: {}", word(&exit["at"]), word(&exit["reason"]));
        let ready = body["phase"] == "ready";
        for line in items(&exit["last_lines"]).iter().rev().take(if ready { 0 } else { 5 }).rev() {
            let _ = write!(text, "\n          | {}", word(line));
        }
    }
    if desired["generation"].as_u64().is_some_and(|generation| generation > 0) {
        let _ = write!(text, "\ndesired   generation {}, {}", desired["generation"], word(&desired["status"]));
        if let Some(why) = desired["error"].as_str() {
            let _ = write!(text, "\n          {why}");
        }
    }
    text
}

/// What came of an order to the gateway.
pub(super) fn order(body: &Value) -> String {
    let mut text = format!("{}: gateway {}", word(&body["outcome"]), word(&body["phase"]));
    let reason = word(&body["reason"]);
    if !reason.is_empty() {
        let _ = write!(text, ", {reason}");
    }
    text.push('\n');
    text
}

/// Waiting requests and paired devices as two tables.
pub(super) fn pairing(body: &Value) -> String {
    let (pending, approved) = (items(&body["pending"]), items(&body["approved"]));
    let mut text = String::new();
    let _ = writeln!(text, "waiting for approval: {}", pending.len());
    if !pending.is_empty() {
        text.push_str(&requests(pending));
    }
    let _ = writeln!(text, "\npaired: {}", approved.len());
    if !approved.is_empty() {
        let rows = approved.iter().map(|a| {
            let connected = match a["connected"].as_bool() {
                Some(true) => "yes",
                Some(false) => "no",
                None => "?",
            };
            let (kind, id) = (word(&a["kind"]), word(&a["device_id"]));
            let (label, role) = (word(&a["label"]), word(&a["role"]));
            let (when, by) = (word(&a["approved_at"]), word(&a["approved_by"]));
            vec![kind, id, label, role, connected.to_owned(), when, by]
        });
        text.push_str(&table(&["KIND", "DEVICE", "LABEL", "ROLE", "CONNECTED", "APPROVED", "BY"], rows));
    }
    text
}

fn requests(pending: &[Value]) -> String {
    let rows = pending.iter().map(|p| {
        let asks: Vec<String> = items(&p["scopes"]).iter().map(|s| word(s).replace("operator.", "")).collect();
        let from = [word(&p["remote_ip"]), word(&p["channel"])].concat();
        vec![word(&p["kind"]), word(&p["request_id"]), word(&p["label"]), from, span(&p["age_s"]), asks.join(" ")]
    });
    table(&["KIND", "REQUEST", "LABEL", "FROM", "AGE", "ASKS FOR"], rows)
}

/// One line about what was done.
pub(super) fn outcome(body: &Value) -> String {
    let mut text = word(&body["outcome"]);
    let device = &body["device"];
    if device.is_object() {
        let _ = write!(text, ": {} {}", word(&device["label"]), word(&device["device_id"]));
    }
    match body["connected"].as_bool() {
        Some(true) => text.push_str(", connected"),
        Some(false) => text.push_str(", not connected yet"),
        None => {}
    }
    text.push('\n');
    text
}

/// What went wrong and what to do.
pub(super) fn problem(body: &Value) -> String {
    let mut text = format!("{}: {}", word(&body["code"]), word(&body["detail"]));
    for candidate in items(&body["candidates"]) {
        let _ = write!(text, "\n  {} {}", word(&candidate["request_id"]), word(&candidate["label"]));
    }
    if let Some(remedy) = body["remedy"].as_str() {
        let _ = write!(text, "\n-> {remedy}");
    }
    text
}

/// Columns as wide as their widest cell.
fn table(head: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut all = vec![head.iter().map(|h| (*h).to_owned()).collect::<Vec<_>>()];
    all.extend(rows);
    let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let mut text = String::new();
    for row in &all {
        let mut line = String::from("  ");
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Seconds in the largest unit that fits.
fn span(seconds: &Value) -> String {
    match seconds.as_u64().unwrap_or(0) {
        s @ 0..60 => format!("{s} s"),
        s @ 60..3600 => format!("{} min", s / 60),
        s @ 3600..172_800 => format!("{} h", s / 3600),
        s => format!("{} days", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "long cell".to_owned()], vec!["longer".to_owned(), "b".to_owned()]];
        assert_eq!(table(&["X", "Y"], rows.into_iter()), "  X       Y\n  a       long cell\n  longer  b\n");
    }

    #[test]
    fn spans_are_short() {
        let shown: Vec<String> = [5, 65, 7200, 200_000].iter().map(|s| span(&(*s).into())).collect();
        assert_eq!(shown, ["5 s", "1 min", "2 h", "2 days"]);
    }
}
