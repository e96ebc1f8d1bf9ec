use super::*;

fn faults_of(text: &str) -> String {
    match Config::parse(text, &Env::new()) {
        Ok(config) => {
            let lines: Vec<String> = faults(&config).iter().map(|(key, why)| format!("{key}: {why}")).collect();
            lines.join("\n")
        }
        Err(faults) => faults.to_string(),
    }
}

#[test]
fn what_cannot_work_is_said_with_its_key_and_remedy() {
    let good = "[registry]\nurl = \"https://r.example\"\ntenant = \"t\"\n[machine]\nsecret_file = \"/s\"\n";
    assert_eq!(faults_of(good), "");
    assert_eq!(faults_of(&good.replace("[machine]\nsecret_file", "credential_file")), "");
    for (from, to, said) in [
        ("tenant = \"t\"", "", "registry.tenant: is needed"),
        ("\"t\"", "\"a b\"", "registry.tenant: must be 1 to 64"),
        ("[machine]\nsecret_file = \"/s\"", "", "registry.url: there is no credential"),
        ("https", "http", "registry.url: must begin with https"),
        ("r.example", "10.0.0.1", "set registry.allow_private"),
        ("[machine]\nsecret_file", "credential", "registry.credential: must be 16 to 512"),
        ("[machine]", "mode = \"sometimes\"\n[machine]", "registry.mode: must be interval or quiet"),
        ("[machine]", "pin_sha256 = \"abc\"\n[machine]", "registry.pin_sha256: must be 64"),
        ("[machine]", "allow_private = \"yes\"\n[machine]", "registry.allow_private: must be true or false"),
        ("[machine]", "ca_file = \"ca.pem\"\n[machine]", "registry.ca_file: must be an absolute path"),
    ] {
        let text = good.replace(from, to);
        assert!(faults_of(&text).contains(said), "{text}: {}", faults_of(&text));
    }
}
