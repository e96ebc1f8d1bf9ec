//! A request that grows between the list and the approval is refused, however the two meet.

use serde_json::json;

use super::super::pairing_outcomes::rig::{ADMIN, READ, Rig, by_device, by_request, expecting, typed};
use crate::support::fake::{DeviceSpec, Times, Version};

#[tokio::test]
async fn two_hundred_widened_requests_are_never_approved_wide() -> anyhow::Result<()> {
    for version in [Version::V2026_4_9, Version::V2026_9_6] {
        let rig = Rig::start(version).await?;
        for n in 0..200 {
            let spec = DeviceSpec::browser().with_scopes(&[READ]);
            let id = rig.raise(&spec).await?;
            let target = if n % 2 == 0 { by_request(&id) } else { by_device(&spec.device_id) };
            let body = expecting(target, json!({"max_scopes": [READ]}));
            let (fake, device) = (rig.fake.clone(), spec.device_id.clone());
            let code = match n % 4 {
                0 | 1 => {
                    fake.widen(&device, &[ADMIN]);
                    typed(&rig.approve(body).await?)
                }
                2 => {
                    fake.supersede_on_approve_adding(Times::Next(1), &[ADMIN]);
                    typed(&rig.approve(body).await?)
                }
                _ => {
                    let race = tokio::spawn(async move { fake.widen(&device, &[ADMIN]) });
                    let code = typed(&rig.approve(body).await?);
                    race.await?;
                    code
                }
            };
            // Whoever wins the race: never what was not expected.
            let wide = rig.fake.truth(&spec.device_id).is_some_and(|truth| truth.scopes.contains(ADMIN));
            assert!(!wide, "{version:?} {n}: {code}");
            let refused = code == "exceeds_expectation";
            assert!(refused || (n % 4 == 3 && code == "approved"), "{version:?} {n}: {code}");
            assert_eq!(rig.fake.truth(&spec.device_id).is_some(), code == "approved", "{version:?} {n}");
            rig.fake.remove(&spec.device_id);
            if let Some(left) = rig.fake.pending_id(&spec.device_id) {
                rig.fake.reject_out_of_band(&left);
            }
        }
    }
    Ok(())
}
