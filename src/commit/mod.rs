//! From the queue to the store: groups of pulses, committed together, then acknowledged.

pub mod group;
