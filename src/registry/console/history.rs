//! What happened to a tenant, newest first.

use maud::{Markup, html};

use super::icon::{self, Look};
use super::text::{Counts, encoded, foreign, time};
use crate::clock::UnixMs;
use crate::registry::tenant::{Entry, EntryKind, Status};
use crate::registry::view::Timeline;

/// A page of the history.
pub(super) fn history(tenant: &str, timeline: &Timeline, before: Option<u64>) -> Markup {
    let here = format!("/tenants/{}", encoded(tenant));
    html! {
        section.history #history aria-labelledby="history-title" {
            h2 #history-title { "History" @if before.is_some() { span.fresh { "an older page" } } }
            @if timeline.entries.is_empty() {
                p.muted { "Nothing happened " @if before.is_some() { "before that." } @else { "yet." } }
            }
            ol.timeline { @for entry in &timeline.entries { (line(entry, timeline.at)) } }
            nav.pager aria-label="Pages of the history" {
                @if before.is_some() { a href={ (here) "#history" } { "Newest" } }
                @if let Some(next) = timeline.next { a rel="next" href={ (here) "?before=" (next) "#history" } { "Older" } }
            }
        }
    }
}

fn line(entry: &Entry, now: UnixMs) -> Markup {
    let look = look(entry);
    html! {
        li.(look.tone).gap[entry.kind == EntryKind::Gap] id={ "entry-" (entry.seq) } {
            (look.icon())
            span.kind { (look.word) }
            span.what.clamp { (foreign(&said(entry))) }
            (time(entry.at, now, Counts::Ago))
        }
    }
}

/// A change of status looks like the new status, a problem like its severity.
fn look(entry: &Entry) -> Look {
    let field = |name: &str| entry.data.get(name).and_then(|value| value.as_str()).unwrap_or_default();
    match entry.kind {
        EntryKind::Status => Status::parse(field("to")).map_or(icon::entry(entry.kind), icon::status),
        EntryKind::FindingOpened => Look { word: icon::entry(entry.kind).word, ..icon::severity(field("severity")) },
        kind => icon::entry(kind),
    }
}

/// The text; of a change of status the reason alone, because its look says the rest.
fn said(entry: &Entry) -> String {
    let reason = entry.data.get("reason").and_then(|reason| reason.as_str());
    match (entry.kind, reason) {
        (EntryKind::Status, Some(reason)) => reason.to_owned(),
        _ => entry.text.clone(),
    }
}
