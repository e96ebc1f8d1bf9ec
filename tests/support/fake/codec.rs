//! Encodings of the gateway protocol: base64url without padding, hex, random ids, and the text a device signs.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{digest, rand, signature};
use serde_json::Value;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("clock after 1970");
    u64::try_from(since.as_millis()).expect("fits until the year 500 million")
}

pub fn base64url(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |acc, byte| (acc << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for position in 0..=chunk.len() {
            let index = (word >> (18 - 6 * position)) & 63;
            out.push(char::from(ALPHABET[index as usize]));
        }
    }
    out
}

pub fn from_base64url(text: &str) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    let (mut word, mut bits) = (0_u32, 0_u32);
    for byte in text.bytes() {
        let value = ALPHABET.iter().position(|known| *known == byte)?;
        word = (word << 6) | u32::try_from(value).ok()?;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            out.push(((word >> bits) & 0xff) as u8);
        }
    }
    Some(out)
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

pub fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system has randomness");
    bytes
}

pub fn uuid() -> String {
    let text = hex(&random_bytes::<16>());
    format!("{}-{}-4{}-a{}-{}", &text[..8], &text[8..12], &text[13..16], &text[17..20], &text[20..])
}

/// A device's id is the hash of its raw public key, so nobody can claim somebody else's.
pub fn device_id(raw_public_key: &[u8]) -> String {
    sha256_hex(raw_public_key)
}

pub fn verify_ed25519(public_key: &[u8], message: &str, signature: &[u8]) -> bool {
    signature::UnparsedPublicKey::new(&signature::ED25519, public_key).verify(message.as_bytes(), signature).is_ok()
}

/// The texts whose signature a connect may carry, newest form first, built from its own parameters.
pub fn signed_texts(params: &Value, token: &str) -> [(&'static str, String); 2] {
    let text = |pointer: &str| params.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let scopes: Vec<&str> = params["scopes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let common = [
        text("/device/id"),
        text("/client/id"),
        text("/client/mode"),
        text("/role"),
        scopes.join(","),
        params["device"]["signedAt"].as_u64().unwrap_or_default().to_string(),
        token.to_owned(),
        text("/device/nonce"),
    ]
    .join("|");
    let plain = |pointer: &str| text(pointer).trim().to_ascii_lowercase();
    let v3 = format!("v3|{common}|{}|{}", plain("/client/platform"), plain("/client/deviceFamily"));
    [("v3", v3), ("v2", format!("v2|{common}"))]
}
