//! The table of state files in the documentation: everything that is found in a used volume has a row there, and a
//! damaged file is treated as its row says.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;

use super::daemon::until;
use crate::support::machine::script::OBEDIENT;
use crate::support::machine::{GATEWAY_UID, Machine, SIDECAR_UID, is_root};

/// What is not ours below the gateway's directory has no row.
const OURS_IN_GATEWAY: [&str; 2] = ["openclaw/openclaw.json", "openclaw/.sidecar/"];
/// Copies that the gateway itself makes of its configuration.
const THEIRS: [&str; 2] = ["openclaw/openclaw.json.bak", "openclaw/openclaw.json.last-good"];

/// The first cells of the table's rows.
pub fn rows() -> Vec<String> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let read = |name: &str| std::fs::read_to_string(docs.join(name)).unwrap_or_default();
    let text = read("operations.md");
    let cells = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once(" | ").map(|(cell, _)| cell));
    cells.flat_map(|cell| cell.split('`').filter(|part| !part.trim().is_empty()).map(str::to_owned)).collect()
}

fn fits(row: &str, path: &str) -> bool {
    if row.ends_with('/') {
        return path.starts_with(row);
    }
    let mut rest = path;
    // Between fixed texts, one part of a name.
    let mut fixed = row.split(['<', '>']).step_by(2);
    let Some(after) = rest.strip_prefix(fixed.next().unwrap_or_default()) else { return false };
    rest = after;
    for text in fixed {
        let Some(at) = (if text.is_empty() { Some(rest.len()) } else { rest.find(text) }) else { return false };
        if at == 0 || rest[..at].contains('/') {
            return false;
        }
        rest = &rest[at + text.len()..];
    }
    rest.is_empty()
}

/// Files of ours in a used volume that have no row.
pub fn unlisted(volume: &Path) -> Vec<String> {
    let rows = rows();
    let ours = |path: &String| {
        let in_gateway = path.starts_with("openclaw/");
        (!in_gateway || OURS_IN_GATEWAY.iter().any(|start| path.starts_with(start)))
            && !THEIRS.iter().any(|start| path.starts_with(start))
    };
    let mut paths = Vec::new();
    files_below(volume, Path::new(""), &mut paths);
    paths.retain(|path| ours(path) && !rows.iter().any(|row| fits(row, path)));
    paths
}

fn files_below(volume: &Path, dir: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(volume.join(dir)).into_iter().flatten().flatten() {
        let path = dir.join(entry.file_name());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files_below(volume, &path, found);
        } else {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn a_row_fits_what_it_stands_for() {
    for (row, path, fit) in [
        ("sidecar/lock", "sidecar/lock", true),
        ("sidecar/lock", "sidecar/lock2", false),
        ("sidecar/audit.<n>.jsonl", "sidecar/audit.4.jsonl", true),
        ("sidecar/audit.<n>.jsonl", "sidecar/audit..jsonl", false),
        ("sidecar/audit.<n>.jsonl", "sidecar/audit.1/x.jsonl", false),
        ("sidecar/audit.broken-<time>-<n>.jsonl", "sidecar/audit.broken-17-0.jsonl", true),
        ("openclaw/openclaw.json.unusable-<time>", "openclaw/openclaw.json.unusable-17", true),
        ("openclaw/.sidecar/backups/", "openclaw/.sidecar/backups/1-2/a/b", true),
    ] {
        assert_eq!(fits(row, path), fit, "{row} {path}");
    }
    assert!(rows().len() >= 20 && rows().contains(&"openclaw/skills/".to_owned()), "{:?}", rows());
}

/// A machine with everything in it that a stand-in can bring about; one with a real gateway is looked at in `canaries`.
#[tokio::test]
async fn every_file_of_a_used_volume_has_a_row() -> anyhow::Result<()> {
    let document = json!({"files": [{"path": "workspace/A.md", "content": "a"}, {"path": "bin/b", "content": "b"}]});
    let builder = Machine::script(OBEDIENT)?.credentials_file().document(document);
    let machine = builder.start().await?;
    let client = machine.client();
    let body = json!({"value": "a value"}).to_string().into_bytes();
    let headers = [("content-type", "application/json")];
    let put = client.request("PUT", "/v1/secrets/A_SECRET", &headers, Some(body)).await?;
    ensure!(put.status == 200, "{}", put.text());
    // A broken audit is set aside at the next start.
    let machine = machine.stop().await?;
    let audit = machine.place().sidecar_dir().join("audit.jsonl");
    let changed = std::fs::read_to_string(&audit)?.replace("secrets.put", "secrets.got");
    std::fs::write(&audit, changed)?;
    let machine = machine.start().await?;
    let volume = machine.volume();
    ensure!(unlisted(&volume).is_empty(), "without a row: {:?}", unlisted(&volume));
    let there = |path: &str| volume.join(path).exists();
    for path in ["sidecar/secrets.json", "sidecar/desired.json", "sidecar/applied.json", ".sidecar-layout"] {
        ensure!(there(path), "{path} is not there: the machine was not used");
    }
    let given = machine.place().root().join("run-given");
    ensure!(given.exists() == is_root(), "what the platform gives is not on the volume: {}", given.display());
    // And one that has none is found.
    for path in ["sidecar/forgotten.json", "forgotten", "openclaw/.sidecar/forgotten.json"] {
        std::fs::write(volume.join(path), "")?;
        ensure!(unlisted(&volume) == [path], "{path}: {:?}", unlisted(&volume));
        std::fs::remove_file(volume.join(path))?;
    }
    Ok(())
}

/// Garbage in a file of ours is named, and nothing takes its place; the gateway runs all the same.
#[tokio::test]
async fn a_damaged_file_is_named_and_never_replaced() -> anyhow::Result<()> {
    let builder = Machine::script(OBEDIENT)?;
    let dir = builder.place().sidecar_dir();
    let machine = builder.start().await?;
    machine.wait_phase("starting", Duration::from_secs(30)).await?;
    let mut builder = machine.stop().await?;
    for name in ["desired.json", "secrets.json", "approvals.json", "identity.pk8", "tls.pem"] {
        let (path, aside) = (dir.join(name), dir.join("aside"));
        let was_there = path.exists();
        if was_there {
            std::fs::rename(&path, &aside)?;
        }
        builder.place().put(&path, "{\"garbage", SIDECAR_UID, 0o600)?;
        let machine = builder.spawn().await?;
        let named = |machine: &Machine| machine.log_text().lines().any(|line| line.contains(name));
        until(|| named(&machine)).await.with_context(|| format!("{name} is not named\n{}", machine.last_words()))?;
        let tenant = machine.place().gateway_dir().join("tenant.txt");
        until(|| tenant.exists()).await.with_context(|| format!("{name}: the gateway does not run"))?;
        until(|| machine.log_text().contains("exit code 78")).await.with_context(|| format!("{name}: it serves"))?;
        builder = machine.stop().await?;
        ensure!(std::fs::read_to_string(&path)? == "{\"garbage", "{name} was replaced");
        std::fs::remove_file(tenant)?;
        if was_there {
            std::fs::rename(&aside, &path)?;
        } else {
            std::fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// What the gateway's user can write is believed no more than it must.
#[tokio::test]
async fn a_damaged_file_of_the_gateway_stops_nothing() -> anyhow::Result<()> {
    let machine = Machine::script(OBEDIENT)?.start().await?;
    let place = machine.place();
    let config: PathBuf = place.config_path();
    until(|| config.exists()).await?;
    let builder = machine.stop().await?;
    let applied = builder.place().sidecar_dir().join("applied.json");
    let token = std::fs::read_to_string(&config)?;
    builder.place().put(&applied, "{\"garbage", GATEWAY_UID, 0o600)?;
    let good = builder.place().gateway_dir().join(".sidecar/last-good.json");
    builder.place().put(&good, "{\"garbage", GATEWAY_UID, 0o600)?;
    let tenant = builder.place().gateway_dir().join("tenant.txt");
    let _ = std::fs::remove_file(&tenant);
    let machine = builder.start().await?;
    until(|| tenant.exists()).await.with_context(|| machine.last_words())?;
    ensure!(std::fs::read_to_string(&config)? == token, "the configuration changed");
    let text = std::fs::read(&applied)?;
    ensure!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "applied.json was not written anew");
    Ok(())
}
