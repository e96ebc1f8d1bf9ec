//! `openclaw-sidecar pairing …`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, Reply};
use super::{err, exit, out, show};
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what waits and what is paired
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Let a device, node or sender in
    Approve(ApproveArgs),
    /// Turn a request down
    Reject(RejectArgs),
    /// Take a pairing back and close its sessions
    Revoke(PairedArgs),
    /// Give a device or node a name
    Rename {
        #[command(flatten)]
        paired: PairedArgs,
        /// The new name
        label: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct ApproveArgs {
    /// The request's id, as `pairing list` shows it
    #[arg(required_unless_present_any = ["device", "only_pending", "code"])]
    request_id: Option<String>,
    /// Approve whatever this device asks for now
    #[arg(long, value_name = "DEVICE_ID", conflicts_with = "request_id")]
    device: Option<String>,
    /// Approve the only device request that waits, if it is exactly one
    #[arg(long, conflicts_with_all = ["request_id", "device"])]
    only_pending: bool,
    /// device, node or channel
    #[arg(long, default_value = "device", value_parser = ["device", "node", "channel"])]
    kind: String,
    /// The messenger channel, e.g. telegram
    #[arg(long)]
    channel: Option<String>,
    /// The channel's account
    #[arg(long)]
    account: Option<String>,
    /// The code the sender was shown
    #[arg(long, conflicts_with = "request_id")]
    code: Option<String>,
    /// Refuse any other role
    #[arg(long, value_name = "ROLE")]
    expect_role: Option<String>,
    /// Refuse scopes beyond these (repeat, or separate by commas)
    #[arg(long, value_name = "SCOPE", value_delimiter = ',')]
    max_scope: Vec<String>,
    /// Refuse any other client program
    #[arg(long, value_name = "CLIENT_ID")]
    expect_client: Option<String>,
    /// Refuse any other platform
    #[arg(long, value_name = "PLATFORM")]
    expect_platform: Option<String>,
    /// Seconds to wait for the gateway
    #[arg(long, default_value_t = 20, value_name = "SECONDS")]
    wait: u8,
    /// Seconds to wait until the device is really connected
    #[arg(long, default_value_t = 0, value_name = "SECONDS")]
    wait_connected: u8,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RejectArgs {
    /// The request's id
    request_id: String,
    /// device, node or channel
    #[arg(long, default_value = "device", value_parser = ["device", "node", "channel"])]
    kind: String,
    /// The messenger channel, e.g. telegram
    #[arg(long)]
    channel: Option<String>,
    /// The channel's account
    #[arg(long)]
    account: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PairedArgs {
    /// The device's or node's id
    device_id: String,
    /// device or node
    #[arg(long, default_value = "device", value_parser = ["device", "node"])]
    kind: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(config: &Config, command: Command) -> u8 {
    let (json, called) = match command {
        Command::List { json } => {
            let list = Client::new(config).and_then(|client| client.get("/v1/pairing"));
            return match list {
                Ok(reply) if json || reply.status >= 400 => answer(json, &reply),
                Ok(reply) => {
                    out(&show::pairing(&reply.body));
                    exit::OK
                }
                Err(why) => unreachable_daemon(&why),
            };
        }
        Command::Approve(args) => {
            let path = format!(
                "/v1/pairing/approve?wait_s={}&wait_connected_s={}",
                args.wait.min(60),
                args.wait_connected.min(60)
            );
            (args.json, post(config, &path, &approve_body(&args)))
        }
        Command::Reject(args) => {
            let body = json!({ "kind": args.kind, "request_id": args.request_id, "channel": args.channel,
                "account": args.account });
            (args.json, post(config, "/v1/pairing/reject", &body))
        }
        Command::Revoke(args) => {
            let body = json!({ "kind": args.kind, "device_id": args.device_id });
            (args.json, post(config, "/v1/pairing/revoke", &body))
        }
        Command::Rename { paired, label } => {
            let body = json!({ "kind": paired.kind, "device_id": paired.device_id, "label": label });
            (paired.json, post(config, "/v1/pairing/rename", &body))
        }
    };
    match called {
        Ok(reply) => answer(json, &reply),
        Err(why) => unreachable_daemon(&why),
    }
}

fn approve_body(args: &ApproveArgs) -> Value {
    let expect = json!({
        "role": args.expect_role,
        "max_scopes": (!args.max_scope.is_empty()).then_some(&args.max_scope),
        "client_id": args.expect_client,
        "platform": args.expect_platform,
    });
    json!({
        "kind": args.kind,
        "request_id": args.request_id,
        "device_id": args.device,
        "only_pending": args.only_pending.then_some(true),
        "channel": args.channel,
        "account": args.account,
        "code": args.code,
        "expect": expect,
    })
}

fn post(config: &Config, path: &str, body: &Value) -> Result<Reply, String> {
    Client::new(config)?.post(path, body)
}

fn unreachable_daemon(why: &str) -> u8 {
    err(why);
    exit::UNAVAILABLE
}

fn answer(json: bool, reply: &Reply) -> u8 {
    let good = reply.status < 400;
    if json {
        out(&show::pretty(&reply.body));
    } else if good {
        out(&show::outcome(&reply.body));
    } else {
        err(&show::problem(&reply.body));
    }
    match (good, reply.body["retryable"].as_bool()) {
        (true, _) => exit::OK,
        (false, Some(true)) => exit::TRY_LATER,
        _ => exit::NO,
    }
}
