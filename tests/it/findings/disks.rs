//! Files and disks that fail, beside a fake gateway: what matters is ours.

use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use super::super::auth_matrix::scene::Scene;
use super::super::startup::volume::Volume;
use super::{LOOKED, attached, found, gone};
use crate::support::fake::DeviceSpec;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test]
async fn what_cannot_be_written_is_said() -> anyhow::Result<()> {
    let Some(volume) = Volume::mount("size=1m,mode=0755")? else { return Ok(()) };
    let state_dir = volume.path().join("state");
    let scene = Scene::start_with(|builder| builder.state_dir(&state_dir)).await?;
    let client = scene.sidecar.client();

    // The place of the new file is taken, so the list of approvers cannot be replaced.
    let blocked = state_dir.join(".approvals.json.new");
    std::fs::create_dir(&blocked)?;
    let body = json!({"kind": "device", "request_id": scene.request_id});
    let reply = client.post("/v1/pairing/approve", &body).await?;
    ensure!(reply.status == 200, "{}", reply.text());
    found(&client, "state_not_written", &[], SOON).await?;
    std::fs::remove_dir(&blocked)?;

    let filler = volume.fill();
    let rename = |n: u32| json!({"kind": "device", "device_id": scene.paired, "label": format!("name {n}")});
    let mut refused = 200;
    // The page that is begun still takes records.
    for n in 0..100 {
        refused = client.post("/v1/pairing/rename", &rename(n)).await?.status;
        if refused != 200 {
            break;
        }
    }
    ensure!(refused == 507, "{refused}");
    found(&client, "audit_not_durable", &[], SOON).await?;
    let path = format!("path={}", state_dir.display());
    found(&client, "disk_low", &[&path, "free_mib=0", "total_mib=1"], LOOKED).await?;

    std::fs::remove_file(filler)?;
    gone(&client, "disk_low", LOOKED).await?;
    let reply = client.post("/v1/pairing/rename", &rename(1000)).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    gone(&client, "audit_not_durable", SOON).await?;
    let request = scene.fake.raise(&DeviceSpec::browser().named("late"));
    let body = json!({"kind": "device", "request_id": request});
    let reply = client.post("/v1/pairing/approve?wait_s=5", &body).await?;
    ensure!(reply.status == 200, "{} {}", reply.status, reply.text());
    gone(&client, "state_not_written", SOON).await?;
    Ok(())
}

#[tokio::test]
async fn files_that_become_unreadable() -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    // A file stands where the socket's directory would have to be.
    let socket = at("key.pem/control.sock");
    let socket = socket.to_str().expect("a UTF-8 path");
    let given = |builder| attached::with_certificate(builder, dir.path(), 1000).expect("a certificate");
    let scene = Scene::start_with(|builder| given(builder).env("OPENCLAW_SIDECAR_LISTEN_UNIX", socket)).await?;
    let client = scene.sidecar.client();
    found(&client, "local_socket_unavailable", &[], SOON).await?;
    let good = std::fs::read(at("cert.pem"))?;
    std::fs::write(at("cert.pem"), "no certificate")?;
    found(&client, "certificate_unreadable", &[], LOOKED).await?;
    std::fs::write(at("cert.pem"), good)?;
    gone(&client, "certificate_unreadable", LOOKED).await?;
    Ok(())
}
