//! Bodies of answers: whole, or a stream of Server-Sent Events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

use super::Shared;
use crate::api::{StreamStart, event_id};
use crate::auth::Principal;
use crate::state::Event;

/// A comment line keeps proxies from closing a quiet stream, and finds out that the reader is gone.
const PING: Duration = Duration::from_secs(15);

/// Events under way to one reader; one that falls further behind waits, and past the kept window gets a `reset`.
const IN_FLIGHT: usize = 16;

/// The body of an answer.
#[derive(Debug)]
pub enum AnswerBody {
    /// All of it.
    Whole(Option<Bytes>),
    /// Pieces as they come, until the sender is dropped.
    Pieces(mpsc::Receiver<Bytes>),
}

impl AnswerBody {
    /// A whole body.
    pub fn whole(bytes: Bytes) -> Self {
        Self::Whole(Some(bytes).filter(|b| !b.is_empty()))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let bytes = match &mut *self {
            Self::Whole(bytes) => bytes.take(),
            Self::Pieces(pieces) => match pieces.poll_recv(cx) {
                Poll::Ready(bytes) => bytes,
                Poll::Pending => return Poll::Pending,
            },
        };
        Poll::Ready(bytes.map(|b| Ok(Frame::data(b))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |b| b.len() as u64)),
            Self::Pieces(_) => SizeHint::default(),
        }
    }
}

/// Starts a task that feeds a stream of events until the reader leaves, loses its credential, or we stop. `None` when
/// too many streams are open.
pub fn events(shared: &Arc<Shared>, start: StreamStart, principal: Principal) -> Option<AnswerBody> {
    let permit = shared.streams.clone().try_acquire_owned().ok()?;
    let (pieces, receiver) = mpsc::channel(IN_FLIGHT);
    let shared = shared.clone();
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = feed(&shared, start, &principal, &pieces) => {}
        }
    });
    Some(AnswerBody::Pieces(receiver))
}

async fn feed(shared: &Shared, start: StreamStart, principal: &Principal, pieces: &mpsc::Sender<Bytes>) {
    let state = &shared.context.state;
    let mut news = state.watch();
    let mut credentials = shared.auth.watch();
    let mut after = start.after;
    let mut reset = start.reset;
    loop {
        if !shared.auth.still_valid(principal) {
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

fn event_text(boot: &str, event: &Event) -> String {
    format!("id: {}\nevent: {}\ndata: {}\n\n", event_id(boot, event), event.name, event.data)
}

/// Tells the reader to read the state anew; what happens after that state follows.
fn reset_text(state: &crate::state::State, after: u64, why: &str) -> String {
    let data = serde_json::json!({ "reason": why, "generation": state.now().generation });
    format!("retry: 2000\nid: {}.{after}\nevent: reset\ndata: {data}\n\n", state.boot())
}
