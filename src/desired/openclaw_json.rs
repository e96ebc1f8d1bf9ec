//! Reading and writing `openclaw.json`, and the two forms in which gateways know their agents.
//!
//! The file belongs to the gateway's user, so it is hostile: it is read bounded in size and depth, an error never
//! quotes a value, and a file that names a member twice is refused instead of being made to say one of the two.

use std::collections::BTreeSet;

use jsonc_parser::ParseOptions;
use jsonc_parser::errors::ParseErrorKind;
use serde_json::{Map, Value};

use super::strict::Strict;

/// Larger files are refused.
pub const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Far beyond what a gateway's schema knows, far below what a stack bears.
const MAX_DEPTH: usize = 100;

/// Reads the file as the gateway does: JSON5, with or without a byte order mark.
///
/// # Errors
/// What is wrong, with line and column, or the path of a member that is given twice.
pub fn read(text: &str) -> Result<Map<String, Value>, String> {
    if text.len() > MAX_BYTES {
        return Err(format!("it is larger than {MAX_BYTES} bytes"));
    }
    let options = ParseOptions { allow_missing_commas: false, ..ParseOptions::default() };
    let text = text.trim_start_matches('\u{feff}');
    // Gateways write plain JSON, which is read several times as fast; whatever it is not, the other parser explains.
    if let Ok(Strict::<MAX_DEPTH>(Value::Object(members))) = serde_json::from_str(text) {
        return Ok(members);
    }
    let Strict::<MAX_DEPTH>(value) = jsonc_parser::parse_to_serde_value(text, &options).map_err(|e| {
        let what = match e.kind() {
            // The parser's own words would repeat a piece of the value.
            ParseErrorKind::String(_) => "a text with a wrong escape or without an end".to_owned(),
            kind => kind.to_string(),
        };
        format!("{what} on line {} column {}", e.line_display(), e.column_display())
    })?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Err("the whole of it is not an object on line 1 column 1".to_owned()),
    }
}

/// Plain JSON, indented by two spaces, as the gateways write it themselves.
pub fn write(config: &Map<String, Value>) -> String {
    serde_json::to_string_pretty(config).unwrap_or_else(|_| format!("{:#}", Value::Object(config.clone()))) + "\n"
}

/// Where a file has its agents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Roster {
    /// `agents.list`, in this order. Every version takes it from a file at its start, newer ones move it to `entries`;
    /// so it is also the form for a file that has no agents yet.
    List(Vec<String>),
    /// `agents.entries`, or agents that we do not understand and leave as they are.
    Entries,
}

/// The same configuration with all agents under `agents.entries`, and how they were.
pub fn canonical(config: &Map<String, Value>) -> (Map<String, Value>, Roster) {
    let mut config = config.clone();
    let Some(agents) = config.get_mut("agents").and_then(Value::as_object_mut) else {
        return (config, Roster::List(Vec::new()));
    };
    if agents.contains_key("entries") {
        return (config, Roster::Entries);
    }
    let roster = match agents.get("list").map(entries) {
        None => Roster::List(Vec::new()),
        Some(None) => Roster::Entries,
        Some(Some((order, entries))) => {
            agents.remove("list");
            agents.insert("entries".to_owned(), entries.into());
            Roster::List(order)
        }
    };
    (config, roster)
}

/// A list as its ids in order and the map of its entries; nothing unless every entry is an object with its own id.
fn entries(list: &Value) -> Option<(Vec<String>, Map<String, Value>)> {
    let mut entries = Map::new();
    let mut order = Vec::new();
    for item in list.as_array()? {
        let mut entry = item.as_object()?.clone();
        let Some(Value::String(id)) = entry.remove("id") else { return None };
        order.push(id.clone());
        if entries.insert(id, entry.into()).is_some() {
            return None;
        }
    }
    Some((order, entries))
}

/// Puts the agents of a canonical configuration where the file had them. New ones come last: the first of a list is
/// the default agent.
pub fn restored(mut config: Map<String, Value>, roster: &Roster) -> Map<String, Value> {
    let Roster::List(order) = roster else { return config };
    let Some(agents) = config.get_mut("agents").and_then(Value::as_object_mut) else { return config };
    let Some(Value::Object(entries)) = agents.get("entries") else { return config };
    let known: BTreeSet<&String> = order.iter().collect();
    let ids = order.iter().chain(entries.keys().filter(|id| !known.contains(id)));
    let item = |id: &String, entry: &Value| {
        let mut item = entry.as_object()?.clone();
        item.insert("id".to_owned(), id.clone().into());
        Some(Value::Object(item))
    };
    let list: Option<Vec<Value>> = ids.filter_map(|id| entries.get(id).map(|entry| item(id, entry))).collect();
    if let Some(list) = list {
        agents.remove("entries");
        agents.insert("list".to_owned(), list.into());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn map(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn json5_is_read_as_the_gateway_reads_it() {
        let text = "\u{feff}// seeded\n{gateway:{auth:{token:'t',},port:0x4965},'log':[+1,.5,-3,],s:\"a\\\nb\"}";
        let expected = json!({"gateway": {"auth": {"token": "t"}, "port": 18789}, "log": [1, 0.5, -3], "s": "ab"});
        assert_eq!(read(text).unwrap(), map(expected));
    }

    #[test]
    fn a_member_given_twice_is_refused_with_its_path() {
        let error = read("{gateway: {port: 1},\n a: [{}, {b: 'hunter2', 'b': 2}]}").unwrap_err();
        assert_eq!(error, "a[1].b is given twice on line 2 column 10");
        assert!(read(r#"{"a":1,"\u0061":2}"#).unwrap_err().starts_with("a is given twice"));
    }

    #[test]
    fn errors_have_a_place_and_no_value() {
        let deep = "[".repeat(20_000);
        let deep_object = r#"{"a":"#.repeat(5_000);
        let texts = [
            "",
            "{",
            "[]",
            "'hunter2'",
            "{a: hunter2}",
            "{a: 'hunter2}",
            "{a: 'hunter2\\ud800'}",
            "{a: 1 b: 2}",
            "\0",
            "{a: Infinity}",
            "{a: 1e999}",
            "{} {}",
            "{a: 'hunter2' 7}",
            &deep,
            &deep_object,
        ];
        for text in texts {
            let error = read(text).unwrap_err();
            assert!(error.contains("on line ") && !error.contains("hunter2"), "{error}");
        }
        assert!(read(&" ".repeat(MAX_BYTES + 1)).unwrap_err().contains("larger"));
    }

    #[test]
    fn names_in_errors_are_short_and_tame() {
        let name = format!("\u{1b}[2J\n{}", "x".repeat(5_000));
        let error = read(&format!("{{{0}: 1, {0}: 2}}", json!(name))).unwrap_err();
        assert!(error.chars().count() < 300 && !error.contains(char::is_control), "{error}");
    }

    #[test]
    fn agents_keep_their_form_and_order() {
        let list = map(json!({"agents": {"defaults": {}, "list": [{"id": "z", "name": "Z"}, {"id": "main"}]}}));
        let (mut config, roster) = canonical(&list);
        assert_eq!(config["agents"], json!({"defaults": {}, "entries": {"main": {}, "z": {"name": "Z"}}}));
        assert_eq!(restored(config.clone(), &roster), list);
        config["agents"]["entries"]["a"] = json!({});
        let longer = restored(config, &roster);
        assert_eq!(longer["agents"]["list"], json!([{"id": "z", "name": "Z"}, {"id": "main"}, {"id": "a"}]));
        let entries = map(json!({"agents": {"entries": {"main": {}}}}));
        assert_eq!(canonical(&entries), (entries.clone(), Roster::Entries));
    }

    #[test]
    fn agents_we_do_not_understand_are_left() {
        for list in [json!(7), json!([7]), json!([{"name": "no id"}]), json!([{"id": "a"}, {"id": "a"}])] {
            let config = map(json!({"agents": {"list": list}}));
            assert_eq!(canonical(&config), (config.clone(), Roster::Entries));
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(config in crate::desired::plan::tests::object()) {
            prop_assert_eq!(read(&write(&config)), Ok(config.clone()));
            let (canonical, roster) = canonical(&config);
            prop_assert_eq!(restored(canonical, &roster), config);
        }

        #[test]
        fn no_text_panics(text in "[\\[\\]{}:,'\"a1 \\\\/*\n-]{0,60}") {
            let _ = read(&text);
        }
    }
}
