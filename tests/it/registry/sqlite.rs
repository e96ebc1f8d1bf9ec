//! What befalls the file of a registry that runs: a lock, a full disk, its loss, the end of the process.

use anyhow::{Context, ensure};
use rusqlite::Connection;
use serde_json::json;

use super::speakers::{Speakers, nothing_is_lost};
use super::{CHECK_IN, come_back_later, message, records, recovers, until};
use crate::support::client::Client;
use crate::support::service::{Place, Service};
use crate::support::small_disk::SmallDisk;

/// A tenant that has checked in once.
async fn known(service: &Service) -> anyhow::Result<Client> {
    let machine = service.with(&service.enrol("acme").await?.credential);
    let reply = machine.post(CHECK_IN, &message("acme", 1)).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    Ok(machine)
}

/// The registry says so by itself, without being told by a check-in.
async fn is_not_ready(service: &Service, why: &str) -> anyhow::Result<()> {
    let public = service.public();
    until("not ready", async || Ok(public.get("/readyz").await?.status == 503)).await?;
    come_back_later(&public.get("/readyz").await?, why)
}

#[tokio::test]
async fn a_lock_is_outlived() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let machine = known(&service).await?;
    let other = Connection::open(service.place().database())?;
    other.execute_batch("BEGIN IMMEDIATE")?;
    // That it is locked, or that it did not answer: whoever comes while another one waits for the lock waits longer.
    come_back_later(&machine.post(CHECK_IN, &message("acme", 2)).await?, "the registry's database")?;
    is_not_ready(&service, "the registry's database").await?;
    let page = service.console().await?.page("/tenants/acme").await?;
    ensure!(page.status == 200, "it can be read meanwhile: {}", page.text());
    other.execute_batch("ROLLBACK")?;
    recovers(&service, &machine, &message("acme", 2)).await
}

#[tokio::test]
async fn a_full_disk_is_outlived() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let Some(disk) = SmallDisk::new(dir.path()) else { return Ok(()) };
    let service = Service::start(Place::new()?.with("STORE", disk.path().join("registry.db").display()), None).await?;
    let machine = known(&service).await?;
    disk.fill();
    let mut seq = 1;
    let refusal = loop {
        seq += 1;
        let mut message = message("acme", seq);
        message["events"] = json!([{"seq": seq, "at": "2026-01-01T00:00:00Z", "verb": "fill".repeat(40)}]);
        let reply = machine.post(CHECK_IN, &message).await?;
        if reply.status != 200 {
            break reply;
        }
    };
    come_back_later(&refusal, "the disk is full")?;
    is_not_ready(&service, "the disk is full").await?;
    let page = service.console().await?.page("/").await?;
    ensure!(page.status == 200, "it can be read meanwhile: {}", page.text());
    disk.clear();
    recovers(&service, &machine, &message("acme", seq)).await?;
    let kept = records(&service, "acme").await?;
    ensure!(kept == (2..seq).collect::<Vec<_>>(), "{} acknowledged, {} kept", seq - 2, kept.len());
    println!("{} check-ins fitted", seq - 2);
    Ok(())
}

#[tokio::test]
async fn a_lost_file_is_missed_and_taken_again() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let machine = known(&service).await?;
    let console = service.console().await?;
    let (database, aside) = (service.place().database(), service.place().state_dir().join("aside"));
    std::fs::rename(&database, &aside)?;
    come_back_later(&machine.post(CHECK_IN, &message("acme", 2)).await?, "file is gone")?;
    is_not_ready(&service, "file is gone").await?;
    for path in ["/", "/tenants/acme"] {
        let page = console.page(path).await?;
        let (kind, text) = (page.header("content-type").context("a type")?, page.text());
        ensure!(page.status == 503 && kind.starts_with("text/html"), "{} {kind}", page.status);
        ensure!(text.contains("The database cannot be used now") && text.contains("file is gone"), "{text}");
        ensure!(text.contains("tries again every 5 s"), "{text}");
    }
    ensure!(!database.exists(), "an empty one was put in its place");
    std::fs::rename(&aside, &database)?;
    recovers(&service, &machine, &message("acme", 2)).await?;
    ensure!(console.page("/tenants/acme").await?.status == 200);
    Ok(())
}

#[tokio::test]
async fn a_killed_registry_has_kept_what_it_acknowledged() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let speakers = Speakers::start(4, &[&service]).await?;
    speakers.heard(100).await?;
    let place = service.kill().await?;
    let heard = speakers.stop().await?;
    let service = Service::start(place, None).await?;
    nothing_is_lost(&service, &heard).await
}

#[tokio::test]
async fn backups_are_made_beside_it_and_put_back_without_it() -> anyhow::Result<()> {
    let service = Service::start(Place::new()?, None).await?;
    let file = service.place().state_dir().join("backup.db");
    let path = file.to_str().context("a text")?;
    let speakers = Speakers::start(2, &[&service]).await?;
    speakers.heard(50).await?;
    let (status, said) = service.place().run(&["backup", path]).await?;
    ensure!(status.success(), "{said}");
    speakers.heard(50).await?;
    let heard = speakers.stop().await?;
    nothing_is_lost(&service, &heard).await?;
    let (status, said) = service.place().run(&["restore", path]).await?;
    ensure!(status.code() == Some(69) && said.contains("another process has it open"), "{said}");

    let place = service.stop().await?;
    let left = std::fs::read_dir(place.state_dir())?.flatten().map(|file| file.file_name());
    ensure!(!left.into_iter().any(|name| name.to_string_lossy().contains("-wal")), "its log is left");
    let (status, said) = place.run(&["restore", path]).await?;
    ensure!(status.success(), "{said}");
    let service = Service::start(place, None).await?;
    let mut kept = 0;
    for (tenant, last) in &heard {
        let found = records(&service, tenant).await?;
        ensure!(found == (1..=found.len() as u64).collect::<Vec<_>>(), "{tenant}: {found:?}");
        ensure!((found.len() as u64) < *last, "{tenant} is as it was later");
        kept += found.len();
    }
    ensure!(kept >= 50, "{kept} records were there when the backup began");
    Ok(())
}
