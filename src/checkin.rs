//! Phoning home: the machine's whole state to the registry, on change and from time to time.
//!
//! Nothing in the machine depends on it. The registry's answer schedules the next check-in and can do nothing else.

pub mod wire;
