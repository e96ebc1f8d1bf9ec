//! Webhooks to a real HTTPS receiver: what it is told, when it fails, and who vouches for what it got.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use aws_lc_rs::hmac;
use data_encoding::HEXLOWER;
use serde_json::{Value, json};

use super::{CHECK_IN, SOON, message, until};
use crate::support::registry::{Does, Received, Registry as Receiver};
use crate::support::service::{Place, Service};

/// A registry that may deliver to this receiver.
pub fn trusting(place: Place, receiver: &Receiver) -> Place {
    place.with("WEBHOOKS_ALLOW_PRIVATE", true).with("WEBHOOKS_CA_FILE", receiver.ca_file().display())
}

/// Asks for deliveries; the secret that signs them.
pub async fn hook(service: &Service, id: &str, url: &str, kinds: &[&str]) -> anyhow::Result<String> {
    let body = json!({"url": url, "kinds": kinds}).to_string().into_bytes();
    let (path, headers) = (format!("/v1/admin/webhooks/{id}"), [("content-type", "application/json")]);
    let reply = service.admin().request("PUT", &path, &headers, Some(body)).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(reply.json()["secret"].as_str().context("a secret")?.to_owned())
}

async fn last_error(service: &Service) -> anyhow::Result<String> {
    let all = service.admin().get("/v1/admin/webhooks").await?.json();
    let webhook = all["webhooks"][0].as_object().context("a webhook")?;
    Ok(webhook.get("last_error").and_then(Value::as_str).unwrap_or_default().to_owned())
}

fn answers(rest: &str) -> Does {
    Does::Writes(format!("HTTP/1.1 {rest}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").into_bytes())
}

/// An open problem, a closed one with a crash, and somebody who has been waiting.
fn troubles() -> [Value; 3] {
    let mut troubles = [2, 3, 4].map(|seq| message("acme", seq));
    troubles[0]["state"]["findings"] = json!([{"code": "disk_full", "severity": "error", "summary": "it is full"}]);
    troubles[1]["state"]["phase"] = json!("crash_loop");
    troubles[2]["state"]["phase"] = json!("crash_loop");
    troubles[2]["state"]["pairing"] =
        json!({"pending": [{"kind": "device", "request_id": "r1", "age_s": 130}], "pending_count": 1});
    troubles
}

fn kind(received: &Received) -> String {
    let line = received.json();
    let to = line["data"]["to"].as_str().map(|to| format!(" {to}")).unwrap_or_default();
    format!("{}{to}", line["kind"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_receiver_hears_of_trouble_in_order_whatever_happens() -> anyhow::Result<()> {
    let receiver = Receiver::start().await?;
    let service = Service::start(trusting(Place::new()?, &receiver), None).await?;
    let secret = hook(&service, "tickets", &receiver.url(), &[]).await?;
    let enrolled = service.enrol("acme").await?;
    let say = async |service: &Service, message: &Value| -> anyhow::Result<()> {
        let reply = service.with(&enrolled.credential).post(CHECK_IN, message).await?;
        ensure!(reply.status == 200, "{}", reply.text());
        Ok(())
    };
    let [opened, crashed, waiting] = troubles();
    receiver.does(answers("500 Internal Server Error"));
    say(&service, &message("acme", 1)).await?;
    say(&service, &opened).await?;
    until("two failures", async || Ok(receiver.received().len() >= 2)).await?;
    receiver.does(Does::Hangs);
    say(&service, &crashed).await?;
    until("a third try", async || Ok(receiver.received().len() >= 3)).await?;
    // Killed in the middle of a delivery: whether it arrived, it cannot know.
    let place = service.kill().await?;
    receiver.does(Does::Takes { next_s: 0 });
    let service = Service::start(place, None).await?;
    say(&service, &waiting).await?;
    receiver.wait(0, |message| kind(message) == "pairing_waits", SOON).await?;

    let received = receiver.received();
    let mut lines = BTreeMap::new();
    for message in &received {
        let id = message.json()["id"].as_u64().context("an id")?;
        ensure!(message.header("x-openclaw-delivery") == Some(&*id.to_string()), "{}", message.head);
        let newest = lines.last_key_value().is_none_or(|(last, _)| id >= *last);
        ensure!(newest, "{id} comes after a later one");
        let text = lines.entry(id).or_insert_with(|| message.text.clone());
        ensure!(*text == message.text, "a repetition says something else");
    }
    let first: Vec<&str> = received.iter().take(3).map(|message| message.text.as_str()).collect();
    ensure!(first.windows(2).all(|two| two[0] == two[1]), "{first:?}");
    let mut told: Vec<String> = received.iter().map(kind).collect();
    told.dedup();
    let expected = ["finding_opened", "finding_closed", "status crashed", "pairing_waits"];
    ensure!(told == expected, "{told:?}");
    for message in &received {
        genuine(&secret, message)?;
    }
    documented(&secret, &received)?;
    until("no failure is shown any more", async || Ok(last_error(&service).await?.is_empty())).await?;
    Ok(())
}

/// The signature, by what the documentation says of it.
fn genuine(secret: &str, message: &Received) -> anyhow::Result<()> {
    let timestamp = message.header("x-openclaw-timestamp").context("a timestamp")?;
    let signed = format!("{timestamp}.{}", message.text);
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let expected = format!("v1={}", HEXLOWER.encode(hmac::sign(&key, signed.as_bytes()).as_ref()));
    ensure!(message.header("x-openclaw-signature") == Some(&*expected), "{}", message.head);
    let age = std::time::SystemTime::UNIX_EPOCH.elapsed()?.as_secs().abs_diff(timestamp.parse()?);
    ensure!(age < 300, "signed {age} s from now");
    Ok(())
}

/// Around the documentation's own code: the deliveries as a web server would hand them on, and three forgeries of each.
const AROUND: &str = r#"
import http.client, io, json, sys
given = json.load(sys.stdin)
for head, body in given["deliveries"]:
    headers = http.client.parse_headers(io.BytesIO(head.encode()))
    body = body.encode()
    assert genuine(given["secret"], headers, body), head
    assert not genuine(given["secret"] + "x", headers, body), "another secret"
    assert not genuine(given["secret"], headers, body + b" "), "another body"
    headers.replace_header("X-OpenClaw-Timestamp", "1700000000")
    assert not genuine(given["secret"], headers, body), "another time"
print(len(given["deliveries"]), "are genuine")
"#;

/// What the documentation tells to do says the same.
fn documented(secret: &str, received: &[Received]) -> anyhow::Result<()> {
    let text = include_str!("../../../docs/registry.md");
    let code = text.split("```python\n").nth(1).and_then(|rest| rest.split("```").next()).context("no code")?;
    let mut command = Command::new("python3");
    command.args(["-c", &format!("{code}\n{AROUND}")]);
    let Ok(mut python) = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() else {
        eprintln!("NOT TESTED: the documentation's Python (needs python3)");
        return Ok(());
    };
    let fields = |message: &Received| {
        let fields: Vec<&str> = message.head.lines().skip(1).collect();
        (fields.join("\r\n") + "\r\n\r\n", message.text.clone())
    };
    let deliveries: Vec<_> = received.iter().map(fields).collect();
    let given = json!({"secret": secret, "deliveries": deliveries});
    python.stdin.take().context("piped")?.write_all(given.to_string().as_bytes())?;
    let output = python.wait_with_output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.trim() == format!("{} are genuine", received.len()), "{said}");
    Ok(())
}

#[tokio::test]
async fn deliveries_go_where_they_were_sent_and_nowhere_else() -> anyhow::Result<()> {
    let (receiver, elsewhere) = (Receiver::start().await?, Receiver::start().await?);
    receiver.does(answers(&format!("307 Temporary Redirect\r\nlocation: {}/", elsewhere.url())));
    let service = Service::start(trusting(Place::new()?, &receiver), None).await?;
    hook(&service, "tickets", &receiver.url(), &["created"]).await?;
    service.enrol("acme").await?;
    until("a redirect counts as a failure", async || Ok(last_error(&service).await?.contains("status 307"))).await?;
    ensure!(elsewhere.accepted() == 0, "a redirect was followed");
    let path = "/v1/admin/webhooks/metadata";
    let put = async |service: &Service, url: &str| {
        let (headers, body) = ([("content-type", "application/json")], json!({ "url": url }).to_string());
        service.admin().request("PUT", path, &headers, Some(body.into_bytes())).await
    };
    ensure!(put(&service, "https://169.254.169.254/latest").await?.status == 400, "never, whatever is allowed");

    let place = Place::new()?.with("WEBHOOKS_CA_FILE", elsewhere.ca_file().display());
    let service = Service::start(place, None).await?;
    let refused = put(&service, &elsewhere.url().replace("localhost", "127.0.0.1")).await?;
    ensure!(refused.status == 400 && refused.text().contains("set webhooks.allow_private"), "{}", refused.text());
    // What a name stands for is seen when it is called.
    hook(&service, "tickets", &elsewhere.url(), &["created"]).await?;
    service.enrol("acme").await?;
    let refused = async || Ok(last_error(&service).await?.contains("set webhooks.allow_private"));
    until("a private address is refused", refused).await?;
    ensure!(elsewhere.accepted() == 0, "it was called");
    Ok(())
}
