//! A TCP stream that, when told to, lets its bytes out one at a time.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Sleep, sleep};

use super::faults::Switches;

#[derive(Debug)]
pub struct DripStream {
    inner: TcpStream,
    switches: watch::Receiver<Switches>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl DripStream {
    pub fn new(inner: TcpStream, switches: watch::Receiver<Switches>) -> Self {
        Self { inner, switches, pause: None }
    }

    fn between_bytes(&self) -> Option<Duration> {
        self.switches.borrow().drip
    }
}

impl AsyncRead for DripStream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buf)
    }
}

impl AsyncWrite for DripStream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let Some(between) = self.between_bytes() else {
            return Pin::new(&mut self.inner).poll_write(cx, buf);
        };
        let wrote = ready!(Pin::new(&mut self.inner).poll_write(cx, &buf[..buf.len().min(1)]));
        self.pause = Some(Box::pin(sleep(between)));
        Poll::Ready(wrote)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
