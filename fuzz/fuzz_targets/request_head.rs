//! See [`openclaw_sidecar::fuzzing::request_head`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::request_head(data));
