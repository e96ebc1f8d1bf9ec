//! The registry's configuration: one TOML file, every key also as a variable `OPENCLAW_REGISTRY_*`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::{store, webhooks};
use crate::checkin::tls::{Trust, client_config};
use crate::config::keys::{Key, Kind, Schema, either, host, listener, parse, path, same_port, whole};
use crate::config::{Auth, Env, Fault, Faults, Log, Tls, fault};
use crate::files;
use crate::http::tls::Certificate;
use crate::secret::Secret;

/// Where the file is looked for when no `--config` is given. It may be absent: then the environment alone counts.
pub const DEFAULT_FILE: &str = "/etc/openclaw-registry/registry.toml";
/// What every variable begins with.
pub const ENV_PREFIX: &str = "OPENCLAW_REGISTRY_";
const MAX_FILE: u64 = 256 * 1024;

/// The whole configuration, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Directory for the certificate and, by default, the database; mode 0700.
    pub state_dir: PathBuf,
    /// A path (SQLite) or a `postgres://` URL; none is `registry.db` in the state directory.
    pub store: Option<Secret>,
    /// Authorities that vouch for PostgreSQL, instead of the system's.
    pub store_ca_file: Option<PathBuf>,
    /// Signs tickets, sessions and webhooks.
    pub secret: Option<Secret>,
    /// A file that holds it.
    pub secret_file: Option<PathBuf>,
    /// Keys that are valid besides those in the store: the first admin's.
    pub auth: Auth,
    /// HTTPS; `None` turns it off.
    pub tls_address: Option<SocketAddr>,
    /// Plain HTTP behind a proxy that ends TLS; off by default.
    pub edge: Option<SocketAddr>,
    /// The certificate.
    pub tls: Tls,
    /// How often a machine in which nothing happens checks in, in seconds.
    pub interval_s: u64,
    /// Whether webhooks may go to private addresses.
    pub webhooks_private: bool,
    /// Authorities that vouch for webhook receivers, instead of the system's.
    pub webhooks_ca_file: Option<PathBuf>,
    /// Most connections open at once.
    pub max_connections: usize,
    /// How to log.
    pub log: Log,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: "/var/lib/openclaw-registry".into(),
            store: None,
            store_ca_file: None,
            secret: None,
            secret_file: None,
            auth: Auth { credentials_file: None, credentials: None },
            tls_address: Some(SocketAddr::from(([0u16; 8], 9444))),
            edge: None,
            tls: Tls { cert_file: None, key_file: None, server_names: Vec::new() },
            interval_s: 300,
            webhooks_private: false,
            webhooks_ca_file: None,
            max_connections: 4096,
            log: Log { level: tracing::Level::INFO, json: false },
        }
    }
}

impl Config {
    /// Reads `file` (or [`DEFAULT_FILE`] if that exists), lays the environment over it, and checks the whole.
    ///
    /// # Errors
    /// All faults at once, each with its key.
    pub fn load(file: Option<&Path>, env: &Env) -> Result<Self, Faults> {
        let default = Some(Path::new(DEFAULT_FILE)).filter(|path| path.exists());
        let text = match file.or(default) {
            Some(path) => files::read_text(path, MAX_FILE)
                .map_err(|e| Faults(vec![fault(&path.display().to_string(), &e.to_string())]))?,
            None => String::new(),
        };
        let mut config = Self::default();
        let mut faults = REGISTRY.read(&text, env, &mut config);
        faults.extend(config.contradictions());
        if faults.is_empty() { Ok(config) } else { Err(Faults(faults)) }
    }

    /// Who may call, and what signs tickets, sessions and webhooks.
    ///
    /// # Errors
    /// What is missing or cannot be used of both, with the remedy, one a line.
    pub fn credentials(&self) -> Result<(crate::auth::Auth, Secret), String> {
        // The sidecar's remedies name its own variables.
        let auth = crate::auth::Auth::load(&self.auth).map_err(|why| why.replace("OPENCLAW_SIDECAR_", ENV_PREFIX));
        match (auth, self.find_secret()) {
            (Ok(auth), Ok(secret)) => Ok((auth, secret)),
            (auth, secret) => Err([secret.err(), auth.err()].into_iter().flatten().collect::<Vec<_>>().join("\n")),
        }
    }

    /// What would keep the registry from starting, beyond the form of its configuration: files it names that cannot be
    /// used.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let authorities = self.webhooks_ca_file.clone().map(Trust::Authorities);
        let webhooks = authorities.map_or(Ok(()), |trust| client_config(&trust, webhooks::CA_FILE).map(drop));
        let store = store::check(self.store_place().expose(), self.store_ca_file.as_deref());
        faults.extend([webhooks, store].into_iter().filter_map(|checked| Some(Fault::said(&checked.err()?))));
        if self.tls.cert_file.is_some()
            && let Err(why) = Certificate::load(&self.tls, &self.state_dir)
        {
            faults.push(Fault::said(&why));
        }
        faults
    }

    fn find_secret(&self) -> Result<Secret, String> {
        let secret = match (&self.secret, &self.secret_file) {
            (Some(secret), _) => secret.clone(),
            (None, Some(path)) => {
                let text = files::read_text(path, MAX_FILE).map_err(|e| format!("secret_file: {e}"))?;
                Secret::new(text.trim().to_owned())
            }
            (None, None) => return Err(NO_SECRET.to_owned()),
        };
        let text = secret.expose();
        if text.len() < 32 || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("secret: must be at least 32 printable characters; make one with: openssl rand -hex 32".into());
        }
        Ok(secret)
    }

    /// Where the data is: a path or a URL.
    pub fn store_place(&self) -> Secret {
        let default = || Secret::new(self.state_dir.join("registry.db").display().to_string());
        self.store.clone().unwrap_or_else(default)
    }

    fn contradictions(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut clash = |both: bool, key: &str, other: &str| {
            if both {
                faults.push(fault(key, &format!("is set together with {other}; keep one of the two")));
            }
        };
        clash(self.secret.is_some() && self.secret_file.is_some(), "secret_file", "secret");
        let credentials = self.auth.credentials.is_some() && self.auth.credentials_file.is_some();
        clash(credentials, "auth.credentials", "auth.credentials_file");
        if self.tls.cert_file.is_some() != self.tls.key_file.is_some() {
            faults.push(fault("tls.cert_file", "tls.cert_file and tls.key_file go together; set both or neither"));
        }
        if self.tls_address.is_none() && self.edge.is_none() {
            faults.push(fault("listen", "every listener is off; set listen.tls or listen.edge"));
        }
        faults.extend(same_port(self.tls_address, self.edge));
        if self.store_ca_file.is_some() && !self.store_place().expose().starts_with("postgres") {
            faults.push(fault("store_ca_file", "is for PostgreSQL, and store is a file; remove one of the two"));
        }
        faults
    }
}

const NO_SECRET: &str = "secret: not set; it signs tickets, sessions and webhooks and must be the same at every start \
     and on every instance: make one with `openssl rand -hex 32` and set secret_file \
     (OPENCLAW_REGISTRY_SECRET_FILE) or OPENCLAW_REGISTRY_SECRET";

/// The registry's keys.
pub const REGISTRY: Schema<Config> = Schema { program: "openclaw-registry", prefix: ENV_PREFIX, keys: KEYS };

/// A place for data. A URL may hold a password, so that it is not repeated.
fn place(value: &str) -> Result<Option<Secret>, String> {
    if value.contains("://") {
        let known = ["postgres://", "postgresql://"].iter().any(|scheme| value.starts_with(scheme));
        return if known { Ok(given(value)) } else { Err(format!("must be a {PLACES}")) };
    }
    match path(value) {
        Ok(_) => Ok(given(value)),
        Err(_) => Err(format!("must be a {PLACES}, not {value:?}")),
    }
}

const PLACES: &str = "path that begins with /, or a URL that begins with postgres://";

fn given(value: &str) -> Option<Secret> {
    (!value.is_empty()).then(|| Secret::new(value.to_owned()))
}

const KEYS: &[Key<Config>] = &[
    Key {
        name: "state_dir",
        kind: Kind::Text,
        sample: "\"/var/lib/openclaw-registry\"",
        help: "The certificate and, unless set elsewhere, the database are kept here, mode 0700.",
        apply: |c, v| path(v).and_then(|p| p.ok_or_else(|| "must not be empty".into())).map(|p| c.state_dir = p),
    },
    Key {
        name: "store",
        kind: Kind::Text,
        sample: "\"/var/lib/openclaw-registry/registry.db\"",
        help: "A path for the embedded SQLite, or postgres://user:password@host/database for several instances\n\
               (needs a build with the feature `postgres`). The default is registry.db in state_dir.",
        apply: |c, v| place(v).map(|store| c.store = store),
    },
    Key {
        name: "store_ca_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-registry/postgres.pem\"",
        help: "Authorities that vouch for PostgreSQL, instead of the system's. Another machine is reached over TLS and has\n\
               to prove its name, unless the URL says sslmode=disable.",
        apply: |c, v| path(v).map(|p| c.store_ca_file = p),
    },
    Key {
        name: "secret",
        kind: Kind::Text,
        sample: "\"\"",
        help: "At least 256 random bits as text; signs tickets, sessions and webhooks. The same at every start and on\n\
               every instance. Better given as environment variable or file.",
        apply: |c, v| {
            c.secret = given(v);
            Ok(())
        },
    },
    Key {
        name: "secret_file",
        kind: Kind::Text,
        sample: "\"/run/secrets/openclaw-registry\"",
        help: "A file that holds it.",
        apply: |c, v| path(v).map(|p| c.secret_file = p),
    },
    Key {
        name: "auth.credentials_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-registry/credentials.json\"",
        help: "JSON list of {id, sha256, tier}: `safe` reads (support), `dangerous` also creates and retires (admin).\n\
               More keys are made over the API. `openclaw-sidecar token new` makes one; reloaded when it changes.",
        apply: |c, v| path(v).map(|p| c.auth.credentials_file = p),
    },
    Key {
        name: "auth.credentials",
        kind: Kind::Text,
        sample: "\"\"",
        help: "The same JSON inline, for platforms without files.",
        apply: |c, v| {
            c.auth.credentials = (!v.is_empty()).then(|| v.to_owned());
            Ok(())
        },
    },
    Key {
        name: "listen.tls",
        kind: Kind::Text,
        sample: "\"[::]:9444\"",
        help: "Address and port for HTTPS; empty turns it off.",
        apply: |c, v| listener(v).map(|l| c.tls_address = l),
    },
    Key {
        name: "listen.edge",
        kind: Kind::Text,
        sample: "\"\"",
        help: "Address and port for plain HTTP behind a proxy that ends TLS; off by default.",
        apply: |c, v| listener(v).map(|l| c.edge = l),
    },
    Key {
        name: "tls.cert_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-registry/tls.crt\"",
        help: "PEM chain; without it a self-signed certificate is made and kept. Reloaded when it changes.",
        apply: |c, v| path(v).map(|p| c.tls.cert_file = p),
    },
    Key {
        name: "tls.key_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-registry/tls.key\"",
        help: "PEM private key of tls.cert_file.",
        apply: |c, v| path(v).map(|p| c.tls.key_file = p),
    },
    Key {
        name: "tls.server_names",
        kind: Kind::List,
        sample: "[\"registry.example.com\"]",
        help: "Names in the URLs that sidecars and people use, besides those of the certificate.",
        apply: |c, v| {
            let names = v.split(',').map(str::trim).filter(|n| !n.is_empty());
            names.map(host).collect::<Result<_, _>>().map(|names| c.tls.server_names = names)
        },
    },
    Key {
        name: "checkin.interval_s",
        kind: Kind::Number,
        sample: "300",
        help: "How often a machine in which nothing happens checks in, in seconds.",
        apply: |c, v| whole(v, 15..=3600).map(|n| c.interval_s = n),
    },
    Key {
        name: "webhooks.allow_private",
        kind: Kind::Bool,
        sample: "false",
        help: "true lets webhooks go to addresses that are not public, such as those of a private network.",
        apply: |c, v| parse(v, "true or false").map(|allow| c.webhooks_private = allow),
    },
    Key {
        name: "webhooks.ca_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-registry/receivers.pem\"",
        help: "Authorities that vouch for the receivers of webhooks, instead of the system's.",
        apply: |c, v| path(v).map(|p| c.webhooks_ca_file = p),
    },
    Key {
        name: "limits.max_connections",
        kind: Kind::Number,
        sample: "4096",
        help: "Most connections open at once. At the limit the oldest unauthenticated or idle one gives way.",
        apply: |c, v| whole(v, 8..=65_536).map(|n| c.max_connections = n),
    },
    Key {
        name: "log.level",
        kind: Kind::Text,
        sample: "\"info\"",
        help: "error, warn, info, debug or trace.",
        apply: |c, v| parse(v, "error, warn, info, debug or trace").map(|level| c.log.level = level),
    },
    Key {
        name: "log.format",
        kind: Kind::Text,
        sample: "\"text\"",
        help: "text, or json for one object a line.",
        apply: |c, v| either(v, "text", "json").map(|json| c.log.json = json),
    },
];

#[cfg(test)]
mod tests;
