//! Fleets of processes behind real servers, one after the other: each of these tests takes the whole machine.

#![cfg(target_os = "linux")]

// Ingestors behind HAProxy, started again one by one under load.
mod rolling;
// HAProxy with the configuration that the project ships.
mod haproxy;
// A load of single pulses over TLS, at a steady rate, in which no request may fail.
mod steady_load;

// The same processes and servers as the integration tests'.
#[path = "../it/support/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "the integration tests use all of it")]
mod support;
