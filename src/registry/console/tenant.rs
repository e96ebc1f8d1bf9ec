//! One tenant: how it is, what to do about it, and who waits.

use maud::{Markup, html};

use super::guide::{self, Advice};
use super::icon::{self, Look};
use super::shell::Shell;
use super::text::{Counts, absolute, copied, foreign, plain, time, time_left};
use super::{facts, history};
use crate::checkin::wire::{Finding, Pending, Report};
use crate::clock::UnixMs;
use crate::registry::status::{Confidence, Facet, span};
use crate::registry::tenant::Status;
use crate::registry::view::{TenantView, Timeline};

/// Scopes named of one request.
const SCOPES: usize = 12;

/// What the page of a tenant shows.
#[derive(Clone, Debug)]
pub struct TenantPage {
    /// The tenant.
    pub view: TenantView,
    /// A page of its history.
    pub timeline: Timeline,
    /// The position that page begins before; none on the newest.
    pub before: Option<u64>,
    /// Who looks at it.
    pub user: String,
}

/// One tenant.
pub fn tenant_page(page: &TenantPage) -> String {
    let view = &page.view;
    let main = html! {
        div.tenant {
            div.now {
                (headline(view))
                (what_to_do(view))
                @if let Some(report) = &view.report { (pairing(view, report)) }
            }
            aside.about aria-label="Facts" {
                (evidence(view))
                (facts::facts(view))
            }
            (history::history(&view.line.id, &page.timeline, page.before))
        }
    };
    let title = format!("{}: {}", view.line.id, icon::status(view.line.status).word);
    let events = format!("/console/events?tenant={}", super::text::encoded(&view.line.id));
    let shell =
        Shell { title: &title, user: Some(&page.user), live: Some((view.at, &events)), search: true, retry_s: None };
    shell.document(&main)
}

fn headline(view: &TenantView) -> Markup {
    let line = &view.line;
    let look = icon::status(line.status);
    html! {
        section.headline.(look.tone) {
            p.crumb { a href="/" { "Fleet" } }
            h1 { (foreign(&line.id)) @if !line.label.is_empty() { span.label { (foreign(&line.label)) } } }
            p.verdict { (look.icon()) strong { (look.word) } " " span.reason { (foreign(&line.reason)) } }
            p.muted {
                "for " (time(line.since, view.at, Counts::For)) " · "
                @match line.as_of {
                    Some(at) => { "last heard " (time(at, view.at, Counts::Ago)) },
                    None => { "never heard" },
                }
                " · " (icon::confidence(line.confidence))
                @if line.confidence != Confidence::High { " (see the evidence)" }
            }
            @if !line.facets.is_empty() {
                p.tags { @for facet in &line.facets { (icon::facet(*facet).tag()) " " } }
            }
            @if let Some(at) = view.retired_at {
                p.banner { "Retired " (time(at, view.at, Counts::Ago)) ": its check-ins are refused, and it is removed in the end." }
            }
        }
    }
}

/// How old the report is, in words that fit its status.
pub(super) fn freshness(view: &TenantView) -> Markup {
    let Some(at) = view.line.as_of else { return html! {} };
    let words = if view.bye.is_some() { "as of its goodbye " } else { "as reported " };
    html! { (words) (time(at, view.at, Counts::Ago)) }
}

fn what_to_do(view: &TenantView) -> Markup {
    let status = view.line.status;
    let report = view.report.as_ref();
    let mut findings: Vec<&Finding> = report.map(|r| r.findings.iter().collect()).unwrap_or_default();
    findings.sort_by_key(|finding| finding.severity != "error");
    let (errors, others): (Vec<&Finding>, Vec<&Finding>) = findings.into_iter().partition(|f| f.severity == "error");
    let failed = report.map(|r| &r.desired).filter(|desired| !desired.error.is_empty());
    let silent = matches!(status, Status::Unreachable | Status::Provisioning | Status::Unknown);
    let advised = view.line.facets.iter().filter_map(|facet| Some((*facet, guide::for_facet(*facet)?)));
    let advised: Vec<_> = advised.collect();
    let explained = !errors.is_empty() || failed.is_some();
    let well = !explained && others.is_empty() && advised.is_empty();
    let unnamed = report.map_or(0, |r| r.findings_count.saturating_sub(r.findings.len() as u64));
    html! {
        section #todo aria-labelledby="todo-title" {
            h2 #todo-title { "What to do" }
            ol.items {
                @if silent || (!explained && !matches!(status, Status::Ready | Status::Asleep)) {
                    (advice(icon::status(status), "status", guide::for_status(status)))
                }
                @if silent && !(errors.is_empty() && others.is_empty()) {
                    li.muted { "What it last said, before it fell silent:" }
                }
                @for (n, finding) in errors.iter().enumerate() { (finding_item(finding, n, view.at)) }
                @for (facet, about) in advised { (advice(icon::facet(facet), icon::facet(facet).tone, about)) }
                @if let Some(desired) = failed { (provisioning_error(desired.generation, &desired.error)) }
                @for (n, finding) in others.iter().enumerate() { (finding_item(finding, errors.len() + n, view.at)) }
                @if (well && status == Status::Ready) || (!explained && status == Status::Asleep) {
                    (advice(icon::status(status), "status", guide::for_status(status)))
                }
            }
            @if unnamed > 0 {
                p.muted { (unnamed) " more did not fit into the message: `openclaw-sidecar status` on the machine has all." }
            }
            @if let Some(report) = report { (last_exit(view, report)) }
        }
    }
}

fn advice(look: Look, id: &str, advice: Advice) -> Markup {
    html! {
        li.item.(look.tone) id={ "advice-" (id) "-" (look.word.replace(' ', "-")) } data-row tabindex="-1" {
            h3 { (look.icon()) (advice.title) }
            @if !advice.steps.is_empty() { ol.steps { @for step in advice.steps { li { (with_code(step)) } } } }
        }
    }
}

/// Our own words, in which backquotes stand around names.
fn with_code(text: &str) -> Markup {
    html! { @for (n, part) in text.split('`').enumerate() { @if n % 2 == 1 { code { (part) } } @else { (part) } } }
}

fn finding_item(finding: &Finding, n: usize, now: UnixMs) -> Markup {
    let look = icon::severity(&finding.severity);
    let opened = UnixMs(now.0.saturating_sub(finding.age_s.saturating_mul(1000)));
    html! {
        li.item.(look.tone) id={ "finding-" (n) } data-row tabindex="-1" {
            h3 { (look.icon()) span.sr { (look.word) ": " } span.clamp { (foreign(&finding.summary)) } }
            @if !finding.remedy.is_empty() { p.remedy { (foreign(&finding.remedy)) } }
            @if !finding.evidence.is_empty() {
                details open[finding.severity == "error"] {
                    summary { "Evidence" }
                    ul.evidence { @for fact in &finding.evidence { li { (foreign(fact)) } } }
                }
            }
            p.muted { (look.word) " " code { (foreign(&finding.code)) } ", open for " (time(opened, now, Counts::For)) }
        }
    }
}

fn provisioning_error(generation: u64, error: &str) -> Markup {
    let look = icon::facet(Facet::ProvisioningFailed);
    html! {
        li.item.(look.tone) #provisioning data-row tabindex="-1" {
            h3 { (look.icon()) "The last change of the desired state failed" }
            p.remedy { "Correct the document in the control plane and send it again, or send the generation before." }
            ul.evidence { li { (foreign(error)) } }
            p.muted { "generation " (generation) }
        }
    }
}

fn last_exit(view: &TenantView, report: &Report) -> Markup {
    let Some(exit) = report.gateway.last_exit.as_deref().filter(|_| view.line.status != Status::Ready) else {
        return html! {};
    };
    html! {
        p.exit {
            strong { "Last exit " }
            @if let Some(at) = report.gateway.last_exit_at { span.muted { (time(at, view.at, Counts::Ago)) " " } }
            code.clamp { (foreign(exit)) }
        }
    }
}

fn pairing(view: &TenantView, report: &Report) -> Markup {
    let pairing = &report.pairing;
    if pairing.pending_count == 0 && pairing.pending.is_empty() {
        return html! {};
    }
    let unnamed = pairing.pending_count.saturating_sub(pairing.pending.len() as u64);
    html! {
        section #pairing aria-labelledby="pairing-title" {
            h2 #pairing-title { "Waiting for approval" span.count { (pairing.pending_count) } span.fresh { (freshness(view)) } }
            p.muted { "Approve or reject in the control plane, by the request id: this page cannot." }
            ul.items { @for pending in &pairing.pending { (request(pending, view.at)) } }
            @if unnamed > 0 { p.muted { (unnamed) " more wait that are not named here." } }
        }
    }
}

fn request(pending: &Pending, now: UnixMs) -> Markup {
    let since = UnixMs(now.0.saturating_sub(pending.age_s.saturating_mul(1000)));
    let lapsed = pending.expires_in_s == Some(0);
    let look = icon::facet(Facet::PairingPending);
    let named = if pending.label.is_empty() { "without a name" } else { &pending.label };
    html! {
        li.item.request.(look.tone).lapsed[lapsed] id={ "request-" (plain(&pending.request_id)) } data-row tabindex="-1" {
            h3 {
                (look.icon()) span.clamp { (foreign(named)) }
                @if pending.is_upgrade { span.tag.amber { "asks for more than it has" } }
                span.tag.red.when-lapsed { "lapsed" }
            }
            p.id { (copied(&pending.request_id, "the request id")) }
            dl.facts {
                (facts::text("Role", &pending.role))
                (facts::row("Scopes", scopes(&pending.scopes)))
                (facts::text("Kind", &pending.kind))
                (facts::text("Program", &pending.client))
                (facts::text("Platform", &pending.platform))
                @if !pending.device_id.is_empty() { (facts::row("Device", html! { code { (foreign(&pending.device_id)) } })) }
                (facts::row("Waits", html! {
                    "for " (time(since, now, Counts::For))
                    @if let Some(left) = pending.expires_in_s.filter(|left| *left > 0) { ", lapses in " (time_left(left, now)) }
                    @if lapsed { ", lapsed: it has to ask again" }
                }))
            }
        }
    }
}

/// The strongest first: however many a visitor names, they hide none that matters.
fn scopes(scopes: &[String]) -> Markup {
    let mut scopes: Vec<&String> = scopes.iter().collect();
    scopes.sort_by_key(|scope| !scope.contains("admin"));
    html! {
        @if scopes.is_empty() { span.muted { "none named" } }
        @for scope in scopes.iter().take(SCOPES) { code.admin[scope.contains("admin")] { (foreign(scope)) } " " }
        @if scopes.len() > SCOPES { strong { "+" (scopes.len() - SCOPES) } }
    }
}

fn evidence(view: &TenantView) -> Markup {
    html! {
        section #evidence aria-labelledby="evidence-title" {
            h2 #evidence-title { "Why we say so" }
            ul.evidence {
                @for fact in &view.evidence { li { (foreign(fact)) } }
                @if let Some(due) = view.due_at.filter(|due| *due > view.at) {
                    li { "it counts as silent in " (span(view.at.seconds_until(due))) ", at " (absolute(due)) }
                }
            }
        }
    }
}
