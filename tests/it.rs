//! All integration tests in one binary; one file per behaviour under `tests/it/`.
#![allow(
    clippy::pedantic,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods,
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    reason = "tests: a broken expectation is a failed test"
)]

mod support;

use it::compat;

mod it {
    mod auth_matrix;
    mod canaries;
    mod checkin;
    mod churn;
    mod cli;
    pub mod compat;
    #[cfg(feature = "registry")]
    mod console;
    mod durability;
    mod events;
    mod fake_is_true;
    mod findings;
    mod floods;
    mod framing;
    mod gateway_faults;
    mod launch;
    mod packaging;
    mod pairing_outcomes;
    mod real_gateway;
    #[cfg(feature = "registry")]
    mod registry;
    mod replay;
    mod startup;
}
