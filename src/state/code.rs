//! The closed list of problems that can be diagnosed: the one place that says how bad each is, what it means and what to
//! do. The table in `docs/operations.md` is made from it.

use serde::Serialize;

use super::Severity;
use super::Severity::{Error, Warning};

macro_rules! codes {
    ($($variant:ident, $name:literal, $severity:ident, $meaning:literal, $remedy:literal;)*) => {
        /// The stable name of a problem.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[cfg_attr(test, derive(schemars::JsonSchema))]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $(#[doc = $meaning] $variant,)*
        }

        impl Code {
            /// All of them, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// As the API writes it.
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }

            /// How bad it is.
            pub fn severity(self) -> Severity {
                match self { $(Self::$variant => $severity,)* }
            }

            /// What it means, in one line.
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => $meaning,)* }
            }

            /// What to do about it, unless the finding itself says something finer.
            pub fn remedy(self) -> &'static str {
                match self { $(Self::$variant => $remedy,)* }
            }
        }
    };
}

// What can be proven from a line of the log alone is a warning: the tenant's programs can write such a line.
codes! {
    GatewayTokenMissing, "gateway_token_missing", Error,
        "no token for the gateway was found",
        "Set gateway.config_path, gateway.token_file or gateway.token of the sidecar.";
    GatewayTokenMismatch, "gateway_token_mismatch", Error,
        "the token found is not the one the gateway runs with",
        "Give the sidecar the gateway's present token, or restart the gateway so that it reads its configuration.";
    GatewayVersionUnsupported, "gateway_version_unsupported", Error,
        "it speaks another protocol",
        "Use versions of gateway and sidecar that fit.";
    GatewayRefusesUs, "gateway_refuses_us", Error,
        "another refusal; usually it does not see the sidecar as a local client",
        "Look at the gateway's log for why it refuses a local backend client.";
    GatewayPortTaken, "gateway_port_taken", Error,
        "the gateway's port is held by a process that is not the gateway; no token was sent to it",
        "End the process that listens there (the evidence names its user), then start the gateway.";
    GatewayAbsent, "gateway_absent", Error,
        "nothing has listened at the gateway's address for a minute, and somebody else is to start it (attach mode)",
        "Start the gateway, or correct gateway.address.";
    GatewayAuthOff, "gateway_auth_off", Error,
        "the gateway lets everybody in who reaches its port",
        "Set gateway.auth.mode to token, and a token.";
    GatewayMute, "gateway_mute", Error,
        "it accepts connections and has answered no call for 30 s",
        "Wait: a launched gateway is replaced after 60 s without progress. In attach mode restart it.";
    GatewaySlow, "gateway_slow", Warning,
        "calls take seconds, or the machine is kept from computing most of the time",
        "Give the machine more processor time; do not restart it, which costs the most of all.";
    GatewayCrashLoop, "gateway_crash_loop", Error,
        "it ended 5 times within 5 minutes and is tried seldom",
        "See the evidence for how it ended and its last lines; correct the cause, then start it.";
    GatewayConfigInvalid, "gateway_config_invalid", Error,
        "it refuses its configuration, or the file cannot be read at all",
        "Correct openclaw.json or the desired state, then start the gateway.";
    ConfigChangeRefused, "config_change_refused", Warning,
        "the running gateway passed over a change of its configuration; it would refuse it at the next start",
        "Correct the member named in openclaw.json, or take the change back.";
    ConfigDrift, "config_drift", Warning,
        "members of openclaw.json that the desired state owns were changed by somebody else",
        "Restart the gateway to have them put back, or change the desired state.";
    VersionChanged, "version_changed", Warning,
        "the gateway is of another version than before",
        "Nothing, if it was meant; the way back is in operations.md, \"Another version of the gateway\".";
    LaunchedAround, "launched_around", Warning,
        "the sidecar is set up to launch the gateway, but somebody else started it",
        "Make `openclaw-sidecar run -- <gateway command>` the entrypoint again: platforms replace it by a start command.";
    PairingRequired, "pairing_required", Warning,
        "somebody has waited for approval for a minute",
        "Look at who asks, then approve or reject: `openclaw-sidecar pairing list`.";
    NodeCommandsUnapproved, "node_commands_unapproved", Warning,
        "a paired node waits for its commands to be allowed; until then it can do nothing",
        "Approve the request of kind node, or reject it.";
    OutOfBandApproval, "out_of_band_approval", Warning,
        "a device or node was let in within the last day, and not by this sidecar",
        "If nobody of yours did it: revoke the device and rotate the gateway's token.";
    OriginNotAllowed, "origin_not_allowed", Warning,
        "browsers are turned away because their page is not among the allowed origins",
        "Add the origin to gateway.allowed_origins of the desired state (gateway.controlUi.allowedOrigins), if it is yours.";
    ProxyMakesEveryoneLocal, "proxy_makes_everyone_local", Warning,
        "a browser was let in without approval as if it ran on this machine: a proxy hides where visitors come from",
        "Make the proxy set X-Forwarded-For and name it in gateway.trustedProxies; revoke what was let in. A tunnel of your \
         own looks the same.";
    ForwardingHeadersUntrusted, "forwarding_headers_untrusted", Warning,
        "a proxy sends forwarding headers that the gateway does not trust, so its visitors are refused",
        "Add the proxy's address to gateway.trusted_proxies of the desired state (gateway.trustedProxies).";
    ChannelDown, "channel_down", Warning,
        "a messenger channel is enabled and not connected for a minute",
        "See the evidence; check the channel's token and the network, then restart the gateway.";
    DiskLow, "disk_low", Warning,
        "less than 5 % and 2 GiB are free on a disk that state lies on",
        "Make room: old sessions, logs and copies in before-sidecar/ and .sidecar/backups/; or enlarge the volume.";
    MemoryLow, "memory_low", Warning,
        "less than 5 % of the memory is left",
        "Give the machine more memory, or the agent less to do; next the kernel ends a process.";
    ClockWrong, "clock_wrong", Warning,
        "the wall clock is wrong, so times shown, expiries and certificates are too",
        "Set the machine's clock; the sidecar's own deadlines do not depend on it.";
    SecretExpiring, "secret_expiring", Warning,
        "a stored secret stops working soon, or has",
        "Send a new value with PUT /v1/secrets/{name}, then restart the gateway.";
    CertificateExpiring, "certificate_expiring", Warning,
        "the certificate of the tls listener ends within 14 days (a third of its life, if that is less), or has",
        "Put a new certificate and key in place of the files; they are read at once.";
    CredentialsUnreadable, "credentials_unreadable", Error,
        "the credentials file cannot be used; the last good entries stay in force",
        "Correct the file named; it is read again at once.";
    CertificateUnreadable, "certificate_unreadable", Error,
        "the same for a given certificate",
        "Correct the files named; they are read again at once.";
    AuditNotDurable, "audit_not_durable", Error,
        "the disk failed; calls that change something are refused while records cannot be written",
        "Make room on the disk of state_dir; calls that change something are refused until then.";
    StateNotWritten, "state_not_written", Error,
        "`approvals.json` could not be written",
        "Make room on the disk of state_dir, or make it writable.";
    DesiredUnreadable, "desired_unreadable", Error,
        "the platform's first document cannot be used",
        "Correct it (launch.desired), or have the control plane send another (PUT /v1/desired).";
    DesiredNotWritten, "desired_not_written", Error,
        "what became of a generation could not be written",
        "Make room on the disk of state_dir, or make it writable.";
    SeedNotes, "seed_notes", Warning,
        "what the last start did that somebody should know",
        "Look at what was set aside, and correct its cause.";
    LocalSocketUnavailable, "local_socket_unavailable", Warning,
        "the CLI has no socket",
        "Set listen.unix to a path the sidecar may create; the CLI on this machine needs it.";
    RegistryUnreachable, "registry_unreachable", Warning,
        "check-ins do not arrive at the registry; nothing on this machine depends on them",
        "Check registry.url, the name's addresses and the way out of this machine.";
    RegistryRefusesUs, "registry_refuses_us", Error,
        "the registry does not know this tenant's credential (401 or 403)",
        "Create the tenant in the registry with this machine's credential, or give the machine the right one.";
    Decommissioned, "decommissioned", Warning,
        "this tenant is gone: its state was wiped, and the gateway stays stopped",
        "Give the next tenant another volume.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_is_serialised() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.name());
            assert!(code.remedy().ends_with('.') && !code.meaning().ends_with('.'), "{}", code.name());
        }
    }

    /// `UPDATE_DOCS=1` writes the table anew.
    #[test]
    fn the_documented_table_is_this_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md");
        let text = std::fs::read_to_string(path).unwrap();
        let head = "| finding | severity | what it means | what to do |\n|---|---|---|---|\n";
        let begin = text.find(head).expect("the table of findings") + head.len();
        let end = begin + text[begin..].find("\n\n").unwrap() + 1;
        let row = |code: &Code| {
            let severity = serde_json::to_value(code.severity()).unwrap();
            let (name, severity) = (code.name(), severity.as_str().unwrap());
            format!("| `{name}` | {severity} | {} | {} |\n", code.meaning(), code.remedy())
        };
        let rows: String = Code::ALL.iter().map(row).collect();
        if std::env::var_os("UPDATE_DOCS").is_some() {
            let whole = format!("{}{rows}{}", &text[..begin], &text[end..]);
            crate::files::replace(std::path::Path::new(path), whole.as_bytes(), 0o644).unwrap();
        } else {
            assert!(text[begin..end] == rows, "docs/operations.md is out of date: UPDATE_DOCS=1 cargo test --lib code");
        }
    }
}
