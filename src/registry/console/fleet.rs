//! The fleet: how many are how, and one line for each tenant.

use maud::{Markup, html};

use super::icon::{self, Look};
use super::shell::Shell;
use super::text::{Counts, encoded, foreign, plain, time};
use crate::clock::UnixMs;
use crate::registry::status::{Confidence, Facet, span};
use crate::registry::store::{Blind, Filter};
use crate::registry::tenant::Status;
use crate::registry::view::{Fleet, Summary, TenantLine};

/// Most choices of one kind a page offers: names come from machines.
const CHOICES: usize = 100;
/// Codes of findings named in a line.
const CODES: usize = 2;

/// What the page of the fleet shows.
#[derive(Clone, Debug)]
pub struct FleetPage {
    /// The fleet in numbers.
    pub summary: Summary,
    /// The tenants that match.
    pub fleet: Fleet,
    /// What was asked for.
    pub filter: Filter,
    /// Whether it is the first of its pages.
    pub first: bool,
    /// Who looks at it.
    pub user: String,
}

impl FleetPage {
    fn total(&self) -> u64 {
        self.summary.counts.status.values().sum()
    }

    fn count(&self, status: Status) -> u64 {
        self.summary.counts.status.get(status.name()).copied().unwrap_or(0)
    }
}

/// The fleet.
pub fn fleet_page(page: &FleetPage) -> String {
    let main = html! {
        h1.sr { "Fleet" }
        @if let Some(blind) = page.summary.blind.last() { (blind_banner(blind, page.summary.at)) }
        @if page.total() == 0 && page.filter == Filter::default() {
            (no_tenants())
        } @else {
            (tiles(page))
            (filters(page))
            (list(page))
        }
    };
    let shell = Shell {
        title: "Fleet",
        user: Some(&page.user),
        live: Some((page.fleet.at, "/console/events")),
        search: false,
        retry_s: None,
    };
    shell.document(&main)
}

fn blind_banner(blind: &Blind, now: UnixMs) -> Markup {
    html! {
        p.banner role="note" {
            (icon::status(Status::Unknown).icon())
            span {
                strong { "The registry was blind for " (span(blind.from.seconds_until(blind.to))) }
                ", until " (time(blind.to, now, Counts::Ago)) ". A machine that fell silent then is called unreachable later than usual."
            }
        }
    }
}

fn tiles(page: &FleetPage) -> Markup {
    let filter = &page.filter;
    html! {
        nav.tiles aria-label="By status" {
            @for status in Status::ALL {
                @let chosen = filter.status == Some(status);
                @let to = Filter { status: (!chosen).then_some(status), ..filter.clone() };
                (tile(icon::status(status), page.count(status), chosen, &href(&to, None)))
            }
            @let to = Filter { pairing: !filter.pairing, ..filter.clone() };
            (tile(icon::facet(Facet::PairingPending), page.summary.counts.pairing, filter.pairing, &href(&to, None)))
        }
    }
}

fn tile(look: Look, count: u64, chosen: bool, href: &str) -> Markup {
    html! {
        a.tile.none[count == 0] href=(href) aria-current=[chosen.then_some("true")] {
            span.word { (look.icon()) (look.word) }
            span.number { (count) }
        }
    }
}

fn filters(page: &FleetPage) -> Markup {
    let filter = &page.filter;
    let counts = &page.summary.counts;
    html! {
        form.filters role="search" action="/" {
            @if let Some(status) = filter.status { input type="hidden" name="status" value=(status.name()); }
            @if filter.pairing { input type="hidden" name="pairing" value="1"; }
            input #q type="search" name="q" value=[filter.text.as_deref().map(plain)] placeholder="Tenant or label"
                aria-label="Tenant or label" autocomplete="off";
            (choice("region", "Region", &counts.region, filter.region.as_deref()))
            (choice("version", "Gateway", &counts.version, filter.version.as_deref()))
            (choice("finding", "Finding", &counts.finding, filter.finding.as_deref()))
            button type="submit" { "Search" }
            @if *filter != Filter::default() { a.clear href="/" { "Clear all" } }
        }
    }
}

fn choice(name: &str, label: &str, counts: &std::collections::BTreeMap<String, u64>, chosen: Option<&str>) -> Markup {
    let mut values: Vec<(&str, u64)> =
        counts.iter().filter(|(v, _)| !v.is_empty()).map(|(v, n)| (v.as_str(), *n)).collect();
    values.sort_by_key(|(_, n)| std::cmp::Reverse(*n));
    values.truncate(CHOICES);
    if let Some(value) = chosen.filter(|chosen| values.iter().all(|(v, _)| v != chosen)) {
        values.push((value, counts.get(value).copied().unwrap_or(0)));
    }
    html! {
        select name=(name) aria-label=(label) {
            option value="" { (label) ": any" }
            @for (value, count) in values {
                option value=(value) selected[chosen == Some(value)] { (plain(value)) " (" (count) ")" }
            }
        }
    }
}

fn list(page: &FleetPage) -> Markup {
    let now = page.fleet.at;
    html! {
        @if page.filter == Filter::default() && page.first && is_fine(page) {
            p.fine { (icon::status(Status::Ready).icon()) "Nothing needs attention." }
        }
        @if page.fleet.tenants.is_empty() {
            div.empty {
                p { strong { "No tenant matches." } }
                p.muted { "Statuses change by themselves: one that was here may have recovered." }
                p { a href="/" { "Show all " (page.total()) " tenants" } }
            }
        } @else {
            table.fleet role="table" {
                caption.sr { "Tenants, the most urgent first" }
                thead role="rowgroup" {
                    tr role="row" {
                        @for head in ["Tenant", "Status", "Why", "Waits", "Findings", "Version", "Heard"] {
                            th scope="col" role="columnheader" { (head) }
                        }
                    }
                }
                tbody role="rowgroup" { @for line in &page.fleet.tenants { (row(line, now)) } }
            }
        }
        (pager(page))
    }
}

fn is_fine(page: &FleetPage) -> bool {
    let bad = [Status::Unreachable, Status::Crashed, Status::Degraded, Status::PairingPending, Status::Unknown];
    page.summary.counts.pairing == 0 && bad.into_iter().all(|status| page.count(status) == 0)
}

fn row(line: &TenantLine, now: UnixMs) -> Markup {
    let beside = |facet: &&Facet| matches!(facet, Facet::ProvisioningFailed | Facet::Conflict | Facet::Restored);
    html! {
        tr.row id={ "t-" (line.id) } role="row" data-row {
            th scope="row" role="rowheader" {
                a.open href={ "/tenants/" (encoded(&line.id)) } { (foreign(&line.id)) }
                @if !line.label.is_empty() { div.label { (foreign(&line.label)) } }
            }
            td.status role="cell" {
                (icon::status(line.status).tag())
                div.muted {
                    "for " (time(line.since, now, Counts::For))
                    @if line.confidence != Confidence::High { ", " (icon::confidence(line.confidence)) }
                }
            }
            td.why role="cell" {
                div.clamp { (foreign(&line.reason)) }
                @for facet in line.facets.iter().filter(beside) { (icon::facet(*facet).tag()) }
            }
            td role="cell" { (waits(line, now)) }
            td role="cell" { (findings(line)) }
            td.version role="cell" {
                div.clamp { (foreign(&line.gateway_version)) }
                div.muted.clamp {
                    @if !line.sidecar_version.is_empty() { "sidecar " (foreign(&line.sidecar_version)) }
                    @if !line.region.is_empty() { " · " (foreign(&line.region)) }
                }
            }
            td.heard role="cell" {
                @match line.as_of { Some(at) => (time(at, now, Counts::Ago)), None => span.muted { "never" } }
            }
        }
    }
}

fn waits(line: &TenantLine, now: UnixMs) -> Markup {
    if !line.facets.contains(&Facet::PairingPending) {
        return html! {};
    }
    let look = icon::facet(Facet::PairingPending);
    html! {
        span.tag.(look.tone) title=(look.word) { (look.icon()) (line.pending_count) span.sr { " wait for approval" } }
        @if let Some(since) = line.pending_since { div.muted { "for " (time(since, now, Counts::For)) } }
    }
}

fn findings(line: &TenantLine) -> Markup {
    html! {
        @for facet in [Facet::Errors, Facet::Warnings] {
            @if line.facets.contains(&facet) { (icon::facet(facet).tag()) " " }
        }
        @if !line.findings.is_empty() {
            div.codes {
                @for code in line.findings.iter().take(CODES) { code { (foreign(code)) } " " }
                @if line.findings.len() > CODES { span.muted { "+" (line.findings.len() - CODES) } }
            }
        }
    }
}

fn pager(page: &FleetPage) -> Markup {
    html! {
        nav.pager aria-label="Pages" {
            span.muted { (page.fleet.tenants.len()) " on this page, " (page.total()) " in all" }
            @if !page.first { a href=(href(&page.filter, None)) { "First page" } }
            @if let Some(next) = &page.fleet.next { a rel="next" href=(href(&page.filter, Some(next))) { "Next page" } }
        }
    }
}

fn no_tenants() -> Markup {
    let line = "curl -X POST \"$REGISTRY_URL/v1/admin/tenants\" -H \"Authorization: Bearer $ADMIN_KEY\" \
        -H 'Content-Type: application/json' -d '{\"id\": \"tenant-1\"}'";
    html! {
        div.empty {
            h2 { "No tenants yet" }
            p { "The control plane creates them. By hand, with an admin key:" }
            pre { code { (line) } }
            p.muted {
                "The answer holds the machine's credential, once. Give it to the machine's sidecar with the address of this \
                 registry; the tenant shows here at once and leaves “Provisioning” with its first check-in."
            }
        }
    }
}

/// The address of the fleet under a filter.
fn href(filter: &Filter, after: Option<&str>) -> String {
    let parts = [
        ("status", filter.status.map(Status::name)),
        ("pairing", filter.pairing.then_some("1")),
        ("finding", filter.finding.as_deref()),
        ("region", filter.region.as_deref()),
        ("version", filter.version.as_deref()),
        ("q", filter.text.as_deref()),
        ("after", after),
    ];
    let query: Vec<String> =
        parts.into_iter().filter_map(|(name, value)| Some(format!("{name}={}", encoded(value?)))).collect();
    if query.is_empty() { "/".to_owned() } else { format!("/?{}", query.join("&")) }
}
