//! `audit verify`.

use serde_json::json;

use super::super::auth_matrix::scene::Scene;
use super::{NO, OK, bare, with_env};

#[tokio::test]
async fn an_untouched_audit_verifies_and_a_changed_one_names_the_record() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let client = scene.sidecar.client();
    for n in 0..5 {
        let body = json!({"kind": "device", "device_id": scene.paired, "label": format!("name {n}")});
        assert_eq!(client.post("/v1/pairing/rename", &body).await?.status, 200);
    }
    let head = client.get("/v1/audit").await?.json()["head"].clone();
    let dir = scene.sidecar.state_dir().to_owned();
    let text = dir.to_str().expect("a UTF-8 path");
    let args = ["audit", "verify", "--dir", text];
    let good = bare(&args).await?.expect(OK);
    assert!(good.out.contains("10 records") && good.out.contains(head["hash"].as_str().expect("a hash")), "{good:?}");
    let by_state_dir = with_env(&["audit", "verify"], &[("OPENCLAW_SIDECAR_STATE_DIR", text)]).await?.expect(OK);
    assert_eq!(by_state_dir.out, good.out, "while the daemon runs");

    let path = dir.join("audit.jsonl");
    let whole = std::fs::read(&path)?;
    let lines: Vec<&[u8]> = whole.split_inclusive(|byte| *byte == b'\n').collect();
    for (n, line) in lines.iter().enumerate() {
        let start: usize = lines[..n].iter().map(|line| line.len()).sum();
        let mut changed = whole.clone();
        changed[start + line.len() / 2] ^= 1;
        std::fs::write(&path, &changed)?;
        let broken = bare(&args).await?.expect(NO);
        let named = format!("record {}", n + 1);
        assert!(broken.out.is_empty() && broken.err.contains(&named), "{named}: {broken:?}");
    }
    let without_third: Vec<u8> = [lines[..2].concat(), lines[3..].concat()].concat();
    std::fs::write(&path, without_third)?;
    assert!(bare(&args).await?.expect(NO).err.contains("record 3"));
    std::fs::write(&path, &whole)?;
    bare(&args).await?.expect(OK);
    let nothing = tempfile::tempdir()?;
    bare(&["audit", "verify", "--dir", nothing.path().to_str().expect("a UTF-8 path")]).await?.expect(NO);
    Ok(())
}
