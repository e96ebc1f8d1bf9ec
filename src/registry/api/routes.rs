//! The route table: the whole registry at a glance. A route without an audience does not compile.

use hyper::Method;

use crate::checkin::wire;
use crate::http::MAX_BODY;
use crate::http::app::Takes;
use crate::http::query::{Kind, Param};
use crate::http::route::{self, Table, routes};
use crate::registry::tenant::{Status, is_id};

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
    OpenApi,
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

/// One row of the table; its guard is who it is for.
pub type Route = route::Route<Audience, Endpoint>;

/// Most lines on a page.
pub const PAGE: u64 = 200;
/// The largest position of a history line.
const LAST: u64 = 1 << 62;

const STATUS: Param = Param { name: "status", kind: Kind::Words(&Status::NAMES), help: "Only tenants of this status." };
const PAIRING: Param = Param {
    name: "pairing",
    kind: Kind::Words(&["1", "true", "0", "false"]),
    help: "1: only tenants in which somebody waits to be let in, whatever their status.",
};
const FINDING: Param = Param { name: "finding", kind: Kind::Text, help: "Only tenants with this finding open." };
const REGION: Param = Param { name: "region", kind: Kind::Text, help: "Only tenants in this region." };
const VERSION: Param = Param { name: "version", kind: Kind::Text, help: "Only tenants with this gateway version." };
const Q: Param =
    Param { name: "q", kind: Kind::Text, help: "Only tenants with this text in id or label, in any case." };
const ORDER: Param = Param {
    name: "order",
    kind: Kind::Words(&["id", "urgency"]),
    help: "id (the default): each tenant once, whatever changes from page to page. urgency: the worst status first, and of \
           those of one status the ones with open findings.",
};
const AFTER: Param =
    Param { name: "after", kind: Kind::Text, help: "Where the page begins: `next` of the one before." };
const BEFORE: Param = Param {
    name: "before",
    kind: Kind::Number(1, LAST),
    help: "Lines before this position: `next` of the page before.",
};
const LIMIT: Param =
    Param { name: "limit", kind: Kind::Number(1, PAGE), help: "Most lines in the answer; default 50." };
const V: Param = Param { name: "v", kind: Kind::Text, help: "Which edition a page wants: for caches." };
const TENANT: Param = Param { name: "tenant", kind: Kind::Text, help: "Only changes of this tenant." };
/// The one field of the form that makes a session.
pub(super) const KEY: Param = Param { name: "key", kind: Kind::Text, help: "A support or admin key." };

/// Every route there is.
pub const ROUTES: &[Route] = routes! { Audience, Endpoint;
    GET "/livez" Public Livez [] "The registry runs.";
    GET "/readyz" Public Readyz [] "200 while check-ins can be taken.";
    GET "/openapi.json" Public OpenApi [] "This description.";
    POST "/v1/agent/checkin" Agent CheckIn [] "A machine's state; answered once it is durable.";
    GET "/v1/support/summary" Support Summary [] "The fleet in numbers.";
    GET "/v1/support/tenants" Support Tenants [STATUS, PAIRING, FINDING, REGION, VERSION, Q, ORDER, AFTER, LIMIT]
        "Tenants, filtered, ordered and paged.";
    GET "/v1/support/tenants/{id}" Support Tenant [] "One tenant, whole.";
    GET "/v1/support/tenants/{id}/timeline" Support Timeline [BEFORE, LIMIT] "Its history, newest first.";
    GET "/v1/support/tenants/{id}/events" Support TenantEvents [] "Server-Sent Events: it changed.";
    GET "/v1/support/events" Support Events [] "Server-Sent Events: which tenant changed.";
    GET "/metrics" Support Metrics [] "OpenMetrics of the fleet and of this instance.";
    POST "/v1/admin/tenants" Admin CreateTenant [] "Creates a tenant; shows its credential once.";
    POST "/v1/admin/tenants/{id}/retire" Admin RetireTenant [] "Refuses and hides a tenant from now on.";
    PUT "/v1/admin/tenants/{id}/credentials" Admin SetCredentials [] "Changes whose check-ins count.";
    GET "/v1/admin/keys" Admin Keys [] "Names of the keys made here.";
    POST "/v1/admin/keys" Admin CreateKey [] "Makes a key; shows it once.";
    DELETE "/v1/admin/keys/{id}" Admin DropKey [] "Takes a key back.";
    GET "/v1/admin/webhooks" Admin Webhooks [] "The webhooks and how they do.";
    PUT "/v1/admin/webhooks/{id}" Admin PutWebhook [] "Sends history lines somewhere; shows the signing secret.";
    DELETE "/v1/admin/webhooks/{id}" Admin DropWebhook [] "Stops that.";
    GET "/" Page FleetPage [STATUS, PAIRING, FINDING, REGION, VERSION, Q, AFTER]
        "The fleet.";
    GET "/tenants/{id}" Page TenantPage [BEFORE] "One tenant.";
    POST "/login" Page Login [] "Makes a session from a key.";
    POST "/logout" Page Logout [] "Ends the session in this browser.";
    GET "/assets/console.css" Public Style [V] "The console's style.";
    GET "/assets/console.js" Public Script [V] "The console's script.";
    GET "/console/events" Page PageEvents [TENANT] "Server-Sent Events for the console.";
};

/// The table, and what holds for every row.
pub const TABLE: Table<Audience, Endpoint> = Table { routes: ROUTES, is_name: is_id, changes, takes };

fn changes(route: &Route) -> bool {
    route.guard == Audience::Admin && route.method != Method::GET
}

fn takes(route: &Route) -> Takes {
    match (route.endpoint, &route.method) {
        (Endpoint::CheckIn, _) => Takes::Json(wire::MAX_TAKEN),
        (Endpoint::Login | Endpoint::Logout, _) => Takes::Form(4096),
        (_, &(Method::POST | Method::PUT)) => Takes::Json(MAX_BODY),
        _ => Takes::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::app::Found;

    #[test]
    fn only_admins_and_machines_change_anything() {
        for (n, route) in ROUTES.iter().enumerate() {
            assert!(ROUTES[..n].iter().all(|r| (&r.method, r.path) != (&route.method, route.path)));
            let session = matches!(route.endpoint, Endpoint::Login | Endpoint::Logout);
            if route.method != Method::GET && !session {
                assert!(matches!(route.guard, Audience::Admin | Audience::Agent), "{} changes something", route.path);
            }
            let start = match route.guard {
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
        let name = |method: &Method, path: &str| match TABLE.find(method, path) {
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
