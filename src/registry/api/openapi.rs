//! The description of the registry's API, made from its route table and the types of the bodies.

use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::admin::{
    DoneReply, KeyReply, KeysReply, NewCredentials, NewKey, NewTenant, NewWebhook, TenantReply, WebhookReply,
    WebhooksReply,
};
use super::routes::{Audience, Endpoint, ROUTES, Route};
use crate::api::openapi::{FROM_THE_HEAD, check_shipped, describe, document, schema};
use crate::api::problem::{codes, registry_codes};
use crate::checkin::wire::{Answer, CheckIn};
use crate::registry::view::{Fleet, Summary, TenantView, Timeline};

/// Media type and schema of a request's body.
fn request_body(endpoint: Endpoint, generator: &mut SchemaGenerator) -> Option<(bool, &'static str, Value)> {
    let schema = match endpoint {
        Endpoint::CheckIn => schema::<CheckIn>(generator),
        Endpoint::CreateTenant => schema::<NewTenant>(generator),
        Endpoint::SetCredentials => schema::<NewCredentials>(generator),
        Endpoint::CreateKey => schema::<NewKey>(generator),
        Endpoint::PutWebhook => schema::<NewWebhook>(generator),
        _ => return None,
    };
    Some((true, "application/json", schema))
}

/// Status, media type and schema of the good answer.
fn good_answer(endpoint: Endpoint, generator: &mut SchemaGenerator) -> (&'static str, &'static str, Value) {
    let text = json!({ "type": "string" });
    let schema = match endpoint {
        Endpoint::Livez | Endpoint::Readyz => return ("200", "text/plain", text),
        Endpoint::Metrics => return ("200", "application/openmetrics-text", text),
        Endpoint::Events | Endpoint::TenantEvents => return ("200", "text/event-stream", text),
        Endpoint::CheckIn => schema::<Answer>(generator),
        Endpoint::Summary => schema::<Summary>(generator),
        Endpoint::Tenants => schema::<Fleet>(generator),
        Endpoint::Tenant => schema::<TenantView>(generator),
        Endpoint::Timeline => schema::<Timeline>(generator),
        Endpoint::CreateTenant => return ("201", "application/json", schema::<TenantReply>(generator)),
        Endpoint::SetCredentials => schema::<TenantReply>(generator),
        Endpoint::RetireTenant | Endpoint::DropKey | Endpoint::DropWebhook => schema::<DoneReply<'_>>(generator),
        Endpoint::Keys => schema::<KeysReply>(generator),
        Endpoint::CreateKey => return ("201", "application/json", schema::<KeyReply<'_>>(generator)),
        Endpoint::Webhooks => schema::<WebhooksReply>(generator),
        Endpoint::PutWebhook => schema::<WebhookReply>(generator),
        _ => json!({ "type": "object" }),
    };
    ("200", "application/json", schema)
}

/// Statuses of problems that a route can answer with.
fn problem_statuses(route: &Route) -> Vec<u16> {
    let from_the_head = codes().filter(|(code, ..)| FROM_THE_HEAD.contains(code));
    let own = registry_codes().filter(|(code, ..)| match *code {
        "store_unavailable" => route.endpoint != Endpoint::Livez,
        "registry_unauthorized" => route.guard != Audience::Public,
        "other_tenant" => route.endpoint == Endpoint::CheckIn,
        "tenant_not_found" => matches!(route.endpoint, Endpoint::Tenant | Endpoint::Timeline | Endpoint::TenantEvents),
        "tenant_retired" => matches!(route.guard, Audience::Agent | Audience::Admin),
        _ => route.guard == Audience::Admin,
    });
    let forbidden = codes().filter(|(code, ..)| *code == "forbidden" && route.guard == Audience::Admin);
    let streams = codes().filter(|(code, ..)| *code == "too_many_streams" && route.path.ends_with("/events"));
    let mut statuses: Vec<u16> =
        from_the_head.chain(own).chain(forbidden).chain(streams).map(|(_, status, _)| status).collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn audience(audience: Audience) -> &'static str {
    match audience {
        Audience::Public => "public",
        Audience::Agent => "agent",
        Audience::Support => "support",
        Audience::Admin => "admin",
        Audience::Page => "page",
    }
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let body = request_body(route.endpoint, generator);
    let (status, media_type, schema) = good_answer(route.endpoint, generator);
    let mut answers = vec![(status, "Done.", Some((media_type, schema.clone())))];
    if route.endpoint == Endpoint::CreateTenant {
        answers.push(("200", "There is such a tenant, with this credential.", Some((media_type, schema))));
    }
    let guard = ("x-audience", audience(route.guard));
    describe(route, guard, "^[A-Za-z0-9._-]{1,64}$", body, answers, &problem_statuses(route))
}

#[test]
fn the_shipped_description_is_what_the_source_says() {
    let operations = |generator: &mut SchemaGenerator| {
        // Pages are for people, and what they load is for pages.
        let called = |route: &&Route| {
            route.guard != Audience::Page && !matches!(route.endpoint, Endpoint::Style | Endpoint::Script)
        };
        let described = ROUTES.iter().filter(called);
        described.map(|route| (route.path, route.method.to_string(), operation(route, generator))).collect()
    };
    let about =
        "Where sidecars phone home to and support looks. Nothing here acts on a machine. /v1 changes only by addition.";
    let shared = codes().filter(|(code, ..)| {
        FROM_THE_HEAD.contains(code)
            || ["forbidden", "route_not_found", "method_not_allowed", "too_many_streams", "internal"].contains(code)
    });
    let document = document("openclaw-registry API", about, operations, shared.chain(registry_codes()));
    check_shipped("registry-openapi.json", &document);
}
