use super::*;
use serde_json::{Map, json};

fn faults(value: &Value) -> Vec<String> {
    Document::parse(value.to_string().as_bytes()).unwrap().faults()
}

/// Exactly one fault, which begins with the field.
fn one(value: &Value, field: &str) -> String {
    let faults = faults(value);
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(faults[0].starts_with(&format!("{field}: ")), "{}", faults[0]);
    faults[0].clone()
}

#[test]
fn config_refuses_nulls_secrets_and_what_stands_elsewhere() {
    let config = |config: Value, field: &str| one(&json!({"config": config}), &format!("config.{field}"));
    assert!(config(json!({"a": {"b": [null]}}), "a.b[0]").contains("leave it out"));
    for (value, field) in [
        (json!({"gateway": {"auth": {"token": "abc"}}}), "gateway.auth.token"),
        (json!({"channels": {"telegram": {"botToken": "x ${A}"}}}), "channels.telegram.botToken"),
        (json!({"env": {"vars": {"OPENAI_API_KEY": "sk"}}}), "env.vars.OPENAI_API_KEY"),
        (json!({"a": [{"headers": {"Authorization": "Bearer x"}}]}), "a[0].headers.Authorization"),
    ] {
        assert!(config(value, field).contains("PUT /v1/secrets/NAME and write \"${NAME}\""));
    }
    config(json!({"gateway": {"port": 1}}), "gateway.port");
    config(json!({"gateway": {"bind": "lan"}}), "gateway.bind");
    config(json!({"gateway": {"controlUi": {"allowedOrigins": []}}}), "gateway.controlUi.allowedOrigins");
    config(json!({"gateway": {"trustedProxies": []}}), "gateway.trustedProxies");
    config(json!({"gateway": 7}), "gateway");
    config(json!({"gateway": {"auth": {"mode": "none"}}}), "gateway.auth.mode");
    config(json!({"gateway": {"controlUi": {"allowInsecureAuth": true}}}), "gateway.controlUi.allowInsecureAuth");
    config(json!({"agents": {"list": []}}), "agents.list");
    config(json!({"agents": {"entries": {}}}), "agents.entries");
    config(json!({"agents": {"entries": {"Main": {}}}}), "agents.entries.Main");
    config(json!({"agents": {"entries": {"main": 7}}}), "agents.entries.main");
    config(json!({"agents": {"entries": {"main": {"id": "x"}}}}), "agents.entries.main");
}

#[test]
fn large_documents_stay_cheap() {
    one(&json!({"config": {"x".repeat(129): 1}}), &format!("config.{}", "x".repeat(129)));
    let members = |n: usize| (0..n).map(|n| (n.to_string(), Value::Null)).collect::<Map<String, Value>>();
    assert_eq!(faults(&json!({"config": {"x".repeat(100_000): members(50_000)}})).len(), 2);
    assert_eq!(faults(&json!({"config": {"x": members(50_000)}})).len(), MAX_FAULTS);
    let numbers: Map<String, Value> = (0..4097).map(|n| (n.to_string(), n.into())).collect();
    one(&json!({"config": {"x": numbers}}), "config");
    let origins: Vec<String> = (0..257).map(|n| format!("https://a{n}")).collect();
    one(&json!({"gateway": {"allowed_origins": origins}}), "gateway.allowed_origins");
}

#[test]
fn files_stay_below_their_roots() {
    let file = |path: &str| json!({"files": [{"path": path, "content": ""}]});
    for path in [
        "",
        "workspace",
        "workspace/",
        "/workspace/a",
        "etc/a",
        "workspace/../a",
        "workspace//a",
        "skills/./a",
        "workspace/a\\b",
        "workspace/a\u{0}",
        "workspace/a\n",
        "Workspace/a",
        "bin/.a.new",
        "workspace/a/",
        &format!("bin/{}", "x".repeat(252)),
    ] {
        one(&file(path), "files[0].path");
    }
    assert!(faults(&file(&format!("bin/{}", "x".repeat(251)))).is_empty());
    let two = |a: &str, b: &str| json!({"files": [{"path": a, "content": ""}, {"path": b, "content": ""}]});
    one(&two("bin/a", "bin/A"), "files[1].path");
    one(&two("bin/a/b", "bin/A"), "files[1].path");
    assert!(faults(&two("bin/a", "bin/a.b")).is_empty());
    one(&json!({"files": [{"path": "bin/a", "content": "x".repeat(MAX_FILE + 1)}]}), "files[0].content");
    for mode in ["644", "0999", "0544", "0777", "0757", "4755", "+644", "0602", ""] {
        one(&json!({"files": [{"path": "bin/a", "content": "", "mode": mode}]}), "files[0].mode");
    }
    let many: Vec<Value> = (0..65).map(|n| json!({"path": format!("bin/{n}"), "content": ""})).collect();
    one(&json!({"files": many}), "files");
}

#[test]
fn variables_leave_what_is_ours_and_hold_no_secret() {
    for name in ["a", "1A", "", "A-B", "HOME", "PATH", "LD_PRELOAD", "NODE_OPTIONS", "OPENCLAW_SIDECAR_X"] {
        one(&json!({"env": {name: "x"}}), &format!("env.{name}"));
    }
    assert!(one(&json!({"env": {"OPENAI_API_KEY": "x"}}), "env.OPENAI_API_KEY").contains("PUT /v1/secrets/OPENAI"));
    one(&json!({"env": {"A": "x\u{0}"}}), "env.A");
    one(&json!({"env": {"A": "x".repeat(MAX_VARIABLE + 1)}}), "env.A");
    let many: Map<String, Value> = (0..129).map(|n| (format!("A{n}"), "".into())).collect();
    one(&json!({"env": many}), "env");
}

#[test]
fn origins_proxies_and_ports_are_checked() {
    let origin = |text: &str| json!({"gateway": {"allowed_origins": [text]}});
    assert!(one(&origin("*"), "gateway.allowed_origins[0]").contains("every website"));
    for text in [
        "",
        "null",
        "acme.example",
        "https://",
        "https://a/",
        "https://A",
        "https://a:0",
        "https://a:65536",
        "https://a:",
        "https://a:080",
        "https://u@a",
        "https://a?b",
        "https://[::g]",
        "https://*.a",
        "://a",
        "https://a b",
    ] {
        one(&origin(text), "gateway.allowed_origins[0]");
    }
    assert!(faults(&origin("tauri://localhost")).is_empty());
    for text in ["", "localhost", "10.0.0.0/33", "::/129", "10.0.0.0/", "0.0.0.0/0", "::/0", "1.2.3.4/08"] {
        one(&json!({"gateway": {"trusted_proxies": [text]}}), "gateway.trusted_proxies[0]");
    }
    one(&json!({"gateway": {"port": 0}}), "gateway.port");
    one(&json!({"gateway": {"port": 65425}}), "gateway.port");
}
