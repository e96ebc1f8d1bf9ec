//! See [`openclaw_sidecar::fuzzing::openclaw_config`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::openclaw_config(data));
