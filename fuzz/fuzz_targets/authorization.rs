//! See [`openclaw_sidecar::fuzzing::authorization`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::authorization(data));
