//! From a client's connection to the queue, and back with the answer. The only module that knows HTTP on this side.

pub mod body;
pub mod exchange;
pub mod ingest;
pub mod json;
pub mod pool;
pub mod respond;
pub mod server;
