//! The reference for what HTTPS costs at all: hyper and tokio-rustls on one thread, and one check of a bearer.
//!
//! It runs as a child of the bench (`bench floor`), built with the same compiler settings and crates as the daemon.
//! What it answers comes on its stdin, its address and certificate go out on its stdout.

use std::{convert::Infallible, io::Read as _, net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use data_encoding::HEXLOWER;
use http_body_util::Full;
use hyper::{Request, Response, StatusCode, body::Bytes, header, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    time::timeout,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    process::Process,
    support::{client::Client, sidecar::new_token},
};

const START_LIMIT: Duration = Duration::from_secs(20);

/// How the floor comes by the body it sends.
#[derive(Clone, Copy)]
pub enum Body {
    /// The same bytes every time.
    Ready,
    /// Serialised anew for each request.
    Serialised,
}

/// A running floor server; dropping it ends it.
pub struct Floor {
    child: Child,
    pub client: Client,
}

impl Floor {
    /// Starts one that answers `body` (JSON) to whoever has the token.
    pub async fn start(body: &str, how: Body) -> anyhow::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .arg("floor")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("starting the floor server")?;
        let token = new_token();
        let order = json!({ "body": body, "serialise": matches!(how, Body::Serialised), "token": token });
        let mut stdin = child.stdin.take().context("stdin is piped")?;
        stdin.write_all(order.to_string().as_bytes()).await?;
        // It reads to the end.
        drop(stdin);
        let mut lines = BufReader::new(child.stdout.take().context("stdout is piped")?).lines();
        let line = timeout(START_LIMIT, lines.next_line()).await.context("the floor server is silent")??;
        let line: Value = serde_json::from_str(&line.context("the floor server ended")?)?;
        let text = |name: &str| line[name].as_str().with_context(|| format!("no {name}"));
        let address: SocketAddr = text("address")?.parse()?;
        let certificate = CertificateDer::from(HEXLOWER.decode(text("certificate")?.as_bytes())?);
        Ok(Self { child, client: Client::tls(address, &certificate, Some(&token)) })
    }

    pub fn process(&self) -> anyhow::Result<Process> {
        Ok(Process(self.child.id().context("the floor server ended")?))
    }
}

/// What it answers, and to whom.
struct Answer {
    body: Bytes,
    value: Option<Value>,
    token: [u8; 32],
}

/// The child's side.
pub fn serve() -> anyhow::Result<()> {
    let mut order = String::new();
    std::io::stdin().read_to_string(&mut order)?;
    let order: Value = serde_json::from_str(&order)?;
    let body = order["body"].as_str().context("no body")?.to_owned();
    let value = if order["serialise"] == true { Some(serde_json::from_str(&body)?) } else { None };
    let token = Sha256::digest(order["token"].as_str().context("no token")?.as_bytes()).into();
    let answer = Arc::new(Answer { body: body.into(), value, token });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(accept(answer))
}

async fn accept(answer: Arc<Answer>) -> anyhow::Result<()> {
    let (acceptor, certificate) = tls()?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    println!("{}", json!({ "address": address, "certificate": HEXLOWER.encode(&certificate) }));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(connection(acceptor.clone(), stream, answer.clone()));
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, answer: Arc<Answer>) {
    let Ok(stream) = acceptor.accept(stream).await else { return };
    let service = service_fn(|request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(respond(&request, &answer)) }
    });
    // How a connection ends concerns its peer.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

fn respond<B>(request: &Request<B>, answer: &Answer) -> Response<Full<Bytes>> {
    if request.uri().path() == "/livez" {
        return Response::new(Full::new(Bytes::from_static(b"live\n")));
    }
    if !authorised(request, &answer.token) {
        let mut refused = Response::new(Full::default());
        *refused.status_mut() = StatusCode::UNAUTHORIZED;
        return refused;
    }
    let body = match &answer.value {
        Some(value) => {
            let mut text = Vec::with_capacity(answer.body.len());
            // Writing to memory does not fail.
            let _ = serde_json::to_writer(&mut text, value);
            text.into()
        }
        None => answer.body.clone(),
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

fn authorised<B>(request: &Request<B>, token: &[u8; 32]) -> bool {
    let header = request.headers().get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let shown: Option<[u8; 32]> =
        header.and_then(|text| text.strip_prefix("Bearer ")).map(|text| Sha256::digest(text.as_bytes()).into());
    shown.is_some_and(|shown| shown.ct_eq(token).into())
}

/// The daemon's own choices: P-256, TLS 1.3 only, no tickets.
fn tls() -> anyhow::Result<(TlsAcceptor, CertificateDer<'static>)> {
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
    let certificate = rcgen::CertificateParams::new(["localhost".to_owned()])?.self_signed(&key)?;
    let certificate = certificate.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)?;
    config.send_tls13_tickets = 0;
    let preferred = config.crypto_provider().kx_groups.first().map(|group| group.name());
    ensure!(preferred == Some(rustls::NamedGroup::X25519MLKEM768), "the daemon prefers a post-quantum exchange");
    Ok((TlsAcceptor::from(Arc::new(config)), certificate))
}
