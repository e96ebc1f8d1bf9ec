//! Configurations that cannot work.

use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::{CONFIG, UNAVAILABLE, alone, refuses};
use crate::support::sidecar::{credential, new_token};

fn file(dir: &Path, name: &str, content: &str) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, content).expect("a writable directory");
    path
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

#[tokio::test]
async fn no_credential_says_how_to_make_one() -> anyhow::Result<()> {
    let remedy = ["token new", "OPENCLAW_SIDECAR_AUTH_CREDENTIALS_FILE", "OPENCLAW_SIDECAR_AUTH_CREDENTIALS"];
    refuses(alone().credentials(Value::Null), CONFIG, &remedy).await
}

#[tokio::test]
async fn useless_credentials_are_refused_by_entry() -> anyhow::Result<()> {
    let good = credential("a", &new_token(), "safe");
    let empty = credential("nobody", "", "safe");
    let cases = [
        (json!([]), "1 to 64 entries"),
        (json!({}), "credentials"),
        (json!([empty]), "[0].sha256"),
        (json!([good, good]), "used twice"),
        (json!([credential("a", &new_token(), "root")]), "[0].tier"),
        (json!([credential("a", &new_token(), "destructive")]), "[0].tier"),
        (json!([credential("out_of_band", &new_token(), "safe")]), "[0].id"),
    ];
    for (list, named) in cases {
        refuses(alone().credentials(list), CONFIG, &[named]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn broken_files_and_misspelt_names_are_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let with_file = |name: &str, content: &str| {
        let path = file(dir.path(), name, content);
        alone().env("OPENCLAW_SIDECAR_CONFIG", text(&path))
    };
    refuses(with_file("broken.toml", "[gateway\n"), CONFIG, &["line 1"]).await?;
    refuses(with_file("unknown.toml", "[gateway]\nadress = \"x\"\n"), CONFIG, &["gateway.adress"]).await?;
    refuses(with_file("type.toml", "[limits]\nmax_connections = \"many\"\n"), CONFIG, &["max_connections"]).await?;
    let missing = alone().env("OPENCLAW_SIDECAR_CONFIG", text(&dir.path().join("missing.toml")));
    refuses(missing, CONFIG, &["missing.toml"]).await?;
    let misspelt = alone().env("OPENCLAW_SIDECAR_LISTEN_TSL", "127.0.0.1:0");
    refuses(misspelt, CONFIG, &["OPENCLAW_SIDECAR_LISTEN_TSL"]).await?;
    let remote = alone().env("OPENCLAW_SIDECAR_GATEWAY_ADDRESS", "192.0.2.1:18789");
    refuses(remote, CONFIG, &["gateway.address", "loopback"]).await
}

#[tokio::test]
async fn all_faults_come_at_once() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let path = file(
        dir.path(),
        "sidecar.toml",
        "[gateway]\nadress = \"x\"\n[limits]\nmax_connections = 1\n[tls]\ncert_file = \"/nowhere/tls.crt\"\n\
         [log]\nlevel = \"loud\"\n",
    );
    let builder = alone()
        .env("OPENCLAW_SIDECAR_CONFIG", text(&path))
        .env("OPENCLAW_SIDECAR_TYPO", "1")
        .env("OPENCLAW_SIDECAR_GATEWAY_ADDRESS", "127.0.0.1:40000")
        .listen_tls("127.0.0.1:40100");
    let named = [
        "gateway.adress",
        "limits.max_connections",
        "tls.cert_file",
        "log.level",
        "OPENCLAW_SIDECAR_TYPO",
        "listen.tls",
        "40000..=40110",
    ];
    refuses(builder, CONFIG, &named).await
}

/// One round of corrections has to be enough.
#[tokio::test]
async fn a_missing_credential_is_told_with_the_other_faults() -> anyhow::Result<()> {
    let builder = alone().credentials(Value::Null).env("OPENCLAW_SIDECAR_LOG_LEVEL", "loud");
    refuses(builder, CONFIG, &["log.level", "token new"]).await
}

#[tokio::test]
async fn a_port_in_use_or_of_the_gateway_is_refused() -> anyhow::Result<()> {
    let taken = TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    refuses(alone().listen_tls(&address), UNAVAILABLE, &["listen.tls", &address]).await?;
    refuses(alone().env("OPENCLAW_SIDECAR_LISTEN_EDGE", &address), UNAVAILABLE, &["listen.edge", &address]).await?;
    refuses(alone().gateway_address(40_000).listen_tls("127.0.0.1:40005"), CONFIG, &["listen.tls", "40005"]).await
}

#[tokio::test]
async fn unusable_certificates_are_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let garbage = file(dir.path(), "garbage.crt", "no certificate");
    let empty = file(dir.path(), "empty.crt", "");
    let with = |cert: &Path, key: &Path| {
        alone().env("OPENCLAW_SIDECAR_TLS_CERT_FILE", text(cert)).env("OPENCLAW_SIDECAR_TLS_KEY_FILE", text(key))
    };
    let alone_cert = alone().env("OPENCLAW_SIDECAR_TLS_CERT_FILE", text(&garbage));
    refuses(alone_cert, CONFIG, &["tls.cert_file", "tls.key_file"]).await?;
    refuses(with(&garbage, &garbage), CONFIG, &["garbage.crt"]).await?;
    refuses(with(&empty, &empty), CONFIG, &["empty.crt"]).await?;
    refuses(with(&dir.path().join("gone.crt"), &garbage), CONFIG, &["gone.crt"]).await?;
    // A certificate and a key that do not belong together.
    let (one, two) = (alone().start().await?, alone().start().await?);
    let key = two.state_dir().join("tls.pem");
    refuses(with(&one.cert_path(), &key), CONFIG, &["do not fit"]).await
}

#[tokio::test]
async fn a_credentials_file_that_others_may_write_is_refused() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let list = json!([credential("a", &new_token(), "dangerous")]).to_string();
    let path = file(dir.path(), "credentials.json", &list);
    for mode in [0o666, 0o622, 0o660] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode))?;
        refuses(alone().credentials_file(&path), CONFIG, &["credentials.json", "chmod go-w"]).await?;
    }
    let gone = dir.path().join("gone.json");
    refuses(alone().credentials_file(&gone), CONFIG, &["gone.json"]).await?;
    refuses(alone().credentials_file(dir.path()), CONFIG, &["not a regular file"]).await
}
