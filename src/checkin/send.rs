//! One message to the registry and its answer: bounded in time, in bytes and in what the answer may mean.

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use ureq::Agent;
use ureq::config::Config as AgentConfig;
use ureq::unversioned::transport::{Connector as _, TcpConnector};

use super::credential::Credential;
use super::destination::{Destination, Names, Resolve};
use super::schedule::Failed;
use super::tls::{self, Trust, Wrap};
use super::wire::{Answer, MAX_ANSWER, PATH, TICKET_HEADER};
use crate::clock::RegistryClock;
use crate::config::Config;
use crate::secret::Secret;

const CONNECT: Duration = Duration::from_secs(5);
/// The whole call, from the name to the last byte of the answer.
const CALL: Duration = Duration::from_secs(10);
const MAX_HEAD: usize = 8 * 1024;
const BUFFER: usize = 16 * 1024;

/// A message that was not taken, and what is shown of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// For the schedule.
    pub failed: Failed,
    /// For people.
    pub why: String,
}

/// What is needed to send: made once, and anew after an error.
#[derive(Clone, Debug)]
pub struct Sender {
    destination: Destination,
    tls: Arc<ClientConfig>,
    names: Arc<dyn Names>,
    bearer: Secret,
    ticket: Option<Secret>,
    clock: RegistryClock,
}

impl Sender {
    /// Reads credential and certificates.
    ///
    /// # Errors
    /// In plain words what is wrong with the configuration or its files.
    pub fn new(config: &Config, names: Arc<dyn Names>) -> Result<Self, String> {
        let registry = &config.registry;
        let url = registry.url.as_deref().ok_or("registry.url is not set")?;
        let destination = Destination::parse(url, registry.allow_private).map_err(|e| format!("registry.url: {e}"))?;
        let trust = match (registry.pin_sha256, &registry.ca_file) {
            (Some(pin), _) => Trust::Pin(pin),
            (None, Some(path)) => Trust::Authorities(path.clone()),
            (None, None) => Trust::System,
        };
        let bearer = Credential::find(config)?.bearer();
        let ticket = registry.ticket.clone();
        Ok(Self {
            destination,
            tls: tls::client_config(&trust, "registry.ca_file")?,
            names,
            bearer,
            ticket,
            clock: RegistryClock::default(),
        })
    }

    /// The same, telling `clock` what time it is at the registry.
    #[must_use]
    pub fn with_clock(mut self, clock: RegistryClock) -> Self {
        self.clock = clock;
        self
    }

    /// Sends a message and reads the answer; all of it takes at most `limit`.
    ///
    /// # Errors
    /// It was not taken.
    pub fn send(&self, message: &[u8], limit: Option<Duration>) -> Result<Answer, Failure> {
        let agent = agent(&self.destination, &self.tls, &self.names, limit.unwrap_or(CALL));
        let agent = agent.map_err(|why| Failure { failed: Failed::Network, why })?;
        let mut request = agent
            .post(format!("{}{PATH}", self.destination.base()))
            .header("content-type", "application/json")
            .header("authorization", self.bearer.expose());
        if let Some(ticket) = &self.ticket {
            request = request.header(TICKET_HEADER, ticket.expose());
        }
        let answer = request.send(message).map_err(|e| unreached(&e))?;
        let status = answer.status().as_u16();
        if status != 200 {
            let after = answer.headers().get("retry-after").and_then(|value| value.to_str().ok()?.trim().parse().ok());
            return Err(refused(status, after));
        }
        if let Some(date) = answer.headers().get("date").and_then(|value| value.to_str().ok()) {
            self.clock.note(date);
        }
        read(answer.into_body().into_reader())
    }
}

/// One agent for one message to `destination`: a connection that outlived a suspended machine is worth nothing, and TLS
/// remembers its peers by itself. All of it takes at most `limit`.
///
/// # Errors
/// The destination's name is none that a certificate can have.
pub fn agent(
    destination: &Destination,
    tls: &Arc<ClientConfig>,
    names: &Arc<dyn Names>,
    limit: Duration,
) -> Result<Agent, String> {
    let config = AgentConfig::builder()
        .https_only(true)
        .http_status_as_error(false)
        .proxy(None)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .timeout_global(Some(limit))
        .timeout_connect(Some(CONNECT.min(limit)))
        .max_response_header_size(MAX_HEAD)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .max_idle_connections(0)
        .user_agent(concat!("openclaw-sidecar/", env!("CARGO_PKG_VERSION")))
        .build();
    let wrap = Wrap { config: tls.clone(), name: destination.server_name()? };
    let resolve = Resolve { destination: destination.clone(), names: names.clone() };
    Ok(Agent::with_parts(config, ().chain(TcpConnector::default()).chain(wrap), resolve))
}

fn read(body: impl std::io::Read) -> Result<Answer, Failure> {
    let failed = |why: String| Failure { failed: Failed::Network, why };
    let mut text = Vec::new();
    let read = body.take(MAX_ANSWER as u64 + 1).read_to_end(&mut text);
    read.map_err(|e| failed(format!("its answer broke off: {e}")))?;
    parse(&text).map_err(failed)
}

/// The answer in these bytes. Whatever else they say is passed over.
///
/// # Errors
/// They are none.
pub fn parse(text: &[u8]) -> Result<Answer, String> {
    if text.len() > MAX_ANSWER {
        return Err(format!("its answer is longer than {MAX_ANSWER} bytes"));
    }
    // Not the error's own text: it may quote what somebody else wrote.
    serde_json::from_slice(text).map_err(|_| "its answer is none of a registry".to_owned())
}

fn unreached(e: &ureq::Error) -> Failure {
    let mut why = format!("it cannot be reached: {e}");
    if why.contains("UnknownIssuer") {
        why.push_str(
            "; if it is yours, name its authority in registry.ca_file, or its certificate in registry.pin_sha256",
        );
    }
    Failure { failed: Failed::Network, why: super::report::cut(&why, 256) }
}

fn refused(status: u16, after_s: Option<u64>) -> Failure {
    let failed = match (status, after_s) {
        (401 | 403, _) => Failed::Unauthorised,
        (429 | 503, Some(seconds)) => Failed::RetryAfter(Duration::from_secs(seconds)),
        _ => Failed::Status,
    };
    Failure { failed, why: format!("it answered with status {status}") }
}

#[cfg(test)]
mod tests;
