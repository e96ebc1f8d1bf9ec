use super::*;
use proptest::prelude::*;

#[test]
fn control_characters_and_length_are_cut() {
    assert_eq!(tidy("a\u{1b}[31mb\n\u{202e}c"), "a[31mbc");
    assert_eq!(tidy(&"x".repeat(1000)).len(), 256);
    assert_eq!(exact_id("bad\nid"), None);
    assert_eq!(exact_id(""), None);
}

#[test]
fn our_own_device_is_in_no_list() {
    let list: WireList = serde_json::from_str(
        r#"{"pending":[{"requestId":"r","deviceId":"own"},{"requestId":"r2","deviceId":"other","ts":5}],
                "paired":[{"deviceId":"own"},{"deviceId":"third"},{"deviceId":""}]}"#,
    )
    .unwrap();
    let lists = list.into_lists(WireDevice::pending, WireDevice::approved, "own");
    assert_eq!(lists.pending.len(), 1);
    assert_eq!(lists.pending[0].expires_at, Some(UnixMs(300_005)));
    assert_eq!(lists.approved.iter().map(|a| a.device_id.as_str()).collect::<Vec<_>>(), ["third"]);
}

#[test]
fn events_become_notices_and_strangers_are_passed_over() {
    assert!(matches!(
        notice("device.pair.resolved", r#"{"requestId":"r","decision":"approved"}"#),
        Some(Notice::Resolved(Kind::Device, id, true)) if id == "r"
    ));
    assert!(matches!(notice("device.pair.changed", "{}"), Some(Notice::Changed)));
    assert!(notice("health", "{}").is_none());
    assert!(notice("device.pair.requested", r#"{"requestId":7}"#).is_none());
}

proptest! {
    #[test]
    fn hostile_payloads_never_panic(name in "(device|node).pair.(requested|resolved)|presence", text in "\\PC{0,200}") {
        let _ = notice(&name, &text);
        let _ = serde_json::from_str::<WireList>(&text);
        let _ = serde_json::from_str::<WireChannels>(&text);
    }
}
