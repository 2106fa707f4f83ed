//! The subcommands: wiring only.

pub mod produce;
pub mod receive;
