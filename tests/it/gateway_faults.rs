//! A gateway that misbehaves: calls get a typed answer in time, the API stays quick, and all heals by itself.

#[path = "gateway_faults/check.rs"]
pub mod check;
#[path = "gateway_faults/garbage.rs"]
mod garbage;
#[path = "gateway_faults/losses.rs"]
mod losses;
#[path = "gateway_faults/noise.rs"]
mod noise;
#[path = "gateway_faults/refusals.rs"]
mod refusals;
#[path = "gateway_faults/silence.rs"]
mod silence;
