//! Webhooks: history lines, each sent at least once and in order to whoever asked for its kind, signed.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::api::Context;
use super::callers::Signer;
use super::store::{Unavailable, Webhook};
use super::tenant::{Entry, EntryKind};
use crate::checkin::destination::{Destination, Names, SystemNames};
use crate::checkin::send::agent;
use crate::checkin::tls::{Trust, client_config};
use crate::clock::UnixMs;

/// Between two looks for lines to send.
const EVERY: Duration = Duration::from_secs(1);
/// Lines looked at in one go, for each webhook.
const LINES: usize = 100;
/// One delivery takes no longer.
const LIMIT: Duration = Duration::from_secs(10);
/// The pause after the first failure; doubled by each further one, up to the longest.
const PAUSE_MS: u64 = 2_000;
const LONGEST_PAUSE_MS: u64 = 10 * 60_000;
const LONGEST_ERROR: usize = 300;

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

/// The key that names the authorities to trust.
pub const CA_FILE: &str = "webhooks.ca_file";

/// How deliveries go out.
#[derive(Debug)]
pub struct Outbound {
    /// Whether they may go to private addresses.
    pub private: bool,
    /// Whom to believe to be the receiver.
    pub trust: Trust,
}

/// The secret that signs a webhook's deliveries; made from the registry's own, so that it is stored nowhere.
pub fn secret(signer: &Signer, webhook: &Webhook) -> String {
    format!("ocw_{}", signer.sign("webhook", &[&webhook.id]))
}

/// Whether deliveries may go there.
///
/// # Errors
/// Why not.
pub fn check_url(url: &str, private: bool) -> Result<(), String> {
    Destination::parse(url, private).map(drop).map_err(|why| own_words(&why))
}

/// A sidecar's remedies name its own keys.
fn own_words(why: &str) -> String {
    let why = why.replace("registry.allow_private", "webhooks.allow_private");
    why.replace("the registry", "the receiver").replace("a registry", "a receiver")
}

/// The headers that prove a delivery: `v1=` and the HMAC-SHA256 of timestamp, a dot and the body, in hexadecimal.
pub fn signature(secret: &str, timestamp: &str, body: &[u8]) -> String {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
    context.update(timestamp.as_bytes());
    context.update(b".");
    context.update(body);
    format!("v1={}", HEXLOWER.encode(context.sign().as_ref()))
}

/// Whether a webhook wants this line. Of changes of status only those into or out of trouble are told.
fn wants(webhook: &Webhook, entry: &Entry) -> bool {
    let trouble = |key: &str| matches!(entry.data[key].as_str(), Some("crashed" | "unreachable"));
    webhook.kinds.contains(&entry.kind) && (entry.kind != EntryKind::Status || trouble("from") || trouble("to"))
}

/// Delivers until `stop`, while this instance leads.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(EVERY) => {}
        }
        let round = async {
            if !context.store.leads().await? {
                return Ok(());
            }
            let due = context.store.webhooks().await?.into_iter().filter(|w| w.next_at <= UnixMs::now());
            // One slow receiver does not hold up the others.
            let rounds = due.map(|webhook| deliver(&context, webhook));
            futures_util::future::try_join_all(rounds).await.map(drop)
        };
        let done: Result<(), Unavailable> = tokio::select! {
            done = round => done,
            () = stop.cancelled() => return,
        };
        if let Err(why) = done {
            tracing::debug!(error = %why, "deliveries wait for the store");
        }
    }
}

/// Sends what a webhook has not had yet, in order; the first failure ends it for now.
async fn deliver(context: &Context, mut webhook: Webhook) -> Result<(), Unavailable> {
    let entries = context.store.entries_after(webhook.cursor, LINES).await?;
    if entries.is_empty() {
        return Ok(());
    }
    let secret = secret(&context.signer, &webhook);
    for entry in entries {
        if wants(&webhook, &entry) {
            if let Err(why) = send(&webhook, &secret, &entry, &context.outbound).await {
                context.metrics.undelivered.inc();
                let pause = PAUSE_MS.saturating_mul(1 << webhook.failures.min(12)).min(LONGEST_PAUSE_MS);
                tracing::warn!(webhook = webhook.id, error = why, failures = webhook.failures + 1, "not delivered");
                webhook.failures += 1;
                webhook.next_at = UnixMs::now().plus_ms(pause);
                webhook.last_error = own_words(&why).chars().take(LONGEST_ERROR).collect();
                return context.store.delivered(webhook).await;
            }
            context.metrics.delivered.inc();
            (webhook.failures, webhook.last_error) = (0, String::new());
            webhook.cursor = entry.seq;
            context.store.delivered(webhook.clone()).await?;
        }
        webhook.cursor = entry.seq;
    }
    context.store.delivered(webhook).await
}

async fn send(webhook: &Webhook, secret: &str, entry: &Entry, out: &Outbound) -> Result<(), String> {
    let body = json!({
        "id": entry.seq, "kind": entry.kind, "tenant": entry.tenant, "at": entry.at, "text": entry.text,
        "data": entry.data,
    });
    let body = body.to_string().into_bytes();
    let timestamp = (UnixMs::now().0 / 1000).to_string();
    let headers = [
        ("content-type", "application/json".to_owned()),
        ("x-openclaw-delivery", entry.seq.to_string()),
        ("x-openclaw-signature", signature(secret, &timestamp, &body)),
        ("x-openclaw-timestamp", timestamp),
    ];
    let destination = Destination::parse(&webhook.url, out.private)?;
    let tls = client_config(&out.trust, CA_FILE)?;
    let names: Arc<dyn Names> = Arc::new(SystemNames::default());
    let sent = tokio::task::spawn_blocking(move || {
        let mut request = agent(&destination, &tls, &names, LIMIT)?.post(destination.base());
        for (name, value) in headers {
            request = request.header(name, value);
        }
        request.send(&body[..]).map(|answer| answer.status().as_u16()).map_err(|e| format!("not reached: {e}"))
    })
    .await;
    match sent.map_err(|e: tokio::task::JoinError| e.to_string())?? {
        200..=299 => Ok(()),
        status => Err(format!("it answered with status {status}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: EntryKind, data: serde_json::Value) -> Entry {
        Entry { seq: 7, tenant: "acme".to_owned(), at: UnixMs(0), kind, text: String::new(), data }
    }

    fn webhook(kinds: &[EntryKind]) -> Webhook {
        Webhook {
            id: "tickets".to_owned(),
            url: "https://example.com/".to_owned(),
            kinds: kinds.to_vec(),
            created_at: UnixMs(0),
            cursor: 0,
            failures: 0,
            next_at: UnixMs(0),
            last_error: String::new(),
        }
    }

    #[test]
    fn only_trouble_is_told_of_a_status() {
        let hook = webhook(&USUAL);
        let status = |from: &str, to: &str| wants(&hook, &entry(EntryKind::Status, json!({ "from": from, "to": to })));
        assert!(status("ready", "crashed") && status("unreachable", "ready") && status("ready", "unreachable"));
        assert!(!status("booting", "ready") && !status("ready", "asleep"));
        assert!(wants(&hook, &entry(EntryKind::FindingOpened, json!({}))));
        assert!(!wants(&hook, &entry(EntryKind::Audit, json!({}))));
    }

    #[test]
    fn the_signature_is_what_the_documentation_verifies() {
        // printf '1700000000.{"id":1}' | openssl dgst -sha256 -hmac ocw_test
        let expected = "v1=f21daafa0adc126385c1ac78683a2150e8e5d223013b6ffa547782e70eaf0a30";
        assert_eq!(signature("ocw_test", "1700000000", br#"{"id":1}"#), expected);
        assert_ne!(signature("ocw_test", "1700000001", br#"{"id":1}"#), expected);
    }
}
