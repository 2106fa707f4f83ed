//! Integration tests through the real binary, in the order that a pulse meets its stages.

mod support;

// What is said at the start: variables, `.env`, secrets.
mod settings;
// Who may send, how much, and what is served where.
mod keys;
// Every kind of body and its answer.
mod ingest;
// Clients of others, and the examples.
mod clients;
// What it says of itself, held against what it does.
mod description;
// HTTP: framing, methods, paths, connections.
mod protocol;
// HTTP/1.1 by the letter of RFC 9112 and RFC 9110.
mod conformance;
// Bodies that are no pulses, and some that are.
mod corpus;
// Clients that mean harm, and what they change for the others.
mod hostile;
// More than the queue or the store can take.
mod overload;
// Written, synced, answered: in this order, by strace.
#[cfg(target_os = "linux")]
mod order;
// From the first pulse to the receiver's last digit.
mod journey;
// What the receiver answers, and what becomes of a batch by it.
mod delivery;
// Usage of an earlier hour.
mod late;
// Usage that is taken back.
mod corrections;
// Receivers that keep their promises, and some that do not.
mod receivers;
// What operators ask and do from the command line.
mod operators;
// A window that they end ahead of its time.
mod cycle;
// What the Go original left, taken over.
mod import_go;
// What they see: the status, and its page in a real browser.
mod status;
#[cfg(target_os = "linux")]
mod page;
// That a batch comes from here, proved to others.
mod signature;
// Several processes on one store.
mod two_ingestors;
// One half of the program a process.
mod roles;
// Redis over TLS, as a user who may do no more than is needed.
mod redis_access;
// Sentinels and a master that goes.
mod failover;
// A cluster whose slots move and whose nodes die.
mod cluster;
// An orderly end.
mod drain;
// What systemd passes and is told, and the unit files.
#[cfg(target_os = "linux")]
mod systemd;
// An end without order: SIGKILL of the server, of Redis.
mod crash;
// What the pages say: two languages, every setting.
mod docs;
// What Prometheus reads, held against the dashboard.
mod metrics;
// What it tells people of, by a real Prometheus.
#[cfg(target_os = "linux")]
mod alerts;
