//! What a caller expects of a request: it is approved only if it asks for no more than this.

use serde::Deserialize;

use crate::state::{Approved, Pending};

/// The limits. An absent member limits nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// The only role that may be asked for, e.g. `operator`.
    #[serde(default)]
    pub role: Option<String>,
    /// Scopes that may be asked for. `operator.admin` covers every `operator.*` scope; otherwise each must be named.
    #[serde(default)]
    pub max_scopes: Option<Vec<String>>,
    /// The client program, e.g. `openclaw-control-ui`.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The platform, e.g. `MacIntel`.
    #[serde(default)]
    pub platform: Option<String>,
}

impl Expect {
    /// Whether anything is limited at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Checks a request.
    ///
    /// # Errors
    /// In plain words what exceeds the expectation.
    pub fn check(&self, asked: &Pending) -> Result<(), String> {
        self.check_grant(&asked.role, &asked.scopes)?;
        same("client_id", self.client_id.as_deref(), &asked.client_id)?;
        same("platform", self.platform.as_deref(), &asked.platform)
    }

    /// Checks what a device holds, from the gateway's own record. Scopes it held before, by another approval, do not
    /// count against this one.
    ///
    /// # Errors
    /// In plain words what exceeds the expectation.
    pub fn check_record(&self, record: &Approved, before: Option<&Approved>) -> Result<(), String> {
        let new = |scope: &&String| before.is_none_or(|b| !b.scopes.contains(scope));
        let granted: Vec<String> = record.scopes.iter().filter(new).cloned().collect();
        self.check_grant(&record.role, &granted)
    }

    fn check_grant(&self, role: &str, scopes: &[String]) -> Result<(), String> {
        same("role", self.role.as_deref(), role)?;
        if let Some(allowed) = &self.max_scopes {
            let beyond: Vec<&str> = scopes.iter().map(String::as_str).filter(|s| !covered(s, allowed)).collect();
            if !beyond.is_empty() {
                return Err(format!("scopes beyond max_scopes: {}", beyond.join(", ")));
            }
        }
        Ok(())
    }
}

fn covered(scope: &str, allowed: &[String]) -> bool {
    allowed.iter().any(|a| a == scope || (a == "operator.admin" && scope.starts_with("operator.")))
}

fn same(name: &str, expected: Option<&str>, asked: &str) -> Result<(), String> {
    match expected {
        Some(expected) if expected != asked => Err(format!("{name} {asked:?} where {expected:?} is expected")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn scopes(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    fn check(allowed: &[&str], asked: &[&str]) -> bool {
        let expect = Expect { max_scopes: Some(scopes(allowed)), ..Expect::default() };
        expect.check_grant("", &scopes(asked)).is_ok()
    }

    #[test]
    fn scopes_are_sets_and_admin_covers_operator_scopes() {
        assert!(check(&["operator.read"], &["operator.read"]));
        assert!(check(&["operator.admin"], &["operator.read", "operator.questions", "operator.admin"]));
        assert!(!check(&["operator.read"], &["operator.read", "operator.admin"]));
        assert!(!check(&["operator.admin"], &["tenant.root"]));
        assert!(!check(&[], &["operator.read"]));
        assert!(check(&[], &[]));
    }

    #[test]
    fn every_role_asked_for_must_be_the_expected_one() {
        let expect = Expect { role: Some("operator".into()), ..Expect::default() };
        assert!(expect.check_grant("operator", &[]).is_ok());
        assert!(expect.check_grant("operator,node", &[]).unwrap_err().contains("node"));
    }

    proptest! {
        #[test]
        fn a_wider_request_never_passes_where_a_narrower_fails(
            allowed in proptest::collection::vec("operator\\.(read|write|admin)|x", 0..4),
            asked in proptest::collection::vec("operator\\.(read|write|admin)|x", 0..4),
            extra in "operator\\.(read|write|admin)|x",
        ) {
            let expect = Expect { max_scopes: Some(allowed), ..Expect::default() };
            let mut wider = asked.clone();
            wider.push(extra);
            if expect.check_grant("", &asked).is_err() {
                prop_assert!(expect.check_grant("", &wider).is_err());
            }
        }
    }
}
