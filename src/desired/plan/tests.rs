//! By example, and by property on arbitrary files, documents and records.

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;
use crate::desired::applied::adopt;
use crate::desired::openclaw_json::Roster;

const NAMES: &str = "gateway|auth|token|mode|port|controlUi|allowedOrigins|trustedProxies|allowInsecureAuth|agents|list|\
                     entries|main|defaults|id|logging|file|skills|a|b";

/// Values as a file might have them, with the names that matter in any place.
fn value() -> impl Strategy<Value = Value> {
    let text = "|token|none|main|https://a|\\$\\{A\\}|x";
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-2..3_i32).prop_map(Value::from),
        text.prop_map(Value::from),
    ];
    leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(NAMES, inner, 0..5).prop_map(|members| Value::Object(members.into_iter().collect())),
        ]
    })
}

/// A file.
pub(in crate::desired) fn object() -> impl Strategy<Value = Map<String, Value>> {
    btree_map(NAMES, value(), 0..5).prop_map(|members| members.into_iter().collect())
}

/// What documents of the tests may own.
const OWNABLE: [&str; 11] = [
    "a.b.c",
    "a.b.d",
    "a.list",
    "agents.defaults.model",
    "agents.entries.main.name",
    "agents.entries.sales.workspace",
    "gateway.auth.token",
    "gateway.mode",
    "logging.file",
    "logging.level",
    "x",
];

fn document() -> impl Strategy<Value = Document> {
    let wished = prop_oneof![Just(json!("${A}")), Just(json!("${B}"))];
    let origins = btree_set("https://[abc]", 0..3);
    (vec((proptest::sample::select(&OWNABLE[..]), wished), 0..6), origins).prop_map(|(wishes, origins)| {
        let mut document = Document::default();
        for (name, value) in wishes {
            set(&mut document.config, name, value);
        }
        document.gateway.allowed_origins = origins.into_iter().collect();
        assert_eq!(document.faults(), Vec::<String>::new());
        document
    })
}

fn applied() -> impl Strategy<Value = Applied> {
    let form = prop_oneof![Just(Form::Unknown), Just(Form::Kept), Just(Form::Dropped), value().prop_map(Form::Became)];
    let path = || vec(NAMES, 0..4);
    let owned = (path(), value(), any::<bool>(), any::<bool>(), form)
        .prop_map(|(path, value, wrote, default, form)| Owned { path, value, wrote, default, form });
    let list = || vec("https://[ab]", 0..3);
    (vec(owned, 0..4), btree_set(path(), 0..4), list(), list(), "|1").prop_map(
        |(owned, made, origins, proxies, gateway_version)| Applied {
            gateway_version,
            owned,
            made,
            origins,
            proxies,
            ..Applied::default()
        },
    )
}

fn set(config: &mut Map<String, Value>, dotted: &str, value: Value) {
    let (parents, last) = dotted.rsplit_once('.').map_or((vec![], dotted), |(p, l)| (p.split('.').collect(), l));
    let map = parents
        .into_iter()
        .fold(config, |map, name| map.entry(name).or_insert_with(|| json!({})).as_object_mut().unwrap());
    map.insert(last.to_owned(), value);
}

fn facts() -> Facts<'static> {
    Facts { generation: 7, port: 18789, state_dir: Path::new("/s"), gateway_version: "1", fresh_token: "fresh" }
}

fn map(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

fn wish(config: Value) -> Document {
    let document = Document { config: map(config), ..Document::default() };
    assert_eq!(document.faults(), Vec::<String>::new());
    document
}

fn run(current: &Map<String, Value>, document: &Document, applied: &Applied) -> Plan {
    plan(current, document, applied, &facts())
}

/// A first plan.
fn first(current: Value, document: &Document) -> Plan {
    run(&map(current), document, &Applied::default())
}

fn seeded() -> Value {
    json!({
        "gateway": {"mode": "local", "port": 18789, "auth": {"mode": "token", "token": "fresh"}},
        "agents": {"defaults": {"workspace": "/s/workspace"}, "list": [{"id": "main"}]},
        "skills": {"entries": {"composio": {"enabled": true}}},
        "logging": {"file": "/s/logs/gateway.log"},
    })
}

#[test]
fn an_empty_file_gets_what_a_hosted_tenant_needs() {
    let plan = first(json!({}), &Document::default());
    assert_eq!(Value::Object(plan.config.clone()), seeded());
    assert!(plan.changed);
    let token = plan.changes.iter().find(|c| c.path == "gateway.auth.token").unwrap();
    assert_eq!(token.will, Some(json!("[redacted]")));
    assert!(!serde_json::to_string(&(plan.changes, plan.applied)).unwrap().contains("fresh"));
}

#[test]
fn what_the_tenant_has_is_not_touched_by_defaults() {
    let theirs = json!({
        "gateway": {"mode": "remote", "port": 18789, "auth": {"mode": "password", "password": "p"}},
        "agents": {"defaults": {"workspace": "/w"}, "entries": {"sales": {}}},
        "skills": {"entries": {"composio": {"enabled": false}}},
        "logging": {"file": "/dev/null"},
    });
    let plan = first(theirs, &Document::default());
    assert!(!plan.changed && plan.changes.is_empty(), "{:?}", plan.changes);
}

#[test]
fn nobody_comes_in_without_a_secret() {
    let auth = |auth: Value| {
        let plan = first(json!({"gateway": {"auth": auth}}), &Document::default());
        plan.config["gateway"]["auth"].clone()
    };
    assert_eq!(auth(json!({"mode": "none"})), json!({"mode": "token", "token": "fresh"}));
    assert_eq!(auth(json!({"mode": "none", "token": "t"})), json!({"mode": "token", "token": "t"}));
    assert_eq!(auth(json!({"mode": "token", "token": " "})), json!({"mode": "token", "token": "fresh"}));
    assert_eq!(auth(json!({"token": "t"})), json!({"mode": "token", "token": "t"}));
    assert_eq!(auth(json!({"token": "t", "password": "p"})), json!({"mode": "token", "token": "t", "password": "p"}));
    let reference = json!({"mode": "token", "token": {"source": "env", "id": "T"}});
    for left in [json!({"password": "p"}), json!({"mode": "trusted-proxy"}), json!({"mode": 7}), json!("x"), reference]
    {
        assert_eq!(auth(left.clone()), left);
    }
    let open = json!({"gateway": {"controlUi": {"allowInsecureAuth": true, "dangerouslyDisableDeviceAuth": false}}});
    let plan = first(open, &Document::default());
    let closed = json!({"allowInsecureAuth": false, "dangerouslyDisableDeviceAuth": false});
    assert_eq!(plan.config["gateway"]["controlUi"], closed);
}

#[test]
fn the_port_is_where_the_sidecar_looks() {
    let plan = first(json!({"gateway": {"port": 1}}), &Document::default());
    let change = plan.changes.iter().find(|c| c.path == "gateway.port").unwrap();
    assert_eq!((&change.was, &change.will), (&Some(json!(1)), &Some(json!(18789))));
}

#[test]
fn agents_are_written_in_the_form_of_the_file() {
    let document = wish(json!({"agents": {"entries": {"main": {"name": "Acme"}, "sales": {}}}}));
    let list = first(json!({"agents": {"list": [{"id": "z"}, {"id": "main", "name": "Mine"}]}}), &document);
    let expected = json!([{"id": "z"}, {"id": "main", "name": "Acme"}, {"id": "sales"}]);
    assert_eq!(list.config["agents"]["list"], expected);
    assert!(list.changes.iter().any(|c| c.path == "agents.entries.main.name" && c.was == Some(json!("Mine"))));
    let entries = first(json!({"agents": {"entries": {"main": {"name": "Mine"}}}}), &document);
    assert_eq!(entries.config["agents"]["entries"], json!({"main": {"name": "Acme"}, "sales": {}}));
    assert!(entries.config["agents"].get("list").is_none());
    // The gateway moves the list: nothing is left to do.
    let moved = canonical(&list.config).0;
    let applied = adopt(&moved, &list.applied);
    assert!(!run(&moved, &document, &applied).changed);
    // An agent no longer wanted goes, unless the tenant made it his own.
    let next = run(&moved, &Document::default(), &applied);
    assert_eq!(next.config["agents"]["entries"], json!({"z": {}, "main": {}}));
}

#[test]
fn a_member_given_back_goes_only_with_our_value() {
    let document = wish(json!({"tools": {"deny": ["exec"], "web": {"on": true}}, "theirs": 1}));
    let plan = first(json!({"theirs": 1}), &document);
    let kept = run(&plan.config, &Document::default(), &plan.applied);
    assert_eq!(Value::Object(kept.config), merged(seeded(), json!({"theirs": 1})), "it was there before us");
    let mut changed = plan.config.clone();
    set(&mut changed, "tools.deny", json!(["exec", "web"]));
    let kept = run(&changed, &Document::default(), &plan.applied);
    assert_eq!(kept.config["tools"], json!({"deny": ["exec", "web"]}));
}

fn merged(mut base: Value, more: Value) -> Value {
    base.as_object_mut().unwrap().extend(map(more));
    base
}

#[test]
fn an_object_wished_without_members_keeps_the_tenants() {
    let plan = first(json!({"logging": {"level": "debug"}}), &wish(json!({"logging": {}})));
    assert_eq!(plan.config["logging"]["level"], "debug");
}

#[test]
fn lists_are_sets_and_theirs_stay() {
    let with = |origins: &[&str]| {
        let mut document = Document::default();
        document.gateway.allowed_origins = origins.iter().map(|o| (*o).to_owned()).collect();
        document
    };
    let origins = |plan: &Plan| plan.config["gateway"]["controlUi"]["allowedOrigins"].clone();
    let one = first(json!({"gateway": {"controlUi": {"allowedOrigins": ["t", "a"]}}}), &with(&["a", "b"]));
    assert_eq!(origins(&one), json!(["t", "a", "b"]));
    let mut theirs = one.config.clone();
    set(&mut theirs, "gateway.controlUi.allowedOrigins", json!(["b", 7, "t", "a", "u"]));
    let two = run(&theirs, &with(&["c"]), &one.applied);
    assert_eq!(origins(&two), json!([7, "t", "a", "u", "c"]));
    let three = run(&two.config, &with(&[]), &two.applied);
    assert_eq!(origins(&three), json!([7, "t", "a", "u"]));
    let made = first(json!({}), &with(&["a"]));
    let gone = run(&made.config, &with(&[]), &made.applied);
    assert_eq!(Value::Object(gone.config), seeded());
}

#[test]
fn what_the_gateway_made_of_ours_is_adopted_once() {
    let document = wish(json!({"old": {"name": 1}, "number": "5", "kept": true, "secret": {"token": "${T}"}}));
    let start = first(json!({}), &document);
    let mut migrated = start.config.clone();
    migrated.remove("old");
    set(&mut migrated, "number", json!(5));
    set(&mut migrated, "logging", json!({}));
    let adopted = adopt(&migrated, &start.applied);
    let same = run(&migrated, &document, &adopted);
    assert!(!same.changed, "{:?}", same.changes);
    // Later it is the tenant who changes it.
    let mut changed = migrated.clone();
    set(&mut changed, "kept", json!(false));
    set(&mut changed, "number", json!(6));
    let again = run(&changed, &document, &adopt(&changed, &same.applied));
    assert_eq!((&again.config["kept"], &again.config["number"]), (&json!(true), &json!("5")));
    // Another gateway gets the wish again, and so does another wish.
    let newer = plan(&migrated, &document, &adopted, &Facts { gateway_version: "2", ..facts() });
    assert_eq!(newer.config["old"], json!({"name": 1}));
    assert_eq!(newer.config["logging"], json!({"file": "/s/logs/gateway.log"}));
    let other = run(&migrated, &wish(json!({"old": {"name": 2}})), &adopted);
    assert_eq!(other.config["old"], json!({"name": 2}));
    assert_eq!(other.config.get("number"), None, "what became of ours goes with it");
    // A secret that the gateway wrote out is not taken into the record.
    let mut told = start.config.clone();
    set(&mut told, "secret.token", json!("hunter2"));
    let adopted = adopt(&told, &start.applied);
    assert!(!serde_json::to_string(&adopted).unwrap().contains("hunter2"));
    assert_eq!(run(&told, &document, &adopted).config["secret"]["token"], "${T}");
}

#[test]
fn the_record_survives_being_stored() {
    let mut document = wish(json!({"a": {"b": 1}}));
    document.files = vec![serde_json::from_value(json!({"path": "bin/x", "content": "abc"})).unwrap()];
    let plan = first(json!({}), &document);
    let stored = serde_json::to_string(&plan.applied).unwrap();
    assert_eq!(serde_json::from_str::<Applied>(&stored).unwrap(), plan.applied);
    assert!(plan.applied.files[0].sha256.starts_with("ba7816bf"));
    assert_eq!(plan.applied.generation, 7);
}

fn overlaps(a: &[String], b: &[String]) -> bool {
    a.iter().zip(b).all(|(a, b)| a == b)
}

/// Every member that plans of these tests may write.
fn ours() -> Vec<KeyPath> {
    let fixed = ["gateway.port", ORIGINS, PROXIES, "gateway.auth", "gateway.controlUi.allowInsecureAuth"];
    let fixed = fixed.into_iter().chain(["gateway.controlUi.dangerouslyDisableDeviceAuth", "agents.entries.main"]);
    fixed.chain(OWNABLE).map(key).chain(defaults(&facts()).map(|(path, _)| path)).collect()
}

fn leaves(config: &Map<String, Value>) -> Vec<(KeyPath, Value)> {
    Document { config: canonical(config).0, ..Document::default() }.leaves()
}

proptest! {
    #[test]
    fn a_second_plan_changes_nothing(current in object(), document in document(), applied in applied()) {
        let one = run(&current, &document, &applied);
        prop_assert_eq!(one.changed, !one.changes.is_empty());
        let two = run(&one.config, &document, &one.applied);
        prop_assert!(!two.changed, "{:?}", two.changes);
        prop_assert_eq!(two.applied, one.applied);
        for (path, value) in document.leaves() {
            prop_assert!(is_met(at(&canonical(&one.config).0, &path), &value) || applied != Applied::default());
        }
    }

    #[test]
    fn what_is_the_tenants_survives(current in object(), documents in vec(document(), 1..5)) {
        let mut config = current.clone();
        let mut applied = Applied::default();
        for document in documents {
            Plan { config, applied, .. } = run(&config, &document, &applied);
            applied = adopt(&config, &applied);
        }
        let after = canonical(&config).0;
        for (path, value) in leaves(&current) {
            if !ours().iter().any(|owned| overlaps(owned, &path)) {
                prop_assert_eq!(at(&after, &path), Some(&value), "{:?}", path);
            }
        }
    }

    #[test]
    fn what_is_given_back_is_as_it_was(current in object(), document in document()) {
        let before = canonical(&current).0;
        let free = |path: &KeyPath| leaves(&current).iter().all(|(theirs, _)| !overlaps(path, theirs))
            && at(&before, path).is_none();
        let origins = at(&before, &key(ORIGINS)).is_none_or(Value::is_array) && leaves(&current).iter()
            .all(|(theirs, _)| !overlaps(&key(ORIGINS), theirs) || *theirs == key(ORIGINS));
        prop_assume!(origins && document.leaves().iter().all(|(path, _)| free(path)));
        let one = run(&current, &document, &Applied::default());
        let two = run(&one.config, &Document::default(), &one.applied);
        let never = run(&current, &Document::default(), &Applied::default());
        prop_assert_eq!(two.config, never.config);
    }

    #[test]
    fn a_tenants_change_of_ours_is_put_back(
        current in object(), document in document(), which in any::<proptest::sample::Index>(), other in value(),
    ) {
        let one = run(&current, &document, &Applied::default());
        let applied = adopt(&one.config, &one.applied);
        let (mut changed, roster) = canonical(&one.config);
        let wishes = wishes(&document, &facts());
        let (path, value) = &wishes[which.index(wishes.len())];
        set(&mut changed, &path.join("."), other);
        let two = run(&restored(changed, &roster), &document, &adopt(&one.config, &applied));
        let after = canonical(&two.config).0;
        prop_assert_eq!(at(&after, path), Some(value));
    }

    #[test]
    fn what_a_gateway_drops_is_not_put_again(current in object(), document in document(), every in 2..5_usize) {
        let one = run(&current, &document, &Applied::default());
        let (mut after, _) = canonical(&one.config);
        for (path, _) in document.leaves().iter().filter(|(p, _)| p[0] == "a" || p[0] == "x").step_by(every) {
            let (last, parents) = path.split_last().unwrap();
            let parent = parents.iter().fold(&mut after, |map, name| map[name].as_object_mut().unwrap());
            parent.remove(last);
        }
        let two = run(&after, &document, &adopt(&after, &one.applied));
        prop_assert!(!two.changed, "{:?}", two.changes);
    }

    #[test]
    fn lists_behave_as_sets(
        theirs in vec("https://[a-d]", 0..4), steps in vec(btree_set("https://[a-d]", 0..4), 1..5),
    ) {
        let mut config = map(json!({"gateway": {"controlUi": {"allowedOrigins": theirs}}}));
        let mut applied = Applied::default();
        for ours in steps {
            let mut document = Document::default();
            document.gateway.allowed_origins = ours.iter().cloned().collect();
            Plan { config, applied, .. } = run(&config, &document, &applied);
            let now: Vec<String> = serde_json::from_value(config["gateway"]["controlUi"]["allowedOrigins"].clone()).unwrap();
            let expected: BTreeSet<&String> = ours.iter().chain(&theirs).collect();
            prop_assert_eq!(now.iter().collect::<BTreeSet<_>>(), expected);
            prop_assert!(now.starts_with(&theirs));
        }
    }

    #[test]
    fn nothing_panics(current in object(), config in object(), applied in applied()) {
        let document = Document { config, ..Document::default() };
        let plan = run(&current, &document, &adopt(&current, &applied));
        let _ = restored(plan.config, &Roster::List(vec!["main".to_owned()]));
    }
}
