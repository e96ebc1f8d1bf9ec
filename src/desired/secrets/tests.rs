use super::*;
use proptest::prelude::*;

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn vault(letter: &str) -> Vault {
    Vault::new(&secret(&letter.repeat(32))).unwrap()
}

fn one() -> Store {
    let mut store = Store::default();
    store.set(&vault("a"), "OPENAI_API_KEY", &secret("hunter2"), None).unwrap();
    store
}

#[test]
fn what_was_saved_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets.json");
    let mut store = Store::load(&path).unwrap();
    assert_eq!(store, Store::default());
    let until = UnixMs::parse("2027-01-01T00:00:00Z");
    let long = "ü\n".repeat(LONGEST_VALUE / 3);
    store.set(&vault("a"), "A", &secret("hunter2"), until).unwrap();
    store.set(&vault("a"), "B", &secret(&long), None).unwrap();
    store.set(&vault("a"), "C", &secret("hunter2"), None).unwrap();
    assert!(store.remove("C") && !store.remove("C"));
    store.save(&path).unwrap();

    let text = files::read_text(&path, LONGEST_FILE).unwrap();
    assert!(!text.contains("hunter2") && !text.contains(&BASE64URL_NOPAD.encode(b"hunter2")), "{text}");
    let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
    assert_eq!(mode & 0o777, 0o600);
    let loaded = Store::load(&path).unwrap();
    assert_eq!(loaded, store);
    let opened = loaded.open_all(&vault("a")).unwrap();
    assert_eq!(opened, BTreeMap::from([("A".to_owned(), secret("hunter2")), ("B".to_owned(), secret(&long))]));
    let listed = serde_json::to_value(loaded.list()).unwrap();
    assert_eq!(listed[0]["expires_at"], "2027-01-01T00:00:00.000Z");
    assert!(listed[1].get("expires_at").is_none());
}

#[test]
fn nothing_prints_a_value() {
    let store = one();
    let shown = format!("{:?} {store:?} {:?} {:?}", vault("a"), store.list(), store.open_all(&vault("a")));
    assert!(!shown.contains("hunter2") && !shown.contains("aaaaaaaa"), "{shown}");
}

#[test]
fn a_fingerprint_tells_values_apart_and_depends_on_the_machine() {
    let print = |letter, value| vault(letter).fingerprint(&secret(value));
    assert_eq!(print("a", "x"), print("a", "x"));
    assert_ne!(print("a", "x"), print("a", "y"));
    assert_ne!(print("a", "x"), print("b", "x"));
    assert_eq!(print("a", "x").len(), 16);
}

#[test]
fn the_same_value_is_sealed_differently_each_time() {
    assert_ne!(one().secrets["OPENAI_API_KEY"].sealed, one().secrets["OPENAI_API_KEY"].sealed);
}

#[test]
fn a_machine_secret_is_long_and_printable() {
    for bad in ["", "short", &"x".repeat(31), &"x ".repeat(16), &"ü".repeat(32), &format!("{}\n", "x".repeat(32))] {
        let fault = Vault::new(&secret(bad)).unwrap_err();
        assert!(fault.starts_with("machine.secret: must be at least 32"), "{fault}");
    }
}

#[test]
fn another_machine_secret_opens_nothing() {
    let fault = one().open_all(&vault("b")).unwrap_err();
    assert!(fault.contains("OPENAI_API_KEY") && fault.contains("PUT /v1/secrets/NAME"), "{fault}");
}

#[test]
fn every_changed_byte_is_noticed() {
    let kept = one();
    let sealed = BASE64URL_NOPAD.decode(kept.secrets["OPENAI_API_KEY"].sealed.as_bytes()).unwrap();
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(vault("a").open("OPENAI_API_KEY", &BASE64URL_NOPAD.encode(&changed)).is_none(), "byte {at}");
        assert!(vault("a").open("OPENAI_API_KEY", &BASE64URL_NOPAD.encode(&sealed[..at])).is_none(), "cut at {at}");
    }
}

#[test]
fn a_value_cannot_be_passed_off_as_anothers() {
    let mut store = one();
    store.set(&vault("a"), "COMPOSIO_API_KEY", &secret("other"), None).unwrap();
    let (one, two) = (store.secrets["OPENAI_API_KEY"].clone(), store.secrets["COMPOSIO_API_KEY"].clone());
    store.secrets.insert("OPENAI_API_KEY".to_owned(), two);
    store.secrets.insert("COMPOSIO_API_KEY".to_owned(), one);
    let fault = store.open_all(&vault("a")).unwrap_err();
    assert!(fault.contains("COMPOSIO_API_KEY, OPENAI_API_KEY"), "{fault}");
}

#[test]
fn names_and_values_have_limits() {
    let mut store = one();
    let long = "A".repeat(129);
    let reserved = ["OPENCLAW_SIDECAR_X", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "HOME", "PATH"];
    let bad = ["", "a", "1A", "A-B", "Ä", "A=B", "A\n", &long, "LD_PRELOAD", "NODE_OPTIONS"];
    for name in bad.into_iter().chain(reserved) {
        let fault = store.set(&vault("a"), name, &secret("x"), None).unwrap_err();
        assert!(fault.starts_with("name: "), "{name}: {fault}");
    }
    for value in ["", "a\0b", &"x".repeat(LONGEST_VALUE + 1)] {
        let fault = store.set(&vault("a"), "A", &secret(value), None).unwrap_err();
        assert!(fault.starts_with("value: "), "{fault}");
    }
    for n in 1..MOST {
        store.set(&vault("a"), &format!("A{n}"), &secret("x"), None).unwrap();
    }
    assert!(store.set(&vault("a"), "ONE_MORE", &secret("x"), None).unwrap_err().contains("128"));
    store.set(&vault("a"), "A1", &secret("y"), None).unwrap();
}

#[test]
fn a_damaged_file_is_named_with_its_remedy() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secrets.json");
    let entry = r#"{"sealed":"","set_at":"2026-11-20T00:00:00Z","fingerprint":""}"#;
    let damaged = [
        String::new(),
        "{}".to_owned(),
        r#"{"version":2,"secrets":{}}"#.to_owned(),
        r#"{"version":1,"secrets":{},"more":1}"#.to_owned(),
        format!(r#"{{"version":1,"secrets":{{"PATH":{entry}}}}}"#),
        format!(r#"{{"version":1,"secrets":{{"A":{}}}}}"#, entry.replace("2026", "later")),
    ];
    for content in damaged {
        std::fs::write(&path, &content).unwrap();
        let fault = Store::load(&path).unwrap_err();
        assert!(fault.contains("secrets.json") && fault.contains("restore the file"), "{content}: {fault}");
    }
    std::fs::remove_file(&path).unwrap();
    std::fs::create_dir(&path).unwrap();
    assert!(Store::load(&path).unwrap_err().contains("restore the file"));
}

proptest! {
    #[test]
    fn hostile_files_never_panic(content in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Store::parse(&content);
    }

    #[test]
    fn hostile_entries_never_panic(name in "[A-Z_]{1,8}", sealed in ".{0,60}", at in "[0-9TZ:.+-]{0,30}") {
        let entry = serde_json::json!({"sealed": sealed, "set_at": at, "fingerprint": sealed, "expires_at": at});
        let mut file = serde_json::json!({"version": 1, "secrets": {name.clone(): entry}});
        let _ = Store::parse(file.to_string().as_bytes());
        file["secrets"][&name]["set_at"] = "2026-11-20T00:00:00Z".into();
        file["secrets"][&name]["expires_at"] = "9999-12-31T23:59:59Z".into();
        if let Ok(store) = Store::parse(file.to_string().as_bytes()) {
            prop_assert!(store.open_all(&vault("a")).is_err());
            prop_assert_eq!(store.list().len(), 1);
        }
    }
}
