//! The audit's format on disk: one JSON object a line, each naming the hash of the one before it.
//!
//! A line ends in `,"hash":"<hex>"}`; the hash is SHA-256 over all bytes of the line before that ending. So any
//! changed, removed, swapped or inserted byte breaks the chain at that line, with no canonical form to agree on.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read as _};
use std::path::{Path, PathBuf};

use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Older segments kept beside the current one.
pub const OLD_SEGMENTS: u32 = 4;

/// `prev` of the very first record.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

const HASH_FIELD: &str = ",\"hash\":\"";
const HASH_TAIL: usize = HASH_FIELD.len() + 64 + 2;
const MAX_LINE: u64 = 16 * 1024;
const MAX_BODY_BYTES: usize = 16 * 1024 - 2;

/// What happened, as the rest of the program states it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Entry {
    /// When, RFC 3339.
    pub at: String,
    /// The request that caused it; empty when the sidecar itself noticed it.
    pub request_id: String,
    /// Who: a credential's id, `local:<uid>`, or `sidecar`.
    pub actor: String,
    /// What was asked, e.g. `pairing.approve`.
    pub verb: String,
    /// On what, e.g. `device:<id>`.
    pub target: String,
    /// `intent` before the effect, afterwards the outcome's code.
    pub outcome: String,
    /// More about it for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
    /// The caller's `Idempotency-Key`, kept as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    /// The caller's `traceparent`, kept as given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
}

/// One line of the audit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Record {
    /// Position in the chain, from 1.
    pub n: u64,
    /// What happened.
    #[serde(flatten)]
    pub entry: Entry,
    /// Hash of record `n - 1`.
    pub prev: String,
    /// Hash of this record.
    pub hash: String,
}

/// The newest record's position and hash; the next record continues from it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Head {
    /// Position of the newest record; 0 before the first.
    pub n: u64,
    /// Its hash.
    pub hash: String,
}

impl Default for Head {
    fn default() -> Self {
        Self { n: 0, hash: GENESIS.to_owned() }
    }
}

#[derive(Serialize)]
struct Body<'a> {
    n: u64,
    #[serde(flatten)]
    entry: &'a Entry,
    prev: &'a str,
}

impl Head {
    /// The line (with its newline) that appends `entry`, and the head after it.
    ///
    /// # Errors
    /// Never for the entries this program makes; serialisation is fallible by type only.
    pub fn append(&self, entry: &Entry) -> io::Result<(String, Self)> {
        let n = self.n.checked_add(1).ok_or_else(|| io::Error::other("the chain is at its end"))?;
        let text = |entry| serde_json::to_string(&Body { n, entry, prev: &self.hash }).map_err(io::Error::other);
        let mut line = text(entry)?;
        if line.len() + HASH_TAIL > MAX_BODY_BYTES {
            // A longer line would not be read back: the chain would count as broken.
            let short = |text: &str| text.chars().take(256).collect();
            line = text(&Entry { target: short(&entry.target), detail: short(&entry.detail), ..entry.clone() })?;
        }
        line.pop();
        let hash = HEXLOWER.encode(&Sha256::digest(line.as_bytes()));
        line.push_str(HASH_FIELD);
        line.push_str(&hash);
        line.push_str("\"}\n");
        Ok((line, Self { n, hash }))
    }
}

/// Why a line does not continue the chain.
#[derive(Debug, PartialEq, Eq)]
pub struct Broken {
    /// The position at which the chain breaks.
    pub n: u64,
    /// What is wrong there.
    pub why: String,
}

/// Checks one line (without newline) on its own: its hash fits its bytes.
///
/// # Errors
/// In plain words what does not fit.
pub fn parse_line(line: &str) -> Result<Record, String> {
    let cut = line.len().checked_sub(HASH_TAIL).filter(|cut| line.is_char_boundary(*cut)).ok_or("is too short")?;
    let (body, tail) = line.split_at(cut);
    let record: Record = serde_json::from_str(line).map_err(|e| format!("is not a record: {e}"))?;
    if !tail.starts_with(HASH_FIELD) || !tail.ends_with("\"}") {
        return Err("does not end in its hash".to_owned());
    }
    if HEXLOWER.encode(&Sha256::digest(body.as_bytes())) != record.hash {
        return Err("was changed: its hash does not fit its content".to_owned());
    }
    Ok(record)
}

/// The files of the audit in `dir`, oldest first; only those that exist.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let old = (1..=OLD_SEGMENTS).rev().map(|k| old_segment(dir, k));
    old.chain([current_segment(dir)]).filter(|path| path.exists()).collect()
}

/// The file that is appended to.
pub fn current_segment(dir: &Path) -> PathBuf {
    dir.join("audit.jsonl")
}

/// The `k`-th older file, 1 being the newest of them.
pub fn old_segment(dir: &Path, k: u32) -> PathBuf {
    dir.join(format!("audit.{k}.jsonl"))
}

/// Calls `visit` with every record of the files, oldest first, checking the chain across them.
///
/// # Errors
/// A file cannot be read (outer), or the chain breaks (inner).
pub fn walk(files: &[PathBuf], mut visit: impl FnMut(Record)) -> io::Result<Result<Head, Broken>> {
    let mut head: Option<Head> = None;
    for path in files {
        let mut reader = BufReader::new(File::open(path)?);
        while let Some(line) = next_line(&mut reader)? {
            let expected = head.as_ref().map(|h| h.n.saturating_add(1));
            let record = match parse_line(&line) {
                Ok(record) => record,
                Err(why) => return Ok(Err(Broken { n: expected.unwrap_or(1), why: format!("the record {why}") })),
            };
            if let Some(before) = &head
                && (Some(record.n) != before.n.checked_add(1) || record.prev != before.hash)
            {
                let why = format!("record {} does not follow record {}", record.n, before.n);
                return Ok(Err(Broken { n: before.n.saturating_add(1), why }));
            }
            head = Some(Head { n: record.n, hash: record.hash.clone() });
            visit(record);
        }
    }
    Ok(Ok(head.unwrap_or_default()))
}

/// One line without its newline; a line cut short by a crash (no newline at the end) counts as absent.
fn next_line(reader: &mut BufReader<File>) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut bytes)?;
    if read == 0 || (bytes.last() != Some(&b'\n') && bytes.len() < usize::try_from(MAX_LINE).unwrap_or(usize::MAX)) {
        return Ok(None);
    }
    bytes.pop();
    // Never lossy: a damaged character would read as U+FFFD and could fit the hash of a line that has one.
    Ok(Some(String::from_utf8(bytes).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn chain(count: u64) -> String {
        let mut head = Head::default();
        let mut text = String::new();
        for n in 0..count {
            let entry = Entry { verb: "pairing.approve".into(), target: format!("device:{n}"), ..Entry::default() };
            let (line, next) = head.append(&entry).unwrap();
            text.push_str(&line);
            head = next;
        }
        text
    }

    fn verify(text: &[u8]) -> Result<Head, Broken> {
        let dir = tempfile::tempdir().unwrap();
        let path = current_segment(dir.path());
        std::fs::write(&path, text).unwrap();
        walk(&[path], |_| ()).unwrap()
    }

    #[test]
    fn an_untouched_chain_verifies() {
        assert_eq!(verify(chain(1000).as_bytes()).unwrap().n, 1000);
        assert_eq!(verify(b"").unwrap(), Head::default());
    }

    #[test]
    fn every_single_changed_byte_is_found() {
        let good = chain(5).into_bytes();
        let head = verify(&good).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_ne!(verify(&bad).as_ref().ok(), Some(&head), "a flip at byte {at} passed");
        }
    }

    #[test]
    fn a_removed_or_swapped_line_is_found_at_its_place() {
        let text = chain(1000);
        let lines: Vec<&str> = text.split_inclusive('\n').collect();
        for at in [1, 500, 998] {
            let mut removed = lines.clone();
            removed.remove(at);
            assert_eq!(verify(removed.concat().as_bytes()).unwrap_err().n, at as u64 + 1);
            let mut swapped = lines.clone();
            swapped.swap(at, at - 1);
            assert!(verify(swapped.concat().as_bytes()).is_err());
        }
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = parse_line(&String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn whatever_is_said_comes_back(verb in ".{0,40}", target in ".{0,80}", detail in ".{0,80}") {
            let entry = Entry { verb, target, detail, ..Entry::default() };
            let (line, head) = Head::default().append(&entry).unwrap();
            let record = parse_line(line.trim_end_matches('\n')).unwrap();
            prop_assert_eq!(record.entry, entry);
            prop_assert_eq!(record.hash, head.hash);
        }
    }
}
