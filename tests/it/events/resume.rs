//! A reader that lost its connection: nothing is lost, nothing comes twice, and a gap is said.

use super::super::auth_matrix::scene::LIMIT;
use super::{open, position, start};
use crate::support::client::EventStream;
use crate::support::fake::{DeviceSpec, Fake};
use crate::support::sidecar::Sidecar;

async fn pending(sidecar: &Sidecar, count: usize) -> anyhow::Result<()> {
    let all = |page: &serde_json::Value| page["pending"].as_array().is_some_and(|list| list.len() == count);
    sidecar.client().wait_until("/v1/pairing", all, LIMIT).await.map(|_| ())
}

/// The requests of the next events, which must be numbered without a hole from `after` on.
async fn requested(stream: &mut EventStream, mut after: u64, count: usize) -> anyhow::Result<(Vec<String>, u64)> {
    let mut ids = Vec::new();
    while ids.len() < count {
        let event = stream.next(LIMIT).await?;
        assert_eq!(position(&event), after + 1, "lost or doubled: {event:?}");
        after += 1;
        if event.event == "pairing.requested" {
            ids.push(event.json()["request_id"].as_str().unwrap_or_default().to_owned());
        }
    }
    Ok((ids, after))
}

fn raise(fake: &Fake, count: usize) -> Vec<String> {
    (0..count).map(|_| fake.raise(&DeviceSpec::browser())).collect()
}

#[tokio::test]
async fn nothing_is_lost_or_doubled_over_reconnects() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let (mut stream, first) = open(&sidecar).await?;
    let mut last = position(&first);
    let boot = first.id.as_deref().and_then(|id| id.rsplit_once('.')).expect("an id").0.to_owned();
    let (mut seen, mut raised) = (Vec::new(), Vec::new());
    for round in 1..=5 {
        raised.extend(raise(&fake, 2));
        let (ids, after) = requested(&mut stream, last, 2).await?;
        seen.extend(ids);
        drop(stream);
        raised.extend(raise(&fake, 3));
        pending(&sidecar, 5 * round).await?;
        stream = sidecar.client().events("/v1/events", Some(&format!("{boot}.{after}"))).await?;
        let (ids, after) = requested(&mut stream, after, 3).await?;
        seen.extend(ids);
        last = after;
    }
    assert_eq!(seen, raised);
    Ok(())
}

#[tokio::test]
async fn a_resumed_stream_without_news_is_open_and_quiet() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let (stream, first) = open(&sidecar).await?;
    drop(stream);
    // The head of the answer comes although there is nothing to tell.
    let mut stream = sidecar.client().events("/v1/events", first.id.as_deref()).await?;
    let raised = raise(&fake, 1);
    assert_eq!(requested(&mut stream, position(&first), 1).await?.0, raised);
    Ok(())
}

#[tokio::test]
async fn an_unknown_position_is_a_gap() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let (_stream, first) = open(&sidecar).await?;
    let id = first.id.expect("an id");
    let (boot, _) = id.rsplit_once('.').expect("a position");
    let long = "x".repeat(100);
    let unknown = [
        format!("{boot}.999999"),
        format!("{boot}."),
        format!("{boot}.-1"),
        format!("{boot}.18446744073709551615"),
        format!("{boot}.1.1"),
        format!("{}.1", "0".repeat(boot.len())),
        "1".to_owned(),
        "garbage".to_owned(),
        long,
    ];
    for id in unknown {
        let mut stream = sidecar.client().events("/v1/events", Some(&id)).await?;
        let event = stream.next(LIMIT).await?;
        assert_eq!((event.event.as_str(), event.json()["reason"].as_str()), ("reset", Some("gap")), "{id}");
        let raised = raise(&fake, 1);
        assert_eq!(requested(&mut stream, position(&event), 1).await?.0, raised, "after the reset for {id}");
    }
    Ok(())
}

/// More happened than is kept: the reader is told to read the state anew.
#[tokio::test]
async fn a_position_too_long_ago_is_a_gap() -> anyhow::Result<()> {
    let (fake, sidecar) = start(|builder| builder).await?;
    let (mut stream, first) = open(&sidecar).await?;
    let old = first.id.clone().expect("an id");
    let mut last = position(&first);
    let enough = last + u64::try_from(openclaw_sidecar::state::EVENTS_KEPT)? + 2;
    while last < enough {
        let ids = raise(&fake, 8);
        last = requested(&mut stream, last, ids.len()).await?.1;
        ids.iter().for_each(|id| assert!(fake.reject_out_of_band(id)));
        for _ in &ids {
            last = position(&stream.wait_for(|event| event.event == "pairing.resolved", LIMIT).await?);
        }
    }
    let mut late = sidecar.client().events("/v1/events", Some(&old)).await?;
    let event = late.next(LIMIT).await?;
    assert_eq!((event.event.as_str(), event.json()["reason"].as_str()), ("reset", Some("gap")));
    Ok(())
}
