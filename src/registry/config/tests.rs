use super::*;

#[test]
fn the_shipped_example_is_the_table() {
    let shipped = include_str!("../../../config/registry.toml");
    assert_eq!(shipped, REGISTRY.example(), "write it anew with: openclaw-registry config init");
}

/// A configuration of one key, as the environment gives it.
fn of(name: &str, value: &str) -> Result<Config, String> {
    let name = format!("{ENV_PREFIX}{}", name.replace('.', "_").to_uppercase());
    Config::load(None, &Env::from([(name, value.to_owned())])).map_err(|faults| faults.to_string())
}

#[test]
fn places_that_cannot_hold_data_are_refused() {
    for wrong in ["registry.db", "mysql://u:hunter2@db/x", "sqlite:///x", "./x"] {
        let why = of("store", wrong).unwrap_err();
        assert!(why.starts_with("store: must be a path that begins with /, or a URL"), "{why}");
        assert!(!why.contains("hunter2"), "{why}");
    }
    for good in ["/data/registry.db", "postgres://u@db/x", "postgresql://db/x", ""] {
        of("store", good).unwrap();
    }
    assert!(of("store_ca_file", "/ca.pem").unwrap_err().contains("store_ca_file: is for PostgreSQL"));
    for edge in ["0.0.0.0:9444", "[::1]:9444"] {
        assert!(of("listen.edge", edge).unwrap_err().contains("listen.edge: is on the port of listen.tls"), "{edge}");
    }
    of("listen.edge", "0.0.0.0:9445").unwrap();
}

#[test]
fn files_that_cannot_be_used_are_found_before_they_are_needed() {
    let dir = tempfile::tempdir().unwrap();
    let junk = dir.path().join("junk.pem");
    std::fs::write(&junk, "junk").unwrap();
    for path in [junk.clone(), dir.path().join("none.pem")] {
        let mut config = Config { webhooks_ca_file: Some(path.clone()), ..Config::default() };
        assert_eq!(config.faults()[0].key, "webhooks.ca_file");
        (config.webhooks_ca_file, config.tls.cert_file, config.tls.key_file) = (None, Some(path.clone()), Some(path));
        assert_eq!(config.faults()[0].key, "tls.cert_file");
    }
    let place = |place: &str| Config { store: given(place), ..Config::default() };
    let missing = dir.path().join("none/deep/registry.db");
    let fault = &place(&missing.display().to_string()).faults()[0];
    assert!(fault.key == "store" && fault.what.contains("does not exist; create it"), "{fault:?}");
    #[cfg(feature = "postgres")]
    assert_eq!(place("postgres://").faults()[0].key, "store");
    assert_eq!(Config::default().faults(), []);
}

#[test]
fn faults_name_their_keys_and_secrets_are_never_shown() {
    let env = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Env>();
    let wrong = env(&[("OPENCLAW_REGISTRY_CHECKIN_INTERVAL_S", "5"), ("OPENCLAW_REGISTRY_LISTEN_TSL", "x")]);
    let faults = Config::load(None, &wrong).unwrap_err().to_string();
    assert!(faults.contains("checkin.interval_s") && faults.contains("LISTEN_TSL"), "{faults}");
    let short = Config::load(None, &env(&[("OPENCLAW_REGISTRY_SECRET", "hunter2")])).unwrap();
    let why = short.find_secret().unwrap_err();
    assert!(why.contains("32") && !why.contains("hunter2") && !format!("{short:?}").contains("hunter2"));
    let both = Config::default().credentials().unwrap_err();
    assert!(both.contains("openssl rand") && both.contains("OPENCLAW_REGISTRY_AUTH_CREDENTIALS_FILE"), "{both}");
    assert!(!both.contains("OPENCLAW_SIDECAR"), "{both}");
}
