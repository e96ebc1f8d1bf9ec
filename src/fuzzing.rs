//! What the targets in `fuzz/` call: one function for every parser of bytes that may be hostile.
//!
//! Compiled with `--cfg fuzzing`, as cargo-fuzz builds it, and for a test that runs the seeds. The functions stand here
//! because most parsers are private to the crate. A panic is a finding, so each function also asserts what its parser
//! promises.

#[cfg(feature = "registry")]
mod registry;

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use data_encoding::HEXLOWER;
use hyper::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, HeaderValue};
use hyper::{Method, Request, Uri, Version};
use nix::sys::memfd::{MFdFlags, memfd_create};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::api::body::{ApproveBody, PendingBody, RejectBody, RenameBody, RevokeBody};
use crate::api::problem::Problem;
use crate::api::routes::{ROUTES, TABLE};
use crate::audit::chain::{self, Entry, Head};
use crate::auth::credentials::{self, Token};
use crate::auth::{Auth, Tier};
use crate::checkin;
use crate::checkin::destination::{self, Destination};
use crate::checkin::schedule::{Mode, Schedule};
use crate::checkin::wire::{CheckIn, MAX_ANSWER, PATH};
use crate::clock::UnixMs;
use crate::config::{self, Config, Env};
use crate::desired::applied::{Applied, adopt};
use crate::desired::document::Document;
use crate::desired::{openclaw_json, plan};
use crate::gateway::frames::{Challenge, Hello, Incoming, RpcError, announces_restart};
use crate::gateway::records::{Lists, WireChannel, WireChannels, WireDevice, WireList, WireNode, notice};
use crate::gateway::secret::{self, Credential};
use crate::gateway::{CallError, Notice};
use crate::http::MAX_BODY;
use crate::http::app::{Found, Takes};
use crate::http::query::{Kind, Query};
use crate::http::screen::screen;
use crate::json;
use crate::op::pairing::{ChangeCommand, Target};
use crate::op::{Patience, Refused};

/// Stands for a secret in seeds and dictionaries: no error text may repeat it.
const SECRET: &str = "hunter2hunter2";
const TOKEN: &str = "ocs_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// A frame of the gateway, and the same text as every kind of payload that a frame may carry.
pub fn gateway_frame(data: &[u8]) {
    // Text messages are checked for UTF-8 before they come to us.
    let Ok(text) = std::str::from_utf8(data) else { return };
    gateway_payload(text);
    let Ok(frame) = serde_json::from_str::<Incoming<'_>>(text) else { return };
    if let Some(payload) = frame.payload {
        gateway_payload(payload.get());
        if let Some(Notice::Requested(pending)) = frame.event.and_then(|name| notice(&name, payload.get())) {
            check_shown(&PendingBody::of(&pending, UnixMs::now()));
        }
    }
    frame.error.into_iter().for_each(gateway_error);
}

fn gateway_payload(text: &str) {
    let _ = serde_json::from_str::<Hello>(text);
    let _ = serde_json::from_str::<Challenge>(text);
    let _ = announces_restart(text);
    for name in ["device.pair.requested", "node.pair.requested", "device.pair.resolved", "presence"] {
        match notice(name, text) {
            Some(Notice::Requested(pending)) => check_shown(&PendingBody::of(&pending, UnixMs::now())),
            Some(Notice::Resolved(_, id, _)) => check_shown(&id),
            Some(Notice::Presence(ids)) => check_shown(&ids),
            _ => {}
        }
    }
    if let Ok(list) = serde_json::from_str::<WireList>(text) {
        check_lists(&list.into_lists(WireDevice::pending, WireDevice::approved, "own"));
    }
    if let Ok(list) = serde_json::from_str::<WireList>(text) {
        check_lists(&list.into_lists(WireNode::pending, WireNode::approved, "own"));
    }
    if let Ok(list) = serde_json::from_str::<WireChannels>(text) {
        list.requests.into_iter().filter_map(WireChannel::pending).for_each(|p| check_shown(&p));
    }
}

fn gateway_error(error: RpcError) {
    let _ = (error.fine_code(), error.is_unknown_method(), error.is_unknown_id());
    check_shown(&Problem::from(Refused::from(CallError::Rejected(error))));
}

fn check_lists(lists: &Lists) {
    assert!(lists.pending.len() <= 256 && lists.approved.len() <= 1024);
    assert!(lists.pending.iter().all(|p| !p.request_id.is_empty() && !p.device_id.is_empty() && p.device_id != "own"));
    assert!(lists.approved.iter().all(|a| !a.device_id.is_empty() && a.device_id != "own"));
    check_shown(&lists.pending);
    check_shown(&lists.approved);
}

/// What callers are shown of hostile bytes: bounded texts without characters that control, turn or hide.
fn check_shown(shown: &impl Serialize) {
    fn check(name: &str, value: &Value) {
        match value {
            Value::String(text) => {
                // A role is a list of up to 64 texts; details have words of ours around a text or two.
                let most = if name == "role" { 64 * 257 } else { 600 };
                assert!(text.chars().count() <= most, "{name} is too long");
                let hostile =
                    |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}');
                assert!(!text.contains(hostile), "{name} has control characters: {text:?}");
            }
            Value::Array(items) => items.iter().for_each(|item| check(name, item)),
            Value::Object(members) => members.iter().for_each(|(name, value)| check(name, value)),
            _ => {}
        }
    }
    check("", &serde_json::to_value(shown).expect("what is shown can be written"));
}

/// The gateway's own configuration, JSON5.
pub fn openclaw_config(data: &[u8]) {
    let env = Env::from([("T".to_owned(), "from the environment".to_owned())]);
    let Ok(text) = std::str::from_utf8(data) else { return };
    match secret::find(&Config::default().gateway, Some(Ok(text.to_owned())), &env) {
        Ok(Credential::Token(secret) | Credential::Password(secret)) => {
            assert!(!secret.expose().is_empty() && secret.expose().trim() == secret.expose());
        }
        Err(why) => assert!(!why.contains(SECRET), "a secret is told: {why}"),
    }
}

/// A desired document: what is parsed comes back, and what has no fault holds no secret.
pub fn desired_document(data: &[u8]) {
    let Ok(document) = Document::parse(data) else { return };
    let bytes = serde_json::to_vec(&document).expect("a document can be written");
    assert_eq!(Document::parse(&bytes).as_ref(), Ok(&document));
    let faults = document.faults();
    assert!(faults.iter().all(|fault| fault.contains(": ")), "{faults:?}");
    assert!(document.files.iter().all(|f| (0o600..=0o755).contains(&f.mode()) && f.mode() & 0o002 == 0));
    if faults.is_empty() {
        let safe = |path: &str| !path.starts_with('/') && !path.split('/').any(|name| ["", ".", ".."].contains(&name));
        assert!(document.files.iter().all(|file| safe(&file.path)));
        assert!(document.config.get("token").is_none_or(|token| *token != SECRET));
    }
}

/// The gateway's file, and behind a NUL a desired document: both are merged, and merged again without a change.
pub fn desired_plan(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, document) = text.split_once('\0').unwrap_or((text, "{}"));
    let config = match openclaw_json::read(file) {
        Ok(config) => config,
        // Only names are told, and only of what is there twice.
        Err(why) => return assert!(why.contains(" is given twice on ") || !why.contains(SECRET), "{why}"),
    };
    assert_eq!(openclaw_json::read(&openclaw_json::write(&config)).as_ref(), Ok(&config));
    let document = Document::parse(document.as_bytes()).unwrap_or_default();
    let facts = plan::Facts {
        generation: 1,
        port: 18789,
        state_dir: Path::new("/data/openclaw"),
        gateway_version: "2026.9.6",
        fresh_token: TOKEN,
    };
    let first = plan::plan(&config, &document, &Applied::default(), &facts);
    let told = serde_json::to_string(&(&first.changes, &first.applied)).expect("changes can be written");
    assert!(told.contains(TOKEN) <= text.contains(TOKEN), "a secret is told: {told}");
    if document.faults().is_empty() {
        let second = plan::plan(&first.config, &document, &adopt(&first.config, &first.applied), &facts);
        assert!(!second.changed && second.changes.is_empty(), "{:?}", second.changes);
    }
}

/// The bodies of every POST.
pub fn request_body(data: &[u8]) {
    if let Ok(command) = json::parse::<ApproveBody>(data).map(|body| body.command(Patience::default())) {
        match command.map(|command| command.target) {
            Ok(Target::Request(_, id) | Target::Device(id)) => check_id(&id),
            Ok(Target::Channel { channel, account, request_id }) => {
                [Some(channel), account, Some(request_id)].iter().flatten().for_each(|id| check_id(id));
            }
            Ok(_) | Err(_) => {}
        }
    }
    let changes = [
        json::parse::<RejectBody>(data).map(RejectBody::command),
        json::parse::<RevokeBody>(data).map(RevokeBody::command),
        json::parse::<RenameBody>(data).map(RenameBody::command),
    ];
    for command in changes.into_iter().flatten().flatten() {
        match command {
            ChangeCommand::Reject { request_id, channel, .. } => {
                let (channel, account) = channel.unzip();
                [Some(request_id), channel, account.flatten()].iter().flatten().for_each(|id| check_id(id));
            }
            ChangeCommand::Revoke { device_id, .. } => check_id(&device_id),
            ChangeCommand::Rename { device_id, label, .. } => {
                check_id(&device_id);
                assert!((1..=64).contains(&label.chars().count()) && !label.contains(char::is_control));
            }
        }
    }
}

fn check_id(id: &str) {
    assert!((1..=256).contains(&id.len()) && !id.contains(char::is_control), "not an id: {id:?}");
}

/// The query of every route.
pub fn query(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    for route in ROUTES {
        let Ok(query) = Query::parse(Some(text), route.params) else { continue };
        for param in route.params {
            match (param.kind, query.text(param.name)) {
                (_, None) => {}
                (Kind::Number(least, most), Some(value)) => {
                    assert!(value.bytes().all(|b| b.is_ascii_digit()), "taken as a whole number: {value:?}");
                    assert!(query.number(param.name).is_some_and(|n| (least..=most).contains(&n)), "{value:?}");
                }
                (Kind::Words(words), Some(value)) => assert!(words.contains(&value), "{value:?}"),
                (Kind::Text, Some(value)) => assert!(value.len() <= 256),
            }
        }
    }
}

/// A request's head: `METHOD target 1.0|1.1`, then one header a line.
pub fn request_head(data: &[u8]) {
    let Some(request) = request(data) else { return };
    let names = HashSet::from(["tenant-7.internal".to_owned()]);
    if let Err(problem) = screen(&request, &names, Takes::Json(MAX_BODY)) {
        assert!(problem.status().is_client_error() && problem.detail.len() < 1024);
        return;
    }
    let headers = request.headers();
    assert!(["transfer-encoding", "origin", "content-encoding"].iter().all(|name| !headers.contains_key(*name)));
    assert!(headers.get_all(CONTENT_LENGTH).iter().count() <= 1 && headers.get_all(HOST).iter().count() <= 1);
    if let Some(length) = headers.get(CONTENT_LENGTH) {
        // hyper refuses signs before us.
        let length = length.to_str().expect("checked").trim_start_matches('+');
        assert!(length.parse::<usize>().expect("checked") <= MAX_BODY);
    }
    match headers.get(HOST) {
        Some(host) => check_host(host.to_str().expect("checked"), &names),
        None => assert_eq!(request.version(), Version::HTTP_10),
    }
    let length = headers.get(CONTENT_LENGTH).map_or("0", |length| length.to_str().expect("checked"));
    if request.method() == Method::POST && length.bytes().any(|b| b != b'0') {
        let value = headers.get(CONTENT_TYPE).expect("checked").as_bytes().to_ascii_lowercase();
        assert!(value.trim_ascii_start().starts_with(b"application/json"));
    }
    if let Found::Route(matched) = TABLE.find(request.method(), request.uri().path()) {
        let method = &ROUTES[matched.index].method;
        assert!(method == request.method() || request.method() == Method::HEAD);
    }
}

/// RFC 9110 §7.2: the host, and behind a colon its port, and nothing else.
fn check_host(host: &str, names: &HashSet<String>) {
    let at = host.find(']').map_or_else(|| host.find(':').unwrap_or(host.len()), |at| at + 1);
    let (name, port) = host.split_at(at);
    assert!(
        port.is_empty() || port.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit())),
        "no port: {host:?}"
    );
    let bare = name.trim_end_matches('.').to_ascii_lowercase();
    let literal = name.trim_start_matches('[').trim_end_matches([']', '.']).parse::<std::net::IpAddr>().is_ok();
    assert!(literal || bare == "localhost" || names.contains(&bare), "not our host: {host:?}");
}

fn request(data: &[u8]) -> Option<Request<()>> {
    let mut lines = data.split(|b| *b == b'\n');
    let mut first = lines.next()?.split(|b| *b == b' ');
    let mut request = Request::new(());
    *request.method_mut() = Method::from_bytes(first.next()?).ok()?;
    *request.uri_mut() = Uri::try_from(first.next()?).ok()?;
    *request.version_mut() = if first.next() == Some(b"1.0") { Version::HTTP_10 } else { Version::HTTP_11 };
    for line in lines {
        let at = line.iter().position(|b| *b == b':')?;
        let (name, value) = (HeaderName::from_bytes(&line[..at]).ok()?, line[at + 1..].trim_ascii());
        request.headers_mut().append(name, HeaderValue::from_bytes(value).ok()?);
    }
    Some(request)
}

/// `Authorization` headers, one a line.
pub fn authorization(data: &[u8]) {
    static AUTH: OnceLock<Auth> = OnceLock::new();
    let auth = AUTH.get_or_init(|| {
        let token = Token::parse(TOKEN).expect("a token");
        let inline = Some(format!("[{}]", credentials::entry_json("control", &token, Tier::Safe, false)));
        Auth::load(&config::Auth { credentials_file: None, credentials: inline }).expect("one entry")
    });
    let values: Vec<_> = data.split(|b| *b == b'\n').filter_map(|line| HeaderValue::from_bytes(line).ok()).collect();
    let right = |value: &HeaderValue| {
        let (scheme, token) = value.as_bytes().split_at(value.len().min(7));
        scheme.eq_ignore_ascii_case(b"bearer ") && token == TOKEN.as_bytes()
    };
    let expected = values.len() == 1 && values.iter().all(right);
    let headers: HeaderMap = values.into_iter().map(|value| (AUTHORIZATION, value)).collect();
    let principal = auth.authenticate(&headers);
    assert_eq!(principal.is_some(), expected);
    assert!(principal.is_none_or(|p| p.id == "control" && p.tier == Tier::Safe && auth.still_valid(&p)));
}

/// A credentials file.
pub fn credentials_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(entries) = credentials::parse(text) else { return };
    assert!((1..=64).contains(&entries.len()));
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    assert!(entries.iter().all(|e| (1..=64).contains(&e.id.len()) && e.id.chars().all(legal)));
    assert!(entries.iter().all(|e| e.id != "sidecar" && matches!(e.tier, Tier::Safe | Tier::Dangerous)));
    assert!(entries.iter().all(|e| e.digest != <[u8; 32]>::from(Sha256::digest(""))));
    assert_eq!(entries.iter().map(|e| &e.id).collect::<HashSet<_>>().len(), entries.len());
    assert_eq!(entries.iter().map(|e| e.digest).collect::<HashSet<_>>().len(), entries.len());
}

/// Our own configuration: TOML, and behind a NUL one variable `NAME=value` a line.
pub fn sidecar_config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (file, variables) = text.split_once('\0').unwrap_or((text, ""));
    let env: Env = variables.lines().filter_map(|v| v.split_once('=')).map(|(k, v)| (k.into(), v.into())).collect();
    if let Err(faults) = Config::parse(&format!("gateway.token = \"{SECRET}\"{file}"), &env) {
        assert!(text.contains(SECRET) || !faults.to_string().contains(SECRET), "a secret is told: {faults}");
    }
    match Config::parse(file, &env) {
        Ok(config) => {
            assert!(config.gateway.address.ip().is_loopback() && config.state_dir.is_absolute());
            assert!((8..=4096).contains(&config.max_connections));
            assert!(config.listen.tls.is_some() || config.listen.edge.is_some() || config.listen.unix.is_some());
            assert!(config.gateway.token.is_none() || config.gateway.token_file.is_none());
            assert_eq!(config.tls.cert_file.is_some(), config.tls.key_file.is_some());
        }
        Err(faults) => assert!(!faults.to_string().is_empty()),
    }
}

/// One line of the audit, with a hash that fits; and any text put on record, at whatever length.
pub fn audit_line(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = chain::parse_line(&text);
    let hash = HEXLOWER.encode(&Sha256::digest(text.as_bytes()));
    let line = format!("{text},\"hash\":\"{hash}\"}}");
    if let Ok(record) = chain::parse_line(&line) {
        assert_eq!(record.hash, hash);
        // Whoever may write the file can begin a chain anywhere: what follows must not panic.
        let _ = Head { n: record.n, hash }.append(&record.entry);
        let _ = with_file(format!("{line}\n{line}\n").as_bytes(), |path| chain::walk(&[path.to_owned()], drop));
    }
    let detail = text.repeat(1 + usize::from(data.first().copied().unwrap_or_default()));
    let entry = Entry { verb: "pairing.approve".into(), target: text.into_owned(), detail, ..Entry::default() };
    let (line, head) = Head::default().append(&entry).expect("an entry can be written");
    let walked = with_file(line.as_bytes(), |path| chain::walk(&[path.to_owned()], drop)).expect("a file in memory");
    assert_eq!(walked.as_ref().ok(), Some(&head), "what was put on record cannot be read: {walked:?}");
}

/// A good chain with edits (kind, two bytes of place, value), cut into two files: never the same head by other bytes.
pub fn audit_walk(data: &[u8]) {
    let (good, head) = good_chain();
    let (cut, edits) = data.split_at(data.len().min(2));
    let mut bytes = good.clone().into_bytes();
    for edit in edits.chunks_exact(4) {
        let at = usize::from(u16::from_be_bytes([edit[1], edit[2]])) % (bytes.len() + 1);
        match edit[0] % 6 {
            0 if at < bytes.len() => bytes[at] = edit[3],
            1 => bytes.insert(at, edit[3]),
            2 => drop(bytes.drain(at..bytes.len().min(at + usize::from(edit[3])))),
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(..at)),
            _ => bytes.extend_from_within(at.saturating_sub(usize::from(edit[3]))..at),
        }
    }
    let cut = cut.iter().fold(0, |n, b| n << 8 | usize::from(*b)) % (bytes.len() + 1);
    let (first, second) = bytes.split_at(cut);
    let walked = with_file(first, |a| with_file(second, |b| chain::walk(&[a.to_owned(), b.to_owned()], drop)));
    if walked.expect("a file in memory").is_ok_and(|found| found == head) {
        // A last line that a crash cut short counts as absent, and so do old segments that were removed.
        let read = [whole_lines(first), whole_lines(second)].concat();
        let kept = good.len().checked_sub(read.len()).expect("nothing was added");
        assert_eq!(read, good.as_bytes()[kept..], "other bytes, but the same head");
        assert!(kept == 0 || good.as_bytes()[kept - 1] == b'\n');
    }
}

fn good_chain() -> (String, Head) {
    let details = ["", "new\nline", "replaced \u{fffd} character", "\"hash\":\"quoted\""];
    details.iter().fold((String::new(), Head::default()), |(text, head), detail| {
        let (line, head) = head.append(&Entry { detail: (*detail).into(), ..Entry::default() }).expect("an entry");
        (text + &line, head)
    })
}

fn whole_lines(bytes: &[u8]) -> &[u8] {
    &bytes[..bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)]
}

/// Gives `content` a path without touching a disk, so that readers of files are tried as they are.
fn with_file<T>(content: &[u8], read: impl FnOnce(&Path) -> T) -> T {
    let mut file = File::from(memfd_create(c"fuzzing", MFdFlags::MFD_CLOEXEC).expect("memory"));
    file.write_all(content).expect("memory");
    read(&PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd())))
}

/// A registry's answer: whatever is in it, it is read within its bound, and what it asks for is brought into ours.
pub fn registry_answer(data: &[u8]) {
    let answer = checkin::send::parse(data);
    assert!(data.len() <= MAX_ANSWER || answer.is_err(), "longer than the bound");
    let Ok(answer) = answer else { return };
    let mut schedule = Schedule::new(Mode::Interval, Duration::ZERO);
    schedule.changed(Duration::ZERO);
    schedule.begin(Duration::from_secs(1));
    schedule.sent(answer.next_s, answer.ack.seq);
    let due = schedule.due().expect("there is always a next one");
    assert!((Duration::from_secs(12)..=Duration::from_secs(4501)).contains(&due), "{due:?}");
}

/// A message of a sidecar, as a registry reads it and as a sidecar would send it.
pub fn check_in(data: &[u8]) {
    let Ok(mut message) = serde_json::from_slice::<CheckIn>(data) else { return };
    let text = serde_json::to_vec(&message).expect("it came as JSON");
    assert_eq!(serde_json::from_slice::<CheckIn>(&text).expect("what we write we read"), message);
    let sent = checkin::report::encode(&mut message);
    assert_eq!(serde_json::from_slice::<CheckIn>(&sent).expect("what we send is read"), message);
}

/// A registry's URL: one that is taken leads to one route, over https, at no private address.
pub fn registry_url(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(destination) = Destination::parse(text, false) else { return };
    let uri: Uri = format!("{}{PATH}", destination.base()).parse().expect("what is taken is a URL");
    assert_eq!(uri.scheme_str(), Some("https"));
    assert!(uri.path().ends_with(PATH) && uri.query().is_none());
    assert_eq!(uri.port_u16(), Some(destination.port()));
    let host = uri.host().expect("a host").trim_matches(['[', ']']);
    assert!(!uri.authority().expect("an authority").as_str().contains('@'));
    if let Ok(address) = host.parse() {
        assert!(destination::check(address, false).is_ok(), "{address}");
    }
}

#[cfg(feature = "registry")]
pub use self::registry::{registry_claims, registry_query, registry_rules};

#[cfg(all(test, feature = "registry"))]
mod tests {
    use super::*;

    type Target = (&'static str, fn(&[u8]));

    const TARGETS: [Target; 18] = [
        ("audit_line", audit_line),
        ("audit_walk", audit_walk),
        ("authorization", authorization),
        ("check_in", check_in),
        ("credentials_file", credentials_file),
        ("desired_document", desired_document),
        ("desired_plan", desired_plan),
        ("gateway_frame", gateway_frame),
        ("openclaw_config", openclaw_config),
        ("query", query),
        ("registry_answer", registry_answer),
        ("registry_claims", registry_claims),
        ("registry_query", registry_query),
        ("registry_rules", registry_rules),
        ("registry_url", registry_url),
        ("request_body", request_body),
        ("request_head", request_head),
        ("sidecar_config", sidecar_config),
    ];

    fn names(dir: &str) -> Vec<String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz").join(dir);
        let entries = std::fs::read_dir(dir).expect("it is in the repository");
        let name = |entry: std::fs::DirEntry| entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        let mut names: Vec<String> = entries.map(|entry| name(entry.expect("readable"))).collect();
        names.sort();
        names
    }

    /// No target rots unseen, and none is without seeds; each seed is also tried cut short, since what is read is.
    #[test]
    fn every_seed_passes_its_target() {
        let known: Vec<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
        assert_eq!((names("fuzz_targets"), names("seeds")), (names("fuzz_targets"), names("fuzz_targets")));
        assert_eq!(names("fuzz_targets"), known);
        for (name, target) in TARGETS {
            for seed in names(&format!("seeds/{name}")) {
                let path = format!("{}/fuzz/seeds/{name}/{seed}", env!("CARGO_MANIFEST_DIR"));
                let bytes = std::fs::read(&path).expect("readable");
                (0..=bytes.len()).step_by(bytes.len() / 64 + 1).for_each(|end| target(&bytes[..end]));
                target(&bytes);
            }
        }
    }
}
