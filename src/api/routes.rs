//! The route table: the whole API at a glance. A route without a tier does not compile.

use hyper::Method;

use super::query::Param;
use crate::auth::Tier;

/// What a route does; [`super::handlers::answer`] has one arm for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the table below says what each does")]
pub enum Endpoint {
    Livez,
    Readyz,
    OpenApi,
    State,
    Events,
    Pairing,
    Approve,
    Reject,
    Revoke,
    Rename,
    Audit,
    Metrics,
}

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    /// GET or POST.
    pub method: Method,
    /// The exact path.
    pub path: &'static str,
    /// What a caller must be.
    pub tier: Tier,
    /// What it does.
    pub endpoint: Endpoint,
    /// One line about it.
    pub summary: &'static str,
    /// Query parameters it takes.
    pub params: &'static [Param],
}

/// Largest body of any route, in bytes.
pub const MAX_BODY: usize = 64 * 1024;

const WAIT: Param = Param {
    name: "wait_s",
    max: 60,
    help: "Seconds to wait for the gateway to be ready and to answer; default 20, at least 1.",
};
const WAIT_CONNECTED: Param = Param {
    name: "wait_connected_s",
    max: 60,
    help: "Seconds to wait after the approval until the device is really connected; default 0.",
};
const WAIT_GEN: Param =
    Param { name: "wait_gen", max: u64::MAX, help: "Answer once the generation is newer than this one." };
const TIMEOUT: Param =
    Param { name: "timeout_s", max: 60, help: "Answer after so many seconds in any case; default 30." };
const AFTER: Param =
    Param { name: "after", max: u64::MAX, help: "Records after this position; without it the newest ones." };
const LIMIT: Param = Param { name: "limit", max: 500, help: "Most records in the answer; default 100." };

macro_rules! route {
    ($method:ident $path:literal $tier:ident $endpoint:ident [$($param:expr),*] $summary:literal) => {
        Route {
            method: Method::$method,
            path: $path,
            tier: Tier::$tier,
            endpoint: Endpoint::$endpoint,
            summary: $summary,
            params: &[$($param),*],
        }
    };
}

/// Every route there is.
pub const ROUTES: &[Route] = &[
    route!(GET "/livez" Public Livez [] "The sidecar runs."),
    route!(GET "/readyz" Public Readyz [] "200 while the gateway answers authenticated calls, else 503 with its phase."),
    route!(GET "/openapi.json" Public OpenApi [] "This description."),
    route!(GET "/v1/state" Safe State [WAIT_GEN, TIMEOUT] "What the machine is doing; waits for news with wait_gen."),
    route!(GET "/v1/events" Safe Events [] "Server-Sent Events; resumes with Last-Event-ID."),
    route!(GET "/v1/pairing" Safe Pairing [] "What waits for approval and what was approved."),
    route!(POST "/v1/pairing/approve" Dangerous Approve [WAIT, WAIT_CONNECTED] "Lets a device, node or sender in."),
    route!(POST "/v1/pairing/reject" Dangerous Reject [WAIT] "Turns a request down."),
    route!(POST "/v1/pairing/revoke" Dangerous Revoke [WAIT] "Takes a pairing back and closes its sessions."),
    route!(POST "/v1/pairing/rename" Dangerous Rename [WAIT] "Gives a device or node a name for people."),
    route!(GET "/v1/audit" Safe Audit [AFTER, LIMIT] "Who asked for what, and what came of it."),
    route!(GET "/metrics" Safe Metrics [] "OpenMetrics."),
];

/// What the table says about a method and path.
#[derive(Debug)]
pub enum Found {
    /// A route.
    Route(&'static Route),
    /// The path exists, with these other methods.
    OtherMethods(Vec<&'static str>),
    /// No such path.
    Nothing,
}

/// Looks a request up. HEAD counts as GET.
pub fn find(method: &Method, path: &str) -> Found {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut others = Vec::new();
    for route in ROUTES.iter().filter(|r| r.path == path) {
        if route.method == *method {
            return Found::Route(route);
        }
        others.push(route.method.as_str());
    }
    if others.is_empty() { Found::Nothing } else { Found::OtherMethods(others) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_are_unique_and_writes_are_never_safe() {
        for (n, route) in ROUTES.iter().enumerate() {
            assert!(ROUTES[..n].iter().all(|r| (&r.method, r.path) != (&route.method, route.path)));
            if route.method != Method::GET {
                assert!(route.tier >= Tier::Dangerous, "{} changes something", route.path);
            }
        }
        assert!(ROUTES.len() <= 25);
    }

    #[test]
    fn lookup_tells_a_wrong_method_from_a_wrong_path() {
        assert!(matches!(find(&Method::HEAD, "/livez"), Found::Route(r) if r.endpoint == Endpoint::Livez));
        assert!(matches!(find(&Method::GET, "/v1/pairing/approve"), Found::OtherMethods(m) if m == ["POST"]));
        assert!(matches!(find(&Method::GET, "/v1/pairing/"), Found::Nothing));
    }
}
