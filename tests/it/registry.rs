//! The real registry, and real machines that phone home to it.

mod access;
mod fleet;
mod life;
