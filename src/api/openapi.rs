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
use crate::http::query::Kind;

pub(crate) fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
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
pub(crate) const FROM_THE_HEAD: [&str; 9] = [
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
                route.guard > Tier::Public
            }
            "too_many_streams" => route.endpoint == Endpoint::Events,
            "needs_launch_mode" if matches!(route.endpoint, Endpoint::Desired | Endpoint::Secrets) => true,
            "generation_not_found" => route.endpoint == Endpoint::Desired,
            code if FROM_THE_HEAD.contains(&code) => true,
            _ => route.guard >= Tier::Dangerous,
        })
        .map(|(_, status, _)| status)
        .filter(|status| !(route.endpoint == Endpoint::Readyz && *status == 503))
        .collect();
    statuses.sort_unstable();
    statuses.dedup();
    statuses
}

fn operation(route: &Route, generator: &mut SchemaGenerator) -> Value {
    let mut answers = vec![("200", "Done.", Some(good_answer(route.endpoint, generator)))];
    if route.endpoint == Endpoint::Readyz {
        answers.push(("503", "Not ready.", Some(("application/json", readyz()))));
    }
    if route.endpoint == Endpoint::Decommission {
        let body = schema::<GrantBody>(generator);
        answers.push(("202", "A second person must grant it.", Some(("application/json", body))));
    }
    if route.endpoint == Endpoint::State {
        answers.push(("304", "Nothing new since If-None-Match.", None));
    }
    let optional = matches!(route.endpoint, Endpoint::Restart | Endpoint::Sleep | Endpoint::Doctor);
    let body = request_body(route.endpoint, generator).map(|schema| (!optional, "application/json", schema));
    let mut operation = describe(
        route,
        ("x-tier", route.guard.name()),
        "^[A-Za-z0-9_-]{1,128}$",
        body,
        answers,
        &problem_statuses(route),
    );
    if route.endpoint == Endpoint::PutDesired {
        let help = "The newest generation in quotes, as GET /v1/desired has it for ETag; \"0\" when there is none.";
        let schema = json!({ "type": "string" });
        let header =
            json!({ "name": "If-Match", "in": "header", "required": true, "description": help, "schema": schema });
        operation["parameters"].as_array_mut().unwrap().push(header);
    }
    operation
}

/// Status, what it means, and media type and schema of the body if there is one.
pub(crate) type GoodAnswer = (&'static str, &'static str, Option<(&'static str, Value)>);

/// One operation of a program's table. A request's body says whether it is required, its media type and its schema.
pub(crate) fn describe<G, E: std::fmt::Debug>(
    route: &crate::http::route::Route<G, E>,
    guard: (&str, &str),
    name_pattern: &str,
    body: Option<(bool, &'static str, Value)>,
    answers: Vec<GoodAnswer>,
    problems: &[u16],
) -> Value {
    let mut responses = Map::new();
    for (status, meaning, content) in answers {
        let mut answer = json!({ "description": meaning });
        if let Some((media_type, schema)) = content {
            answer["content"] = json!({ media_type: { "schema": schema } });
        }
        responses.insert(status.to_owned(), answer);
    }
    for status in problems {
        responses.insert(status.to_string(), json!({ "$ref": "#/components/responses/Problem" }));
    }
    let query = route
        .params
        .iter()
        .map(|p| json!({ "name": p.name, "in": "query", "description": p.help, "schema": parameter(p.kind) }));
    let name = route.path.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map(|(name, _)| {
        let schema = json!({ "type": "string", "pattern": name_pattern });
        json!({ "name": name, "in": "path", "required": true, "schema": schema })
    });
    let mut operation = json!({
        "summary": route.summary,
        "operationId": format!("{:?}", route.endpoint).to_lowercase(),
        guard.0: guard.1,
        "parameters": query.chain(name).collect::<Vec<_>>(),
        "responses": responses,
        "security": if guard.1 == "public" { json!([]) } else { json!([{ "bearer": [] }]) },
    });
    if let Some((required, media_type, schema)) = body {
        operation["requestBody"] = json!({ "required": required, "content": { media_type: { "schema": schema } } });
    }
    operation
}

fn parameter(kind: Kind) -> Value {
    match kind {
        Kind::Number(least, u64::MAX) => json!({ "type": "integer", "minimum": least }),
        Kind::Number(least, most) => json!({ "type": "integer", "minimum": least, "maximum": most }),
        Kind::Words(words) => json!({ "type": "string", "enum": words }),
        Kind::Text => json!({ "type": "string", "maxLength": 256 }),
    }
}

/// The whole description: operations by path and method, and the problems a program may answer.
pub(crate) fn document<'c>(
    title: &str,
    description: &str,
    operations: impl FnOnce(&mut SchemaGenerator) -> Vec<(&'static str, String, Value)>,
    codes: impl Iterator<Item = (&'c str, u16, &'c str)>,
) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut generator = settings.into_generator();
    let mut paths: Map<String, Value> = Map::new();
    for (path, method, operation) in operations(&mut generator) {
        paths.entry(path).or_insert_with(|| json!({}))[method.to_lowercase()] = operation;
    }
    let problem = schema::<Problem>(&mut generator);
    let codes: Vec<Value> =
        codes.map(|(code, status, title)| json!({ "code": code, "status": status, "title": title })).collect();
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": "1",
            "description": description,
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

/// Compares a description with the file that is shipped, and writes that anew when `UPDATE_DOCS` is set.
pub(crate) fn check_shipped(name: &str, document: &Value) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(name);
    let now = serde_json::to_string_pretty(document).unwrap() + "\n";
    if std::env::var_os("UPDATE_DOCS").is_some() {
        crate::files::replace(&path, now.as_bytes(), 0o644).unwrap();
    }
    let shipped = std::fs::read_to_string(path).unwrap();
    assert!(shipped == now, "docs/{name} is out of date: UPDATE_DOCS=1 cargo test --lib --features registry openapi");
}

#[test]
fn the_shipped_description_is_what_the_source_says() {
    let operations = |generator: &mut SchemaGenerator| {
        ROUTES.iter().map(|route| (route.path, route.method.to_string(), operation(route, generator))).collect()
    };
    let about = "The control API beside an OpenClaw gateway. /v1 changes only by addition.";
    check_shipped("openapi.json", &document("openclaw-sidecar control API", about, operations, problem::codes()));
}
