//! Every text that somebody else chose, hostile, in every place a page shows it.

use openclaw_sidecar::checkin::wire::{AuditEvent, Bye, Intent};
use openclaw_sidecar::registry::console::{fleet_page, login_page, problem_page, tenant_page};
use openclaw_sidecar::registry::store::Filter;
use serde_json::Value;

use super::fixtures::{self, NOW, Story, ago, finding, pending, report, waiting, with};

/// Ends an attribute, an element and an isolation, and would run in any of the three.
pub const TEXT: &str =
    "\"'><script>window.hacked=1</script><img src=x onerror=\"window.hacked=1\">\u{202e}\u{2069}&lt;";

/// A page over views in which every text is `text`. Serde finds the texts, so that a new field is covered as well.
pub fn page_of(text: &str) -> String {
    let mut state = serde_json::to_value(full()).expect("a report is JSON");
    replace(&mut state, text);
    let state = serde_json::from_value(state).expect("texts stay texts");
    let event = |n| AuditEvent {
        seq: n,
        at: ago(9),
        actor: text.into(),
        verb: text.into(),
        target: text.into(),
        outcome: text.into(),
    };
    let story = Story::new("t-hostile", text, ago(90_000)).says(60, &report()).message(5, &state, |message| {
        message.events = vec![event(1), event(2)];
        message.bye = Some(Bye { intent: Intent::Stop, reason: text.to_owned() });
    });
    let mut page = story.page();
    page.user = text.to_owned();
    // The registry takes no longer ones.
    page.view.line.id = text.chars().take(64).collect();
    page.view.line.reason = text.to_owned();
    page.view.line.findings = vec![text.to_owned(); 4];
    page.view.evidence.push(text.to_owned());
    for entry in &mut page.timeline.entries {
        entry.text = text.to_owned();
        replace(&mut entry.data, text);
    }
    tenant_page(&page)
}

/// The fleet with one tenant in which every text is `text`.
pub fn fleet_of(text: &str) -> String {
    let mut page = fixtures::fleet_page(&fixtures::fleet());
    for line in &mut page.fleet.tenants {
        for field in [&mut line.id, &mut line.label, &mut line.reason, &mut line.gateway_version] {
            text.clone_into(field);
        }
        for field in [&mut line.sidecar_version, &mut line.region] {
            text.clone_into(field);
        }
        line.findings = vec![text.to_owned(); 4];
    }
    let counts = &mut page.summary.counts;
    for map in [&mut counts.version, &mut counts.region, &mut counts.finding] {
        map.insert(text.to_owned(), 2);
    }
    text.clone_into(&mut page.user);
    let text = Some(text.to_owned());
    page.filter = Filter {
        finding: text.clone(),
        region: text.clone(),
        version: text.clone(),
        text: text.clone(),
        ..page.filter
    };
    (page.first, page.fleet.next) = (false, text.clone());
    fleet_page(&page)
}

/// A report in which no field is empty.
fn full() -> openclaw_sidecar::checkin::wire::Report {
    let findings = vec![finding("a", "error", "b", "c", &["d"]), finding("e", "warning", "f", "g", &["h"])];
    let mut state = waiting(with(report(), findings), vec![pending("r-1", "l", 3)]);
    state.phase_reason = "why".to_owned();
    state.desired.error = "what".to_owned();
    state.gateway.last_exit = Some("how".to_owned());
    state.gateway.last_exit_at = Some(NOW);
    state.pairing.last_out_of_band_at = Some(NOW);
    state
}

/// Puts `text` in the place of every text that is not a time.
fn replace(value: &mut Value, text: &str) {
    match value {
        Value::String(old) if openclaw_sidecar::clock::UnixMs::parse(old).is_none() => text.clone_into(old),
        Value::Array(items) => items.iter_mut().for_each(|item| replace(item, text)),
        Value::Object(fields) => fields.values_mut().for_each(|field| replace(field, text)),
        _ => {}
    }
}

/// Tags and attributes of a page are ours alone: outside of them no text opens one, inside none closes one.
fn check(name: &str, page: &str) {
    let lower = page.to_lowercase();
    assert_eq!(lower.matches("<script").count(), 1, "{name}: a script that is not ours");
    assert!(!lower.contains("<img"), "{name}: an element of a stranger");
    for tag in page.split('<').skip(1) {
        let (inside, shown) = tag.split_once('>').unwrap_or_default();
        assert!(!shown.contains(['\u{202e}', '\u{2069}']), "{name}: a text can turn its surroundings around: {shown}");
        let encoded = inside.contains("&quot;") || inside.contains("%22");
        assert!(!inside.contains("window.hacked") || encoded, "{name}: a text in a tag: {inside}");
        // What stands in quotes is a value, whatever it says.
        let bare: String = inside.split('"').step_by(2).collect();
        assert!(!bare.contains(" style=") && !bare.contains(" on"), "{name}: inline style or script: {inside}");
    }
}

#[test]
fn no_text_leaves_its_place() {
    let mut pages = vec![("tenant", page_of(TEXT)), ("fleet", fleet_of(TEXT)), ("login", login_page(Some(TEXT)))];
    pages.push(("problem", problem_page(404, TEXT, TEXT, TEXT)));
    for (name, page) in pages {
        check(name, &page);
        assert!(page.contains("&lt;script&gt;"), "{name} does not show the text at all");
    }
}

#[test]
fn every_text_of_a_report_is_shown() {
    let page = page_of("the_text");
    // A floor that a forgotten group of facts breaks.
    assert!(page.matches("the_text").count() > 50, "{}", page.matches("the_text").count());
}

#[test]
fn endless_texts_and_lists_are_bounded() {
    let long = "x".repeat(100_000);
    assert!(page_of(&long).len() < 200_000);
    let mut page = fixtures::fleet_page(&fixtures::fleet());
    page.summary.counts.region = (0..100_000).map(|n| (format!("region-{n}"), 1)).collect();
    assert!(fleet_page(&page).len() < 100_000);
}
