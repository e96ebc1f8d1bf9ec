use super::*;
use crate::auth::credentials::{Token, entry_json};

fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, value.parse().unwrap());
    }
    headers
}

fn auth(tokens: &[(&str, &Token, Tier)]) -> Auth {
    let entries: Vec<String> = tokens.iter().map(|(id, token, tier)| entry_json(id, token, *tier, false)).collect();
    let inline = Some(format!("[{}]", entries.join(",")));
    Auth::load(&config::Auth { credentials_file: None, credentials: inline }).unwrap()
}

#[test]
fn only_one_well_formed_bearer_is_let_in() {
    let (control, support) = (Token::random().unwrap(), Token::random().unwrap());
    let auth = auth(&[("control", &control, Tier::Dangerous), ("support", &support, Tier::Safe)]);
    let good = format!("Bearer {}", control.expose());
    let principal = auth.authenticate(&headers(&[&good])).unwrap();
    assert_eq!((principal.id.as_str(), principal.tier), ("control", Tier::Dangerous));
    assert_eq!(auth.authenticate(&headers(&[&format!("bearer {}", support.expose())])).unwrap().id, "support");

    let long = format!("Bearer {}", "x".repeat(65_536));
    let other_scheme = format!("Basic {}", control.expose());
    let padded = format!("Bearer  {}", control.expose());
    for bad in ["", "Bearer", "Bearer ", "Bearer null", "Bearer undefined", &long, &other_scheme, &padded] {
        assert_eq!(auth.authenticate(&headers(&[bad])), None, "{bad:.40}");
    }
    assert_eq!(auth.authenticate(&headers(&[&good, &good])), None);
    assert_eq!(auth.authenticate(&HeaderMap::new()), None);
}

#[test]
fn tiers_include_the_lower_ones_and_granting_is_apart() {
    let local = Principal::local(7);
    assert!(local.may(Tier::Public) && local.may(Tier::Safe) && local.may(Tier::Dangerous));
    assert!(local.may(Tier::Destructive), "it may ask; a grant decides");
    assert!(!local.may(Tier::Approver) && Principal::local(0).may(Tier::Approver));
    let reader = Principal { tier: Tier::Safe, approver: true, ..Principal::local(7) };
    assert!(reader.may(Tier::Approver) && !reader.may(Tier::Dangerous) && !reader.may(Tier::Destructive));
}

#[test]
fn a_file_that_others_may_write_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials.json");
    std::fs::write(&path, format!("[{}]", entry_json("a", &Token::random().unwrap(), Tier::Safe, false))).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
    let config = config::Auth { credentials_file: Some(path), credentials: None };
    assert!(Auth::load(&config).unwrap_err().contains("chmod"));
}

#[tokio::test(start_paused = true)]
async fn a_removed_credential_dies_and_a_damaged_file_keeps_the_last_good() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("credentials.json");
    let (one, two) = (Token::random().unwrap(), Token::random().unwrap());
    let (first, second) = (entry_json("one", &one, Tier::Safe, false), entry_json("two", &two, Tier::Safe, true));
    files::replace(&path, format!("[{first},{second}]").as_bytes(), 0o600).unwrap();
    let config = config::Auth { credentials_file: Some(path.clone()), credentials: None };
    let auth = Auth::load(&config).unwrap();
    let with = |token: &Token| headers(&[&format!("Bearer {}", token.expose())]);
    let principal = auth.authenticate(&with(&one)).unwrap();

    files::replace(&path, format!("[{second}]").as_bytes(), 0o600).unwrap();
    tokio::time::advance(LOOK_EVERY).await;
    assert_eq!(auth.authenticate(&with(&one)), None);
    assert!(!auth.still_valid(&principal));
    assert!(auth.authenticate(&with(&two)).is_some());

    for damage in ["", "[]", "{", "null"] {
        files::replace(&path, damage.as_bytes(), 0o600).unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert!(auth.authenticate(&with(&two)).is_some(), "{damage:?}");
        assert!(auth.fault().is_some());
    }
    files::replace(&path, format!("[{first}]").as_bytes(), 0o600).unwrap();
    tokio::time::advance(LOOK_EVERY).await;
    assert!(auth.authenticate(&with(&one)).is_some());
    assert_eq!(auth.fault(), None);
}
