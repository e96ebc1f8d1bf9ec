//! The route table: the whole API at a glance. A route without a tier does not compile.

use hyper::Method;

use super::query::Param;
use crate::auth::Tier;
use crate::http::MAX_BODY;
use crate::http::app::{Found, Matched, Takes};

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
    Desired,
    PutDesired,
    Secrets,
    PutSecret,
    DeleteSecret,
    Start,
    Stop,
    Restart,
    Doctor,
    Access,
    Sleep,
    Decommission,
    Grant,
    Audit,
    Metrics,
}

/// One row of the table.
#[derive(Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The exact path; a last segment in braces stands for one name.
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

/// Largest desired state, in bytes.
pub const MAX_DESIRED: usize = 1024 * 1024;
/// Longest name in a path, in bytes.
const MAX_NAME: usize = 128;

impl Route {
    /// What body this route takes.
    pub fn body(&self) -> Takes {
        match self.method {
            _ if self.endpoint == Endpoint::PutDesired => Takes::Json(MAX_DESIRED),
            Method::POST | Method::PUT => Takes::Json(MAX_BODY),
            _ => Takes::Nothing,
        }
    }

    /// Whether `path` is this route's; with the name in it, if the route has one.
    fn matches<'p>(&self, path: &'p str) -> Option<&'p str> {
        match self.path.split_once('{') {
            None => (self.path == path).then_some(""),
            Some((start, _)) => {
                let name = path.strip_prefix(start)?;
                let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
                (!name.is_empty() && name.len() <= MAX_NAME && name.bytes().all(plain)).then_some(name)
            }
        }
    }
}

const WAIT: Param = Param {
    name: "wait_s",
    max: 60,
    words: &[],
    help: "Seconds to wait for the gateway to be ready and to answer; default 20, at least 1.",
};
const WAIT_CONNECTED: Param = Param {
    name: "wait_connected_s",
    max: 60,
    words: &[],
    help: "Seconds to wait after the approval until the device is really connected; default 0.",
};
const WAIT_GEN: Param =
    Param { name: "wait_gen", max: u64::MAX, words: &[], help: "Answer once the generation is newer than this one." };
const TIMEOUT: Param =
    Param { name: "timeout_s", max: 60, words: &[], help: "Answer after so many seconds in any case; default 30." };
const AFTER: Param = Param {
    name: "after",
    max: u64::MAX,
    words: &[],
    help: "Records after this position; without it the newest ones.",
};
const GENERATION: Param =
    Param { name: "generation", max: u64::MAX, words: &[], help: "Show this generation instead of the newest." };
const DRY_RUN: Param =
    Param { name: "dry_run", max: 0, words: &["true"], help: "Check it and say what it changes; keep nothing." };
const APPLY: Param = Param {
    name: "apply",
    max: 0,
    words: &["restart"],
    help: "Restart the gateway with it now, instead of waiting for its next start.",
};
const LIMIT: Param = Param { name: "limit", max: 500, words: &[], help: "Most records in the answer; default 100." };

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
    route!(GET "/v1/desired" Safe Desired [GENERATION] "The desired state, and the generations kept."),
    route!(PUT "/v1/desired" Dangerous PutDesired [DRY_RUN, APPLY, WAIT] "Sets the desired state as a new generation."),
    route!(GET "/v1/secrets" Safe Secrets [] "Names and fingerprints of the stored secrets."),
    route!(PUT "/v1/secrets/{name}" Dangerous PutSecret [] "Stores a secret; the gateway gets it at its next start."),
    route!(DELETE "/v1/secrets/{name}" Dangerous DeleteSecret [] "Forgets a secret."),
    route!(POST "/v1/gateway/start" Dangerous Start [WAIT] "Starts the gateway if it does not run."),
    route!(POST "/v1/gateway/stop" Dangerous Stop [WAIT] "Stops the gateway; it stays stopped until it is started."),
    route!(POST "/v1/gateway/restart" Dangerous Restart [WAIT] "Stops and starts the gateway."),
    route!(POST "/v1/gateway/doctor" Dangerous Doctor [] "Runs the gateway's own doctor."),
    route!(POST "/v1/access" Dangerous Access [] "Makes a link that lets one browser in, once, without approval."),
    route!(POST "/v1/sleep" Dangerous Sleep [WAIT] "Stops everything, so that the machine may sleep."),
    route!(POST "/v1/decommission" Destructive Decommission [] "Wipes the tenant; a second person must grant it."),
    route!(POST "/v1/grants/{id}" Approver Grant [] "Grants what somebody else asked for."),
    route!(GET "/v1/audit" Safe Audit [AFTER, LIMIT] "Who asked for what, and what came of it."),
    route!(GET "/metrics" Safe Metrics [] "OpenMetrics."),
];

/// Looks a request up. HEAD counts as GET.
pub fn find(method: &Method, path: &str) -> Found {
    let method = if method == Method::HEAD { &Method::GET } else { method };
    let mut others = Vec::new();
    for (index, route) in ROUTES.iter().enumerate() {
        let Some(name) = route.matches(path) else { continue };
        if route.method == *method {
            let changes = route.tier >= Tier::Dangerous;
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
        assert!(
            matches!(find(&Method::HEAD, "/livez"), Found::Route(r) if ROUTES[r.index].endpoint == Endpoint::Livez)
        );
        assert!(matches!(find(&Method::PUT, "/v1/secrets/A_B"), Found::Route(r) if r.name == "A_B"));
        for bad in ["/v1/secrets/", "/v1/secrets/a/b", "/v1/secrets/%41", "/v1/secrets/{name}", "/v1/secrets/a.b"] {
            assert!(matches!(find(&Method::PUT, bad), Found::Nothing), "{bad}");
        }
        assert!(matches!(find(&Method::GET, "/v1/secrets"), Found::Route(..)));
        assert!(matches!(find(&Method::GET, "/v1/pairing/approve"), Found::OtherMethods(m) if m == ["POST"]));
        assert!(matches!(find(&Method::GET, "/v1/pairing/"), Found::Nothing));
    }
}
