//! From a sealed generation to the receiver: toggle, freeze, deliver, confirm. Meets the ingesting half only in the store.

pub mod attempt;
mod breaker;
pub mod delivery;
mod freeze;
pub mod parking;
pub mod leases;
pub mod observer;
pub mod scheduler;
