//! See [`openclaw_sidecar::fuzzing::registry_query`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::registry_query(data));
