//! What has to hold during and after every fault.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::pairing_outcomes::rig::{Rig, by_device, typed};
use crate::support::fake::DeviceSpec;

/// Healing may need one more try after the longest wait for an answer (30 s), and a look (5 s).
pub const HEALED: Duration = Duration::from_secs(50);

/// Answers that do not wait for the gateway; generous, because the machine is busy with other tests.
const QUICK: Duration = Duration::from_millis(1500);

/// While the fault lasts: an approval is answered in its time and with a code of the contract, nothing else is slow.
pub async fn serves(rig: &Rig, wait_s: u64, device_id: &str) -> anyhow::Result<String> {
    let call = async {
        let started = Instant::now();
        let reply = rig.approve_within(wait_s, by_device(device_id)).await?;
        anyhow::Ok((typed(&reply), started.elapsed()))
    };
    let looks = async {
        for path in ["/livez", "/v1/state", "/v1/pairing", "/readyz"] {
            let started = Instant::now();
            let reply = rig.client.get(path).await?;
            anyhow::ensure!(started.elapsed() < QUICK, "{path} took {:?}", started.elapsed());
            anyhow::ensure!(reply.status == 200 || path == "/readyz", "{path}: {}", reply.text());
        }
        anyhow::Ok(())
    };
    let ((code, took), ()) = tokio::try_join!(call, looks)?;
    anyhow::ensure!(took < Duration::from_secs(wait_s + 1), "{code} after {took:?} with wait_s={wait_s}");
    Ok(code)
}

/// After the fault: ready by itself, the view is the gateway's truth, and a new device can be approved.
pub async fn heals(rig: &Rig, deadline: Duration) -> anyhow::Result<()> {
    rig.ready(deadline).await?;
    view_is_true(rig, deadline).await?;
    let spec = DeviceSpec::browser();
    rig.raise(&spec).await?;
    let code = serves(rig, 20, &spec.device_id).await?;
    anyhow::ensure!(code == "approved", "after the fault: {code}");
    view_is_true(rig, deadline).await
}

/// Waits until the daemon lists exactly what the gateway has.
pub async fn view_is_true(rig: &Rig, deadline: Duration) -> anyhow::Result<()> {
    let own = rig.state().await?["sidecar"]["device_id"].as_str().unwrap_or_default().to_owned();
    let (pending, paired) = rig.fake.with(|core| {
        let pending: BTreeSet<String> = core.world.pending.iter().map(|one| one.request_id.clone()).collect();
        let paired: BTreeSet<String> = core.world.paired.keys().filter(|id| **id != own).cloned().collect();
        (pending, paired)
    });
    let ids = |list: &Value, part: &str, key: &str| -> BTreeSet<String> {
        let entries = list[part].as_array().into_iter().flatten().filter(|one| one["kind"] == "device");
        entries.filter_map(|one| one[key].as_str()).map(String::from).collect()
    };
    let same =
        |list: &Value| ids(list, "pending", "request_id") == pending && ids(list, "approved", "device_id") == paired;
    rig.client.wait_until("/v1/pairing", same, deadline).await?;
    Ok(())
}
