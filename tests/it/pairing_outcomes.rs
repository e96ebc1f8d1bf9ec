//! Every outcome of a pairing call, provoked over HTTPS against the fake gateway.

#[path = "pairing_outcomes/approve.rs"]
mod approve;
#[path = "pairing_outcomes/change.rs"]
mod change;
#[path = "pairing_outcomes/credit.rs"]
mod credit;
#[path = "pairing_outcomes/gateway_down.rs"]
mod gateway_down;
#[path = "pairing_outcomes/kinds.rs"]
mod kinds;
#[path = "pairing_outcomes/lies.rs"]
mod lies;
#[path = "pairing_outcomes/out_of_band.rs"]
mod out_of_band;
#[path = "pairing_outcomes/rig.rs"]
pub mod rig;
#[path = "pairing_outcomes/which.rs"]
mod which;
