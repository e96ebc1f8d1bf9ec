//! Tokens and the entries that let their holders in.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER, HEXLOWER_PERMISSIVE};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Tier;
use crate::clock::UnixMs;
use crate::json;

/// Every token begins so, for secret scanners. Never change it: tokens in use would no longer be recognised.
pub const PREFIX: &str = "ocs_";

/// Longest token looked at, in bytes.
pub(super) const MAX_TOKEN: usize = 256;

const MAX_ENTRIES: usize = 64;

/// Texts that scripts produce when they have no token. Their digests are refused.
const NO_TOKENS: [&str; 8] = ["", "null", "undefined", "none", "token", "changeme", "secret", "ocs_"];

/// A credential in the clear: 256 random bits behind a fixed prefix. It cannot be printed by accident.
#[derive(Clone)]
pub struct Token(Zeroizing<String>);

impl Token {
    /// A new token from the system's random source.
    ///
    /// # Errors
    /// The random source failed.
    pub fn random() -> Result<Self, String> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        aws_lc_rs::rand::fill(&mut *bytes).map_err(|_| "the system's random source failed".to_owned())?;
        Ok(Self(Zeroizing::new(format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&*bytes)))))
    }

    /// Takes over a token that was made elsewhere.
    ///
    /// # Errors
    /// It is too short to be random: a digest would not protect it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.len() < 32 || text.len() > MAX_TOKEN || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("a token has 32 to 256 printable characters; make one with `token new`".to_owned());
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// The text, for the one place that shows it to its owner.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Lower-case hex SHA-256 of the whole text, prefix included.
    pub fn sha256(&self) -> String {
        HEXLOWER.encode(&Sha256::digest(self.0.as_bytes()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// One line of a credentials file for this token.
pub fn entry_json(id: &str, token: &Token, tier: Tier, approver: bool) -> String {
    let mut entry = serde_json::json!({ "id": id, "sha256": token.sha256(), "tier": tier.name() });
    if approver {
        entry["approver"] = true.into();
    }
    entry.to_string()
}

/// One credential that is let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name in the audit and the log.
    pub id: String,
    /// SHA-256 of the token.
    pub digest: [u8; 32],
    /// What it may do.
    pub tier: Tier,
    /// May grant what cannot be undone to somebody else.
    pub approver: bool,
    not_before: Option<UnixMs>,
    not_after: Option<UnixMs>,
}

impl Entry {
    pub(super) fn valid_at(&self, now: UnixMs) -> bool {
        self.not_before.is_none_or(|t| now >= t) && self.not_after.is_none_or(|t| now < t)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    id: String,
    sha256: String,
    tier: String,
    #[serde(default)]
    approver: bool,
    #[serde(default)]
    not_before: Option<String>,
    #[serde(default)]
    not_after: Option<String>,
}

/// Parses a credentials file: a JSON list of entries.
///
/// # Errors
/// Everything wrong with it, each with the entry's place and field.
pub fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let written: Vec<Written> = json::parse(text.as_bytes()).map_err(|e| format!("credentials: {e}"))?;
    if written.is_empty() || written.len() > MAX_ENTRIES {
        return Err(format!("credentials: the list must have 1 to {MAX_ENTRIES} entries, it has {}", written.len()));
    }
    let mut faults = Vec::new();
    let mut entries: Vec<Entry> = Vec::new();
    for (n, line) in written.iter().enumerate() {
        match check(line) {
            Ok(entry) if entries.iter().any(|e| e.id == entry.id) => {
                faults.push(format!("credentials[{n}].id: {:?} is used twice", entry.id));
            }
            Ok(entry) if entries.iter().any(|e| e.digest == entry.digest) => {
                faults.push(format!("credentials[{n}].sha256: the same token is listed twice"));
            }
            Ok(entry) => entries.push(entry),
            Err((field, what)) => faults.push(format!("credentials[{n}].{field}: {what}")),
        }
    }
    if faults.is_empty() { Ok(entries) } else { Err(faults.join("\n")) }
}

type Fault = (&'static str, String);

fn check(line: &Written) -> Result<Entry, Fault> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if line.id.is_empty() || line.id.len() > 64 || !line.id.chars().all(legal) {
        return Err(("id", "must be 1 to 64 letters, digits, dots, dashes or underscores".to_owned()));
    }
    if matches!(line.id.as_str(), "sidecar" | "unknown" | "out_of_band" | "before_sidecar") {
        return Err(("id", format!("{:?} has a meaning of its own in the audit; choose another", line.id)));
    }
    let digest = HEXLOWER_PERMISSIVE.decode(line.sha256.as_bytes()).ok();
    let digest: [u8; 32] = digest.and_then(|d| d.try_into().ok()).ok_or_else(|| {
        ("sha256", "must be 64 hexadecimal digits; `openclaw-sidecar token hash` prints them".to_owned())
    })?;
    if NO_TOKENS.iter().any(|t| <[u8; 32]>::from(Sha256::digest(t)) == digest) {
        return Err(("sha256", "is the digest of no token at all (empty, null or the like)".to_owned()));
    }
    let tier = match line.tier.as_str() {
        "safe" => Tier::Safe,
        "dangerous" => Tier::Dangerous,
        other => return Err(("tier", format!("must be safe or dangerous, not {other:?}"))),
    };
    let not_before = time("not_before", line.not_before.as_deref())?;
    let not_after = time("not_after", line.not_after.as_deref())?;
    Ok(Entry { id: line.id.clone(), digest, tier, approver: line.approver, not_before, not_after })
}

fn time(field: &'static str, text: Option<&str>) -> Result<Option<UnixMs>, Fault> {
    match text {
        None => Ok(None),
        Some(text) => UnixMs::parse(text)
            .map(Some)
            .ok_or_else(|| (field, format!("must be a time such as 2026-11-20T00:00:00Z, not {text:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_token_is_long_random_and_unprintable() {
        let (one, two) = (Token::random().unwrap(), Token::random().unwrap());
        assert_ne!(one.expose(), two.expose());
        assert!(one.expose().starts_with(PREFIX) && one.expose().len() == PREFIX.len() + 43);
        assert_eq!(format!("{one:?}"), "Token");
        assert!(Token::parse("short").is_err());
    }

    #[test]
    fn every_fault_names_its_entry_and_field() {
        let good = entry_json("ok", &Token::random().unwrap(), Tier::Safe, false);
        let empty = HEXLOWER.encode(&Sha256::digest(""));
        let text = format!(
            r#"[{good},{{"id":"a b","sha256":"","tier":"safe"}},{{"id":"x","sha256":"12","tier":"safe"}},
                {{"id":"y","sha256":"{empty}","tier":"safe"}},{{"id":"z","sha256":"{h}","tier":"root"}},
                {{"id":"w","sha256":"{h}","tier":"safe","not_after":"soon"}}]"#,
            h = "ab".repeat(32)
        );
        let error = parse(&text).unwrap_err();
        for part in ["[1].id", "[2].sha256", "[3].sha256", "[4].tier", "[5].not_after"] {
            assert!(error.contains(part), "{part} missing in {error}");
        }
        assert!(parse(&format!("[{good},{good}]")).unwrap_err().contains("used twice"));
        assert!(parse(r#"[{"id":"a","sha256":"b","tier":"safe","admin":true}]"#).unwrap_err().contains("admin"));
        assert!(parse(r#"[{"id":"a","id":"b"}]"#).unwrap_err().contains("duplicate"));
        assert!(parse("[]").is_err() && parse("").is_err() && parse("[] x").is_err());
    }

    #[test]
    fn validity_is_a_half_open_interval() {
        let token = Token::random().unwrap();
        let text = format!(
            r#"[{{"id":"a","sha256":"{}","tier":"safe","not_before":"2026-01-01T00:00:00Z","not_after":"2026-02-01T00:00:00Z"}}]"#,
            token.sha256()
        );
        let entry = parse(&text).unwrap().remove(0);
        let at = |t: &str| entry.valid_at(UnixMs::parse(t).unwrap());
        assert!(!at("2025-12-31T23:59:59Z") && at("2026-01-01T00:00:00Z") && at("2026-01-31T23:59:59Z"));
        assert!(!at("2026-02-01T00:00:00Z"));
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
