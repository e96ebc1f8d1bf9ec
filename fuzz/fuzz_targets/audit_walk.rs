//! See [`openclaw_sidecar::fuzzing::audit_walk`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::audit_walk(data));
