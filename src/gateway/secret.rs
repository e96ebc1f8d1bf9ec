//! Where the gateway's shared token comes from, read anew before every connect so that a rotation is followed.

use std::path::Path;

use jsonc_parser::errors::ParseErrorKind;
use serde::Deserialize;

use crate::config;
use crate::files;
use crate::secret::Secret;

const MAX_CONFIG: u64 = 4 * 1024 * 1024;
const MAX_TOKEN: u64 = 4096;

/// The variables that the gateway itself reads when its file names no secret (observed on 2026.2.9 to 2026.9.6).
const GATEWAY_TOKEN_ENV: &str = "OPENCLAW_GATEWAY_TOKEN";
const GATEWAY_PASSWORD_ENV: &str = "OPENCLAW_GATEWAY_PASSWORD";

/// What authenticates us to the gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// The shared token; it is part of the signed handshake.
    Token(Secret),
    /// The shared password of a gateway in password mode; it is not signed.
    Password(Secret),
}

/// Looks for the credential where the configuration says, in this order: `gateway.token`, `gateway.token_file`, the
/// gateway's own configuration, and last the variables that the gateway itself would use.
///
/// `config` is the text of the gateway's configuration, where it can be had.
///
/// # Errors
/// In plain words why none was found.
pub fn find(
    gateway: &config::Gateway,
    config: Option<Result<String, String>>,
    env: &config::Env,
) -> Result<Credential, String> {
    if let Some(token) = &gateway.token {
        return Ok(Credential::Token(token.clone()));
    }
    if let Some(path) = &gateway.token_file {
        let text = files::read_text(path, MAX_TOKEN).map_err(|e| format!("gateway.token_file: {e}"))?;
        return non_empty(&text).map(Credential::Token).ok_or_else(|| format!("{} is empty", path.display()));
    }
    let from_config = config.map(|text| from_config(&text?, env));
    if let Some(Ok(Some(credential))) = from_config {
        return Ok(credential);
    }
    if let Some(token) = env.get(GATEWAY_TOKEN_ENV).and_then(|text| non_empty(text)) {
        return Ok(Credential::Token(token));
    }
    if let Some(password) = env.get(GATEWAY_PASSWORD_ENV).and_then(|text| non_empty(text)) {
        return Ok(Credential::Password(password));
    }
    Err(match from_config {
        Some(Err(why)) => why,
        Some(Ok(_)) => "the gateway's configuration names no gateway.auth.token".to_owned(),
        None => "set gateway.config_path, gateway.token_file or gateway.token".to_owned(),
    })
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct OpenClaw {
    gateway: GatewaySection,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GatewaySection {
    auth: AuthSection,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthSection {
    mode: Option<String>,
    token: Option<String>,
    password: Option<String>,
}

/// The text of the gateway's configuration, if the configuration says where it lies.
pub fn config_text(gateway: &config::Gateway) -> Option<Result<String, String>> {
    let path: &Path = gateway.config_path.as_deref()?;
    Some(files::read_text(path, MAX_CONFIG).map_err(|e| format!("gateway.config_path: {e}")))
}

/// Reads `gateway.auth` of an `openclaw.json`. The file belongs to the gateway's user: it is read bounded, and nothing
/// in it can do more than fail.
fn from_config(text: &str, env: &config::Env) -> Result<Option<Credential>, String> {
    let options = jsonc_parser::ParseOptions { allow_missing_commas: false, ..Default::default() };
    let parsed: Option<OpenClaw> = jsonc_parser::parse_to_serde_value(text.trim_start_matches('\u{feff}'), &options)
        .map_err(|e| {
            // The kind in our words: serde's quotes the value, which may be the secret.
            let what = match e.kind() {
                ParseErrorKind::Custom(_) => "a member of gateway.auth has the wrong type".to_owned(),
                kind => kind.to_string(),
            };
            let (line, column) = (e.line_display(), e.column_display());
            format!("openclaw.json cannot be read as JSON5: {what} on line {line} column {column}")
        })?;
    let auth = parsed.unwrap_or_default().gateway.auth;
    let value = |text: Option<String>| text.and_then(|text| non_empty(&substitute(&text, env)));
    Ok(match auth.mode.as_deref() {
        Some("password") => value(auth.password).map(Credential::Password),
        _ => value(auth.token).map(Credential::Token).or_else(|| value(auth.password).map(Credential::Password)),
    })
}

/// The gateway replaces a value `${NAME}` by that variable; so do we, as far as we see the variable.
fn substitute(text: &str, env: &config::Env) -> String {
    match text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => env.get(name).cloned().unwrap_or_default(),
        None => text.to_owned(),
    }
}

fn non_empty(text: &str) -> Option<Secret> {
    let text = text.trim();
    (!text.is_empty()).then(|| Secret::new(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Env};

    fn with_config(text: &str, env: &[(&str, &str)]) -> Result<Credential, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("openclaw.json");
        std::fs::write(&path, text).unwrap();
        let gateway = config::Gateway { config_path: Some(path), ..Config::default().gateway };
        find(
            &gateway,
            config_text(&gateway),
            &env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Env>(),
        )
    }

    #[expect(clippy::unnecessary_wraps, reason = "it is compared with a result")]
    fn token(text: &str) -> Result<Credential, String> {
        Ok(Credential::Token(Secret::new(text.to_owned())))
    }

    #[test]
    fn json5_with_comments_and_single_quotes_is_read() {
        assert_eq!(with_config("\u{feff}{gateway:{auth:{token:'t1',},}, /* x */}", &[]), token("t1"));
    }

    #[test]
    fn the_file_wins_over_the_environment_as_the_gateway_has_it() {
        let text = r#"{"gateway":{"auth":{"mode":"token","token":"file"}}}"#;
        assert_eq!(with_config(text, &[(GATEWAY_TOKEN_ENV, "env")]), token("file"));
        assert_eq!(with_config("{}", &[(GATEWAY_TOKEN_ENV, "env")]), token("env"));
        assert_eq!(with_config(r#"{"gateway":{"auth":{"token":"${T}"}}}"#, &[("T", "sub")]), token("sub"));
    }

    #[test]
    fn password_mode_uses_the_password() {
        let text = r#"{"gateway":{"auth":{"mode":"password","password":"p","token":"t"}}}"#;
        assert_eq!(with_config(text, &[]), Ok(Credential::Password(Secret::new("p".into()))));
    }

    #[test]
    fn hostile_files_are_an_error_with_the_path() {
        for text in ["{", &"[".repeat(20_000), r#"{"gateway":7}"#, "\0"] {
            let error = with_config(text, &[]).unwrap_err();
            assert!(error.contains("openclaw.json"), "{error}");
        }
    }
}
