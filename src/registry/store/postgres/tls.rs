//! TLS to the server.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Socket;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream as Stream;

use crate::checkin::tls::{Trust, client_config};

/// Makes connections secure, where they are to be.
#[derive(Clone, Debug)]
pub(super) struct Tls(Option<Arc<ClientConfig>>);

impl Tls {
    /// For connections that stay plain.
    pub(super) fn none() -> Self {
        Self(None)
    }

    /// Believes the authorities in this file, or else the system's.
    pub(super) fn trusting(ca_file: Option<&Path>) -> Result<Self, String> {
        let trust = ca_file.map_or(Trust::System, |path| Trust::Authorities(path.to_owned()));
        let config = client_config(&trust, "store_ca_file")?;
        let mut config = ClientConfig::clone(&config);
        config.alpn_protocols = vec![b"postgresql".to_vec()];
        Ok(Self(Some(Arc::new(config))))
    }
}

/// One connection, to the server of this name.
pub(super) struct Named(Option<Arc<ClientConfig>>, String);

impl MakeTlsConnect<Socket> for Tls {
    type Stream = Secured;
    type TlsConnect = Named;
    type Error = io::Error;

    fn make_tls_connect(&mut self, name: &str) -> io::Result<Named> {
        Ok(Named(self.0.clone(), name.to_owned()))
    }
}

impl TlsConnect<Socket> for Named {
    type Stream = Secured;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Secured>>;

    fn connect(self, socket: Socket) -> Self::Future {
        let Self(config, name) = self;
        async move {
            let config = config.ok_or_else(|| io::Error::other("the connection was to be plain"))?;
            let name = ServerName::try_from(name).map_err(io::Error::other)?;
            Ok(Secured(TlsConnector::from(config).connect(name, socket).await?))
        }
        .boxed()
    }
}

/// A connection inside TLS.
pub(super) struct Secured(Stream<Socket>);

impl TlsStream for Secured {
    fn channel_binding(&self) -> ChannelBinding {
        // The certificate was checked: nobody stands between.
        ChannelBinding::none()
    }
}

impl AsyncRead for Secured {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Secured {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
