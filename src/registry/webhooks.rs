//! Webhooks: history lines, each sent at least once and in order to whoever asked for its kind, signed.

use super::callers::Signer;
use super::store::Webhook;
use super::tenant::EntryKind;

/// What a webhook is sent unless it asks for other kinds. Of `status`, only what goes into or out of `crashed` and
/// `unreachable`.
pub const USUAL: [EntryKind; 6] = [
    EntryKind::Status,
    EntryKind::FindingOpened,
    EntryKind::FindingClosed,
    EntryKind::PairingWaits,
    EntryKind::Conflict,
    EntryKind::AuditTruncated,
];

/// The secret that signs a webhook's deliveries; made from the registry's own, so that it is stored nowhere.
pub fn secret(signer: &Signer, webhook: &Webhook) -> String {
    format!("ocw_{}", signer.sign("webhook", &[&webhook.id]))
}

/// Whether deliveries may go there.
///
/// # Errors
/// Why not.
pub fn check_url(url: &str, private: bool) -> Result<(), String> {
    let secure = url.starts_with("https://") || (private && url.starts_with("http://"));
    if secure && url.len() <= 500 && url.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    Err("must be an https URL of at most 500 characters".to_owned())
}
