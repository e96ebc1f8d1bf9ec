//! Checks on a request's head that hyper leaves to us, all before the credential is looked at.
//!
//! hyper 1.x accepts a request with both Content-Length and Transfer-Encoding, with several Host headers, and for any
//! host: each is a way to make a proxy and us see different requests, or to drive this API from a browser.

use std::collections::HashSet;
use std::net::IpAddr;

use hyper::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, ORIGIN, TRANSFER_ENCODING};
use hyper::{Method, Request, Version};

use super::app::Takes;
use crate::api::problem::Problem;

const MAX_URI: usize = 1024;

/// Refuses what is malformed, comes from a browser, or is meant for another host.
///
/// # Errors
/// A problem that says which header is wrong.
pub(crate) fn screen<B>(request: &Request<B>, host_names: &HashSet<String>, takes: Takes) -> Result<(), Problem> {
    let headers = request.headers();
    if request.uri().path_and_query().map_or(0, |p| p.as_str().len()) > MAX_URI {
        return Err(Problem::new("uri_too_long", format!("the URI has more than {MAX_URI} characters")));
    }
    if request.uri().authority().is_some() {
        // Its host would have to be checked instead of the Host header (RFC 9112 §3.2.2); only proxies need that form.
        return Err(Problem::new("bad_request", "the request target must be a path"));
    }
    if headers.contains_key(TRANSFER_ENCODING) {
        return Err(Problem::new("length_required", "Transfer-Encoding is not accepted"));
    }
    check_host(request, host_names)?;
    let form = matches!(takes, Takes::Form(_));
    if headers.contains_key(ORIGIN) && !(form && from_our_page(headers)) {
        return Err(Problem::new("origin_refused", "the request has an Origin header"));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Problem::new("unsupported_media_type", "Content-Encoding is not accepted"));
    }
    let length = check_length(headers, takes.most())?;
    let takes_body = matches!(*request.method(), Method::POST | Method::PUT);
    // Without a body there is nothing that a type could be of.
    if takes_body && (length > 0 || headers.contains_key(CONTENT_TYPE)) {
        check_type(headers, if form { "application/x-www-form-urlencoded" } else { "application/json" })?;
    }
    Ok(())
}

fn check_host<B>(request: &Request<B>, host_names: &HashSet<String>) -> Result<(), Problem> {
    let mut values = request.headers().get_all(HOST).iter();
    let host = match (values.next(), values.next()) {
        (Some(host), None) => host.to_str().ok(),
        // Health checkers of load balancers still speak HTTP/1.0 without Host.
        (None, _) if request.version() == Version::HTTP_10 => return Ok(()),
        _ => return Err(Problem::new("bad_request", "exactly one Host header is needed")),
    };
    if host.is_some_and(|host| is_served(host, host_names)) {
        Ok(())
    } else {
        Err(Problem::new("misdirected", format!("host {:?} is not served here", start(host.unwrap_or_default()))))
    }
}

/// An IP literal cannot be the target of DNS rebinding; a name can, unless it is one of ours.
fn is_served(host: &str, host_names: &HashSet<String>) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').unwrap_or(("", "")),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    if !rest.is_empty() && !rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit())) {
        return false;
    }
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.parse::<IpAddr>().is_ok() || host_names.contains(&name)
}

/// As much of a text as an error repeats; a precision in the format does not cut with `?`.
fn start(text: &str) -> String {
    text.chars().take(100).collect()
}

fn check_length(headers: &HeaderMap, max_body: usize) -> Result<usize, Problem> {
    let mut values = headers.get_all(CONTENT_LENGTH).iter();
    let length = match (values.next(), values.next()) {
        (None, _) => return Ok(0),
        (Some(value), None) => value.to_str().ok().and_then(|v| v.parse::<usize>().ok()),
        _ => None,
    };
    match length {
        Some(length) if length <= max_body => Ok(length),
        Some(length) => {
            Err(Problem::new("body_too_large", format!("Content-Length is {length}, at most {max_body} is taken")))
        }
        None => Err(Problem::new("bad_request", "Content-Length is not one whole number")),
    }
}

/// Whether a browser says that the request comes from a page of the host it is sent to.
fn from_our_page(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(ORIGIN).iter();
    let (Some(origin), None) = (origins.next().and_then(|o| o.to_str().ok()), origins.next()) else { return false };
    let host = headers.get(HOST).and_then(|h| h.to_str().ok());
    origin.split_once("://").is_some_and(|(_, at)| host.is_some_and(|host| host.eq_ignore_ascii_case(at)))
}

fn check_type(headers: &HeaderMap, wanted: &str) -> Result<(), Problem> {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return Err(Problem::new("unsupported_media_type", "exactly one Content-Type header is needed"));
    };
    let text = value.to_str().unwrap_or_default();
    let media_type = text.split(';').next().unwrap_or_default().trim();
    if media_type.eq_ignore_ascii_case(wanted) {
        Ok(())
    } else {
        Err(Problem::new("unsupported_media_type", format!("Content-Type is {:?}, not {wanted}", start(text))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(headers: &[(&str, &str)]) -> Option<&'static str> {
        let names = HashSet::from(["tenant-7.internal".to_owned()]);
        let mut request = Request::builder().method("POST").uri("/v1/pairing/approve");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        screen(&request.body(()).unwrap(), &names, Takes::Json(100_000)).err().map(|p| p.code)
    }

    const GOOD: [(&str, &str); 2] = [("host", "127.0.0.1:9443"), ("content-type", "application/json; charset=utf-8")];

    #[test]
    fn known_hosts_pass_and_others_are_misdirected() {
        let with = |host| refused(&[("host", host), GOOD[1]]);
        for good in ["127.0.0.1", "[::1]:9443", "localhost:9443", "LOCALHOST", "Tenant-7.internal:443", "10.0.0.7"] {
            assert_eq!(with(good), None, "{good}");
        }
        for bad in
            ["evil.example", "localhost.evil.example", "", "[evil", "tenant-8.internal", "127.0.0.1.evil.example"]
        {
            assert_eq!(with(bad), Some("misdirected"), "{bad}");
        }
        assert_eq!(refused(&[GOOD[1]]), Some("bad_request"));
        assert_eq!(refused(&[GOOD[0], GOOD[0], GOOD[1]]), Some("bad_request"));
    }

    #[test]
    fn a_target_with_its_own_host_is_refused() {
        let request =
            Request::builder().uri("https://evil.example/livez").header("host", "localhost").body(()).unwrap();
        assert_eq!(screen(&request, &HashSet::new(), Takes::Nothing).unwrap_err().code, "bad_request");
    }

    #[test]
    fn framing_browsers_and_media_types() {
        let with = |extra: (&'static str, &'static str)| refused(&[GOOD[0], GOOD[1], extra]);
        assert_eq!(with(("transfer-encoding", "chunked")), Some("length_required"));
        assert_eq!(with(("origin", "https://a.example")), Some("origin_refused"));
        assert_eq!(with(("content-encoding", "gzip")), Some("unsupported_media_type"));
        assert_eq!(with(("content-length", "100001")), Some("body_too_large"));
        assert_eq!(with(("content-length", "-1")), Some("bad_request"));
        assert_eq!(with(("content-type", "text/plain")), Some("unsupported_media_type"));
        assert_eq!(refused(&[GOOD[0], ("content-type", "text/plain")]), Some("unsupported_media_type"));
        assert_eq!(refused(&[GOOD[0], ("content-length", "2")]), Some("unsupported_media_type"));
        assert_eq!(refused(&[GOOD[0]]), None, "without a body there is nothing to be of a type");
    }
}
