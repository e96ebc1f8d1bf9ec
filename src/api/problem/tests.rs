use super::*;

#[test]
fn every_problem_says_what_to_do() {
    for (code, .., remedy) in CODES.iter().chain(REGISTRY_CODES) {
        assert!(remedy.is_some_and(|remedy| remedy.ends_with('.')), "{code}");
    }
}

#[test]
fn every_refusal_has_its_code_in_the_table() {
    let refusals = [
        Refused::NoPendingRequest(String::new()),
        Refused::NotFound(String::new()),
        Refused::Expired(String::new()),
        Refused::Ambiguous(Vec::new()),
        Refused::ExceedsExpectation(String::new()),
        Refused::GatewayStarting,
        Refused::GatewayStopped,
        Refused::GatewayUnreachable { sent: true },
        Refused::MissingAuthority(String::new()),
        Refused::UnsupportedByGateway(""),
        Refused::NeedsLaunchMode(""),
        Refused::GatewayError(String::new()),
        Refused::AuditUnavailable(String::new()),
        Refused::CredentialGone,
        Refused::InvalidDesired(String::new()),
        Refused::PreconditionFailed(0),
        Refused::StateNotWritten(String::new()),
        Refused::InvalidSecret(String::new()),
        Refused::NoSuchSecret(String::new()),
        Refused::NoMachineSecret,
        Refused::OtherBoot(String::new()),
        Refused::GatewayBusy,
        Refused::LauncherFailed(String::new()),
        Refused::NoSuchGrant(String::new()),
        Refused::SamePerson,
        Refused::Decommissioned,
        Refused::TooManyGrants,
    ];
    for refused in refusals {
        let code = refused.code();
        let problem = Problem::from(refused);
        assert_eq!(problem.code, code);
        assert_ne!(problem.title, "Something failed inside", "{code} is missing in the table");
    }
}

#[test]
fn every_code_in_the_source_is_in_the_table() {
    let sources = [
        include_str!("../handlers.rs"),
        include_str!("../launch.rs"),
        include_str!("../../http/query.rs"),
        include_str!("../../http/screen.rs"),
        include_str!("../../http/serve.rs"),
        include_str!("../body.rs"),
    ];
    assert_known(&sources, &codes().map(|(code, ..)| code).collect::<Vec<_>>());
}

fn assert_known(sources: &[&str], known: &[&str]) {
    for source in sources {
        for code in source.split("Problem::new(\"").skip(1).filter_map(|rest| rest.split('"').next()) {
            assert!(known.contains(&code), "{code} is missing in the table");
        }
    }
}

#[cfg(feature = "registry")]
#[test]
fn every_code_of_the_registry_is_in_its_table() {
    let sources = [
        include_str!("../../registry/api.rs"),
        include_str!("../../registry/api/admin.rs"),
        include_str!("../../registry/api/agent.rs"),
        include_str!("../../registry/api/pages.rs"),
        include_str!("../../registry/api/support.rs"),
    ];
    assert_known(&sources, &codes().chain(registry_codes()).map(|(code, ..)| code).collect::<Vec<_>>());
}
