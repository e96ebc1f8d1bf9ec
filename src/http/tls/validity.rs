//! From when until when a certificate is valid. The parsers at hand keep that to themselves, so the few bytes on the way
//! to it are read here: RFC 5280, `tbsCertificate.validity`.

use crate::clock::UnixMs;

const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// First and last moment of a DER certificate; `None` for what is none.
pub(super) fn of(der: &[u8]) -> Option<(UnixMs, UnixMs)> {
    let (_, certificate, _) = element(der)?;
    let (_, mut rest, _) = element(certificate)?;
    if rest.first() == Some(&VERSION) {
        rest = element(rest)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (SEQUENCE, validity, _) = element(rest)? else { return None };
    let (kind, from, rest) = element(validity)?;
    let from = moment(kind, from)?;
    let (kind, until, _) = element(rest)?;
    Some((from, moment(kind, until)?))
}

/// Tag, content, and what follows the first element.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(*first), rest),
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (bytes.iter().try_fold(0usize, |n, byte| n.checked_mul(256)?.checked_add(usize::from(*byte)))?, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `YYMMDDHHMMSSZ`, where 50 begins the last century, or `YYYYMMDDHHMMSSZ`.
fn moment(kind: u8, text: &[u8]) -> Option<UnixMs> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z').filter(|text| text.is_ascii())?;
    let text = match kind {
        UTC_TIME if text.len() == 12 => format!("{}{text}", if text < "50" { "20" } else { "19" }),
        GENERALIZED_TIME if text.len() == 14 => text.to_owned(),
        _ => return None,
    };
    let part = |from: usize| &text[from..from + 2];
    let (month, day, hour, minute, second) = (part(4), part(6), part(8), part(10), part(12));
    UnixMs::parse(&format!("{}-{month}-{day}T{hour}:{minute}:{second}Z", &text[..4]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_time_are_read() {
        let moment = |kind, text: &str| moment(kind, text.as_bytes()).map(UnixMs::rfc3339);
        assert_eq!(moment(UTC_TIME, "261121155648Z").unwrap(), "2026-11-21T15:56:48.000Z");
        assert_eq!(moment(UTC_TIME, "991121155648Z").unwrap(), "1999-11-21T15:56:48.000Z");
        assert_eq!(moment(GENERALIZED_TIME, "20500101000000Z").unwrap(), "2050-01-01T00:00:00.000Z");
        for (kind, text) in
            [(UTC_TIME, "Z"), (UTC_TIME, "26112115564éZ"), (GENERALIZED_TIME, "1"), (0, "261121155648Z")]
        {
            assert_eq!(moment(kind, text), None, "{text}");
        }
    }

    #[test]
    fn a_certificate_made_for_some_days_says_so() {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 11, 20);
        params.not_after = rcgen::date_time_ymd(2055, 2, 3);
        let der = params.self_signed(&key).unwrap().der().to_vec();
        let (from, until) = of(&der).unwrap();
        assert_eq!(from.rfc3339(), "2026-11-20T00:00:00.000Z");
        assert_eq!(until.rfc3339(), "2055-02-03T00:00:00.000Z");
        for end in 0..der.len() {
            let _ = of(&der[..end]);
        }
        assert_eq!(of(b"\x30\x84\xff\xff\xff\xff"), None);
    }
}
