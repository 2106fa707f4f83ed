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
// What every stage uses.
pub mod clock;
