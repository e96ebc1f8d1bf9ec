//! What the TLS listener takes and what it refuses, with bytes written by hand.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::super::auth_matrix::scene::Scene;

const LIMIT: Duration = Duration::from_secs(8);
const ALERT: u8 = 21;
const PROTOCOL_VERSION: u8 = 70;

/// A client hello of TLS 1.2 as clients before 2018 sent it: no `supported_versions`.
pub fn client_hello(legacy_version: u16) -> Vec<u8> {
    // ECDHE-ECDSA-AES128-GCM-SHA256 and the like.
    let suites: [u16; 4] = [0xc02b, 0xc02c, 0xcca9, 0xc009];
    let mut extensions = Vec::new();
    let mut extension = |kind: u16, data: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(u16::try_from(data.len()).expect("short").to_be_bytes());
        extensions.extend(data);
    };
    extension(10, &[0, 4, 0, 23, 0, 29]);
    extension(11, &[1, 0]);
    extension(13, &[0, 4, 4, 3, 8, 4]);
    let mut body = legacy_version.to_be_bytes().to_vec();
    body.extend([7; 32]);
    body.push(0);
    body.extend(u16::try_from(suites.len() * 2).expect("short").to_be_bytes());
    body.extend(suites.iter().flat_map(|suite| suite.to_be_bytes()));
    body.extend([1, 0]);
    body.extend(u16::try_from(extensions.len()).expect("short").to_be_bytes());
    body.extend(extensions);
    let length = u32::try_from(body.len()).expect("short").to_be_bytes();
    let handshake = [&[1], &length[1..], &body].concat();
    let record = u16::try_from(handshake.len()).expect("short").to_be_bytes();
    [&[22, 3, 1], record.as_slice(), &handshake].concat()
}

/// Everything the server says to these bytes until it closes.
async fn said(address: SocketAddr, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let mut answer = Vec::new();
    let talk = async {
        stream.write_all(bytes).await?;
        // A reset is a close too.
        let _ = stream.read_to_end(&mut answer).await;
        anyhow::Ok(())
    };
    timeout(LIMIT, talk).await??;
    Ok(answer)
}

#[tokio::test]
async fn old_tls_is_refused() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    for version in [0x0303, 0x0302, 0x0301, 0x0300] {
        let answer = said(scene.sidecar.tls_addr(), &client_hello(version)).await?;
        assert_eq!(answer.first(), Some(&ALERT), "{version:#x}: {answer:?}");
        assert_eq!(answer.get(6), Some(&PROTOCOL_VERSION), "{version:#x}: {answer:?}");
    }
    assert_eq!(scene.sidecar.client().get("/livez").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn what_is_no_tls_is_refused_without_a_word_of_http() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    for bytes in
        [&b"GET /livez HTTP/1.1\r\nHost: localhost\r\n\r\n"[..], &[0; 200], &[22, 3, 1, 255, 255, 1], &[128; 90]]
    {
        let answer = said(scene.sidecar.tls_addr(), bytes).await?;
        assert!(!answer.starts_with(b"HTTP"), "{}", String::from_utf8_lossy(&answer));
    }
    assert_eq!(scene.sidecar.client().get("/livez").await?.status, 200);
    Ok(())
}
