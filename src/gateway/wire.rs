//! Reading and writing the gateway's socket: every wait bounded, every end explained.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

use super::Down;
use super::frames::{Challenge, Incoming, RpcError, Tag};

const SEND: Duration = Duration::from_secs(10);

pub(super) type Socket = WebSocketStream<TcpStream>;

pub(super) async fn send(socket: &mut Socket, text: String) -> Result<(), Down> {
    match timeout(SEND, socket.send(Message::text(text))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(e)) => Err(Down::Lost(e.to_string())),
        Err(_) => Err(Down::Mute),
    }
}

async fn text(socket: &mut Socket) -> Result<tungstenite::Utf8Bytes, Down> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) => return Ok(text),
            Some(Ok(Message::Close(frame))) => return Err(closed(frame.as_ref())),
            Some(Ok(_)) => {}
            Some(Err(e)) => return Err(Down::Lost(e.to_string())),
            None => return Err(closed(None)),
        }
    }
}

pub(super) async fn read_challenge(socket: &mut Socket) -> Result<Challenge, Down> {
    let text = text(socket).await?;
    let frame: Incoming<'_> =
        serde_json::from_str(&text).map_err(|e| Down::Lost(format!("unreadable first frame: {e}")))?;
    match (frame.event.as_deref(), frame.payload) {
        (Some("connect.challenge"), Some(payload)) => {
            serde_json::from_str(payload.get()).map_err(|e| Down::Lost(format!("unreadable challenge: {e}")))
        }
        _ => Err(Down::Lost("the peer is no gateway: its first frame is no challenge".to_owned())),
    }
}

/// The answer to request `id`; events before it are passed over.
pub(super) async fn answer(socket: &mut Socket, id: &str) -> Result<Result<String, RpcError>, Down> {
    loop {
        let text = text(socket).await?;
        let Ok(frame) = serde_json::from_str::<Incoming<'_>>(&text) else { continue };
        if frame.kind == Tag::Res && frame.id.as_deref() == Some(id) {
            return match (frame.ok, frame.payload, frame.error) {
                (true, Some(payload), _) => Ok(Ok(payload.get().to_owned())),
                (false, _, Some(error)) => Ok(Err(error)),
                _ => Err(Down::Lost("an answer without content".to_owned())),
            };
        }
    }
}

/// What a close means: codes as observed on 2026.4.9 to 2026.9.6.
pub(super) fn closed(frame: Option<&CloseFrame>) -> Down {
    match frame.map(|f| u16::from(f.code)) {
        Some(1012 | 1013) => Down::Starting,
        Some(code) => Down::Lost(format!("closed by the gateway with {code} {}", frame.map_or("", |f| &f.reason))),
        None => Down::Lost("closed without a word".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn close_codes_tell_a_restart_from_a_loss() {
        let frame = |code: u16| CloseFrame { code: code.into(), reason: "why".into() };
        assert_eq!(closed(Some(&frame(1012))), Down::Starting);
        assert_eq!(closed(Some(&frame(1013))), Down::Starting);
        assert_eq!(closed(Some(&frame(4001))), Down::Lost("closed by the gateway with 4001 why".into()));
    }
}
