//! See [`openclaw_sidecar::fuzzing::query`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::query(data));
