//! See [`openclaw_sidecar::fuzzing::desired_document`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::desired_document(data));
