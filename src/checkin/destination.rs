//! Where check-ins go: which URLs are taken, and which addresses may be dialled.
//!
//! The URL comes from the environment, which others may have a hand in. It must not become a way to reach what only
//! this machine can reach: its loopback, its neighbours, its platform's metadata service. Names are resolved for every
//! connection, every address found is checked, and what was checked is what is dialled.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// A name that takes longer to resolve counts as not found.
const RESOLVE: Duration = Duration::from_secs(5);
/// Addresses looked at; more are not needed, and one that is not looked at is not dialled.
const ADDRESSES: usize = 8;

/// A registry's checked address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Destination {
    host: Host,
    port: u16,
    /// Empty, or a path without a slash at its end.
    prefix: String,
    allow_private: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    Name(String),
    Address(IpAddr),
}

impl Destination {
    /// Takes a URL such as `https://registry.example.com`, with a port and a path before ours where needed.
    ///
    /// # Errors
    /// In plain words what is wrong with it; the URL is not quoted, as it may hold a password.
    pub fn parse(url: &str, allow_private: bool) -> Result<Self, String> {
        let rest = url.strip_prefix("https://").ok_or("must begin with https://")?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let (host, port) = split_port(authority)?;
        let host = parse_host(host)?;
        if let Host::Address(address) = host {
            check(address, allow_private)?;
        }
        Ok(Self { host, port, prefix: parse_prefix(path)?, allow_private })
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The URL, without a slash at its end.
    pub fn base(&self) -> String {
        let host = match &self.host {
            Host::Name(name) => name.clone(),
            Host::Address(IpAddr::V6(address)) => format!("[{address}]"),
            Host::Address(address) => address.to_string(),
        };
        format!("https://{host}:{}{}", self.port, self.prefix)
    }

    /// What the registry's certificate must be for.
    ///
    /// # Errors
    /// The name is none that a certificate can have.
    pub fn server_name(&self) -> Result<ServerName<'static>, String> {
        match &self.host {
            Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| "is no DNS name".to_owned()),
            Host::Address(address) => Ok(ServerName::from(*address)),
        }
    }

    /// The addresses that may be dialled: all that `names` finds, if every one of them may.
    ///
    /// # Errors
    /// Nothing was found, or one of them may not be dialled.
    pub fn addresses(&self, names: &dyn Names) -> Result<Vec<SocketAddr>, String> {
        let found = match &self.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => names.find(name)?,
        };
        if found.is_empty() {
            return Err("the registry's name was not found".to_owned());
        }
        found.iter().try_for_each(|address| check(*address, self.allow_private))?;
        Ok(found.into_iter().take(ADDRESSES).map(|address| SocketAddr::new(address, self.port)).collect())
    }
}

fn split_port(authority: &str) -> Result<(&str, u16), String> {
    if authority.contains('@') {
        return Err("must have no user and no password".to_owned());
    }
    // Behind the brackets of an IPv6 address, or behind the last colon.
    let after = authority.rfind(']').map_or(0, |at| at + 1);
    let Some(colon) = authority[after..].find(':').map(|at| after + at) else { return Ok((authority, 443)) };
    let digits = &authority[colon + 1..];
    let plain = !digits.is_empty() && digits.len() <= 5 && digits.bytes().all(|b| b.is_ascii_digit());
    let port = digits.parse().ok().filter(|port| plain && *port != 0);
    port.map(|port| (&authority[..colon], port)).ok_or_else(|| "its port must be a number from 1 to 65535".to_owned())
}

fn parse_host(text: &str) -> Result<Host, String> {
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse::<Ipv6Addr>().ok());
        return address
            .map(|a| Host::Address(a.into()))
            .ok_or_else(|| "has no IPv6 address in its brackets".to_owned());
    }
    let name = text.to_ascii_lowercase();
    let label = |label: &str| {
        let legal = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len()) && label.bytes().all(legal) && !label.starts_with('-') && !label.ends_with('-')
    };
    if name.len() > 253 || !name.split('.').all(label) {
        return Err(
            "needs a plain host name: letters, digits, '-' and '.', without user, password or dot at its end; \
                    write names in other scripts in their xn-- form"
                .to_owned(),
        );
    }
    // Some resolvers read 0x7f.1, 017700000001 and 2130706433 as addresses: only one form is taken for one.
    let last = name.rsplit('.').next().unwrap_or_default();
    let number = last.bytes().all(|b| b.is_ascii_digit()) || last.starts_with("0x");
    match name.parse::<Ipv4Addr>() {
        Ok(address) => Ok(Host::Address(address.into())),
        Err(_) if number => Err("must write an address as four decimal numbers".to_owned()),
        Err(_) => Ok(Host::Name(name)),
    }
}

fn parse_prefix(path: &str) -> Result<String, String> {
    let prefix = path.strip_suffix('/').unwrap_or(path);
    let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'~');
    let segment = |s: &str| !s.is_empty() && s != "." && s != ".." && s.bytes().all(legal);
    if prefix.is_empty() || (prefix.len() <= 256 && prefix[1..].split('/').all(segment)) {
        return Ok(prefix.to_owned());
    }
    Err("may have a plain path, without query, fragment, '..' or escapes".to_owned())
}

/// Whether an address may be dialled.
///
/// # Errors
/// Why not, and what to do.
pub fn check(address: IpAddr, allow_private: bool) -> Result<(), String> {
    let address = address.to_canonical();
    if never(address) {
        return Err(format!("{address} is no address of a registry"));
    }
    if allow_private || public(address) {
        return Ok(());
    }
    Err(format!("{address} is not a public address; set registry.allow_private if the registry really is there"))
}

/// What is never dialled: no host, many hosts, and the link that the platform's metadata service is on.
fn never(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            a.octets()[0] == 0 || a.is_multicast() || a.is_broadcast() || a.is_link_local() || a.octets()[0] >= 240
        }
        IpAddr::V6(a) => a.is_unspecified() || a.is_multicast() || (a.segments()[0] & 0xffc0) == 0xfe80,
    }
}

fn public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(a) => {
            let [first, second, third, _] = a.octets();
            !matches!(
                (first, second, third),
                (10 | 127, ..)
                    | (100, 64..=127, _)
                    | (172, 16..=31, _)
                    | (192, 168, _)
                    | (192, 0, 0 | 2)
                    | (192, 88, 99)
                    | (198, 18..=19, _)
                    | (198, 51, 100)
                    | (203, 0, 113)
            )
        }
        IpAddr::V6(a) => {
            // What is handed out to hosts, without tunnels to IPv4 (6to4, Teredo) and examples.
            let [first, second, ..] = a.segments();
            (0x2000..=0x3fff).contains(&first)
                && !(first == 0x2001 && second < 0x0200)
                && !(first == 0x2001 && second == 0x0db8)
                && first != 0x2002
                && !(first == 0x3fff && second < 0x1000)
        }
    }
}

/// Finds addresses by name.
pub trait Names: fmt::Debug + Send + Sync + 'static {
    /// All addresses of a host.
    ///
    /// # Errors
    /// There are none, or they were not found in time.
    fn find(&self, name: &str) -> Result<Vec<IpAddr>, String>;
}

/// The system's resolver. It cannot be interrupted: two calls at once, a check-in's and a goodbye's, and no more.
#[derive(Debug, Default)]
pub struct SystemNames {
    busy: Arc<AtomicU8>,
}

impl Names for SystemNames {
    fn find(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        if self.busy.fetch_add(1, Ordering::AcqRel) >= 2 {
            self.busy.fetch_sub(1, Ordering::AcqRel);
            return Err("the system's resolver hangs".to_owned());
        }
        let (found, answer) = mpsc::sync_channel(1);
        let (busy, name) = (self.busy.clone(), name.to_owned());
        let asked = std::thread::Builder::new().name("resolver".to_owned()).spawn(move || {
            // The port does not matter.
            let addresses = (name.as_str(), 443).to_socket_addrs().map(|all| all.map(|a| a.ip()).collect());
            busy.fetch_sub(1, Ordering::AcqRel);
            let _ = found.send(addresses);
        });
        if let Err(e) = asked {
            self.busy.fetch_sub(1, Ordering::AcqRel);
            return Err(format!("no thread: {e}"));
        }
        match answer.recv_timeout(RESOLVE) {
            Ok(addresses) => addresses.map_err(|e| format!("the registry's name cannot be resolved: {e}")),
            Err(_) => Err("the registry's name was not resolved in time".to_owned()),
        }
    }
}

/// The destination as the HTTP client asks for it; it is asked anew for every connection.
#[derive(Debug)]
pub(super) struct Resolve {
    pub(super) destination: Destination,
    pub(super) names: Arc<dyn Names>,
}

impl Resolver for Resolve {
    fn resolve(
        &self,
        _: &ureq::http::Uri,
        _: &ureq::config::Config,
        _: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let addresses = self.destination.addresses(&*self.names).map_err(|why| ureq::Error::Other(why.into()))?;
        let mut resolved = self.empty();
        for address in addresses {
            resolved.push(address);
        }
        Ok(resolved)
    }
}

#[cfg(test)]
mod tests;
