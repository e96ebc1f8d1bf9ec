//! The Ed25519 identity of a scripted client and the text it signs.

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};

use super::super::fake::codec::{self, base64url, now_ms};

/// A device key; its id is the hash of its public half.
#[derive(Debug)]
pub struct Identity {
    key: Ed25519KeyPair,
    device_id: String,
}

impl Identity {
    pub fn generate() -> Self {
        let key = Ed25519KeyPair::generate().expect("a key pair");
        let device_id = codec::device_id(key.public_key().as_ref());
        Self { key, device_id }
    }

    pub fn device_id(&self) -> &str {
        &self.device_id
    }

    pub fn public_key(&self) -> String {
        base64url(self.key.public_key().as_ref())
    }

    /// The `device` member of a connect request, signed in the form (v2) every gateway accepts.
    pub(super) fn sign(&self, client: &Value, role: &str, scopes: &[String], token: &str, nonce: &str) -> Value {
        let signed_at = now_ms();
        let text = [
            "v2",
            &self.device_id,
            client["id"].as_str().unwrap_or_default(),
            client["mode"].as_str().unwrap_or_default(),
            role,
            &scopes.join(","),
            &signed_at.to_string(),
            token,
            nonce,
        ]
        .join("|");
        json!({
            "id": self.device_id,
            "publicKey": self.public_key(),
            "signature": base64url(self.key.sign(text.as_bytes()).as_ref()),
            "signedAt": signed_at,
            "nonce": nonce,
        })
    }
}

/// 256 random bits as text, fit for any token.
pub fn random_token() -> String {
    base64url(&codec::random_bytes::<32>())
}
