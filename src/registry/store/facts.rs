//! What a row is in columns: the narrow facts that lists, counts and sweeps read, apart from the rest.

use std::borrow::Cow;
use std::collections::BTreeMap;

use super::{Counts, Filter, Order, Unavailable};
use crate::clock::UnixMs;
use crate::registry::status;
use crate::registry::tenant::{Digest, Entry, EntryKind, Last, Row, Status};

/// A row's columns beside those it has as fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) credentials: Vec<u8>,
    /// Whether somebody waits to be let in.
    pub(super) waits: bool,
    /// Since when somebody waits of whom it was not told that it takes too long.
    pub(super) untold_since: Option<i64>,
    pub(super) version: String,
    pub(super) region: String,
    /// Codes of open findings, each once, as `,a,b,`.
    pub(super) codes: String,
    /// Id and label in small letters.
    pub(super) search: String,
    pub(super) urgency: i64,
}

impl Facts {
    pub(super) fn of(row: &Row) -> Self {
        let last = row.last.as_ref();
        let untold = last.filter(|last| row.pairing_waits() && !last.pending_told);
        Self {
            credentials: row.credentials.concat(),
            waits: row.pairing_waits(),
            untold_since: untold.and_then(|last| last.pending_since).map(int),
            version: last.map(|last| plain(&last.gateway_version).into_owned()).unwrap_or_default(),
            region: last.map(|last| plain(&last.region).into_owned()).unwrap_or_default(),
            codes: last.map(codes).unwrap_or_default(),
            search: format!("{}\u{1}{}", small(&row.id), small(&row.label)),
            urgency: row.urgency().into(),
        }
    }

    /// What it counts as.
    pub(super) fn group(&self, status: Status) -> Group<'_> {
        Group {
            status: status.name(),
            waits: self.waits,
            version: &self.version,
            region: &self.region,
            codes: &self.codes,
        }
    }
}

/// The facts of a row that are to be written; none where lists and counts find it as it was, which is how a usual
/// check-in leaves it.
pub(super) fn news(before: Option<&Row>, row: &Row) -> Option<Facts> {
    let facts = Facts::of(row);
    let same = before.is_some_and(|old| {
        (&old.label, old.created_at, old.retired_at, old.status, old.status_since)
            == (&row.label, row.created_at, row.retired_at, row.status, row.status_since)
            && Facts::of(old) == facts
    });
    (!same).then_some(facts)
}

/// When a sweep has to look at a row.
pub(super) fn due(row: &Row) -> Option<i64> {
    status::look_at(row).map(int)
}

/// What a machine said last, as JSON.
pub(super) fn doc(row: &Row) -> Result<Option<String>, Unavailable> {
    let doc = row.last.as_ref().map(serde_json::to_string).transpose();
    doc.map_err(|e| Unavailable(format!("a row: {e}")))
}

/// What a tenant that is not retired counts as.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group<'a> {
    pub(super) status: &'a str,
    pub(super) waits: bool,
    pub(super) version: &'a str,
    pub(super) region: &'a str,
    pub(super) codes: &'a str,
}

impl Group<'_> {
    /// Counts `n` tenants of this group in (or out, below zero).
    pub(super) fn count(&self, counts: &mut Counts, n: i64) {
        let named = |text: &str| Some(text).filter(|text| !text.is_empty()).map(str::to_owned);
        add(&mut counts.status, named(self.status), n);
        add(&mut counts.version, named(self.version), n);
        add(&mut counts.region, named(self.region), n);
        for code in self.codes.split(',') {
            add(&mut counts.finding, named(code), n);
        }
        counts.pairing = counts.pairing.saturating_add_signed(if self.waits { n } else { 0 });
    }
}

fn add(counts: &mut BTreeMap<String, u64>, name: Option<String>, n: i64) {
    let Some(name) = name else { return };
    let count = counts.get(&name).copied().unwrap_or_default().saturating_add_signed(n);
    if count > 0 {
        counts.insert(name, count)
    } else {
        counts.remove(&name)
    };
}

fn codes(last: &Last) -> String {
    let mut codes: Vec<String> = last.errors.iter().chain(&last.warnings).map(|code| code_text(code)).collect();
    codes.sort_unstable();
    codes.dedup();
    if codes.is_empty() { String::new() } else { format!(",{},", codes.join(",")) }
}

/// A finding's code without the sign that separates codes.
fn code_text(code: &str) -> String {
    plain(code).replace(',', "\u{fffd}")
}

/// Text without NUL, which PostgreSQL cannot hold.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { Cow::Owned(text.replace('\0', "\u{fffd}")) } else { Cow::Borrowed(text) }
}

/// Letter by letter, so that a part of a text becomes the same part of the small text.
fn small(text: &str) -> String {
    text.replace(['\0', '\u{1}'], "\u{fffd}").chars().flat_map(char::to_lowercase).collect()
}

/// A filter and an order as the statements take them.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) by_urgency: bool,
    /// The list begins after this id; by urgency, after this one among the most urgent.
    pub(super) after: String,
    /// The most urgent wanted, which is the lowest number.
    pub(super) first: i64,
    /// The least urgent wanted.
    pub(super) last: i64,
    pub(super) status: Option<&'static str>,
    pub(super) pairing: bool,
    /// With its separators.
    pub(super) code: Option<String>,
    pub(super) region: Option<String>,
    pub(super) version: Option<String>,
    pub(super) text: Option<String>,
}

impl Wanted {
    pub(super) fn of(filter: Filter, order: Order) -> Self {
        let plain = |text: Option<String>| text.map(|text| plain(&text).into_owned());
        let (first, last) = filter.status.map_or((0, u8::MAX), |status| status.urgency().into_inner());
        let (by_urgency, (first, after)) = match order {
            Order::Id(after) => (false, (first, after.unwrap_or_default())),
            Order::Urgency(after) => (true, after.filter(|(at, _)| *at >= first).unwrap_or((first, String::new()))),
        };
        Self {
            by_urgency,
            // No id holds NUL; what begins with the part before it comes after that part.
            after: after.split('\0').next().unwrap_or_default().to_owned(),
            first: first.into(),
            last: last.into(),
            status: filter.status.map(Status::name),
            pairing: filter.pairing,
            code: filter.finding.map(|code| format!(",{},", code_text(&code))),
            region: plain(filter.region),
            version: plain(filter.version),
            text: filter.text.map(|text| small(&text)),
        }
    }

    /// Whether the filter leaves out more than other statuses.
    pub(super) fn chooses(&self) -> bool {
        self.pairing || [&self.code, &self.region, &self.version, &self.text].into_iter().any(Option::is_some)
    }
}

/// A row as it is read.
#[derive(Debug)]
pub(super) struct Columns {
    pub(super) id: String,
    pub(super) label: String,
    pub(super) created_at: i64,
    pub(super) retired_at: Option<i64>,
    pub(super) credentials: Vec<u8>,
    pub(super) status: String,
    pub(super) status_since: i64,
    pub(super) last: Option<String>,
}

impl Columns {
    pub(super) fn row(self) -> Result<Row, Unavailable> {
        let last = self.last.as_deref().map(serde_json::from_str).transpose();
        Ok(Row {
            credentials: digests(&self.credentials)?,
            status: Status::parse(&self.status).ok_or_else(|| strange("a status"))?,
            last: last.map_err(|_| strange("what a machine said last"))?,
            id: self.id,
            label: self.label,
            created_at: ms(self.created_at),
            retired_at: self.retired_at.map(ms),
            status_since: ms(self.status_since),
        })
    }
}

/// A history line from its columns.
pub(super) fn entry(
    seq: i64,
    tenant: String,
    at: i64,
    kind: &str,
    text: String,
    data: &str,
) -> Result<Entry, Unavailable> {
    Ok(Entry {
        seq: seq.unsigned_abs(),
        tenant,
        at: ms(at),
        kind: EntryKind::parse(kind).ok_or_else(|| strange("a kind of history line"))?,
        text,
        data: serde_json::from_str(data).map_err(|_| strange("a history line"))?,
    })
}

/// Kinds as one text.
pub(super) fn kinds_text(kinds: &[EntryKind]) -> String {
    kinds.iter().map(|kind| kind.name()).collect::<Vec<_>>().join(",")
}

/// Kinds of a text.
pub(super) fn kinds(text: &str) -> Vec<EntryKind> {
    text.split(',').filter_map(EntryKind::parse).collect()
}

/// One SHA-256 from its column.
pub(super) fn digest(bytes: &[u8]) -> Result<Digest, Unavailable> {
    bytes.try_into().map_err(|_| strange("a digest"))
}

fn digests(bytes: &[u8]) -> Result<Vec<Digest>, Unavailable> {
    bytes.chunks(32).map(digest).collect()
}

fn strange(what: &str) -> Unavailable {
    Unavailable(format!("the registry's database holds {what} that this version does not know"))
}

/// A moment as a column.
pub(super) fn int(at: UnixMs) -> i64 {
    int_u64(at.0)
}

/// A count as a column.
pub(super) fn int_u64(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A limit as a parameter.
pub(super) fn int_usize(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A moment from a column.
pub(super) fn ms(at: i64) -> UnixMs {
    UnixMs(u64::try_from(at).unwrap_or(0))
}
