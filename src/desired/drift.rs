//! What somebody else changed of the members that are ours, while nobody restarted the gateway.

use serde_json::{Map, Value};

use super::applied::{Applied, Form, is_met};
use super::openclaw_json::canonical;
use super::plan::{ORIGINS, PROXIES};
use super::{at, key};

/// The dotted paths of members that are not as they were applied. Defaults belong to the tenant, and what the gateway has
/// not been seen to take yet is not judged.
pub fn drift(current: &Map<String, Value>, applied: &Applied) -> Vec<String> {
    let (now, _) = canonical(current);
    let judged = applied.owned.iter().filter(|owned| !owned.default);
    let changed = judged.filter(|owned| {
        let found = at(&now, &owned.path);
        match &owned.form {
            Form::Unknown | Form::Dropped => false,
            Form::Kept => !is_met(found, &owned.value),
            Form::Became(value) => found != Some(value) && !is_met(found, &owned.value),
        }
    });
    let lacks = |dotted: &'static str, ours: &[String]| {
        let list = at(&now, &key(dotted)).and_then(Value::as_array);
        let there = |entry: &String| list.is_some_and(|list| list.iter().any(|found| found == entry.as_str()));
        (!ours.iter().all(there)).then(|| dotted.to_owned())
    };
    let lists = [lacks(ORIGINS, &applied.origins), lacks(PROXIES, &applied.proxies)];
    changed.map(|owned| owned.path.join(".")).chain(lists.into_iter().flatten()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::applied::Owned;
    use serde_json::json;

    #[test]
    fn only_what_is_ours_and_was_taken_can_drift() {
        let owned = |path: &str, form| Owned { path: key(path), value: json!(1), wrote: true, default: false, form };
        let applied = Applied {
            owned: vec![
                owned("a.kept", Form::Kept),
                owned("a.new", Form::Unknown),
                owned("a.gone", Form::Dropped),
                owned("a.other", Form::Became(json!(2))),
                Owned { default: true, ..owned("a.default", Form::Kept) },
            ],
            origins: vec!["https://ours.example".to_owned()],
            ..Applied::default()
        };
        let read = |value: Value| value.as_object().cloned().unwrap();
        let ui = json!({ "controlUi": { "allowedOrigins": ["https://x.example", "https://ours.example"] } });
        let fine = json!({ "a": { "kept": 1, "other": 2, "default": 9 }, "gateway": ui });
        assert!(drift(&read(fine), &applied).is_empty());
        let changed = json!({ "a": { "kept": 3 } });
        assert_eq!(drift(&read(changed), &applied), ["a.kept", "a.other", "gateway.controlUi.allowedOrigins"]);
    }
}
