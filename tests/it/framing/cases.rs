//! The list: each request carries a valid control token and, where it can, a body that would approve.

use openclaw_sidecar::api::routes::ROUTES;

use super::super::auth_matrix::scene::Scene;
use super::{both, exchange};

/// What a case has to end in: one of these statuses, or (0) a close without a word.
type Wanted = &'static [u16];

/// Not acceptable as a request; hyper's parser answers 400, or closes when it is no HTTP at all.
const MALFORMED: Wanted = &[400];

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    wanted: Wanted,
}

/// Writes requests that are right but for one thing.
struct Writer {
    token: String,
    approve: String,
    cases: Vec<Case>,
}

const JSON: &str = "Content-Type: application/json\r\n";
const HOST: &str = "Host: localhost\r\n";

impl Writer {
    fn raw(&mut self, name: &'static str, bytes: impl Into<Vec<u8>>, wanted: Wanted) {
        self.cases.push(Case { name, bytes: bytes.into(), wanted });
    }

    fn auth(&self) -> String {
        format!("Authorization: Bearer {}\r\n", self.token)
    }

    /// An approve with these header lines (besides the credential) and its usual body.
    fn approve(&mut self, name: &'static str, headers: &str, wanted: Wanted) {
        let (auth, body) = (self.auth(), self.approve.clone());
        let text = format!("POST /v1/pairing/approve HTTP/1.1\r\n{auth}{headers}Connection: close\r\n\r\n{body}");
        self.raw(name, text, wanted);
    }

    /// The same with `extra` added to headers that are right.
    fn approve_with(&mut self, name: &'static str, extra: &str, wanted: Wanted) {
        let headers = format!("{HOST}{JSON}Content-Length: {}\r\n{extra}", self.approve.len());
        self.approve(name, &headers, wanted);
    }

    /// Another framing of the body: the header lines say how long it is.
    fn framed(&mut self, name: &'static str, lines: &str, body: &str, wanted: Wanted) {
        let auth = self.auth();
        let text =
            format!("POST /v1/pairing/approve HTTP/1.1\r\n{HOST}{JSON}{auth}{lines}Connection: close\r\n\r\n{body}");
        self.raw(name, text, wanted);
    }

    /// A request line with headers that are right.
    fn line(&mut self, name: &'static str, line: &str, wanted: Wanted) {
        let text = format!("{line}\r\n{HOST}{}Connection: close\r\n\r\n", self.auth());
        self.raw(name, text, wanted);
    }

    fn chunked(&self) -> String {
        format!("{:x}\r\n{}\r\n0\r\n\r\n", self.approve.len(), self.approve)
    }

    fn lengths(&mut self) {
        let (length, body, chunked) = (self.approve.len(), self.approve.clone(), self.chunked());
        let own = format!("Content-Length: {length}\r\n");
        let te = "Transfer-Encoding: chunked\r\n";
        self.framed("CL and TE", &format!("{own}{te}"), &chunked, &[411]);
        self.framed("TE and CL", &format!("{te}{own}"), &chunked, &[411]);
        self.framed("CL 0 and TE", &format!("Content-Length: 0\r\n{te}"), &chunked, &[411]);
        self.framed("TE chunked", te, &chunked, &[411]);
        self.framed("doubled TE", &format!("{te}{te}"), &chunked, &[400, 411]);
        self.framed("TE chunked, identity", "Transfer-Encoding: chunked, identity\r\n", &chunked, MALFORMED);
        self.framed("TE identity", "Transfer-Encoding: identity\r\n", &body, MALFORMED);
        self.framed("TE xchunked", "Transfer-Encoding: xchunked\r\n", &chunked, MALFORMED);
        self.framed("TE with a tab", "Transfer-Encoding:\tchunked\r\n", &chunked, &[411]);
        self.framed("TE in capitals", "TRANSFER-ENCODING: CHUNKED\r\n", &chunked, &[400, 411]);
        self.framed("TE with a space before the colon", "Transfer-Encoding : chunked\r\n", &chunked, MALFORMED);
        self.framed("differing CL", &format!("{own}Content-Length: 2\r\n"), &body, MALFORMED);
        self.framed("CL list", &format!("Content-Length: {length}, {length}\r\n"), &body, MALFORMED);
        self.framed("CL negative", "Content-Length: -1\r\n", &body, MALFORMED);
        self.framed("CL with plus", &format!("Content-Length: +{length}\r\n"), &body, MALFORMED);
        self.framed("CL in hex", &format!("Content-Length: 0x{length:x}\r\n"), &body, MALFORMED);
        self.framed("CL as a fraction", &format!("Content-Length: {length}.0\r\n"), &body, MALFORMED);
        self.framed("CL with a word", &format!("Content-Length: {length} bytes\r\n"), &body, MALFORMED);
        self.framed("CL empty", "Content-Length: \r\n", &body, MALFORMED);
        self.framed("CL beyond 64 bits", "Content-Length: 99999999999999999999999\r\n", &body, MALFORMED);
        self.framed("CL at the edge of 64 bits", "Content-Length: 18446744073709551615\r\n", &body, &[413, 431]);
        self.framed("no CL", "", &body, &[400]);
        self.framed("CL shorter than the body", "Content-Length: 2\r\n", "{}{\"kind\":\"device\"}", &[400]);
        self.framed("64 KiB and one", "Content-Length: 65537\r\n", &"x".repeat(65_537), &[413]);
        self.framed("1 GiB announced", "Content-Length: 1073741824\r\n", "x", &[413]);
    }

    fn hosts(&mut self) {
        let length = self.approve.len();
        let rest = format!("{JSON}Content-Length: {length}\r\n");
        self.approve("no Host", &rest, &[400]);
        self.approve("doubled Host", &format!("{HOST}{HOST}{rest}"), &[400]);
        self.approve("two Hosts", &format!("{HOST}Host: evil.example\r\n{rest}"), &[400]);
        self.approve("unknown Host", &format!("Host: evil.example\r\n{rest}"), &[421]);
        self.approve("Host like ours", &format!("Host: localhost.evil.example\r\n{rest}"), &[421]);
        self.approve("Host with user", &format!("Host: localhost@evil.example\r\n{rest}"), &[421]);
        self.approve("Host with path", &format!("Host: evil.example/localhost\r\n{rest}"), &[421]);
        self.approve("empty Host", &format!("Host:\r\n{rest}"), &[421]);
        self.approve("Host of other bytes", &format!("Host: l\u{f6}calhost\r\n{rest}"), &[421]);
        let body = self.approve.clone();
        let absolute = format!(
            "POST https://evil.example/v1/pairing/approve HTTP/1.1\r\n{HOST}{}{rest}Connection: close\r\n\r\n{body}",
            self.auth()
        );
        self.raw("absolute-form URI of another host", absolute, &[400, 421]);
        self.line("authority-form URI", "GET evil.example:443 HTTP/1.1", &[400, 404, 421]);
    }

    fn headers(&mut self) {
        self.approve_with("Origin", "Origin: https://evil.example\r\n", &[403]);
        self.approve_with("Origin null", "Origin: null\r\n", &[403]);
        self.approve_with("Origin of ourselves", "Origin: https://localhost\r\n", &[403]);
        self.approve_with("Content-Encoding gzip", "Content-Encoding: gzip\r\n", &[415]);
        self.approve_with("Content-Encoding identity", "Content-Encoding: identity\r\n", &[415]);
        self.approve_with("doubled content type", JSON, &[415]);
        let length = format!("{HOST}Content-Length: {}\r\n", self.approve.len());
        self.approve("no content type", &length, &[415]);
        for (name, value) in [
            ("text/plain", "text/plain"),
            ("a form", "application/x-www-form-urlencoded"),
            ("a type like JSON", "application/jsonp"),
            ("JSON in a parameter", "text/plain; application/json"),
            ("an empty type", ""),
        ] {
            self.approve(name, &format!("{length}Content-Type: {value}\r\n"), &[415]);
        }
        self.approve_with("folded header", "X-Folded: one\r\n two\r\n", MALFORMED);
        self.approve_with("header without colon", "X-Nothing\r\n", MALFORMED);
        self.approve_with("space before the colon", "X-Space : one\r\n", MALFORMED);
        self.approve_with("empty header name", ": one\r\n", MALFORMED);
        self.approve_with("NUL in a header", "X-Nul: a\0b\r\n", MALFORMED);
        self.approve_with("bare CR in a header", "X-Cr: a\rb\r\n", MALFORMED);
        self.approve_with("120 headers", &"X-Many: one\r\n".repeat(120), &[431]);
        self.approve_with("huge header", &format!("X-Huge: {}\r\n", "x".repeat(200_000)), &[431]);
        self.approve_with("huge header name", &format!("X{}: 1\r\n", "x".repeat(200_000)), &[400, 431]);
    }

    fn lines(&mut self) {
        self.line("two slashes", "GET //v1/state HTTP/1.1", &[404]);
        self.line("slash at the end", "GET /v1/state/ HTTP/1.1", &[404]);
        self.line("encoded letter", "GET /v1/%73tate HTTP/1.1", &[404]);
        self.line("encoded slash", "GET /v1%2fstate HTTP/1.1", &[404]);
        self.line("dots", "GET /v1/x/../state HTTP/1.1", &[404]);
        self.line("backslash", "GET /v1\\state HTTP/1.1", &[400, 404]);
        self.line("long path", &format!("GET /v1/{} HTTP/1.1", "x".repeat(2_000)), &[414]);
        self.line("long query", &format!("GET /v1/state?{} HTTP/1.1", "x".repeat(2_000)), &[414]);
        self.line("longer than hyper takes", &format!("GET /{} HTTP/1.1", "x".repeat(70_000)), &[414]);
        for method in ["PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get", "MOVE"] {
            self.line("other method", &format!("{method} /v1/state HTTP/1.1"), &[405]);
        }
        self.line("CONNECT", "CONNECT localhost:443 HTTP/1.1", &[400]);
        self.line("OPTIONS *", "OPTIONS * HTTP/1.1", &[404]);
        self.line("query given twice", "GET /v1/state?wait_gen=1&wait_gen=2 HTTP/1.1", &[400]);
        self.line("unknown query", "GET /v1/state?wait=1 HTTP/1.1", &[400]);
        self.line("query is no number", "GET /v1/state?wait_gen=one HTTP/1.1", &[400]);
        self.line("query is negative", "GET /v1/state?wait_gen=-1 HTTP/1.1", &[400]);
        self.line("query is too large", "GET /v1/state?timeout_s=61 HTTP/1.1", &[400]);
        self.line("encoded query", "GET /v1/state?wait%5Fgen=1 HTTP/1.1", &[400]);
        self.line("query of another route", "GET /v1/pairing?wait_gen=1 HTTP/1.1", &[400]);
        self.line("space in the path", "GET /v1/ state HTTP/1.1", MALFORMED);
        self.line("control byte in the path", "GET /v1/state\x01 HTTP/1.1", MALFORMED);
        self.line("HTTP/1.2", "GET /v1/state HTTP/1.2", MALFORMED);
        self.line("HTTP/2.0", "GET /v1/state HTTP/2.0", MALFORMED);
        self.line("lower-case protocol", "GET /v1/state http/1.1", MALFORMED);
        self.line("no version", "GET /v1/state", MALFORMED);
        self.line("method with a colon", "GE:T /v1/state HTTP/1.1", MALFORMED);
        self.raw("HTTP/0.9", "GET /v1/state\r\n", &[0, 400]);
        self.raw("HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0", &[0, 400]);
        self.raw("TLS in HTTP", b"\x16\x03\x01\x00\x05hello".as_slice(), &[0, 400]);
        self.raw("zeros", vec![0; 300], &[0, 400]);
    }
}

fn cases(scene: &Scene) -> Vec<Case> {
    let route = ROUTES.iter().find(|r| r.path == "/v1/pairing/approve").expect("the route");
    let approve = scene.effective_body(route).expect("a body").to_string();
    let mut writer = Writer { token: scene.sidecar.control_token().to_owned(), approve, cases: Vec::new() };
    writer.lengths();
    writer.hosts();
    writer.headers();
    writer.lines();
    writer.cases
}

#[tokio::test]
async fn every_case_is_refused_without_effect() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let before = scene.still().await?;
    let cases = cases(&scene);
    assert!(cases.len() >= 60);
    let mut wrong = Vec::new();
    for (listener, client) in both(&scene) {
        for case in &cases {
            let answers = exchange(&client, case.name, &case.bytes).await?;
            let statuses: Vec<u16> = answers.iter().map(|a| a.status).collect();
            let good = match statuses.as_slice() {
                [] => case.wanted.contains(&0),
                [one] => case.wanted.contains(one),
                _ => false,
            };
            if !good {
                wrong.push(format!("{listener}: {}: {statuses:?}, not {:?}", case.name, case.wanted));
            }
            let refusals = answers.iter().filter(|a| !a.body.is_empty());
            wrong.extend(refusals.filter(|a| a.code().is_empty()).map(|a| format!("{}: {}", case.name, a.body)));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), 2 * cases.len(), wrong.join("\n"));
    let after = scene.still().await?;
    let (head_before, head_after) = (format!("{before:?}"), format!("{after:?}"));
    assert!(after == before, "a refused request changed something: {head_before} {head_after}");
    Ok(())
}

/// The base of all the cases above: without its one fault it is carried out.
#[tokio::test]
async fn the_same_request_without_a_fault_is_carried_out() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let route = ROUTES.iter().find(|r| r.path == "/v1/pairing/approve").expect("the route");
    let approve = scene.effective_body(route).expect("a body").to_string();
    let mut writer = Writer { token: scene.sidecar.control_token().to_owned(), approve, cases: Vec::new() };
    writer.approve_with("good", "", &[200]);
    // Equal lengths given twice are one length (RFC 9110, 8.6); hyper folds them before anybody sees them.
    writer.approve_with("doubled CL", &format!("Content-Length: {}\r\n", writer.approve.len()), &[200]);
    for case in &writer.cases {
        let answers = exchange(&scene.sidecar.client(), case.name, &case.bytes).await?;
        assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [200], "{}: {answers:?}", case.name);
    }
    assert_eq!(scene.fake.approvals(&scene.waiting).len(), 1);
    Ok(())
}

/// Lines that end in a bare LF are legal to accept (RFC 9112, 2.2), and hyper does; a line hidden in a value that way
/// must not become a way around a check, and HTTP/1.0 is for health checkers only.
#[tokio::test]
async fn tolerated_forms_pass_the_same_checks() -> anyhow::Result<()> {
    let scene = Scene::start().await?;
    let before = scene.still().await?;
    let auth = format!("Authorization: Bearer {}", scene.sidecar.control_token());
    let close = "Connection: close";
    for (listener, client) in both(&scene) {
        for (text, wanted) in [
            (format!("GET /v1/state HTTP/1.1\nHost: localhost\n{close}\n\n"), 401),
            (format!("GET /v1/state HTTP/1.1\nHost: localhost\n{auth}\nTransfer-Encoding: chunked\n\n0\n\n"), 411),
            (format!("GET /v1/state HTTP/1.1\r\nX: a\nHost: evil.example\r\n{auth}\r\n{close}\r\n\r\n"), 421),
            (format!("GET /v1/state HTTP/1.1\r\nHost: localhost\r\nX: a\nOrigin: b\r\n{auth}\r\n{close}\r\n\r\n"), 403),
            ("GET /livez HTTP/1.0\r\n\r\n".to_owned(), 200),
            ("GET /readyz HTTP/1.0\r\n\r\n".to_owned(), 200),
            ("GET /v1/state HTTP/1.0\r\n\r\n".to_owned(), 401),
            ("GET /livez HTTP/1.0\r\nHost: evil.example\r\n\r\n".to_owned(), 421),
            ("GET /livez HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n".to_owned(), 400),
        ] {
            let answers = exchange(&client, &text, text.as_bytes()).await?;
            assert_eq!(answers.iter().map(|a| a.status).collect::<Vec<_>>(), [wanted], "{listener}: {text:?}");
        }
    }
    assert!(scene.still().await? == before);
    Ok(())
}
