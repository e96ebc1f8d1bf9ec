//! What machines call: one route, whole states, an answer that schedules and never commands.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Bytes;

use super::{Answer, Call, Context, json, now};
use crate::api::problem::Problem;
use crate::auth::Principal;
use crate::checkin::wire::{Ack, Answer as Acknowledged, CheckIn, TICKET_HEADER};
use crate::registry::rules::{self, Arrival};
use crate::registry::store::{Outcome, Work};
use crate::registry::tenant::is_id;

/// Takes a check-in, and answers once it is durable.
pub(super) async fn check_in(context: &Arc<Context>, call: &Call) -> Result<Answer, Problem> {
    let started = tokio::time::Instant::now();
    let caller = call.principal.as_ref().ok_or_else(|| Problem::new("registry_unauthorized", "no credential"))?;
    let message = parse(&call.body)?;
    if message.tenant != caller.id {
        return Err(Problem::new("other_tenant", "the credential is not that of the tenant in the message"));
    }
    let ack = Ack { boot_id: message.boot_id.clone(), seq: message.seq, events: last_event(&message) };
    let tenant = message.tenant.clone();
    let arrival = arrival(context, call, caller, message)?;
    let blind = context.blind();
    let act = Box::new(move |row: Option<&_>| rules::check_in(row, &arrival, &blind));
    let outcome = context.ingest.amend(Work { tenant, act }).await.map_err(|why| context.unwritable(why))?;
    context.metrics.checked_in(outcome.name(), started.elapsed());
    let events = match outcome {
        Outcome::Done => ack.events,
        // Overtaken by a newer message: what it brought was not kept.
        Outcome::Unchanged => 0,
        Outcome::Retired => return Err(Problem::new("tenant_retired", "this tenant was retired")),
        _ => return Err(Problem::new("registry_unauthorized", "the credential is not this tenant's any more")),
    };
    json(StatusCode::OK, &Acknowledged { ack: Ack { events, ..ack }, next_s: context.interval_s })
}

fn arrival(context: &Context, call: &Call, caller: &Principal, message: CheckIn) -> Result<Arrival, Problem> {
    let credential = *caller.digest().ok_or_else(|| Problem::new("registry_unauthorized", "no credential"))?;
    let ticket = call.headers.get(TICKET_HEADER).and_then(|t| t.to_str().ok());
    let owner = ticket.and_then(|ticket| context.signer.ticket_owner(ticket, &credential));
    let ticket = owner.as_ref() == Some(&message.tenant);
    Ok(Arrival { message, credential, ticket, at: now() })
}

fn last_event(message: &CheckIn) -> u64 {
    message.events.iter().map(|event| event.seq).max().unwrap_or(0)
}

/// Reads a message. Fields that are not known are left alone: the sidecar may be newer.
pub(crate) fn parse(body: &Bytes) -> Result<CheckIn, Problem> {
    // Where in the message it is wrong is looked for only when it is: keeping track takes as long as reading.
    let place = |_| Problem::new("invalid_body", crate::json::parse::<CheckIn>(body).err().unwrap_or_default());
    let message: CheckIn = serde_json::from_slice(body).map_err(place)?;
    let named = |field: &str, what: &str| Err(Problem::new("invalid_body", format!("{field}: {what}")));
    if !is_id(&message.tenant) {
        return named(
            "tenant",
            "must be 1 to 64 letters, digits, dots, dashes or underscores, not beginning with a dot",
        );
    }
    if !is_id(&message.boot_id) {
        return named(
            "boot_id",
            "must be 1 to 64 letters, digits, dots, dashes or underscores, not beginning with a dot",
        );
    }
    // They are kept as signed numbers; no machine starts or speaks so often.
    let count = |n: u64| (1..=1 << 52).contains(&n);
    if !count(message.epoch) || !count(message.seq) {
        return named("epoch, seq", "must be whole numbers from 1 to 2^52");
    }
    if message.events.iter().any(|event| !count(event.seq)) {
        return named("events", "each seq must be a whole number from 1 to 2^52");
    }
    Ok(message)
}
