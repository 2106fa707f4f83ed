//! A usage-metering ingestor for billing; the modules in the order that a pulse meets them.

// Pure values: no I/O, no clock.
pub mod amount;
pub mod pulse;
pub mod generation;
pub mod lease;
pub mod batch;
pub mod ledger;
// From a client to the queue, from the queue to the store.
pub mod commit;
pub mod store;
// The other ends, for tests and demonstrations: who is delivered to, and who sends.
pub mod receiver;
pub mod producer;
// What every stage uses.
pub mod clock;
pub mod splitmix;
// The subcommands.
pub mod commands;
