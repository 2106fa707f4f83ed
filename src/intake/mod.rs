//! From a client's connection to the queue, and back with the answer. The only module that knows HTTP on this side.

pub mod server;
pub mod listener;
pub mod routes;
pub mod description;
pub mod exchange;
pub mod pool;
pub mod page;
pub mod auth;
pub mod ingest;
pub mod rate;
pub mod encoding;
pub mod body;
pub mod events;
pub mod json;
mod syntax;
pub mod horizon;
pub mod trace;
pub mod context;
pub mod answer;
pub mod respond;
