//! The description of the API, made from the route table and the types of the bodies.
//!
//! `docs/openapi.json` is served as it is; the test compares it with what the source says, and writes it anew when
//! `UPDATE_DOCS` is set.

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::body::{
    ApproveBody, ApproveReply, AuditBody, ChangeReply, PairingBody, RejectBody, RenameBody, RevokeBody, StateBody,
};
use super::launch::{
    AccessBody, AccessReply, DesiredBody, DoctorBody, DoctorReply, DoneReply, GrantBody, OrderReply, PutDesiredReply,
    RestartBody, SecretBody, SecretsBody, SleepBody,
};
use super::problem::{self, Problem};
use super::routes::{Endpoint, ROUTES, Route};
use crate::auth::Tier;
use crate::desired::document::Document;
use crate::desired::secrets::SecretInfo;

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// Schema of a route's request body.
fn request_body(endpoint: Endpoint, generator: &mut SchemaGenerator) -> Option<Value> {
    Some(match endpoint {
        Endpoint::Approve => schema::<ApproveBody>(generator),
        Endpoint::Reject => schema::<RejectBody>(generator),
        Endpoint::Revoke => schema::<RevokeBody>(generator),
        Endpoint::Rename => schema::<RenameBody>(generator),
        Endpoint::PutDesired => schema::<Document>(generator),
        Endpoint::PutSecret => schema::<SecretBody>(generator),
        Endpoint::Restart => schema::<RestartBody>(generator),
        Endpoint::Sleep => schema::<SleepBody>(generator),
        Endpoint::Doctor => schema::<DoctorBody>(generator),
        Endpoint::Access => schema::<AccessBody>(generator),
        _ => return None,
    })
}

/// Media type and schema of a route's good answer.
fn good_answer(endpoint: Endpoint, generator: &mut SchemaGenerator) -> (&'static str, Value) {
    let text = json!({ "type": "string" });
    match endpoint {
        Endpoint::Livez => ("text/plain", text),
        Endpoint::Readyz => ("application/json", readyz()),
        Endpoint::OpenApi => ("application/json", json!({ "type": "object" })),
        Endpoint::State => ("application/json", schema::<StateBody>(generator)),
        Endpoint::Events => ("text/event-stream", text),
        Endpoint::Pairing => ("application/json", schema::<PairingBody>(generator)),
        Endpoint::Approve => ("application/json", schema::<ApproveReply>(generator)),
        Endpoint::Reject | Endpoint::Revoke | Endpoint::Rename => {
            ("application/json", schema::<ChangeReply>(generator))
        }
        Endpoint::Desired => ("application/json", schema::<DesiredBody>(generator)),
        Endpoint::PutDesired => ("application/json", schema::<PutDesiredReply>(generator)),
        Endpoint::Secrets => ("application/json", schema::<SecretsBody>(generator)),
        Endpoint::PutSecret => ("application/json", schema::<SecretInfo>(generator)),
        Endpoint::Start | Endpoint::Stop | Endpoint::Restart | Endpoint::Sleep => {
            ("application/json", schema::<OrderReply>(generator))
        }
        Endpoint::Doctor => ("application/json", schema::<DoctorReply>(generator)),
        Endpoint::Access => ("application/json", schema::<AccessReply>(generator)),
        Endpoint::DeleteSecret | Endpoint::Decommission | Endpoint::Grant => {
            ("application/json", schema::<DoneReply>(generator))
        }
        Endpoint::Audit => ("application/json", schema::<AuditBody>(generator)),
        Endpoint::Metrics => ("application/openmetrics-text", text),
    }
}

fn readyz() -> Value {
    json!({
        "type": "object",
        "required": ["ready", "phase"],
        "properties": { "ready": { "type": "boolean" }, "phase": { "type": "string" } },
    })
}

/// What any request may be refused for, before its route matters.
const FROM_THE_HEAD: [&str; 9] = [
    "bad_request",
    "misdirected",
    "origin_refused",
    "length_required",
    "uri_too_long",
    "body_too_large",
    "unsupported_media_type",
    "invalid_body",
    "invalid_query",
];

/// Statuses of problems that a route can answer with.
fn problem_statuses(route: &Route) -> Vec<u16> {
    let mut statuses: Vec<u16> = problem::codes()
        .filter(|(code, ..)| match *code {
            "unauthorized" | "forbidden" | "route_not_found" | "method_not_allowed" | "internal" => {
                route.tier > Tier::Public
            }
            "too_many_streams" => route.endpoint == Endpoint::Events,
            "needs_launch_mode" if matches!(route.endpoint, Endpoint::Desired | Endpoint::Secrets) => true,
            "generation_not_found" => route.endpoint == Endpoint::Desired,
            code if FROM_THE_HEAD.contains(&code) => true,
            _ => route.tier >= Tier::Dangerous,
        })
        .map(|(_, status, _)| status)
        .filter(|status| !(route.endpoint == Endpoint::Readyz && *status == 503))
        .collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let (media_type, answer) = good_answer(route.endpoint, generator);
    let mut responses = Map::new();
    responses
        .insert("200".to_owned(), json!({ "description": "Done.", "content": { media_type: { "schema": answer } } }));
    if route.endpoint == Endpoint::Readyz {
        let body = json!({ "application/json": { "schema": readyz() } });
        responses.insert("503".to_owned(), json!({ "description": "Not ready.", "content": body }));
    }
    if route.endpoint == Endpoint::Decommission {
        let body = json!({ "application/json": { "schema": schema::<GrantBody>(generator) } });
        responses.insert("202".to_owned(), json!({ "description": "A second person must grant it.", "content": body }));
    }
    if route.endpoint == Endpoint::State {
        responses.insert("304".to_owned(), json!({ "description": "Nothing new since If-None-Match." }));
    }
    for status in problem_statuses(route) {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    let mut parameters: Vec<Value> = route
        .params
        .iter()
        .map(|p| {
            let mut schema = json!({ "type": "integer", "minimum": 0 });
            if !p.words.is_empty() {
                schema = json!({ "type": "string", "enum": p.words });
            } else if p.max < u64::MAX {
                schema["maximum"] = p.max.into();
            }
            json!({ "name": p.name, "in": "query", "description": p.help, "schema": schema })
        })
        .collect();
    if let Some((_, name)) = route.path.split_once('{') {
        let name = name.trim_end_matches('}');
        let schema = json!({ "type": "string", "pattern": "^[A-Za-z0-9_-]{1,128}$" });
        parameters.push(json!({ "name": name, "in": "path", "required": true, "schema": schema }));
    }
    if route.endpoint == Endpoint::PutDesired {
        let help = "The newest generation in quotes, as GET /v1/desired has it for ETag; \"0\" when there is none.";
        let schema = json!({ "type": "string" });
        parameters.push(
            json!({ "name": "If-Match", "in": "header", "required": true, "description": help, "schema": schema }),
        );
    }
    let mut operation = json!({
        "summary": route.summary,
        "operationId": format!("{:?}", route.endpoint).to_lowercase(),
        "x-tier": route.tier.name(),
        "parameters": parameters,
        "responses": responses,
        "security": if route.tier == Tier::Public { json!([]) } else { json!([{ "bearer": [] }]) },
    });
    if let Some(body) = request_body(route.endpoint, generator) {
        let optional = matches!(route.endpoint, Endpoint::Restart | Endpoint::Sleep | Endpoint::Doctor);
        operation["requestBody"] =
            json!({ "required": !optional, "content": { "application/json": { "schema": body } } });
    }
    operation
}

fn document() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.as_str().to_lowercase()] = operation(route, &mut generator);
    }
    let problem = schema::<Problem>(&mut generator);
    let codes: Vec<Value> = problem::codes()
        .map(|(code, status, title)| json!({ "code": code, "status": status, "title": title }))
        .collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "openclaw-sidecar control API",
            "version": "1",
            "description": "The control API beside an OpenClaw gateway. /v1 changes only by addition.",
            "license": { "name": "MIT", "identifier": "MIT" },
        },
        "paths": paths,
        "components": {
            "schemas": generator.take_definitions(true),
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
            "responses": {
                "Problem": {
                    "description": "An error; branch on `code`.",
                    "content": { "application/problem+json": { "schema": problem } },
                },
            },
        },
        "x-problem-codes": codes,
    })
}

#[test]
fn the_shipped_description_is_what_the_source_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let now = serde_json::to_string_pretty(&document()).unwrap() + "\n";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        crate::files::replace(std::path::Path::new(path), now.as_bytes(), 0o644).unwrap();
    }
    let shipped = std::fs::read_to_string(path).unwrap();
    assert!(shipped == now, "docs/openapi.json is out of date: UPDATE_DOCS=1 cargo test --lib openapi");
}
