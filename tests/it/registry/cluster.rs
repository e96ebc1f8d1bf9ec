//! Several instances over one PostgreSQL.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::speakers::{Speakers, nothing_is_lost};
use super::webhooks::{hook, trusting};
use super::{CHECK_IN, SOON, come_back_later, message, recovers, until};
use crate::support::postgres::Server;
use crate::support::registry::{Received, Registry as Receiver, issue};
use crate::support::service::{Place, Service};

/// The promise of 15 s, its grace of 30 s, a sweep, and whatever else the machine has to do.
const SILENT: Duration = Duration::from_secs(120);

async fn two(place: Place) -> anyhow::Result<(Service, Service)> {
    // The first one leads: it asks before the second one is there.
    let one = Service::start(place, None).await?;
    let two = Service::start(one.place().beside()?, None).await?;
    Ok((one, two))
}

#[tokio::test]
async fn two_instances_serve_one_fleet_and_one_may_die() -> anyhow::Result<()> {
    let Some(server) = Server::start() else { return Ok(()) };
    let receiver = Receiver::start().await?;
    let place = trusting(Place::new()?.with("STORE", server.database("fleet").await), &receiver);
    let (one, two) = two(place).await?;
    hook(&two, "all", &receiver.url(), &["audit", "status"]).await?;
    let silent = two.enrol("silent").await?;
    let mut last_words = message("silent", 1);
    last_words["next_s"] = json!(15);
    ensure!(two.with(&silent.credential).post(CHECK_IN, &last_words).await?.status == 200);
    each_shows_what_the_other_took(&one, &two, "before").await?;
    keys_work_on_both(&one, &two).await?;

    let speakers = Speakers::start(4, &[&one, &two]).await?;
    speakers.heard(40).await?;
    let place = one.kill().await?;
    speakers.heard(40).await?;
    let heard = speakers.stop().await?;
    nothing_is_lost(&two, &heard).await?;
    // It leads now: it delivers what is new and what the other left, and sees who is silent.
    let delivered = async || {
        let missing = |(tenant, last): &&(String, u64)| {
            let got: BTreeSet<u64> = audits(&receiver, tenant).into_iter().collect();
            !(1..=*last).all(|seq| got.contains(&seq))
        };
        Ok(heard.iter().find(missing).is_none())
    };
    until("all of it delivered", delivered).await?;
    for (tenant, _) in &heard {
        let mut first = BTreeSet::new();
        let got: Vec<u64> = audits(&receiver, tenant).into_iter().filter(|seq| first.insert(*seq)).collect();
        ensure!(got.is_sorted(), "{tenant}: {got:?}");
    }
    let told =
        |message: &Received| message.json()["tenant"] == "silent" && message.json()["data"]["to"] == "unreachable";
    receiver.wait(0, told, SILENT).await.map_err(|_| anyhow::anyhow!("nobody was told of the silence"))?;

    let one = Service::start(place, None).await?;
    each_shows_what_the_other_took(&one, &two, "after").await
}

/// The records of a tenant as they were delivered.
fn audits(receiver: &Receiver, tenant: &str) -> Vec<u64> {
    let lines = receiver.received().into_iter().map(|message| message.json());
    lines
        .filter(|line| line["kind"] == "audit" && line["tenant"] == tenant)
        .filter_map(|l| l["data"]["seq"].as_u64())
        .collect()
}

async fn each_shows_what_the_other_took(one: &Service, two: &Service, when: &str) -> anyhow::Result<()> {
    for (n, (near, far)) in [(one, two), (two, one)].into_iter().enumerate() {
        let tenant = format!("{when}-{n}");
        let enrolled = near.enrol(&tenant).await?;
        let (mut api, mut console) =
            (far.support().events("/v1/support/events", None).await?, far.console().await?.events().await?);
        for stream in [&mut api, &mut console] {
            stream.wait_for(|event| event.event == "hello", SOON).await?;
        }
        let reply = near.with(&enrolled.credential).post(CHECK_IN, &message(&tenant, 1)).await?;
        ensure!(reply.status == 200, "{}", reply.text());
        for stream in [&mut api, &mut console] {
            stream.wait_for(|event| event.event == "changed" && event.json()["tenant"] == *tenant, SOON).await?;
        }
        let view = far.support().get(&format!("/v1/support/tenants/{tenant}")).await?.json();
        ensure!(view["status"] == "ready" && view["gateway_version"] == "2026.9.6", "{view}");
    }
    Ok(())
}

async fn keys_work_on_both(one: &Service, two: &Service) -> anyhow::Result<()> {
    let made = one.admin().post("/v1/admin/keys", &json!({"id": "night"})).await?.json();
    let key = made["key"].as_str().context("a key")?;
    let status = async |service: &Service| anyhow::Ok(service.with(key).get("/v1/support/summary").await?.status);
    until("a key made on the other", async || Ok(status(two).await? == 200)).await?;
    ensure!(two.admin().request("DELETE", "/v1/admin/keys/night", &[], None).await?.status == 200);
    until("a key taken back on the other", async || Ok(status(one).await? == 401)).await?;
    Ok(())
}

#[tokio::test]
async fn both_outlive_their_database() -> anyhow::Result<()> {
    let Some(server) = Server::start() else { return Ok(()) };
    let (one, two) = two(Place::new()?.with("STORE", server.database("fleet").await)).await?;
    let enrolled = one.enrol("acme").await?;
    let mut seq = 1;
    for service in [&one, &two] {
        ensure!(service.with(&enrolled.credential).post(CHECK_IN, &message("acme", seq)).await?.status == 200);
        seq += 1;
    }
    let mut events = two.support().events("/v1/support/events", None).await?;
    server.crash();
    for service in [&one, &two] {
        let reply = service.with(&enrolled.credential).post(CHECK_IN, &message("acme", seq)).await?;
        come_back_later(&reply, "PostgreSQL cannot be reached")?;
        come_back_later(&service.public().get("/readyz").await?, "PostgreSQL cannot be reached")?;
        let page = service.console().await?.page("/").await?;
        ensure!(page.status == 503 && page.text().contains("The database cannot be used now"), "{}", page.text());
        ensure!(service.public().get("/livez").await?.status == 200);
    }
    server.up();
    for service in [&one, &two] {
        recovers(service, &service.with(&enrolled.credential), &message("acme", seq)).await?;
        seq += 1;
    }
    events.wait_for(|event| event.event == "changed" && event.json()["tenant"] == "", SOON).await?;
    let boots = two.history("acme").await?.iter().filter(|kind| *kind == "booted").count();
    ensure!(boots == 1, "one boot was reported, {boots} are kept");
    Ok(())
}

const PASSWORD: &str = "pa55word-of-the-database";

fn url(host: &str, port: u16, more: &str) -> String {
    format!("postgres://registry:{PASSWORD}@{host}:{port}/fleet?hostaddr=127.0.0.1{more}")
}

/// That it does not start with this, why, and that it does not say the password.
async fn refused(place: Place, expected: &str) -> anyhow::Result<()> {
    let (status, said) = place.run(&["serve"]).await?;
    ensure!(status.code() == Some(69) && said.contains(expected), "{expected}: {status}: {said}");
    ensure!(!said.contains(PASSWORD), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_database_elsewhere_is_reached_over_tls() -> anyhow::Result<()> {
    let issued = issue(&["db.example"])?;
    let (certificate, key) = (issued.certificate.pem(), issued.key.serialize_pem());
    let secure = Server::start_secure(&certificate, &key, "registry", PASSWORD);
    let Some(server) = secure.await else { return Ok(()) };
    server.database("fleet").await;
    let dir = tempfile::tempdir()?;
    let (ca, other_ca) = (dir.path().join("ca.pem"), dir.path().join("other.pem"));
    std::fs::write(&ca, &issued.ca)?;
    std::fs::write(&other_ca, issue(&["db.example"])?.ca)?;
    let there =
        |host: &str, more: &str| Ok::<_, anyhow::Error>(Place::new()?.with("STORE", url(host, server.port(), more)));

    for more in ["", "&sslmode=require"] {
        let service = Service::start(there("db.example", more)?.with("STORE_CA_FILE", ca.display()), None).await?;
        service.enrol(if more.is_empty() { "one" } else { "two" }).await?;
        let sql = "SELECT count(*), count(*) FILTER (WHERE ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
            WHERE application_name = 'openclaw-registry'";
        let row = server.client("fleet").await.query_one(sql, &[]).await?;
        let (all, secure): (i64, i64) = (row.get(0), row.get(1));
        ensure!(all >= 3 && all == secure, "{secure} of {all} connections are secure");
    }
    refused(there("db.example", "")?.with("STORE_CA_FILE", other_ca.display()), "invalid peer certificate").await?;
    refused(there("db.example", "")?, "invalid peer certificate").await?;
    refused(there("other.example", "")?.with("STORE_CA_FILE", ca.display()), "not valid for name").await?;
    refused(there("db.example", "&sslmode=disable")?, "no encryption").await?;
    Ok(())
}

#[tokio::test]
async fn a_database_elsewhere_without_tls_is_told_nothing() -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let heard = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut asked = [0; 8];
        stream.read_exact(&mut asked).await?;
        stream.write_all(b"N").await?;
        let mut more = Vec::new();
        stream.read_to_end(&mut more).await?;
        anyhow::Ok((asked, more))
    });
    let dir = tempfile::tempdir()?;
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, issue(&["db.example"])?.ca)?;
    let place = Place::new()?.with("STORE", url("db.example", port, "")).with("STORE_CA_FILE", ca.display());
    refused(place, "server does not support TLS").await?;
    let (asked, more) = tokio::time::timeout(SOON, heard).await???;
    // The request for TLS, as the protocol has it, and nothing after the refusal.
    ensure!(asked == [0, 0, 0, 8, 4, 210, 22, 47] && more.is_empty(), "{asked:?} {more:?}");
    Ok(())
}
