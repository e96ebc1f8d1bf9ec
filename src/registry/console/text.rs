//! Texts and times inside pages.

use maud::{Markup, html};

use crate::clock::UnixMs;
use crate::registry::status::span;

/// The longest text of a machine that a page shows, in characters.
const SHOWN: usize = 600;

/// What a time counts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Counts {
    /// `12 s ago`.
    Ago,
    /// `12 s`, for what lasts.
    For,
}

/// A text that somebody else chose: bounded, without control characters, and isolated from its surroundings.
pub(super) fn foreign(text: &str) -> Markup {
    html! { bdi dir="auto" { (plain(text)) } }
}

/// The same for a place where no element may stand.
pub(super) fn plain(text: &str) -> String {
    let mut kept: String = text.chars().take(SHOWN).map(visible).collect();
    if text.chars().nth(SHOWN).is_some() {
        kept.push('…');
    }
    kept
}

/// Marks, embeddings, overrides and isolates turn text around, and a closing one would end the isolation of `bdi`.
fn visible(c: char) -> char {
    match c {
        '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
        c if c.is_control() => ' ',
        c => c,
    }
}

/// A moment, shown by its distance from `now`; the script keeps it moving.
pub(super) fn time(at: UnixMs, now: UnixMs, counts: Counts) -> Markup {
    let length = span(at.seconds_until(now));
    let (mode, words) = match counts {
        Counts::Ago => ("ago", format!("{length} ago")),
        Counts::For => ("for", length),
    };
    html! { time datetime=(at.rfc3339()) title=(absolute(at)) data-counts=(mode) { (words) } }
}

/// What is left of a time that runs out in `seconds`.
pub(super) fn time_left(seconds: u64, now: UnixMs) -> Markup {
    let end = now.plus_ms(seconds.saturating_mul(1000));
    let words = if seconds < 3600 { format!("{}:{:02}", seconds / 60, seconds % 60) } else { span(seconds) };
    html! { time datetime=(end.rfc3339()) title=(absolute(end)) data-counts="left" { (words) } }
}

/// A moment for people, e.g. `2026-11-20 16:12:03 UTC`.
pub(super) fn absolute(at: UnixMs) -> String {
    let text = at.rfc3339();
    format!("{} {} UTC", &text[..10], &text[11..19])
}

/// A value that people carry elsewhere, with a button that copies it.
pub(super) fn copied(value: &str, what: &str) -> Markup {
    html! {
        code.value { (foreign(value)) }
        button.copy type="button" data-copy=(plain(value)) aria-label={ "Copy " (what) } { "Copy" }
    }
}

/// Percent-encodes what is not plain in a query.
pub(super) fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            out.push_str(&data_encoding::HEXUPPER.encode(&[byte]));
        }
    }
    out
}
