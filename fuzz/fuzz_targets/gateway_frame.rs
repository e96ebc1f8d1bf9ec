//! See [`openclaw_sidecar::fuzzing::gateway_frame`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| openclaw_sidecar::fuzzing::gateway_frame(data));
