//! The planted secrets, and every form in which one would still be recognised.

use data_encoding::{BASE64_NOPAD, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXUPPER};

/// One secret and where it was planted.
#[derive(Debug, Clone)]
pub struct Canary {
    pub slot: &'static str,
    pub value: String,
}

#[derive(Debug, Clone, Default)]
pub struct Canaries(pub Vec<Canary>);

impl Canaries {
    pub fn plant(&mut self, slot: &'static str, value: &str) -> String {
        self.0.push(Canary { slot, value: value.to_owned() });
        value.to_owned()
    }

    pub fn value(&self, slot: &str) -> &str {
        self.0.iter().find(|canary| canary.slot == slot).map_or("", |canary| &canary.value)
    }

    /// Slot and form of everything that is recognised in a text.
    pub fn hits(&self, text: &str) -> Vec<String> {
        let found = |canary: &Canary| {
            let form = forms(&canary.value).into_iter().find(|(_, form)| text.contains(form.as_str()))?;
            let at = text.find(&form.1).unwrap_or_default();
            let around: String = text[..at].chars().rev().take(80).collect::<Vec<_>>().into_iter().rev().collect();
            Some(format!("{} ({}) after {around:?}", canary.slot, form.0))
        };
        self.0.iter().filter_map(found).collect()
    }

    /// Whose form this is.
    pub fn slot_of(&self, form: &str) -> &'static str {
        let is = |canary: &&Canary| forms(&canary.value).iter().any(|(_, known)| known == form);
        self.0.iter().find(is).map_or("unknown", |canary| canary.slot)
    }
}

/// All forms, by name. Of a text of several lines the longest is looked for.
pub fn forms(value: &str) -> Vec<(&'static str, String)> {
    let value = value.lines().max_by_key(|line| line.len()).unwrap_or_default();
    let quoted = serde_json::to_string(value).expect("a text");
    let encoded = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    let mut all = vec![
        ("as it is", value.to_owned()),
        ("in JSON", quoted.trim_matches('"').to_owned()),
        ("in a URL", value.bytes().map(encoded).collect()),
        ("in hexadecimal", HEXLOWER.encode(value.as_bytes())),
        ("in upper-case hexadecimal", HEXUPPER.encode(value.as_bytes())),
    ];
    if value.len() >= 32 {
        // Lines that are shown may be cut.
        all.push(("its first half", value[..value.len() / 2].to_owned()));
        all.push(("its second half", value[value.len() / 2..].to_owned()));
    }
    for before in 0..3 {
        all.push(("in base64", inside(&BASE64_NOPAD, value, before)));
        all.push(("in URL-safe base64", inside(&BASE64URL_NOPAD, value, before)));
    }
    all
}

/// What of the encoding depends on the value alone, when so many bytes stand before it and others follow.
fn inside(encoding: &Encoding, value: &str, before: usize) -> String {
    let text = encoding.encode(&[&vec![0; before], value.as_bytes()].concat());
    text[(before * 8).div_ceil(6)..(before + value.len()) * 8 / 6].to_owned()
}

#[test]
fn every_form_is_recognised() {
    let mut canaries = Canaries::default();
    let value = canaries.plant("slot", "a+b/c=d \"e\" 0123456789");
    let base64 = data_encoding::BASE64.encode(format!("user:{value}\n").as_bytes());
    for text in [
        format!("x {value} y"),
        serde_json::json!({"a": value}).to_string(),
        base64,
        HEXLOWER.encode(format!("..{value}..").as_bytes()),
        "a?b=a%2Bb%2Fc%3Dd%20%22e%22%200123456789".to_owned(),
    ] {
        assert_eq!(canaries.hits(&text).len(), 1, "{text}");
    }
    assert!(canaries.hits("a+b/c=d 0123456789").is_empty());
    assert_eq!(canaries.slot_of(&forms(&value)[3].1), "slot");
}
