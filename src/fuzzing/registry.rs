//! The registry's parsers, and what its rules make of messages nobody sane would send.

use hyper::body::Bytes;

use crate::clock::UnixMs;
use crate::http::query::Query;
use crate::registry::api::{agent, routes::ROUTES};
use crate::registry::callers::Signer;
use crate::registry::rules::{self, Arrival};
use crate::registry::store::{Change, Outcome};
use crate::registry::tenant::{Digest, Row};
use crate::registry::{status, webhooks};
use crate::secret::Secret;

const CREDENTIAL: Digest = [7; 32];
const NOW: UnixMs = UnixMs(1_795_000_000_000);

/// Messages one behind the other, separated by NUL: each is taken once, moves nothing back, and leaves bounded texts.
pub fn registry_rules(data: &[u8]) {
    let mut row = Row::new("acme", "", vec![CREDENTIAL], NOW);
    for (n, text) in (0_u64..).zip(data.split(|b| *b == 0).take(8)) {
        let Ok(mut message) = agent::parse(&Bytes::copy_from_slice(text)) else { continue };
        "acme".clone_into(&mut message.tenant);
        let at = NOW.plus_ms(n * 15_000);
        let arrival = Arrival { message, credential: CREDENTIAL, ticket: false, at };
        let heard = row.last.as_ref().map_or(0, |last| last.events_through);
        let change = rules::check_in(Some(&row), &arrival, &[]);
        check(&change);
        let Some(next) = change.row else { continue };
        row = next;
        assert!(row.last.as_ref().is_some_and(|last| last.events_through >= heard), "the audit was heard back");
        let again = rules::check_in(Some(&row), &arrival, &[]);
        assert!(again.outcome == Outcome::Unchanged && again.row.is_none() && again.entries.is_empty(), "heard twice");
        let stranger = Arrival { credential: [8; 32], ..arrival };
        assert_eq!(rules::check_in(Some(&row), &stranger, &[]).outcome, Outcome::NotYours);
        let (_, reason) = status::verdict(&row, at.plus_ms(3_600_000), &[]);
        assert!(reason.len() < 2048, "{reason}");
        check(&rules::pass_time(Some(&row), at.plus_ms(86_400_000), &[]));
    }
}

fn check(change: &Change) {
    assert!(change.entries.len() < 1024);
    for entry in &change.entries {
        assert!(entry.text.len() < 2048 && !entry.text.contains(char::is_control), "{:?}", entry.text);
        assert!(entry.data.to_string().len() < 8192);
    }
}

/// Queries and forms as browsers encode them, of every route.
pub fn registry_query(data: &[u8]) {
    for route in ROUTES {
        let Ok(query) = Query::decode(data, route.params) else { continue };
        for param in route.params {
            assert!(query.text(param.name).is_none_or(|text| text.len() <= 256));
        }
    }
}

/// Tickets and sessions that somebody made up, and addresses for webhooks.
pub fn registry_claims(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let signer = Signer::new(&Secret::new("fuzzing fuzzing fuzzing fuzzing ".to_owned()));
    for claim in [text.to_owned(), format!("oct_{text}")] {
        assert_eq!(signer.ticket_owner(&claim, &CREDENTIAL), None, "a ticket that we did not sign");
    }
    if webhooks::check_url(text, false).is_ok() {
        assert!(text.starts_with("https://"), "{text:?}");
    }
}
