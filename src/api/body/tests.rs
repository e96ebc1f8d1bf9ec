use super::*;

fn approve(text: &str) -> Result<ApproveCommand, String> {
    let body: ApproveBody = crate::json::parse(text.as_bytes())?;
    body.command(Patience::default()).map_err(|p| p.detail)
}

#[test]
fn every_form_of_approve_has_one_meaning() {
    let target = |text: &str| approve(text).unwrap().target;
    assert_eq!(target(r#"{"kind":"device","request_id":"r"}"#), Target::Request(Kind::Device, "r".into()));
    assert_eq!(target(r#"{"kind":"device","device_id":"d"}"#), Target::Device("d".into()));
    assert_eq!(target(r#"{"kind":"device","only_pending":true}"#), Target::OnlyPending);
    assert_eq!(target(r#"{"kind":"node","request_id":"r"}"#), Target::Request(Kind::Node, "r".into()));
    let code = Target::ChannelCode { channel: "telegram".into(), account: None, code: "ABCD2345".into() };
    assert_eq!(target(r#"{"kind":"channel","channel":"telegram","code":"ABCD2345"}"#), code);
}

#[test]
fn every_other_form_names_the_field() {
    for (text, names) in [
        (r#"{"kind":"device"}"#, "request_id, device_id and only_pending"),
        (r#"{"kind":"device","request_id":"r","device_id":"d"}"#, "exactly one"),
        (r#"{"kind":"device","only_pending":false}"#, "only_pending"),
        (r#"{"kind":"device","request_id":""}"#, "request_id"),
        (r#"{"kind":"device","request_id":"a\nb"}"#, "request_id"),
        (r#"{"kind":"device","request_id":"r","channel":"x"}"#, "channel"),
        (r#"{"kind":"node","device_id":"d"}"#, "device_id"),
        (r#"{"kind":"node"}"#, "request_id: is missing"),
        (r#"{"kind":"channel","request_id":"r"}"#, "channel: is missing"),
        (r#"{"kind":"channel","channel":"t"}"#, "request_id and code"),
        (r#"{"kind":"gateway"}"#, "kind"),
        (r#"{"kind":"device","request_id":7}"#, "request_id"),
        (r#"{"kind":"device","request_id":"r","latest":true}"#, "latest"),
        (r#"{"kind":"device","kind":"node","request_id":"r"}"#, "duplicate field `kind`"),
        (r#"{"kind":"device","device_id":"d","expect":{"scopes":[]}}"#, "scopes"),
        (r#"{"kind":"device","device_id":"d","expect":{"role":1}}"#, "expect.role"),
    ] {
        let fault = approve(text).unwrap_err();
        assert!(fault.contains(names), "{text}: {fault}");
    }
}
