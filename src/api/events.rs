//! `/v1/events`: what happened, as Server-Sent Events that resume.

use std::sync::Arc;

use hyper::body::Bytes;
use tokio::sync::mpsc;

use super::Context;
use crate::auth::Principal;
use crate::http::app::{Call, Feed};
use crate::http::stream::PING;
use crate::state::{Event, State};

/// Starts a stream where the caller left, or tells it to read the state anew.
pub fn feed(context: &Arc<Context>, call: &Call) -> Feed {
    let start = start(&context.state, call);
    let context = context.clone();
    let principal = call.principal.clone().unwrap_or_else(|| Principal::local(u32::MAX));
    Feed(Box::new(move |pieces| Box::pin(async move { run(&context, start, &principal, &pieces).await })))
}

/// Where a stream begins.
#[derive(Debug)]
struct Start {
    /// Events after this position follow.
    after: u64,
    /// It cannot resume where the caller left: the caller has to read the state anew.
    reset: Option<&'static str>,
}

fn start(state: &State, call: &Call) -> Start {
    let newest = state.last_seq();
    let Some(last) = &call.last_event_id else {
        return Start { after: newest, reset: Some("start") };
    };
    let resumed = last.split_once('.').filter(|(boot, _)| *boot == state.boot()).and_then(|(_, seq)| seq.parse().ok());
    match resumed {
        Some(seen) if state.events_after(seen).is_some() => Start { after: seen, reset: None },
        _ => Start { after: newest, reset: Some("gap") },
    }
}

async fn run(context: &Context, start: Start, principal: &Principal, pieces: &mpsc::Sender<Bytes>) {
    let state = &context.state;
    let mut news = state.watch();
    let mut credentials = context.auth.watch();
    let mut after = start.after;
    let mut reset = start.reset;
    loop {
        if !context.auth.still_valid(principal) {
            return;
        }
        news.mark_unchanged();
        let due = if let Some(why) = reset.take() {
            Some(reset_text(state, after, why))
        } else if let Some(events) = state.events_after(after) {
            after = events.last().map_or(after, |e| e.seq);
            (!events.is_empty()).then(|| events.iter().map(|e| event_text(state.boot(), e)).collect())
        } else {
            after = state.last_seq();
            reset = Some("gap");
            continue;
        };
        if let Some(text) = due {
            if pieces.send(Bytes::from(text)).await.is_err() {
                return;
            }
            continue;
        }
        tokio::select! {
            () = pieces.closed() => return,
            changed = news.changed() => if changed.is_err() { return },
            _ = credentials.changed() => {}
            () = tokio::time::sleep(PING) => {
                if pieces.send(Bytes::from_static(b": ping\n\n")).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// The id of an event in a stream is the process's name and the position, `<boot>.<seq>`.
fn event_text(boot: &str, event: &Event) -> String {
    format!("id: {boot}.{}\nevent: {}\ndata: {}\n\n", event.seq, event.name, event.data)
}

/// Tells the reader to read the state anew; what happens after that state follows.
fn reset_text(state: &State, after: u64, why: &str) -> String {
    let data = serde_json::json!({ "reason": why, "generation": state.now().generation });
    format!("retry: 2000\nid: {}.{after}\nevent: reset\ndata: {data}\n\n", state.boot())
}
