//! Frames that are no frames: every kind, unasked and in place of answers.

use tokio::task::JoinSet;

use super::super::pairing_outcomes::rig::{Rig, by_device, by_request, outcome, typed};
use super::check::{HEALED, heals, serves};
use crate::support::fake::{DeviceSpec, Fake, Malformed, Times, Version};

const KINDS: [Malformed; 9] = [
    Malformed::InvalidJson,
    Malformed::Binary,
    Malformed::WrongTypes,
    Malformed::WrongTypedRecords,
    Malformed::AnswerWithoutId,
    Malformed::UnknownId,
    Malformed::DuplicateAnswer,
    Malformed::DeepNesting,
    Malformed::Oversize(3),
];

/// One daemon for each kind, all at once.
async fn for_each_kind<F>(check: impl Fn(Malformed) -> F) -> anyhow::Result<()>
where
    F: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let mut all = JoinSet::new();
    for kind in KINDS {
        let work = check(kind);
        all.spawn(async move { work.await.map_err(|error| error.context(format!("{kind:?}"))) });
    }
    while let Some(done) = all.join_next().await {
        done??;
    }
    Ok(())
}

#[tokio::test]
async fn unasked_garbage_is_passed_over() -> anyhow::Result<()> {
    for_each_kind(|kind| async move {
        let rig = Rig::start(Version::V2026_9_6).await?;
        let spec = DeviceSpec::browser();
        rig.raise(&spec).await?;
        for _ in 0..10 {
            rig.fake.send_malformed(kind);
        }
        anyhow::ensure!(serves(&rig, 20, &spec.device_id).await? == "approved");
        // More than anybody sends by accident: the session may end, the daemon may not.
        for _ in 0..150 {
            rig.fake.send_malformed(kind);
        }
        heals(&rig, HEALED).await
    })
    .await
}

#[tokio::test]
async fn garbage_instead_of_the_answer_to_an_approval() -> anyhow::Result<()> {
    for_each_kind(|kind| async move {
        let rig = Rig::start(Version::V2026_9_6).await?;
        let spec = DeviceSpec::browser();
        let id = rig.raise(&spec).await?;
        rig.fake.malform_answers(kind, Times::Next(1));
        let code = serves(&rig, 2, &spec.device_id).await?;
        anyhow::ensure!(["approved", "gateway_unreachable"].contains(&code.as_str()), "{code}");
        // What the remedy says: repeat it, it is safe.
        let repeated = typed(&rig.approve(by_request(&id)).await?);
        let expected = if rig.fake.approvals(&spec.device_id).len() == 1 { "already_paired" } else { "approved" };
        anyhow::ensure!(repeated == expected || repeated == "approved", "repeated: {repeated}");
        let again = outcome(&rig.approve(by_device(&spec.device_id)).await?, "already_paired");
        anyhow::ensure!(again["device"]["approved_by"] == "control", "{again}");
        heals(&rig, HEALED).await?;
        anyhow::ensure!(rig.out_of_band_records(&spec.device_id).await? == 0, "it was our approval");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn garbage_instead_of_the_hello() -> anyhow::Result<()> {
    for_each_kind(|kind| async move {
        let fake = Fake::start(Version::V2026_9_6).await;
        let spec = DeviceSpec::browser();
        fake.raise(&spec);
        fake.malform_answers(kind, Times::Next(1));
        let rig = Rig::unready(fake).await?;
        serves(&rig, 2, &spec.device_id).await?;
        // A hello that never comes is given up after 30 s.
        heals(&rig, HEALED).await
    })
    .await
}

#[tokio::test]
async fn bytes_that_only_look_like_frames() -> anyhow::Result<()> {
    let rig = Rig::start(Version::V2026_9_6).await?;
    let texts = [
        "",
        "null",
        "[]",
        "7",
        "\"\"",
        "{}",
        r#"{"type":null}"#,
        r#"{"type":"res"}"#,
        r#"{"type":"event"}"#,
        r#"{"type":"event","event":7,"seq":-1}"#,
        r#"{"type":"event","event":"device.pair.requested","payload":null,"seq":18446744073709551615}"#,
        r#"{"type":"event","event":"device.pair.requested","payload":{"requestId":"\u0000","deviceId":"x"}}"#,
        r#"{"type":"event","event":"device.pair.resolved","payload":{"requestId":[],"decision":{}}}"#,
        r#"{"type":"event","event":"presence","payload":{"presence":"everybody"}}"#,
        r#"{"type":"event","event":"shutdown","payload":{"reason":"gateway restarting"}}"#,
        r#"{"type":"req","id":"1","method":"connect","params":{}}"#,
    ];
    for text in texts {
        rig.fake.send_text(text);
    }
    heals(&rig, HEALED).await?;
    assert_eq!(rig.fake.totals().1, 1, "none of them is a reason to part");
    Ok(())
}
