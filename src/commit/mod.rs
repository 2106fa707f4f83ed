//! From the queue to the store: groups of pulses, committed together, then acknowledged. Knows nothing of HTTP.

pub mod group;
pub mod health;
pub mod worker;
