//! Help, configuration, tokens.

use serde_json::json;
use tokio::process::Command;

use super::{CONFIG, NO, OK, USAGE, bare, finish, with_env};
use crate::support::fake::codec::sha256_hex;
use crate::support::sidecar::{Sidecar, binary, credential, new_token};

#[tokio::test]
async fn help_and_version() -> anyhow::Result<()> {
    let help = bare(&["--help"]).await?.expect(OK);
    for part in ["run", "status", "pairing", "token", "audit", "config", "Exit codes", "69", "75", "78"] {
        assert!(help.out.contains(part), "{part}: {}", help.out);
    }
    for command in ["run", "status", "pairing", "token", "audit", "config"] {
        let help = bare(&[command, "--help"]).await?.expect(OK);
        assert!(help.out.contains("Usage:") && help.err.is_empty(), "{help:?}");
    }
    let version = bare(&["--version"]).await?.expect(OK);
    assert_eq!(version.out.trim(), format!("openclaw-sidecar {}", env!("CARGO_PKG_VERSION")));
    Ok(())
}

#[tokio::test]
async fn wrong_command_lines_say_what_is_wrong() -> anyhow::Result<()> {
    for args in [
        &[][..],
        &["frobnicate"],
        &["status", "--frobnicate"],
        &["status", "--json", "--quiet"],
        &["pairing", "approve"],
        &["pairing", "approve", "id", "--only-pending"],
        &["pairing", "approve", "id", "--kind", "person"],
        &["pairing", "revoke"],
        &["token", "new", "--tier", "root"],
        &["token", "new", "--id", "a b"],
        &["token", "new", "--id", "out_of_band"],
    ] {
        let ran = bare(args).await?.expect(USAGE);
        assert!(ran.out.is_empty() && !ran.err.is_empty(), "{args:?}: {ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_example_configuration_passes_its_check() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let file = dir.path().join("sidecar.toml");
    let credentials = json!([credential("a", &new_token(), "dangerous")]).to_string();
    let example = bare(&["config", "init"]).await?.expect(OK).out;
    std::fs::write(&file, &example)?;
    let path = file.to_str().expect("a UTF-8 path");
    let env = [("OPENCLAW_SIDECAR_AUTH_CREDENTIALS", credentials.as_str())];
    let checked = with_env(&["config", "check", "--config", path], &env).await?.expect(OK);
    assert_eq!(checked.out, "ok\n");
    // Every variable it names is one.
    for line in example.lines().filter_map(|line| line.strip_prefix("# (OPENCLAW_SIDECAR_")) {
        let name = format!("OPENCLAW_SIDECAR_{}", line.trim_end_matches(')'));
        let ran = with_env(&["config", "check"], &[(&name, "\u{1}"), env[0]]).await?;
        assert!(!ran.err.contains("no known variable"), "{name}: {ran:?}");
    }
    Ok(())
}

#[tokio::test]
async fn the_check_prints_every_fault() -> anyhow::Result<()> {
    let env = [
        ("OPENCLAW_SIDECAR_LISTEN_TLS", "here"),
        ("OPENCLAW_SIDECAR_LISTEN_EDGE", "127.0.0.1:18790"),
        ("OPENCLAW_SIDECAR_GATEWAY_CONFIG_PATH", "relative.json"),
        ("OPENCLAW_SIDECAR_LIMITS_MAX_CONNECTIONS", "0"),
        ("OPENCLAW_SIDECAR_TLS_KEY_FILE", "/nowhere/tls.key"),
        ("OPENCLAW_SIDECAR_TLS_SERVER_NAMES", "https://a.example"),
        ("OPENCLAW_SIDECAR_TOKEN", "x"),
    ];
    let ran = with_env(&["config", "check"], &env).await?.expect(CONFIG);
    let named = [
        "listen.tls",
        "listen.edge",
        "gateway.config_path",
        "limits.max_connections",
        "tls.cert_file",
        "tls.server_names",
        "OPENCLAW_SIDECAR_TOKEN",
    ];
    for key in named {
        assert!(ran.err.contains(key), "{key} is missing in {}", ran.err);
    }
    assert!(ran.out.is_empty() && ran.err.lines().all(|line| line.starts_with("openclaw-sidecar: ")), "{ran:?}");
    let none = bare(&["config", "check"]).await?.expect(CONFIG);
    assert!(none.err.contains("token new"), "{none:?}");
    Ok(())
}

/// What the check lets pass must start.
#[tokio::test]
async fn the_check_finds_what_would_stop_the_start() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let garbage = dir.path().join("garbage.pem");
    std::fs::write(&garbage, "no certificate")?;
    let credentials = json!([credential("a", &new_token(), "dangerous")]).to_string();
    let path = garbage.to_str().expect("a UTF-8 path");
    let env = [
        ("OPENCLAW_SIDECAR_AUTH_CREDENTIALS", credentials.as_str()),
        ("OPENCLAW_SIDECAR_TLS_CERT_FILE", path),
        ("OPENCLAW_SIDECAR_TLS_KEY_FILE", path),
    ];
    let ran = with_env(&["config", "check"], &env).await?.expect(CONFIG);
    assert!(ran.err.contains("garbage.pem"), "{ran:?}");
    Ok(())
}

async fn hash(input: &str) -> anyhow::Result<super::Ran> {
    let mut command = Command::new(binary());
    command.args(["token", "hash"]).env_clear();
    finish(command, input).await
}

#[tokio::test]
async fn a_new_token_fits_its_entry_and_lets_its_holder_in() -> anyhow::Result<()> {
    let made = bare(&["token", "new", "--id", "web", "--tier", "safe", "--json"]).await?.expect(OK).json();
    let (token, entry) = (made["token"].as_str().expect("a token"), &made["entry"]);
    assert!(token.starts_with("ocs_") && token.len() == 47, "{token}");
    assert_eq!(*entry, json!({"id": "web", "sha256": sha256_hex(token.as_bytes()), "tier": "safe"}));
    for input in [token.to_owned(), format!("{token}\n"), format!("  {token}\r\n")] {
        assert_eq!(hash(&input).await?.expect(OK).out.trim(), entry["sha256"], "{input:?}");
    }
    let text = bare(&["token", "new"]).await?.expect(OK).out;
    let shown = text.lines().map(str::trim).find(|line| line.starts_with("ocs_")).expect("a token");
    let entry = text.lines().map(str::trim).find(|line| line.starts_with('{')).expect("an entry");
    let entry: serde_json::Value = serde_json::from_str(entry)?;
    assert_eq!(entry["sha256"], sha256_hex(shown.as_bytes()));
    assert_eq!((&entry["id"], &entry["tier"]), (&json!("control-plane"), &json!("dangerous")));
    assert_ne!(shown, token);

    let sidecar = Sidecar::builder().gateway(1, "none").credentials(json!([made["entry"]])).start().await?;
    let holder = sidecar.client().with_token(Some(token));
    assert_eq!(holder.get("/v1/state").await?.status, 200);
    assert_eq!(sidecar.client().with_token(Some(shown)).get("/v1/state").await?.status, 401);
    Ok(())
}

#[tokio::test]
async fn what_is_no_token_has_no_hash() -> anyhow::Result<()> {
    for input in
        ["", "short", "null\n", &"x".repeat(31), &"x".repeat(257), &format!("{} {}", "x".repeat(20), "y".repeat(20))]
    {
        let ran = hash(input).await?.expect(NO);
        assert!(ran.out.is_empty() && ran.err.contains("token new"), "{input:?}: {ran:?}");
        assert!(input.trim().len() < 6 || !ran.err.contains(input.trim()), "the token is repeated: {ran:?}");
    }
    Ok(())
}
