//! The load simulator.
