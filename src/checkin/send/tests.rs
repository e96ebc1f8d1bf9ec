use proptest::prelude::*;

use super::*;

#[test]
fn an_answer_is_scheduling_and_nothing_else() {
    let good = r#"{"ack":{"boot_id":"b","seq":3,"events":7},"next_s":99999,"command":"reboot","ack2":[1,{"a":null}]}"#;
    let answer = parse(good.as_bytes()).unwrap();
    assert_eq!((answer.ack.seq, answer.ack.events, answer.next_s), (3, 7, 99_999));
    // What is passed over may be as deep as it likes: nothing descends into it.
    let deep = |field: &str| {
        let (open, close) = ("[".repeat(1900), "]".repeat(1900));
        format!(r#"{{"ack":{{"boot_id":"b","seq":3}},{field}:{open}{close}}}"#)
    };
    assert!(parse(deep(r#""next_s":1,"x""#).as_bytes()).is_ok());
    let deep = deep(r#""next_s""#);
    let long = format!(r#"{{"ack":{{"boot_id":"b","seq":3}},"next_s":1}}{}"#, " ".repeat(MAX_ANSWER));
    let bad = [
        "",
        "{}",
        "null",
        "[]",
        "<html>",
        "{\"ack\":",
        "{\"ack\":{},\"next_s\":1}",
        "\u{feff}{}",
        r#"{"ack":{"boot_id":"b","seq":-1},"next_s":1}"#,
        r#"{"ack":{"boot_id":"b","seq":1.5},"next_s":1}"#,
        r#"{"ack":{"boot_id":"b","seq":1},"next_s":"300"}"#,
        r#"{"ack":{"boot_id":"b","seq":1},"next_s":1e99}"#,
        r#"{"ack":{"boot_id":"b","seq":1},"next_s":1} {}"#,
        r#"{"ack":{"boot_id":7,"seq":1},"next_s":1}"#,
        deep.as_str(),
        long.as_str(),
    ];
    for text in bad {
        let why = parse(text.as_bytes()).unwrap_err();
        assert!(why.starts_with("its answer is") && why.len() < 80, "{text}: {why}");
    }
}

#[test]
fn statuses_and_what_they_mean() {
    let failed = |status, after| refused(status, after).failed;
    assert_eq!(failed(401, None), Failed::Unauthorised);
    assert_eq!(failed(403, Some(5)), Failed::Unauthorised);
    assert_eq!(failed(503, Some(5)), Failed::RetryAfter(Duration::from_secs(5)));
    assert_eq!(failed(429, Some(u64::MAX)), Failed::RetryAfter(Duration::from_secs(u64::MAX)));
    for status in [100, 101, 201, 204, 301, 302, 307, 308, 400, 404, 409, 413, 422, 429, 500, 502, 503, 999] {
        assert_eq!(failed(status, None), Failed::Status, "{status}");
    }
}

proptest! {
    #[test]
    fn hostile_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = parse(&bytes);
    }
}
