use super::*;

fn env(pairs: &[(&str, &str)]) -> Env {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn environment_wins_over_the_file() {
    let text = "[gateway]\naddress = \"127.0.0.1:1000\"\n[limits]\nmax_connections = 32\n";
    let config = Config::parse(text, &env(&[("OPENCLAW_SIDECAR_GATEWAY_ADDRESS", "127.0.0.1:2000")])).unwrap();
    assert_eq!(config.gateway.address.port(), 2000);
    assert_eq!(config.max_connections, 32);
}

#[test]
fn all_faults_come_at_once_each_with_its_key() {
    let text = "[gateway]\naddress = \"10.0.0.1:18789\"\nadress = \"x\"\n[listen]\ntls = \"127.0.0.1:18800\"\n\
                    [limits]\nmax_connections = \"many\"\n[tls]\ncert_file = \"/a\"\n";
    let faults = Config::parse(text, &env(&[("OPENCLAW_SIDECAR_LISTEN_TSL", "x")])).unwrap_err();
    let keys: Vec<&str> = faults.0.iter().map(|f| f.key.as_str()).collect();
    for expected in [
        "gateway.address",
        "gateway.adress",
        "listen.tls",
        "limits.max_connections",
        "tls.cert_file",
        "OPENCLAW_SIDECAR_LISTEN_TSL",
    ] {
        assert!(keys.contains(&expected), "{expected} missing in {keys:?}");
    }
}

#[test]
fn a_listener_is_turned_off_by_an_empty_text() {
    let config = Config::parse("[listen]\ntls = \"\"\nunix = \"/run/s\"\n", &Env::new()).unwrap();
    assert!(config.listen.tls.is_none());
    let faults = Config::parse("[listen]\ntls = \"\"\nunix = \"\"\n", &Env::new()).unwrap_err();
    assert!(faults.to_string().contains("every listener is off"));
}

#[test]
fn broken_toml_is_one_fault_with_its_place() {
    let faults = Config::parse("[gateway\n", &Env::new()).unwrap_err();
    assert_eq!(faults.0.len(), 1);
    assert!(faults.to_string().contains("line 1"), "{faults}");
}

#[test]
fn the_shipped_example_is_what_init_prints_and_parses() {
    let shipped = include_str!("../../config/sidecar.toml");
    assert_eq!(shipped, SIDECAR.example(), "write it anew with: openclaw-sidecar config init > config/sidecar.toml");
    Config::parse(shipped, &Env::new()).unwrap();
}
