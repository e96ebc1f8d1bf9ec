//! Query parameters: whole numbers or one of a few words, every one known, none twice.

use super::problem::Problem;

/// Parsed numbers by name.
#[derive(Debug)]
pub struct Query(Vec<(&'static str, u64)>);

/// A parameter that a route takes: its name, its largest value, and what it is for.
#[derive(Debug)]
pub struct Param {
    /// As in the URL.
    pub name: &'static str,
    /// Largest value taken, of a number.
    pub max: u64,
    /// The words taken; none means a number.
    pub words: &'static [&'static str],
    /// What it does.
    pub help: &'static str,
}

impl Query {
    /// Parses `text` against what the route takes.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn parse(text: Option<&str>, params: &[Param]) -> Result<Self, Problem> {
        let mut found: Vec<(&'static str, u64)> = Vec::new();
        for pair in text.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let Some(param) = params.iter().find(|p| p.name == name) else {
                return Err(Problem::new(
                    "invalid_query",
                    format!("{:?} is no parameter of this call", name.chars().take(60).collect::<String>()),
                ));
            };
            if found.iter().any(|(known, _)| *known == param.name) {
                return Err(Problem::new("invalid_query", format!("{name} is given twice")));
            }
            if !param.words.is_empty() {
                let word = param.words.iter().position(|word| *word == value).ok_or_else(|| {
                    Problem::new("invalid_query", format!("{name} must be {}", param.words.join(" or ")))
                })?;
                found.push((param.name, word as u64));
                continue;
            }
            let digits = Some(value).filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
            let number = digits.and_then(|v| v.parse().ok()).filter(|n| *n <= param.max).ok_or_else(|| {
                Problem::new("invalid_query", format!("{name} must be a whole number from 0 to {}", param.max))
            })?;
            found.push((param.name, number));
        }
        Ok(Self(found))
    }

    /// Whether a parameter was given.
    pub fn has(&self, name: &str) -> bool {
        self.number(name).is_some()
    }

    /// The value of a parameter, if it was given.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, n)| *n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARAMS: &[Param] = &[
        Param { name: "wait_s", max: 60, words: &[], help: "" },
        Param { name: "dry_run", max: 0, words: &["true"], help: "" },
    ];

    #[test]
    fn faults_name_the_parameter() {
        let fault = |text: &str| Query::parse(Some(text), PARAMS).unwrap_err().detail;
        assert!(fault("wait=1").contains("wait"));
        assert!(fault("wait_s=1&wait_s=2").contains("twice"));
        for bad in ["wait_s=", "wait_s=-1", "wait_s=61", "wait_s=1e1", "wait_s=%31", "wait_s"] {
            assert!(fault(bad).contains("wait_s must be"), "{bad}");
        }
        assert!(fault("dry_run=1").contains("dry_run must be true"));
        assert!(Query::parse(Some("dry_run=true"), PARAMS).unwrap().has("dry_run"));
        assert_eq!(Query::parse(Some("wait_s=60"), PARAMS).unwrap().number("wait_s"), Some(60));
        assert_eq!(Query::parse(None, PARAMS).unwrap().number("wait_s"), None);
    }
}
