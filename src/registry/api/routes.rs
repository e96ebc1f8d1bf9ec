//! The route table: the whole registry at a glance. A route without an audience does not compile.

use hyper::Method;

use crate::checkin::wire;
use crate::http::MAX_BODY;
use crate::http::app::{Found, Matched, Takes};
use crate::registry::tenant::is_id;

/// Who a route is for. No credential of one audience is good for another, but that an admin also reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Anyone; tells nothing about any tenant.
    Public,
    /// A machine, about itself.
    Agent,
    /// Support, with a key; nothing changes.
    Support,
    /// Whoever manages the fleet, with an admin key.
    Admin,
    /// A browser: with a session it reads, without one it is shown the way to one.
    Page,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table below says what each does")]
pub enum Endpoint {
    Livez,
    Readyz,
    CheckIn,
    Metrics,
    Summary,
    Tenants,
    Tenant,
    Timeline,
    Events,
    TenantEvents,
    CreateTenant,
    RetireTenant,
    SetCredentials,
    Keys,
    CreateKey,
    DropKey,
    Webhooks,
    PutWebhook,
    DropWebhook,
    FleetPage,
    TenantPage,
    Login,
    Logout,
    Style,
    Script,
    PageEvents,
}

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path; a segment in braces stands for one name.
    pub path: &'static str,
    /// Who it is for.
    pub audience: Audience,
    /// What it does.
    pub endpoint: Endpoint,
    /// One line about it.
    pub summary: &'static str,
}

macro_rules! route {
    ($method:ident $path:literal $audience:ident $endpoint:ident $summary:literal) => {
        Route {
            method: Method::$method,
            path: $path,
            audience: Audience::$audience,
            endpoint: Endpoint::$endpoint,
            summary: $summary,
        }
    };
}

/// Every route there is.
pub const ROUTES: &[Route] = &[
    route!(GET "/livez" Public Livez "The registry runs."),
    route!(GET "/readyz" Public Readyz "200 while check-ins can be taken."),
    route!(POST "/v1/agent/checkin" Agent CheckIn "A machine's state; answered once it is durable."),
    route!(GET "/v1/support/summary" Support Summary "The fleet in numbers."),
    route!(GET "/v1/support/tenants" Support Tenants "Tenants by id, filtered and paged."),
    route!(GET "/v1/support/tenants/{id}" Support Tenant "One tenant, whole."),
    route!(GET "/v1/support/tenants/{id}/timeline" Support Timeline "Its history, newest first."),
    route!(GET "/v1/support/tenants/{id}/events" Support TenantEvents "Server-Sent Events: it changed."),
    route!(GET "/v1/support/events" Support Events "Server-Sent Events: which tenant changed."),
    route!(GET "/metrics" Support Metrics "OpenMetrics of the fleet and of this instance."),
    route!(POST "/v1/admin/tenants" Admin CreateTenant "Creates a tenant; shows its credential once."),
    route!(POST "/v1/admin/tenants/{id}/retire" Admin RetireTenant "Refuses and hides a tenant from now on."),
    route!(PUT "/v1/admin/tenants/{id}/credentials" Admin SetCredentials "Changes whose check-ins count."),
    route!(GET "/v1/admin/keys" Admin Keys "Names of the keys made here."),
    route!(POST "/v1/admin/keys" Admin CreateKey "Makes a key; shows it once."),
    route!(DELETE "/v1/admin/keys/{id}" Admin DropKey "Takes a key back."),
    route!(GET "/v1/admin/webhooks" Admin Webhooks "The webhooks and how they do."),
    route!(PUT "/v1/admin/webhooks/{id}" Admin PutWebhook "Sends history lines somewhere; shows the signing secret."),
    route!(DELETE "/v1/admin/webhooks/{id}" Admin DropWebhook "Stops that."),
    route!(GET "/" Page FleetPage "The fleet."),
    route!(GET "/tenants/{id}" Page TenantPage "One tenant."),
    route!(POST "/login" Page Login "Makes a session from a key."),
    route!(POST "/logout" Page Logout "Ends the session in this browser."),
    route!(GET "/assets/console.css" Public Style "The console's style."),
    route!(GET "/assets/console.js" Public Script "The console's script."),
    route!(GET "/console/events" Page PageEvents "Server-Sent Events for the console."),
];

impl Route {
    /// What body this route takes.
    pub fn body(&self) -> Takes {
        match (self.endpoint, &self.method) {
            (Endpoint::CheckIn, _) => Takes::Json(wire::MAX_TAKEN),
            (Endpoint::Login | Endpoint::Logout, _) => Takes::Form(4096),
            (_, &(Method::POST | Method::PUT)) => Takes::Json(MAX_BODY),
            _ => Takes::Nothing,
        }
    }

    /// Whether `path` is this route's; with the name in it, if the route has one.
    fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        let Some((start, rest)) = self.path.split_once('{') else { return (self.path == path).then_some("") };
        let end = rest.split_once('}').map_or("", |(_, end)| end);
        let name = path.strip_prefix(start)?.strip_suffix(end)?;
        is_id(name).then_some(name)
    }
}

/// Looks a request up. HEAD counts as GET.
pub fn find(method: &Method, path: &str) -> Found {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut others = Vec::new();
    for (index, route) in ROUTES.iter().enumerate() {
        let Some(name) = route.matches(path) else { continue };
        if route.method == *method {
            let changes = route.audience == Audience::Admin && route.method != Method::GET;
            let name = name.to_owned();
            return Found::Route(Matched { index, path: route.path, name, changes, body: route.body() });
        }
        others.push(route.method.as_str());
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_admins_and_machines_change_anything() {
        for (n, route) in ROUTES.iter().enumerate() {
            assert!(ROUTES[..n].iter().all(|r| (&r.method, r.path) != (&route.method, route.path)));
            let session = matches!(route.endpoint, Endpoint::Login | Endpoint::Logout);
            if route.method != Method::GET && !session {
                assert!(
                    matches!(route.audience, Audience::Admin | Audience::Agent),
                    "{} changes something",
                    route.path
                );
            }
            let start = match route.audience {
                Audience::Agent => "/v1/agent/",
                Audience::Admin => "/v1/admin/",
                Audience::Support if route.endpoint == Endpoint::Metrics => "/metrics",
                Audience::Support => "/v1/support/",
                Audience::Public | Audience::Page => "/",
            };
            assert!(route.path.starts_with(start), "{}", route.path);
        }
    }

    #[test]
    fn names_in_paths() {
        let name = |method: &Method, path: &str| match find(method, path) {
            Found::Route(matched) => Some((matched.path, matched.name)),
            _ => None,
        };
        let tenant = name(&Method::GET, "/v1/support/tenants/acme.eu-1").unwrap();
        assert_eq!(tenant, ("/v1/support/tenants/{id}", "acme.eu-1".to_owned()));
        let timeline = name(&Method::GET, "/v1/support/tenants/acme/timeline").unwrap();
        assert_eq!(timeline, ("/v1/support/tenants/{id}/timeline", "acme".to_owned()));
        for bad in ["/v1/support/tenants/", "/v1/support/tenants/..", "/v1/support/tenants/a%2fb", "/tenants/a/b"] {
            assert_eq!(name(&Method::GET, bad), None, "{bad}");
        }
    }
}
