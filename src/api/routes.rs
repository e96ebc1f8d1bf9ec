//! The route table: the whole API at a glance. A route without a tier does not compile.

use hyper::Method;

use crate::auth::Tier;
use crate::http::MAX_BODY;
use crate::http::app::Takes;
use crate::http::query::{Kind, Param};
use crate::http::route::{self, Table, routes};

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

/// One row of the table; its guard is what a caller must be.
pub type Route = route::Route<Tier, Endpoint>;

/// Largest desired state, in bytes.
pub const MAX_DESIRED: usize = 1024 * 1024;
/// Longest name in a path, in bytes.
const MAX_NAME: usize = 128;

/// The table, and what holds for every row.
pub const TABLE: Table<Tier, Endpoint> = Table { routes: ROUTES, is_name, changes, takes };

fn is_name(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    name.len() <= MAX_NAME && name.bytes().all(plain)
}

fn changes(route: &Route) -> bool {
    route.guard >= Tier::Dangerous
}

fn takes(route: &Route) -> Takes {
    match route.method {
        _ if route.endpoint == Endpoint::PutDesired => Takes::Json(MAX_DESIRED),
        Method::POST | Method::PUT => Takes::Json(MAX_BODY),
        _ => Takes::Nothing,
    }
}

const WAIT: Param = Param {
    name: "wait_s",
    kind: Kind::Number(0, 60),
    help: "Seconds to wait for the gateway to be ready and to answer; default 20, at least 1.",
};
const WAIT_CONNECTED: Param = Param {
    name: "wait_connected_s",
    kind: Kind::Number(0, 60),
    help: "Seconds to wait after the approval until the device is really connected; default 0.",
};
const WAIT_GEN: Param = Param {
    name: "wait_gen",
    kind: Kind::Number(0, u64::MAX),
    help: "Answer once the generation is newer than this one.",
};
const TIMEOUT: Param = Param {
    name: "timeout_s",
    kind: Kind::Number(0, 60),
    help: "Answer after so many seconds in any case; default 30.",
};
const AFTER: Param = Param {
    name: "after",
    kind: Kind::Number(0, u64::MAX),
    help: "Records after this position; without it the newest ones.",
};
const GENERATION: Param =
    Param { name: "generation", kind: Kind::Number(0, u64::MAX), help: "Show this generation instead of the newest." };
const DRY_RUN: Param =
    Param { name: "dry_run", kind: Kind::Words(&["true"]), help: "Check it and say what it changes; keep nothing." };
const APPLY: Param = Param {
    name: "apply",
    kind: Kind::Words(&["restart"]),
    help: "Restart the gateway with it now, instead of waiting for its next start.",
};
const LIMIT: Param =
    Param { name: "limit", kind: Kind::Number(0, 500), help: "Most records in the answer; default 100." };

/// Every route there is.
pub const ROUTES: &[Route] = routes! { Tier, Endpoint;
    GET "/livez" Public Livez [] "The sidecar runs.";
    GET "/readyz" Public Readyz [] "200 while the gateway answers authenticated calls, else 503 with its phase.";
    GET "/openapi.json" Public OpenApi [] "This description.";
    GET "/v1/state" Safe State [WAIT_GEN, TIMEOUT] "What the machine is doing; waits for news with wait_gen.";
    GET "/v1/events" Safe Events [] "Server-Sent Events; resumes with Last-Event-ID.";
    GET "/v1/pairing" Safe Pairing [] "What waits for approval and what was approved.";
    POST "/v1/pairing/approve" Dangerous Approve [WAIT, WAIT_CONNECTED] "Lets a device, node or sender in.";
    POST "/v1/pairing/reject" Dangerous Reject [WAIT] "Turns a request down.";
    POST "/v1/pairing/revoke" Dangerous Revoke [WAIT] "Takes a pairing back and closes its sessions.";
    POST "/v1/pairing/rename" Dangerous Rename [WAIT] "Gives a device or node a name for people.";
    GET "/v1/desired" Safe Desired [GENERATION] "The desired state, and the generations kept.";
    PUT "/v1/desired" Dangerous PutDesired [DRY_RUN, APPLY, WAIT] "Sets the desired state as a new generation.";
    GET "/v1/secrets" Safe Secrets [] "Names and fingerprints of the stored secrets.";
    PUT "/v1/secrets/{name}" Dangerous PutSecret [] "Stores a secret; the gateway gets it at its next start.";
    DELETE "/v1/secrets/{name}" Dangerous DeleteSecret [] "Forgets a secret.";
    POST "/v1/gateway/start" Dangerous Start [WAIT] "Starts the gateway if it does not run.";
    POST "/v1/gateway/stop" Dangerous Stop [WAIT] "Stops the gateway; it stays stopped until it is started.";
    POST "/v1/gateway/restart" Dangerous Restart [WAIT] "Stops and starts the gateway.";
    POST "/v1/gateway/doctor" Dangerous Doctor [] "Runs the gateway's own doctor.";
    POST "/v1/access" Dangerous Access [] "Makes a link that lets one browser in, once, without approval.";
    POST "/v1/sleep" Dangerous Sleep [WAIT] "Stops everything, so that the machine may sleep.";
    POST "/v1/decommission" Destructive Decommission [] "Wipes the tenant; a second person must grant it.";
    POST "/v1/grants/{id}" Approver Grant [] "Grants what somebody else asked for.";
    GET "/v1/audit" Safe Audit [AFTER, LIMIT] "Who asked for what, and what came of it.";
    GET "/metrics" Safe Metrics [] "OpenMetrics.";
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::app::Found;

    #[test]
    fn routes_are_unique_and_writes_are_never_safe() {
        for (n, route) in ROUTES.iter().enumerate() {
            assert!(ROUTES[..n].iter().all(|r| (&r.method, r.path) != (&route.method, route.path)));
            if route.method != Method::GET {
                assert!(route.guard >= Tier::Dangerous, "{} changes something", route.path);
            }
        }
        assert!(ROUTES.len() <= 25);
    }

    #[test]
    fn lookup_tells_a_wrong_method_from_a_wrong_path() {
        assert!(
            matches!(TABLE.find(&Method::HEAD, "/livez"), Found::Route(r) if ROUTES[r.index].endpoint == Endpoint::Livez)
        );
        assert!(matches!(TABLE.find(&Method::PUT, "/v1/secrets/A_B"), Found::Route(r) if r.name == "A_B"));
        for bad in ["/v1/secrets/", "/v1/secrets/a/b", "/v1/secrets/%41", "/v1/secrets/{name}", "/v1/secrets/a.b"] {
            assert!(matches!(TABLE.find(&Method::PUT, bad), Found::Nothing), "{bad}");
        }
        assert!(matches!(TABLE.find(&Method::GET, "/v1/secrets"), Found::Route(..)));
        assert!(matches!(TABLE.find(&Method::GET, "/v1/pairing/approve"), Found::OtherMethods(m) if m == ["POST"]));
        assert!(matches!(TABLE.find(&Method::GET, "/v1/pairing/"), Found::Nothing));
    }
}
