//! Which path means what, on which address.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tiny_http::Method;

use crate::door::DoorStats;
use crate::intake::auth;
use crate::intake::context::Intake;
use crate::intake::description;
use crate::intake::exchange::{Exchange, Job};
use crate::intake::ingest;
use crate::intake::page;
use crate::intake::respond::Reply;
use crate::store::{Store, StoreError};
use crate::wording::counted;

const TEXT: &str = "text/plain; charset=utf-8";
/// Holds the lease that nobody holds.
const NOBODY: &str = "nobody";

/// What an address serves. The health probes are on each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Face {
    /// Pulses, and what operators read.
    Whole,
    /// Pulses.
    Pulses,
    /// What operators read. Whoever reaches it may read it.
    Operators,
}

/// What the pool's threads work with.
pub struct Routes {
    /// Shared by all addresses.
    pub intake: Arc<Intake>,
    /// What this address serves.
    pub face: Face,
    /// The doors of all addresses.
    pub doors: Arc<[Arc<DoorStats>]>,
}

impl Face {
    /// Whether pulses are taken here.
    pub const fn takes_pulses(self) -> bool {
        matches!(self, Face::Whole | Face::Pulses)
    }

    pub(super) fn has(self, path: &str) -> bool {
        match path {
            "/healthz" | "/readyz" => true,
            "/ingest" | "/v1/ingest" => self.takes_pulses(),
            "/" | "/metrics" | "/ledger" | "/status.json" | "/openapi.json" | "/docs" => self != Face::Pulses,
            _ => false,
        }
    }
}

impl Routes {
    /// Whether pulses are taken here.
    pub fn takes_pulses(&self) -> bool {
        self.face.takes_pulses() && self.intake.role.takes_pulses()
    }

    /// Does one job of the pool.
    pub fn run_job(&self, job: Job) {
        match job {
            Job::Answer(exchange, reply) => exchange.reply(reply),
            Job::Discard(request) => drop(request.into_writer()),
            Job::Handle(exchange) => self.handle(exchange),
        }
    }

    /// Handles any request; may block.
    fn handle(&self, exchange: Exchange) {
        let intake = &self.intake;
        let method = exchange.request().method().clone();
        let reads = matches!(method, Method::Get | Method::Head);
        let reply = match exchange.path() {
            // The server as a whole, and no place to go on to from here (RFC 9110, sections 9.3.7 and 9.3.6).
            "*" if method == Method::Options => Reply::allowed("GET, HEAD, POST"),
            _ if method == Method::Connect => Reply::method_not_allowed("GET, HEAD, POST"),
            "/ingest" | "/v1/ingest" if !intake.role.takes_pulses() => {
                Reply::problem(404, "not-found", "this instance sends batches and takes no pulses (`ingestor send`)")
            }
            path if !self.face.has(path) => Reply::problem(404, "not-found", &format!("there is nothing at {path}")),
            "/ingest" | "/v1/ingest" if method != Method::Post => Reply::method_not_allowed("POST"),
            "/ingest" | "/v1/ingest" if intake.draining.load(Ordering::Acquire) => ingest::draining(),
            "/ingest" | "/v1/ingest" => match ingest::accept(intake, exchange) {
                Ok(()) => return,
                Err((exchange, reply)) => return exchange.reply(reply),
            },
            _ if !reads => Reply::method_not_allowed("GET, HEAD"),
            "/healthz" => Reply::document(200, TEXT, "alive\n"),
            "/readyz" => readiness(intake),
            "/metrics" => self.for_operators(&exchange, || self.metrics()),
            "/ledger" => self.for_operators(&exchange, || ledger(intake)),
            // What they say is on the project's page too: nobody needs a key for it.
            "/openapi.json" => description::openapi(),
            "/docs" => description::docs(),
            "/status.json" => self.for_operators(&exchange, || self.status()),
            // It holds nothing that is a secret: what it shows it has to ask for.
            _ if page::is_wanted(&exchange) => page::reply(),
            _ => Reply::document(200, TEXT, self.index()).with_header("Vary", "Accept".to_owned()),
        };
        exchange.reply(reply);
    }

    /// Sums over all tenants are not every client's business. An address for operators has its own walls.
    fn for_operators(&self, exchange: &Exchange, answer: impl FnOnce() -> Reply) -> Reply {
        let admitted = if self.face == Face::Operators { Ok(()) } else { auth::operator(&self.intake.keys, exchange) };
        admitted.map_or_else(|refusal| refusal, |()| answer())
    }

    fn metrics(&self) -> Reply {
        let intake = &self.intake;
        self.observe_intake();
        intake.metrics.set_api_keys(intake.keys.count());
        if let Err(error) = observe_store(intake) {
            // The last known figures stay; `ingestor_store_up` and the error counter tell that they are old.
            intake.metrics.count_store_error(&error);
        }
        Reply::document(200, "text/plain; version=0.0.4; charset=utf-8", intake.metrics.render())
    }

    fn observe_intake(&self) {
        let intake = &self.intake;
        intake.metrics.set_intake(intake.queue.waiting(), intake.health.is_up());
        intake.metrics.set_doors(&self.doors);
    }

    fn status(&self) -> Reply {
        let intake = &self.intake;
        self.observe_intake();
        let draining = intake.draining.load(Ordering::Acquire);
        let status = intake.board.status(&*intake.store, &intake.metrics.snapshot(), intake.queue.waiting(), draining);
        let body = serde_json::to_vec(&status).expect("a status is text and numbers");
        Reply::document(200, "application/json", body).with_header("Cache-Control", "no-store".to_owned())
    }

    fn index(&self) -> String {
        let version = env!("CARGO_PKG_VERSION");
        let ingest = if self.takes_pulses() { "POST /ingest   consumption pulses, JSON or NDJSON\n" } else { "" };
        format!(
            "Ingestor de Consumo {version}\n\n\
             {ingest}\
             GET  /healthz  the process is alive\n\
             GET  /readyz   pulses can be acknowledged now\n\
             GET  /metrics  for Prometheus\n\
             GET  /ledger   what came in and where it is, by unit\n\
             GET  /status.json  how it is doing; a browser shows it at /\n\
             GET  /docs     all of it in detail; /openapi.json for programs\n"
        )
    }
}

fn readiness(intake: &Intake) -> Reply {
    if intake.leaving.load(Ordering::Acquire) {
        return Reply::unavailable("draining", "this instance is shutting down");
    }
    match intake.store.ready() {
        Ok(()) => Reply::document(200, TEXT, standing(intake)),
        Err(error) => Reply::unavailable("store-unavailable", public_text(&error)),
    }
}

/// That it is ready, which instance this is, and who delivers: a line for each holder of leases.
fn standing(intake: &Intake) -> String {
    // Pulses are taken whether or not anybody delivers, so an error here is none of readiness.
    let holders = holders(&*intake.store).unwrap_or_default();
    let lines = holders
        .iter()
        .map(|(holder, &shards)| format!("lease: {holder}, {}\n", counted(shards as u64, "shard", "shards")));
    format!("ready\ninstance: {}, {}\n{}", intake.instance, intake.role.name(), lines.collect::<String>())
}

/// How many shards each holder delivers for, [`NOBODY`] among them.
fn holders(store: &dyn Store) -> Result<BTreeMap<String, usize>, StoreError> {
    let mut holders = BTreeMap::new();
    for lease in store.lease_holders()? {
        *holders.entry(lease.map_or_else(|| NOBODY.to_owned(), |lease| lease.holder)).or_default() += 1;
    }
    Ok(holders)
}

fn ledger(intake: &Intake) -> Reply {
    match intake.store.ledger() {
        Ok(ledger) => Reply::document(200, "application/json", ledger.to_json() + "\n"),
        Err(error) => {
            log::warn!("the ledger can't be read: {error}");
            Reply::unavailable("store-unavailable", public_text(&error))
        }
    }
}

/// What a client may know of a store's error: addresses and paths stay in the log.
fn public_text(error: &StoreError) -> &'static str {
    match error {
        StoreError::Unavailable(_) | StoreError::Unknown(_) | StoreError::Fenced => "the store can't be reached now",
        StoreError::Gone(_) => "the store was emptied: this instance must be restarted, and then begins a new one",
        StoreError::Corrupt(_) | StoreError::Misconfigured(_) => "the store needs its operator",
    }
}

fn observe_store(intake: &Intake) -> Result<(), StoreError> {
    let (store, metrics) = (&intake.store, &intake.metrics);
    let now = store.now()?;
    let mut sealed = 0;
    for shard in 0..store.shards() {
        sealed += store.sealed_generations(shard)?.len();
    }
    metrics.set_generation(&store.open_generation(0)?, sealed, now);
    metrics.set_outbox(&store.outbox_status()?, now);
    metrics.set_ledger(&store.ledger()?);
    metrics.set_lease_holders(&holders(&**store)?);
    metrics.set_replays(&store.replays(), store.gaps()?.len());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_is_on_its_addresses() {
        let faces = [Face::Whole, Face::Pulses, Face::Operators];
        for (path, expected) in [
            ("/ingest", [true, true, false]),
            ("/v1/ingest", [true, true, false]),
            ("/healthz", [true, true, true]),
            ("/readyz", [true, true, true]),
            ("/", [true, false, true]),
            ("/metrics", [true, false, true]),
            ("/ledger", [true, false, true]),
            ("/status.json", [true, false, true]),
            ("/openapi.json", [true, false, true]),
            ("/docs", [true, false, true]),
            ("/nothing", [false, false, false]),
        ] {
            assert_eq!(faces.map(|face| face.has(path)), expected, "{path}");
        }
    }
}
