//! Query parameters and form fields: every one known, none twice.

use crate::api::problem::Problem;

/// Longest value taken, in bytes.
const MAX_VALUE: usize = 256;

/// Decoded parameters by name.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `text` against the names that are taken.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn parse(text: Option<&str>, names: &[&str]) -> Result<Self, Problem> {
        let mut found: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            let named = |what: &str| {
                let name: String = name.chars().take(60).collect();
                Err(Problem::new("invalid_query", format!("{name:?} {what}")))
            };
            if !names.contains(&name.as_ref()) {
                return named("is no parameter of this call");
            }
            if found.iter().any(|(known, _)| *known == name) {
                return named("is given twice");
            }
            if value.len() > MAX_VALUE {
                return named("is too long");
            }
            found.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(found))
    }

    /// A text; none when it is absent or empty.
    pub fn text(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(known, value)| known == name && !value.is_empty()).map(|(_, value)| value.clone())
    }

    /// A whole number within bounds.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn number(&self, name: &str, least: u64, most: u64) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = Some(&text).filter(|v| v.bytes().all(|b| b.is_ascii_digit()));
        let number = digits.and_then(|v| v.parse().ok()).filter(|n| (least..=most).contains(n));
        number.map(Some).ok_or_else(|| {
            Problem::new("invalid_query", format!("{name} must be a whole number from {least} to {most}"))
        })
    }

    /// Whether a flag is set: `1` or `true`.
    ///
    /// # Errors
    /// A problem that names the parameter.
    pub fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name).as_deref() {
            None | Some("0" | "false") => Ok(false),
            Some("1" | "true") => Ok(true),
            Some(_) => Err(Problem::new("invalid_query", format!("{name} must be 1 or 0"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_name_the_parameter() {
        let names = ["q", "limit", "pairing"];
        let fault = |text: &str| Query::parse(Some(text), &names).unwrap_err().detail;
        assert!(fault("p=1").contains("\"p\""));
        assert!(fault("q=1&q=2").contains("twice"));
        assert!(fault(&format!("q={}", "x".repeat(300))).contains("too long"));
        let query = Query::parse(Some("q=a%20b%26&limit=0&pairing=maybe"), &names).unwrap();
        assert_eq!(query.text("q").as_deref(), Some("a b&"));
        assert!(query.number("limit", 1, 200).unwrap_err().detail.contains("limit"));
        assert!(query.flag("pairing").is_err());
        assert_eq!(Query::parse(Some("limit=20"), &names).unwrap().number("limit", 1, 200).unwrap(), Some(20));
    }
}
