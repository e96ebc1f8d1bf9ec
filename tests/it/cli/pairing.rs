//! `pairing …` against a gateway.

use super::super::auth_matrix::scene::{LIMIT, Scene};
use super::{NO, OK, TRY_LATER, local};
use crate::support::fake::DeviceSpec;

async fn scene() -> anyhow::Result<Scene> {
    Scene::start_with(|builder| builder.unix()).await
}

#[tokio::test]
async fn the_list_shows_what_waits_and_what_is_paired() -> anyhow::Result<()> {
    let scene = scene().await?;
    let text = local(&scene.sidecar, &["pairing", "list"]).await?.expect(OK).out;
    for part in
        ["waiting for approval: 1", "paired: 1", &scene.request_id, &scene.paired, "before_sidecar", "203.0.113.9"]
    {
        assert!(text.contains(part), "{part:?} is not in\n{text}");
    }
    let list = local(&scene.sidecar, &["pairing", "list", "--json"]).await?.expect(OK).json();
    assert_eq!(list["pending"][0]["request_id"], scene.request_id.as_str());
    assert_eq!(list["approved"][0]["device_id"], scene.paired.as_str());
    Ok(())
}

/// What devices call themselves is written by strangers.
#[tokio::test]
async fn names_of_devices_cannot_steer_the_terminal() -> anyhow::Result<()> {
    let scene = scene().await?;
    let evil = "\u{1b}[2J\u{1b}]0;owned\u{7}line\nbreak\r\u{202e}gnp";
    scene.fake.raise(&DeviceSpec::browser().named(evil));
    let both = |page: &serde_json::Value| page["pending"].as_array().is_some_and(|list| list.len() == 2);
    scene.sidecar.client().wait_until("/v1/pairing", both, LIMIT).await?;
    for args in [&["pairing", "list"][..], &["status"]] {
        let text = local(&scene.sidecar, args).await?.expect(OK).out;
        let bad: Vec<char> = text.chars().filter(|c| (c.is_control() && *c != '\n') || *c == '\u{202e}').collect();
        assert!(bad.is_empty(), "{bad:?} in\n{text:?}");
        assert!(!text.contains("\nbreak"), "a name begins a line:\n{text}");
    }
    Ok(())
}

#[tokio::test]
async fn approving_by_id_by_device_and_the_only_one() -> anyhow::Result<()> {
    let scene = scene().await?;
    let ran = local(&scene.sidecar, &["pairing", "approve", &scene.request_id]).await?.expect(OK);
    assert!(ran.out.starts_with("approved") && ran.out.contains(&scene.waiting), "{ran:?}");
    assert_eq!(scene.fake.approvals(&scene.waiting).len(), 1);
    let again = local(&scene.sidecar, &["pairing", "approve", "--device", &scene.waiting, "--json"]).await?.expect(OK);
    assert_eq!(again.json()["outcome"], "already_paired");

    let next = DeviceSpec::browser();
    scene.fake.raise(&next);
    let ran = local(&scene.sidecar, &["pairing", "approve", "--only-pending", "--json"]).await?.expect(OK).json();
    assert_eq!((&ran["outcome"], &ran["device"]["device_id"]), (&"approved".into(), &next.device_id.clone().into()));
    let actor = |page: &serde_json::Value| page["records"].to_string().contains("\"actor\":\"local:");
    assert!(actor(&scene.sidecar.client().get("/v1/audit").await?.json()), "the audit names the local caller");
    Ok(())
}

#[tokio::test]
async fn expectations_are_passed_on() -> anyhow::Result<()> {
    let scene = scene().await?;
    let id = scene.request_id.as_str();
    for limit in [
        &["--max-scope", "operator.read"][..],
        &["--expect-role", "node"],
        &["--expect-client", "openclaw-ios"],
        &["--expect-platform", "linux"],
    ] {
        let args = [&["pairing", "approve", id], limit].concat();
        let ran = local(&scene.sidecar, &args).await?.expect(NO);
        assert!(ran.out.is_empty() && ran.err.contains("exceeds_expectation"), "{limit:?}: {ran:?}");
    }
    assert!(scene.fake.approvals(&scene.waiting).is_empty());
    let all = ["--expect-role", "operator", "--expect-client", "openclaw-control-ui", "--max-scope", "operator.admin"];
    local(&scene.sidecar, &[&["pairing", "approve", id][..], &all].concat()).await?.expect(OK);
    Ok(())
}

#[tokio::test]
async fn rejecting_renaming_and_revoking() -> anyhow::Result<()> {
    let scene = scene().await?;
    let sidecar = &scene.sidecar;
    let ran = local(sidecar, &["pairing", "reject", &scene.request_id]).await?.expect(OK);
    assert_eq!(ran.out, "rejected\n");
    assert_eq!(scene.fake.pending_id(&scene.waiting), None);
    let again = local(sidecar, &["pairing", "reject", &scene.request_id, "--json"]).await?.expect(OK);
    assert_eq!(again.json()["outcome"], "already_rejected");
    let ran = local(sidecar, &["pairing", "rename", &scene.paired, "front desk"]).await?.expect(OK);
    assert_eq!(ran.out, "renamed\n");
    let list = local(sidecar, &["pairing", "list"]).await?.expect(OK).out;
    assert!(list.contains("front desk"), "{list}");
    let ran = local(sidecar, &["pairing", "revoke", &scene.paired]).await?.expect(OK);
    assert_eq!(ran.out, "revoked\n");
    assert!(scene.fake.truth(&scene.paired).is_none());
    Ok(())
}

#[tokio::test]
async fn problems_are_told_with_their_remedy() -> anyhow::Result<()> {
    let scene = scene().await?;
    let sidecar = &scene.sidecar;
    let unknown = "0".repeat(64);
    for (args, code) in [
        (&["pairing", "approve", "unknown"][..], "no_pending_request"),
        (&["pairing", "approve", "--device", &unknown], "no_pending_request"),
        (&["pairing", "reject", "unknown"], "no_pending_request"),
        (&["pairing", "revoke", &unknown], "not_found"),
        (&["pairing", "rename", &unknown, "name"], "not_found"),
        (&["pairing", "rename", &unknown, ""], "invalid_body"),
        (&["pairing", "approve", "--kind", "channel", "--channel", "telegram", "--code", "ABC"], "needs_launch_mode"),
    ] {
        let ran = local(sidecar, args).await?.expect(NO);
        assert!(ran.out.is_empty() && ran.err.contains(code), "{args:?}: {ran:?}");
        let json = local(sidecar, &[args, &["--json"]].concat()).await?.expect(NO).json();
        assert_eq!(json["code"], code, "{args:?}");
    }
    scene.fake.raise(&DeviceSpec::browser());
    let both = |page: &serde_json::Value| page["pending"].as_array().is_some_and(|list| list.len() == 2);
    sidecar.client().wait_until("/v1/pairing", both, LIMIT).await?;
    let ran = local(sidecar, &["pairing", "approve", "--only-pending"]).await?.expect(NO);
    assert!(ran.err.contains("ambiguous") && ran.err.contains(&scene.request_id), "{ran:?}");
    Ok(())
}

#[tokio::test]
async fn what_may_work_later_has_its_own_exit_code() -> anyhow::Result<()> {
    let scene = scene().await?;
    scene.fake.stop().await;
    let down = |state: &serde_json::Value| state["phase"] == "stopped";
    scene.sidecar.client().wait_until("/v1/state", down, LIMIT).await?;
    let ran = local(&scene.sidecar, &["pairing", "approve", &scene.request_id, "--wait", "1"]).await?.expect(TRY_LATER);
    assert!(ran.err.contains("gateway_stopped") && ran.err.contains("Start the gateway"), "{ran:?}");
    // What was seen last is still shown.
    let list = local(&scene.sidecar, &["pairing", "list"]).await?.expect(OK).out;
    assert!(list.contains(&scene.request_id), "{list}");
    Ok(())
}
