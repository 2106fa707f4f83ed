//! A usage-metering ingestor for billing; the modules in the order that a pulse meets them.

// Pure values: no I/O, no clock.
pub mod amount;
pub mod pulse;
pub mod period;
pub mod generation;
pub mod lease;
pub mod batch;
pub mod ledger;
pub mod signature;
// Who may send for whom.
pub mod keys;
// From a client to the queue, and from the queue to the store.
pub mod intake;
pub mod queue;
pub mod commit;
pub mod store;
// From the store to the receiver.
pub mod outbox;
// From the Go original's keys to the store.
pub mod import;
// How all of it is doing.
pub mod status;
// The stages wired together.
pub mod service;
// The other ends, for tests and demonstrations: who is delivered to, whether it does that well, and who sends.
pub mod receiver;
pub mod conformance;
pub mod producer;
// The subcommands.
pub mod commands;
// What every stage uses.
pub mod backoff;
pub mod clock;
pub mod config;
pub mod door;
pub mod logging;
pub mod metrics;
pub mod shutdown;
pub mod signals;
pub mod splitmix;
pub mod supervisor;
pub mod sync;
pub mod threads;
pub mod wording;
// Every order in which threads may take turns, tried out.
#[cfg(test)]
#[cfg(feature = "interleavings")]
mod interleavings;
