//! Bodies of answers: whole, or a stream of Server-Sent Events.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::body::{Body, Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

use super::Shared;
use super::app::Feed;

/// A comment line keeps proxies from closing a quiet stream, and finds out that the reader is gone.
pub const PING: Duration = Duration::from_secs(15);

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

/// Starts a task that feeds a stream of events until the reader leaves, the feed ends, or we stop. `None` when too many
/// streams are open.
pub fn events(shared: &Arc<Shared>, feed: Feed) -> Option<AnswerBody> {
    let permit = shared.streams.clone().try_acquire_owned().ok()?;
    let (pieces, receiver) = mpsc::channel(IN_FLIGHT);
    let stop = shared.stop.clone();
    tokio::spawn(async move {
        let _permit = permit;
        tokio::select! {
            () = stop.cancelled() => {}
            () = (feed.0)(pieces) => {}
        }
    });
    Some(AnswerBody::Pieces(receiver))
}
