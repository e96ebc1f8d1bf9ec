//! The pages served as the registry serves them: its content security policy, its events.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use openclaw_sidecar::registry::console::{CSS, JS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; \
    form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
const EVENTS: &str = "/console/events";

/// A few pages on a port of their own; gone when dropped.
#[derive(Debug)]
pub struct Site {
    pub port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    pages: Mutex<BTreeMap<String, String>>,
    changes: watch::Sender<u64>,
    /// False: event streams end, and everything is refused.
    up: watch::Sender<bool>,
    /// Raised by each event stream that ends.
    closed: watch::Sender<u64>,
}

impl Site {
    pub async fn start(pages: impl IntoIterator<Item = (String, String)>) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let pages = Mutex::new(pages.into_iter().collect());
        let shared = Arc::new(Shared {
            pages,
            changes: watch::Sender::new(0),
            up: watch::Sender::new(true),
            closed: watch::Sender::new(0),
        });
        let inside = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, inside.clone()));
            }
        });
        Ok(Self { port, shared, task })
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Puts another page in the place of one and tells whoever listens.
    pub fn change(&self, path: &str, page: String) {
        self.shared.pages.lock().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), page);
        self.shared.changes.send_modify(|n| *n += 1);
    }

    /// How many pages listen to changes.
    pub fn listeners(&self) -> usize {
        self.shared.changes.receiver_count()
    }

    /// Waits until so many listen.
    pub async fn until_listeners(&self, wanted: usize) {
        let mut closed = self.shared.closed.subscribe();
        while self.listeners() != wanted {
            // The sender lives as long as we do.
            let _ = closed.changed().await;
        }
    }

    pub fn set_up(&self, up: bool) {
        self.shared.up.send_replace(up);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let target = head.split(' ').nth(1)?;
    let path = target.split('?').next()?;
    if !*shared.up.borrow() {
        return answer(&mut stream, "503 Service Unavailable", "text/plain", "").await;
    }
    match path {
        "/assets/console.css" => answer(&mut stream, "200 OK", "text/css", CSS).await,
        "/assets/console.js" => answer(&mut stream, "200 OK", "text/javascript", JS).await,
        EVENTS => {
            tell(&mut stream, &shared).await;
            shared.closed.send_modify(|n| *n += 1);
            None
        }
        _ => {
            let pages = shared.pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
            match pages.get(target).or_else(|| pages.get(path)) {
                Some(page) => answer(&mut stream, "200 OK", "text/html; charset=utf-8", page).await,
                None => answer(&mut stream, "404 Not Found", "text/plain", "no such page").await,
            }
        }
    }
}

async fn answer(stream: &mut TcpStream, status: &str, kind: &str, body: &str) -> Option<()> {
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nContent-Security-Policy: {POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await.ok()?;
    stream.write_all(body.as_bytes()).await.ok()
}

async fn tell(stream: &mut TcpStream, shared: &Shared) -> Option<()> {
    let mut changes = shared.changes.subscribe();
    let mut up = shared.up.subscribe();
    let (mut reader, mut writer) = stream.split();
    writer
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n: ping\n\n")
        .await
        .ok()?;
    loop {
        tokio::select! {
            changed = changes.changed() => changed.ok()?,
            _ = up.wait_for(|up| !up) => return None,
            _ = reader.read_u8() => return None,
        }
        writer.write_all(b"event: changed\ndata: {\"tenant\":\"\"}\n\n").await.ok()?;
    }
}
