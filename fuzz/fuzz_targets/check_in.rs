//! See [`openclaw_sidecar::fuzzing::check_in`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::check_in(data));
