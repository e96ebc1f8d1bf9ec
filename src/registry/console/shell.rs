//! What stands around every page, and the pages that show no tenant.

use std::sync::LazyLock;

use data_encoding::HEXLOWER;
use maud::{DOCTYPE, Markup, PreEscaped, html};
use sha2::{Digest, Sha256};

use super::text::{absolute, plain};
use crate::clock::UnixMs;

/// The style sheet, served as `/assets/console.css`.
pub const CSS: &str = include_str!("console.css");
/// The script, served as `/assets/console.js`.
pub const JS: &str = include_str!("console.js");

const ICON: &str = "data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Crect width='16' \
    height='16' rx='4' fill='%23475569'/%3E%3Cpath d='M2.5 9h2.5l2-5 2.5 8 1.5-3h2.5' fill='none' \
    stroke='white' stroke-width='1.5'/%3E%3C/svg%3E";

/// Part of the files' addresses, so that a browser never puts an old script to a new page.
static FILES: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::new().chain_update(CSS).chain_update(JS).finalize();
    HEXLOWER.encode(&digest[..6])
});

/// What stands around a page.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shell<'a> {
    /// What the page is about.
    pub(super) title: &'a str,
    /// Who looks at it; none before the login.
    pub(super) user: Option<&'a str>,
    /// When it was read, and where its changes are told.
    pub(super) live: Option<(UnixMs, &'a str)>,
    /// Whether the search stands in the header, because the page has none of its own.
    pub(super) search: bool,
    /// Try again after so many seconds.
    pub(super) retry_s: Option<u64>,
}

impl Shell<'_> {
    /// The whole document.
    pub(super) fn document(self, main: &Markup) -> String {
        let title = plain(self.title);
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    meta name="color-scheme" content="light dark";
                    meta name="referrer" content="same-origin";
                    title { (title) " · OpenClaw registry" }
                    link rel="icon" href=(PreEscaped(ICON));
                    link rel="stylesheet" href={ "/assets/console.css?v=" (*FILES) };
                    script src={ "/assets/console.js?v=" (*FILES) } defer {}
                    @if let Some(seconds) = self.retry_s {
                        noscript { meta http-equiv="refresh" content=(seconds); }
                    }
                }
                body data-events=[self.live.map(|(_, events)| events)] data-retry=[self.retry_s] {
                    a.skip href="#main" { "Skip to the content" }
                    (self.header())
                    main #main tabindex="-1" data-at=[self.live.map(|(at, _)| at.rfc3339())] { (main) }
                    (keys())
                }
            }
        }
        .into_string()
    }

    fn header(self) -> Markup {
        html! {
            header.top {
                a.home href="/" title="The fleet (g)" { "OpenClaw" span { " registry" } }
                @if self.search && self.user.is_some() {
                    form.find role="search" action="/" {
                        input #q type="search" name="q" placeholder="Find a tenant" aria-label="Find a tenant" autocomplete="off";
                    }
                }
                @if let Some((at, _)) = self.live {
                    p #live.live role="status" aria-live="polite" { "as of " (&absolute(at)[11..]) }
                }
                @if let Some(user) = self.user {
                    form.who method="post" action="/logout" {
                        bdi dir="auto" { (plain(user)) }
                        button.quiet type="submit" { "Sign out" }
                    }
                }
            }
        }
    }
}

/// What the keyboard does; opened by the script.
fn keys() -> Markup {
    let all = [("/", "search"), ("j k", "next, previous"), ("Enter", "open"), ("g", "the fleet"), ("?", "this help")];
    html! {
        dialog #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keyboard" }
            dl.facts { @for (key, does) in all { div { dt { kbd { (key) } } dd { (does) } } } }
            form method="dialog" { button type="submit" { "Close" } }
        }
    }
}

/// The page that asks for a key.
pub fn login_page(error: Option<&str>) -> String {
    let main = html! {
        form.card.login method="post" action="/login" autocomplete="off" {
            h1 { "Sign in" }
            @if let Some(error) = error { p.fault #login-error role="alert" { (plain(error)) } }
            label for="key" { "Support key" }
            input #key name="key" type="password" required autofocus autocomplete="off" autocapitalize="none"
                spellcheck="false" aria-describedby=[error.map(|_| "login-error")];
            button.main type="submit" { "Sign in" }
            p.muted { "A key to read is enough. Nothing on these pages can change a tenant's machine." }
        }
    };
    let shell = Shell { title: "Sign in", user: None, live: None, search: false, retry_s: None };
    shell.document(&main)
}

/// A page that says what went wrong. Where it passes by itself (`503`, `429`), it is tried again.
pub fn problem_page(status: u16, title: &str, detail: &str, remedy: &str) -> String {
    let retry_s = match status {
        429 => Some(30),
        502..=504 => Some(5),
        _ => None,
    };
    let main = html! {
        section.card.problem {
            p.muted { (status) }
            h1 { (plain(title)) }
            @if !detail.is_empty() { p dir="auto" { (plain(detail)) } }
            @if !remedy.is_empty() { p.remedy dir="auto" { (plain(remedy)) } }
            @if let Some(seconds) = retry_s {
                p.muted #retry role="status" { "This page tries again every " (seconds) " s." }
            }
            p { a href="/" { "To the fleet" } }
        }
    };
    Shell { title, user: None, live: None, search: false, retry_s }.document(&main)
}
