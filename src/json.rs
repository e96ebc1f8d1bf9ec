//! Strict JSON: what is wrong is said with the place of the field.

use serde::de::DeserializeOwned;

/// Parses the whole of `bytes`. Types that deny unknown fields also refuse a field given twice.
///
/// # Errors
/// What is wrong and where, e.g. `at expect.role: invalid type: integer 7, expected a string`.
pub fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|e| {
        let path = e.path().to_string();
        if path == "." { e.into_inner().to_string() } else { format!("at {path}: {}", e.into_inner()) }
    })?;
    deserializer.end().map_err(|e| e.to_string())?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsing is tested")]
    struct Outer {
        inner: Option<Inner>,
    }

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only parsing is tested")]
    struct Inner {
        name: String,
    }

    #[test]
    fn faults_name_the_field() {
        let fault = |text: &str| parse::<Outer>(text.as_bytes()).unwrap_err();
        assert!(fault(r#"{"inner":{"name":7}}"#).starts_with("at inner.name: invalid type"));
        assert!(fault(r#"{"other":1}"#).contains("unknown field `other`"));
        assert!(fault(r#"{"inner":null,"inner":null}"#).contains("duplicate field `inner`"));
        assert!(fault(r"{} {}").contains("trailing"));
        assert!(fault(&"[".repeat(20_000)).contains("line 1"));
    }
}
