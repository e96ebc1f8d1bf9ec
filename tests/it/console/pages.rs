//! What the pages say.

use openclaw_sidecar::registry::console::{fleet_page, login_page, problem_page, tenant_page};
use openclaw_sidecar::registry::status::Facet;
use openclaw_sidecar::registry::store::Filter;
use openclaw_sidecar::registry::tenant::{Entry, EntryKind, Status};
use serde_json::json;

use super::fixtures::{self, NOW, Story, ago, report};

/// What a person reads, without tags.
fn words(page: &str) -> String {
    let body = page.split("<main").nth(1).unwrap_or(page);
    let mut out = String::new();
    for part in body.split('<') {
        out.push_str(part.split_once('>').map_or("", |(_, text)| text));
    }
    out
}

/// The shape of the first icon after `before`.
fn shape_after<'a>(page: &'a str, before: &str) -> &'a str {
    let rest = page.split_once(before).map_or("", |(_, rest)| rest);
    let icon = rest.split_once("<svg").map_or("", |(_, rest)| rest);
    icon.split_once('>').and_then(|(_, rest)| rest.split_once("</svg>")).map_or("", |(shape, _)| shape)
}

#[test]
fn every_status_has_its_own_shape_and_word() {
    let mut seen = Vec::new();
    for status in Status::ALL {
        let mut page = fixtures::fleet()[0].page();
        page.view.line.status = status;
        let page = tenant_page(&page);
        let word = page.split_once("<strong>").and_then(|(_, rest)| rest.split_once('<')).map_or("", |(word, _)| word);
        let look = (shape_after(&page, "verdict").to_owned(), word.to_owned());
        assert!(!look.0.is_empty() && word.chars().next().is_some_and(char::is_uppercase), "{status}: {look:?}");
        assert!(seen.iter().all(|(shape, word)| *shape != look.0 && *word != look.1), "{status} looks like another");
        seen.push(look);
    }
}

#[test]
fn every_facet_is_shown_on_both_pages() {
    let all = [
        (Facet::PairingPending, "Pairing waits", "wait for approval"),
        (Facet::Errors, "Errors", "Errors"),
        (Facet::Warnings, "Warnings", "Warnings"),
        (Facet::ProvisioningFailed, "Provisioning failed", "Provisioning failed"),
        (Facet::Conflict, "Two machines", "Two machines"),
        (Facet::Restored, "Restored from a copy", "Restored from a copy"),
    ];
    for (facet, on_tenant, on_fleet) in all {
        // No status hides a facet, not even one that is fine.
        let story = Story::new("t-1", "", ago(600)).says(9, &report());
        let mut page = story.page();
        page.view.line.facets = vec![facet];
        assert!(words(&tenant_page(&page)).contains(on_tenant), "{facet:?}");
        let mut fleet = fixtures::fleet_page(&[story]);
        fleet.fleet.tenants[0].facets = vec![facet];
        let table = fleet_page(&fleet);
        let row = table.split_once("<tbody").map_or("", |(_, rest)| rest).to_owned();
        assert!(row.contains(on_fleet) && row.matches("<svg").count() == 2, "{facet:?}");
    }
}

#[test]
fn every_kind_of_history_has_a_shape_and_a_word() {
    for kind in EntryKind::ALL {
        let mut page = fixtures::fleet()[0].page();
        let entry = Entry { seq: 9, tenant: "t".into(), at: ago(5), kind, text: "it_happened".into(), data: json!({}) };
        page.timeline.entries = vec![entry];
        let page = tenant_page(&page);
        assert!(!shape_after(&page, "entry-9").is_empty(), "{kind:?} has no shape");
        let text = words(&page[page.find("entry-9").unwrap_or(0)..]);
        assert!(text.contains("it_happened") && text.contains("5 s ago"), "{kind:?}: {text}");
        assert_eq!(
            page.contains("gap\" id=\"entry-9"),
            kind == EntryKind::Gap,
            "a gap, and nothing else, looks like one"
        );
    }
}

#[test]
fn the_remedy_comes_before_everything_else() {
    for story in fixtures::broken() {
        let page = tenant_page(&story.page());
        let remedy = page.find("class=\"remedy\"").expect("a broken tenant has a remedy");
        let before = |what: &str| page.find(what).is_none_or(|at| remedy < at);
        assert!(before("id=\"pairing\"") && before("id=\"evidence\"") && before("id=\"history\""), "{}", story.row.id);
    }
}

#[test]
fn the_worst_finding_is_first() {
    let page = tenant_page(&fixtures::broken()[4].page());
    // The machine named the warning first.
    assert!(page.find("nearly full") < page.find("machine is throttled"));
}

#[test]
fn a_tenant_that_never_checked_in_says_what_to_check() {
    let text = words(&tenant_page(&Story::new("t-1", "", ago(300)).page()));
    assert!(text.contains("It never checked in") && text.contains("registry.tenant"), "{text}");
    assert!(text.contains("never heard") && text.contains("Nothing happened yet"), "{text}");
}

#[test]
fn facts_of_a_tenant_that_sleeps_are_as_of_its_goodbye() {
    let fleet = fixtures::fleet();
    let asleep = fleet.iter().find(|story| story.line().status == Status::Asleep).expect("one sleeps");
    let text = words(&tenant_page(&asleep.page()));
    assert!(text.contains("as of its goodbye 3 h ago"), "{text}");
    assert!(words(&tenant_page(&fleet[0].page())).contains("as reported 12 s ago"));
}

#[test]
fn a_lapsed_request_is_marked_and_the_others_count_down() {
    let fleet = fixtures::fleet();
    let story = fleet.iter().find(|story| story.row.id == "t-d7aa").expect("it is there");
    let mut page = story.page();
    let text = tenant_page(&page);
    assert!(text.contains("lapses in") && !text.contains(" lapsed\" id"), "{text}");
    page.view.report.as_mut().expect("it reported").pairing.pending[0].expires_in_s = Some(0);
    assert!(tenant_page(&page).contains(" lapsed\" id=\"request-0b9d"));
}

#[test]
fn an_empty_registry_says_how_to_begin() {
    let page = fleet_page(&fixtures::fleet_page(&[]));
    assert!(page.contains("/v1/admin/tenants") && page.contains("$ADMIN_KEY"));
}

#[test]
fn nothing_that_matches_is_not_an_empty_registry() {
    let mut page = fixtures::fleet_page(&fixtures::fleet());
    page.fleet.tenants.clear();
    page.filter = Filter { text: Some("nobody".into()), ..Filter::default() };
    let page = fleet_page(&page);
    assert!(page.contains("No tenant matches") && !page.contains("ADMIN_KEY") && page.contains("value=\"nobody\""));
}

#[test]
fn a_fleet_in_order_says_so_and_one_in_trouble_does_not() {
    let fine = "Nothing needs attention";
    let ready = vec![Story::new("t-1", "", ago(600)).says(9, &report())];
    assert!(fleet_page(&fixtures::fleet_page(&ready)).contains(fine));
    assert!(!fleet_page(&fixtures::fleet_page(&fixtures::fleet())).contains(fine));
}

#[test]
fn a_filter_is_kept_by_tiles_and_pages_and_taken_back_by_its_tile() {
    let mut page = fixtures::fleet_page(&fixtures::fleet());
    page.filter = Filter { status: Some(Status::Crashed), region: Some("a b&c".into()), ..Filter::default() };
    page.fleet.next = Some("t-9".into());
    let text = fleet_page(&page);
    assert!(text.contains("href=\"/?status=degraded&amp;region=a%20b%26c\""), "another tile keeps the region");
    assert!(text.contains("href=\"/?region=a%20b%26c\" aria-current=\"true\""), "the chosen tile takes itself back");
    assert!(text.contains("href=\"/?status=crashed&amp;region=a%20b%26c&amp;after=t-9\""), "the next page keeps all");
    assert!(
        text.contains("href=\"/?status=crashed&amp;pairing=1&amp;region"),
        "who waits is asked for beside a status"
    );
}

#[test]
fn a_blind_time_is_told() {
    let mut page = fixtures::fleet_page(&fixtures::fleet());
    page.summary.blind = fixtures::blind();
    assert!(words(&fleet_page(&page)).contains("The registry was blind for 10 min"));
}

#[test]
fn what_passes_by_itself_is_tried_again_and_a_wrong_address_is_not() {
    assert!(problem_page(503, "a", "b", "c").contains("data-retry=\"5\""));
    assert!(!problem_page(404, "a", "b", "c").contains("data-retry"));
    assert!(!login_page(None).contains("role=\"alert\"") && login_page(Some("no")).contains("role=\"alert\""));
}

#[test]
fn a_page_says_when_it_was_read() {
    let at = format!("data-at=\"{}\"", NOW.rfc3339());
    assert!(tenant_page(&fixtures::fleet()[0].page()).contains(&at));
    assert!(fleet_page(&fixtures::fleet_page(&[])).contains(&at));
}
