//! Query parameters and form fields: every one known, none twice, each of its kind.

use crate::api::problem::Problem;

/// Longest text taken, in bytes.
const MAX_TEXT: usize = 256;

/// What a parameter may be.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// A whole number, the least and the largest.
    Number(u64, u64),
    /// One of these words.
    Words(&'static [&'static str]),
    /// Any text of at most 256 bytes; an empty one counts as none.
    Text,
}

/// A parameter that a route takes.
#[derive(Debug)]
pub struct Param {
    /// As in the URL.
    pub name: &'static str,
    /// What it may be.
    pub kind: Kind,
    /// What it does.
    pub help: &'static str,
}

/// The values given, by name.
#[derive(Debug)]
pub struct Query(Vec<(&'static str, String)>);

impl Query {
    /// Parses `text` against what the route takes. Nothing of it may be percent-encoded.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn parse(text: Option<&str>, params: &[Param]) -> Result<Self, Problem> {
        let pairs = text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self::of(pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))), params)
    }

    /// The same for texts that browsers encode: queries and the fields of forms.
    ///
    /// # Errors
    /// A problem that names the parameter.
    #[cfg(feature = "registry")]
    pub fn decode(text: &[u8], params: &[Param]) -> Result<Self, Problem> {
        Self::of(form_urlencoded::parse(text), params)
    }

    fn of<T: AsRef<str>>(pairs: impl Iterator<Item = (T, T)>, params: &[Param]) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, String)> = Vec::new();
        for (name, value) in pairs {
            let (name, value) = (name.as_ref(), value.as_ref());
            let Some(param) = params.iter().find(|p| p.name == name) else {
                let name: String = name.chars().take(60).collect();
                return Err(invalid(format!("{name:?} is no parameter of this call")));
            };
            if found.iter().any(|(known, _)| *known == param.name) {
                return Err(invalid(format!("{name} is given twice")));
            }
            param.check(value)?;
            found.push((param.name, value.to_owned()));
        }
        Ok(Self(found))
    }

    /// Whether a parameter was given.
    pub fn has(&self, name: &str) -> bool {
        self.text(name).is_some()
    }

    /// The value of a parameter, if it was given and is not empty.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, value)| *known == name && !value.is_empty()).map(|(_, value)| value.as_str())
    }

    /// The value of a number, if it was given.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name)?.parse().ok()
    }
}

impl Param {
    fn check(&self, value: &str) -> Result<(), Problem> {
        let name = self.name;
        match self.kind {
            Kind::Number(least, most) => {
                let digits = Some(value).filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
                let number = digits.and_then(|v| v.parse().ok()).filter(|n| (least..=most).contains(n));
                let what = || invalid(format!("{name} must be a whole number from {least} to {most}"));
                number.map(drop).ok_or_else(what)
            }
            Kind::Words(words) if words.contains(&value) => Ok(()),
            Kind::Words(words) => Err(invalid(format!("{name} must be {}", words.join(" or ")))),
            Kind::Text if value.len() <= MAX_TEXT => Ok(()),
            Kind::Text => Err(invalid(format!("{name} is longer than {MAX_TEXT} bytes"))),
        }
    }
}

fn invalid(what: String) -> Problem {
    Problem::new("invalid_query", what)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: &[Param] = &[
        Param { name: "wait_s", kind: Kind::Number(0, 60), help: "" },
        Param { name: "limit", kind: Kind::Number(1, 200), help: "" },
        Param { name: "dry_run", kind: Kind::Words(&["true"]), help: "" },
        Param { name: "q", kind: Kind::Text, help: "" },
    ];

    #[test]
    fn faults_name_the_parameter() {
        let fault = |text: &str| Query::parse(Some(text), PARAMS).unwrap_err().detail;
        assert!(fault("wait=1").contains("\"wait\""));
        assert!(fault("wait_s=1&wait_s=2").contains("twice") && fault("q=&q=").contains("twice"));
        for bad in ["wait_s=", "wait_s=-1", "wait_s=61", "wait_s=1e1", "wait_s=%31", "wait_s"] {
            assert!(fault(bad).contains("wait_s must be"), "{bad}");
        }
        assert!(fault("limit=0").contains("from 1 to 200"));
        assert!(fault("dry_run=1").contains("dry_run must be true"));
        assert!(fault(&format!("q={}", "x".repeat(300))).contains("q is longer"));
        assert!(Query::parse(Some("dry_run=true"), PARAMS).unwrap().has("dry_run"));
        assert_eq!(Query::parse(Some("wait_s=60"), PARAMS).unwrap().number("wait_s"), Some(60));
        assert_eq!(Query::parse(None, PARAMS).unwrap().number("wait_s"), None);
        assert_eq!(Query::parse(Some("q="), PARAMS).unwrap().text("q"), None);
    }

    #[cfg(feature = "registry")]
    #[test]
    fn what_browsers_encode_is_decoded() {
        let query = Query::decode(b"q=a%20b%26+c&limit=%32", PARAMS).unwrap();
        assert_eq!((query.text("q"), query.number("limit")), (Some("a b& c"), Some(2)));
        assert!(Query::decode(b"q=%00%ff&%71=1", PARAMS).unwrap_err().detail.contains("twice"));
    }
}
