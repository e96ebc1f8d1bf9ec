//! See [`openclaw_sidecar::fuzzing::desired_plan`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::desired_plan(data));
