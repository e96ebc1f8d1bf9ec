//! What is known of a tenant, with how old it is.

use maud::{Markup, html};

use super::tenant::freshness;
use super::text::{Counts, copied, foreign, time};
use crate::checkin::wire::Report;
use crate::registry::status::span;
use crate::registry::view::TenantView;

/// One fact.
#[expect(clippy::needless_pass_by_value, reason = "a template hands its markup over")]
pub(super) fn row(name: &str, value: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

/// All facts.
pub(super) fn facts(view: &TenantView) -> Markup {
    html! {
        @match &view.report {
            Some(report) => {
                (group("Gateway", freshness(view), gateway(view, report)))
                (group("Machine", freshness(view), machine(report)))
                (group("Sidecar", freshness(view), sidecar(report)))
                (group("Pairing", freshness(view), pairing(view, report)))
                (group("Desired state", freshness(view), desired(report)))
            },
            None => @if view.line.as_of.is_some() {
                p.muted { "Its last report cannot be read by this registry; the next one replaces it." }
            },
        }
        (group("Registry", html! {}, html! {
            (row("Created", time(view.created_at, view.at, Counts::Ago)))
            @if let Some(at) = view.line.as_of { (row("Last heard", time(at, view.at, Counts::Ago))) }
            @if let Some(at) = view.retired_at { (row("Retired", time(at, view.at, Counts::Ago))) }
        }))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "a template hands its markup over")]
fn group(title: &str, fresh: Markup, rows: Markup) -> Markup {
    html! {
        section.group {
            h2 { (title) span.fresh { (fresh) } }
            dl.facts { (rows) }
        }
    }
}

/// One fact that somebody else chose; nothing where it is empty.
pub(super) fn text(name: &str, value: &str) -> Markup {
    html! { @if !value.is_empty() { (row(name, html! { span.clamp { (foreign(value)) } })) } }
}

fn gateway(view: &TenantView, report: &Report) -> Markup {
    let gateway = &report.gateway;
    html! {
        (text("Version", &gateway.version))
        (text("Phase", &report.phase))
        @if let Some(at) = report.phase_since { (row("Since", time(at, view.at, Counts::Ago))) }
        (text("Reason", &report.phase_reason))
        (row("Starts", html! { (gateway.starts) }))
        (text("Last exit", gateway.last_exit.as_deref().unwrap_or_default()))
        @if let Some(at) = gateway.last_exit_at { (row("Exited", time(at, view.at, Counts::Ago))) }
        @if gateway.rpc_ms > 0 { (row("Answers in", html! { (gateway.rpc_ms) " ms" })) }
    }
}

fn machine(report: &Report) -> Markup {
    let (platform, host) = (&report.platform, &report.host);
    html! {
        (text("Platform", &platform.kind))
        (text("Region", &platform.region))
        @if !platform.machine.is_empty() { (row("Machine", copied(&platform.machine, "the machine's name"))) }
        (text("Mode", &report.mode))
        (text("Isolation", &report.sidecar.isolation))
        @if let Some(free) = host.memory_free_mib { (row("Memory free", mib(free))) }
        @if let Some(free) = host.disk_free_mib { (row("Disk free", mib(free))) }
        @if let Some(load) = host.load_percent { (row("Load", html! { (load / 100) "." (format!("{:02}", load % 100)) })) }
    }
}

fn mib(n: u64) -> Markup {
    html! { @if n >= 10_240 { (n / 1024) " GiB" } @else { (n) " MiB" } }
}

fn sidecar(report: &Report) -> Markup {
    let sidecar = &report.sidecar;
    html! {
        (text("Version", &sidecar.version))
        (text("Commit", &sidecar.commit))
        (row("Up", html! { (span(sidecar.uptime_s)) }))
        @if let Some(hash) = &sidecar.certificate_sha256 { (row("Certificate", copied(hash, "the certificate's SHA-256"))) }
    }
}

fn pairing(view: &TenantView, report: &Report) -> Markup {
    let pairing = &report.pairing;
    html! {
        (text("Posture", &pairing.posture))
        (row("Waiting", html! { (pairing.pending_count) }))
        (row("Approved", html! { (pairing.approved_count) ", " (pairing.connected_count) " connected" }))
        @if let Some(at) = pairing.last_out_of_band_at {
            (row("Let in past us", time(at, view.at, Counts::Ago)))
        }
    }
}

fn desired(report: &Report) -> Markup {
    let desired = &report.desired;
    html! {
        (row("Generation", html! { @if desired.generation == 0 { "none yet" } @else { (desired.generation) } }))
        (text("Status", &desired.status))
        (text("Error", &desired.error))
    }
}
