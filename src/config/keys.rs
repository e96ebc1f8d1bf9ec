//! The table of configuration keys: name, type, default, help, and how a value is taken over.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Config, ENV_PREFIX, Env, Fault, as_text, fault, flatten};
use crate::secret::Secret;

/// What a value looks like in TOML. In the environment a list is written with commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    Text,
    /// A whole number.
    Number,
    /// A list of texts.
    List,
    /// `true` or `false`.
    Bool,
}

impl Kind {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::Text => "a text in quotes",
            Self::Number => "a whole number",
            Self::List => "a list of texts",
            Self::Bool => "true or false",
        }
    }
}

/// One key of a program's configuration.
pub struct Key<C: 'static = Config> {
    /// Dotted name, as in the file.
    pub name: &'static str,
    /// Its type in TOML.
    pub kind: Kind,
    /// The default as TOML, or a sample where there is none.
    pub sample: &'static str,
    /// What it is for, for people.
    pub help: &'static str,
    /// Takes a value over, or says what is wrong with it.
    pub apply: fn(&mut C, &str) -> Result<(), String>,
}

impl<C> Key<C> {
    /// The variable that sets this key.
    pub fn env_name(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.name.replace('.', "_").to_uppercase())
    }
}

/// The configuration of one program.
#[derive(Debug)]
pub struct Schema<C: 'static> {
    /// The program.
    pub program: &'static str,
    /// What its variables begin with.
    pub prefix: &'static str,
    /// Every key.
    pub keys: &'static [Key<C>],
}

/// The sidecar's configuration.
pub const SIDECAR: Schema<Config> = Schema { program: "openclaw-sidecar", prefix: ENV_PREFIX, keys: KEYS };

impl<C> Schema<C> {
    /// Takes over what the file's text and the environment say, and returns everything wrong with it.
    pub fn read(&self, text: &str, env: &Env, config: &mut C) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut values = BTreeMap::new();
        match text.parse::<toml::Table>() {
            Ok(table) => flatten("", table, &mut values),
            Err(e) => {
                // Not the error's own text: it quotes the line, which may hold a token.
                let line = text[..e.span().map_or(0, |s| s.start.min(text.len()))].matches('\n').count() + 1;
                faults.push(fault("TOML", &format!("line {line}: {}", e.message())));
            }
        }
        for key in self.keys {
            let from_file = values.remove(key.name).map(|value| as_text(&value, key.kind));
            let from_env = env.get(&key.env_name(self.prefix)).cloned().map(Ok);
            let Some(value) = from_env.or(from_file) else { continue };
            if let Err(what) = value.and_then(|text| (key.apply)(config, text.trim())) {
                faults.push(fault(key.name, &what));
            }
        }
        faults.extend(values.into_keys().map(|name| self.unknown_key(&name)));
        faults.extend(self.unknown_variables(env));
        faults
    }

    fn unknown_key(&self, name: &str) -> Fault {
        let last = name.rsplit('.').next().unwrap_or(name);
        let similar = self.keys.iter().find(|key| key.name.rsplit('.').next() == Some(last));
        let suggestion = similar.map_or_else(String::new, |key| format!("; did you mean {}?", key.name));
        fault(name, &format!("is no known key{suggestion}"))
    }

    /// A misspelt variable would be silence where the operator believes something is set: refuse it.
    fn unknown_variables(&self, env: &Env) -> Vec<Fault> {
        env.keys()
            .filter(|name| name.starts_with(self.prefix) && **name != format!("{}CONFIG", self.prefix))
            .filter(|name| !self.keys.iter().any(|key| key.env_name(self.prefix) == **name))
            .map(|name| fault(name, &format!("is no known variable; `{} config init` lists them all", self.program)))
            .collect()
    }

    /// The commented example file: every key with its help, its variable and its default, all commented out.
    pub fn example(&self) -> String {
        let mut text = format!(
            "# {} configuration. Every line is a comment: uncomment what you change.\n\
             # Each key can be set by the environment variable named with it, which wins over this file.\n",
            self.program
        );
        let mut section = "";
        for key in self.keys {
            let (table, name) = key.name.split_once('.').unwrap_or(("", key.name));
            if table != section {
                section = table;
                let _ = write!(text, "\n[{table}]\n");
            }
            let _ = writeln!(text);
            for line in key.help.lines() {
                let _ = writeln!(text, "# {}", line.trim_start());
            }
            let _ = writeln!(text, "# ({})", key.env_name(self.prefix));
            let _ = writeln!(text, "#{name} = {}", key.sample);
        }
        text
    }
}

impl<C> std::fmt::Debug for Key<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every key there is, in the order of the example file.
pub const KEYS: &[Key] = &[
    Key {
        name: "state_dir",
        kind: Kind::Text,
        sample: "\"/var/lib/openclaw-sidecar\"",
        help: "Identity, certificate and audit are kept here, mode 0700. It must survive restarts.",
        apply: |c, v| path(v).and_then(|p| p.ok_or_else(|| "must not be empty".into())).map(|p| c.state_dir = p),
    },
    Key {
        name: "gateway.address",
        kind: Kind::Text,
        sample: "\"127.0.0.1:18789\"",
        help: "Loopback address and port of the OpenClaw gateway.",
        apply: |c, v| parse(v, "an address with port, such as 127.0.0.1:18789").map(|a| c.gateway.address = a),
    },
    Key {
        name: "gateway.config_path",
        kind: Kind::Text,
        sample: "\"/home/node/.openclaw/openclaw.json\"",
        help: "The gateway's configuration. Its token is read from gateway.auth.token, again after every rotation.",
        apply: |c, v| path(v).map(|p| c.gateway.config_path = p),
    },
    Key {
        name: "gateway.token",
        kind: Kind::Text,
        sample: "\"\"",
        help: "The gateway's token itself; better given as environment variable. Where neither this nor the two\n\
               other sources are set, OPENCLAW_GATEWAY_TOKEN of the environment is used.",
        apply: |c, v| {
            c.gateway.token = (!v.is_empty()).then(|| Secret::new(v.to_owned()));
            Ok(())
        },
    },
    Key {
        name: "gateway.token_file",
        kind: Kind::Text,
        sample: "\"/run/secrets/openclaw-gateway-token\"",
        help: "A file that holds the gateway's token.",
        apply: |c, v| path(v).map(|p| c.gateway.token_file = p),
    },
    Key {
        name: "listen.tls",
        kind: Kind::Text,
        sample: "\"[::]:9443\"",
        help: "HTTPS control API. An empty text turns a listener off.",
        apply: |c, v| listener(v).map(|a| c.listen.tls = a),
    },
    Key {
        name: "listen.edge",
        kind: Kind::Text,
        sample: "\"\"",
        help: "Plain HTTP for a platform whose edge ends TLS (Fly, Railway), such as \"[::]:8080\". Off by default.\n\
               Forwarded headers are never trusted; the bearer is still required.",
        apply: |c, v| listener(v).map(|a| c.listen.edge = a),
    },
    Key {
        name: "listen.unix",
        kind: Kind::Text,
        sample: "\"/run/openclaw-sidecar/control.sock\"",
        help: "Local socket for the CLI; only root and the sidecar's own user are let in.",
        apply: |c, v| path(v).map(|p| c.listen.unix = p),
    },
    Key {
        name: "tls.cert_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-sidecar/tls.crt\"",
        help: "PEM certificate chain, reloaded when it changes. Without it a self-signed certificate is made once and\n\
               its SHA-256 fingerprint is logged at start, for the control plane to pin.",
        apply: |c, v| path(v).map(|p| c.tls.cert_file = p),
    },
    Key {
        name: "tls.key_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-sidecar/tls.key\"",
        help: "PEM private key of tls.cert_file.",
        apply: |c, v| path(v).map(|p| c.tls.key_file = p),
    },
    Key {
        name: "tls.server_names",
        kind: Kind::List,
        sample: "[]",
        help: "Host names callers use, besides localhost and IP addresses, such as [\"tenant-7.internal\"]. Requests for\n\
               other names are refused (421).",
        apply: |c, v| {
            c.tls.server_names =
                v.split(',').map(str::trim).filter(|n| !n.is_empty()).map(host).collect::<Result<_, _>>()?;
            Ok(())
        },
    },
    Key {
        name: "auth.credentials_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-sidecar/credentials.json\"",
        help: "Who may call: a JSON list of {id, sha256, tier, approver?, not_before?, not_after?}, reloaded when it\n\
               changes. `openclaw-sidecar token new` makes an entry.",
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
        name: "launch.volume",
        kind: Kind::Text,
        sample: "\"/data\"",
        help: "With `run -- <gateway command>`: the directory that survives the machine. It belongs to root; openclaw/ in it\n\
               belongs to the gateway, sidecar/ to the sidecar.",
        apply: |c, v| path(v)?.map(|p| c.launch.volume = p).ok_or_else(|| "must not be empty".to_owned()),
    },
    Key {
        name: "launch.gateway_user",
        kind: Kind::Text,
        sample: "\"node\"",
        help: "The user the gateway runs as: a name, or numbers as uid:gid.",
        apply: |c, v| text(v).map(|v| c.launch.gateway_user = v),
    },
    Key {
        name: "launch.sidecar_user",
        kind: Kind::Text,
        sample: "\"openclaw-sidecar\"",
        help: "The user the control daemon runs as; another one than the gateway's.",
        apply: |c, v| text(v).map(|v| c.launch.sidecar_user = v),
    },
    Key {
        name: "launch.env_pass",
        kind: Kind::List,
        sample: "[]",
        help: "Variables the gateway gets besides PATH, HOME, TZ, LANG, LC_*, NODE_*, FLY_*, RAILWAY_* and OPENCLAW_*\n\
               (never OPENCLAW_SIDECAR_*).",
        apply: |c, v| {
            c.launch.env_pass = v.split(',').map(|n| n.trim().to_owned()).filter(|n| !n.is_empty()).collect();
            Ok(())
        },
    },
    Key {
        name: "launch.stop_budget_s",
        kind: Kind::Number,
        sample: "8",
        help: "Seconds within which everything ends after SIGTERM or SIGINT: less than the platform waits before it kills.\n\
               The default is 4 on Fly Machines, 8 elsewhere.",
        apply: |c, v| whole(v, 1..=300).map(|seconds| c.launch.stop_budget = Duration::from_secs(seconds)),
    },
    Key {
        name: "launch.desired_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-sidecar/desired.json\"",
        help: "The desired state of the first boot, a JSON file; afterwards PUT /v1/desired changes it.",
        apply: |c, v| path(v).map(|p| c.launch.desired_file = p),
    },
    Key {
        name: "launch.desired",
        kind: Kind::Text,
        sample: "\"\"",
        help: "The same JSON inline, for platforms without files.",
        apply: |c, v| {
            c.launch.desired = (!v.is_empty()).then(|| v.to_owned());
            Ok(())
        },
    },
    Key {
        name: "launch.migrate",
        kind: Kind::Text,
        sample: "\"auto\"",
        help: "auto moves a tenant whose files lie directly in the volume into openclaw/, once, and keeps a copy; off\n\
               refuses to start it. `openclaw-sidecar migrate --dry-run` shows what would be done.",
        apply: |c, v| {
            c.launch.migrate = match v {
                "auto" => true,
                "off" => false,
                _ => return Err("must be auto or off".into()),
            };
            Ok(())
        },
    },
    Key {
        name: "machine.secret",
        kind: Kind::Text,
        sample: "\"\"",
        help: "256 random bits as text, injected by the platform and the same at every boot; seals secrets at rest.\n\
               Better given as environment variable or file. Without it, no secret can be stored.",
        apply: |c, v| {
            c.machine.secret = (!v.is_empty()).then(|| Secret::new(v.to_owned()));
            Ok(())
        },
    },
    Key {
        name: "machine.secret_file",
        kind: Kind::Text,
        sample: "\"/run/secrets/openclaw-machine\"",
        help: "A file that holds the machine's secret.",
        apply: |c, v| path(v).map(|p| c.machine.secret_file = p),
    },
    Key {
        name: "registry.url",
        kind: Kind::Text,
        sample: "\"https://registry.example.com\"",
        help: "The registry that is told of this machine's state. Only https, at a public address; redirects and proxy\n\
               variables are ignored. Without it nothing is sent.",
        apply: |c, v| {
            c.registry.url = (!v.is_empty()).then(|| v.to_owned());
            Ok(())
        },
    },
    Key {
        name: "registry.tenant",
        kind: Kind::Text,
        sample: "\"tenant-7\"",
        help: "The tenant's name in the registry: 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'.",
        apply: |c, v| {
            let legal = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
            if v.len() > 64 || !v.bytes().all(legal) {
                return Err("must be 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'".into());
            }
            c.registry.tenant = (!v.is_empty()).then(|| v.to_owned());
            Ok(())
        },
    },
    Key {
        name: "registry.credential",
        kind: Kind::Text,
        sample: "\"\"",
        help: "The credential for it, where it is not the one derived from machine.secret, of which\n\
               `openclaw-sidecar token registry` prints the SHA-256.",
        apply: |c, v| {
            c.registry.credential = (!v.is_empty()).then(|| Secret::new(v.to_owned()));
            Ok(())
        },
    },
    Key {
        name: "registry.credential_file",
        kind: Kind::Text,
        sample: "\"/run/secrets/openclaw-registry\"",
        help: "A file that holds the credential; read again when the registry refuses it.",
        apply: |c, v| path(v).map(|p| c.registry.credential_file = p),
    },
    Key {
        name: "registry.ticket",
        kind: Kind::Text,
        sample: "\"\"",
        help: "What the registry gave when the tenant was created: one that lost its database takes the tenant in by it.",
        apply: |c, v| {
            if v.len() > 1024 || !v.bytes().all(|b| b.is_ascii_graphic()) {
                return Err("must be at most 1024 printable characters without spaces".into());
            }
            c.registry.ticket = (!v.is_empty()).then(|| Secret::new(v.to_owned()));
            Ok(())
        },
    },
    Key {
        name: "registry.ca_file",
        kind: Kind::Text,
        sample: "\"/etc/openclaw-sidecar/registry-ca.pem\"",
        help: "PEM certificates of the authorities to trust for it, instead of the system's.",
        apply: |c, v| path(v).map(|p| c.registry.ca_file = p),
    },
    Key {
        name: "registry.pin_sha256",
        kind: Kind::Text,
        sample: "\"\"",
        help: "SHA-256 of its certificate, as hex: exactly this one is trusted, whoever signed it.",
        apply: |c, v| {
            let plain = v.replace(':', "").to_ascii_lowercase();
            let bytes = data_encoding::HEXLOWER.decode(plain.as_bytes()).ok().and_then(|b| b.try_into().ok());
            c.registry.pin_sha256 = bytes;
            if bytes.is_some() || v.is_empty() { Ok(()) } else { Err("must be 64 hexadecimal digits".into()) }
        },
    },
    Key {
        name: "registry.allow_private",
        kind: Kind::Bool,
        sample: "false",
        help: "true lets the registry be at an address that is not public, such as one of a private network.",
        apply: |c, v| parse(v, "true or false").map(|allow| c.registry.allow_private = allow),
    },
    Key {
        name: "registry.mode",
        kind: Kind::Text,
        sample: "\"interval\"",
        help: "interval checks in every few minutes; quiet sends nothing when nothing happens, for platforms that put a\n\
               machine to sleep only when it is silent (Railway).",
        apply: |c, v| either(v, "interval", "quiet").map(|quiet| c.registry.quiet = quiet),
    },
    Key {
        name: "hardening.mode",
        kind: Kind::Text,
        sample: "\"report\"",
        help: "report shows in the state which layers of the daemon's hardening are on; require refuses to run when one\n\
               is missing.",
        apply: |c, v| either(v, "report", "require").map(|required| c.hardening_required = required),
    },
    Key {
        name: "limits.max_connections",
        kind: Kind::Number,
        sample: "128",
        help: "Most connections open at once. At the limit the oldest unauthenticated or idle one gives way.",
        apply: |c, v| whole(v, 8..=4096).map(|n| c.max_connections = n),
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

pub(crate) fn path(value: &str) -> Result<Option<PathBuf>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    let path = PathBuf::from(value);
    if path.is_absolute() { Ok(Some(path)) } else { Err(format!("must be an absolute path, not {value:?}")) }
}

pub(crate) fn text(value: &str) -> Result<String, String> {
    if value.is_empty() { Err("must not be empty".to_owned()) } else { Ok(value.to_owned()) }
}

pub(crate) fn listener(value: &str) -> Result<Option<SocketAddr>, String> {
    if value.is_empty() {
        return Ok(None);
    }
    parse(value, "an address with port, such as [::]:443, or empty to turn it off").map(Some)
}

/// Two listeners that cannot both be had.
pub(crate) fn same_port(tls: Option<SocketAddr>, edge: Option<SocketAddr>) -> Option<Fault> {
    let (tls, edge) = tls.zip(edge)?;
    let overlap = tls.ip() == edge.ip() || tls.ip().is_unspecified() || edge.ip().is_unspecified();
    let both = tls.port() == edge.port() && tls.port() != 0 && overlap;
    both.then(|| fault("listen.edge", "is on the port of listen.tls; choose another, or turn one of the two off"))
}

pub(crate) fn parse<T: FromStr>(value: &str, expected: &str) -> Result<T, String> {
    value.parse().map_err(|_| format!("must be {expected}, not {value:?}"))
}

/// A whole number within bounds.
pub(crate) fn whole<T: FromStr + PartialOrd + fmt::Display>(
    value: &str,
    bounds: RangeInclusive<T>,
) -> Result<T, String> {
    let number = value.parse().ok().filter(|n| bounds.contains(n));
    number.ok_or_else(|| format!("must be a whole number from {} to {}", bounds.start(), bounds.end()))
}

/// One of two words: whether it is the second.
pub(crate) fn either(value: &str, first: &str, second: &str) -> Result<bool, String> {
    if value == first || value == second { Ok(value == second) } else { Err(format!("must be {first} or {second}")) }
}

pub(crate) fn host(name: &str) -> Result<String, String> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if name.chars().all(legal) && name.len() <= 253 {
        Ok(name.to_ascii_lowercase())
    } else {
        Err(format!("{name:?} is not a host name; give names without scheme and port"))
    }
}
