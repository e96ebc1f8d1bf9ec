//! See [`openclaw_sidecar::fuzzing::credentials_file`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::credentials_file(data));
