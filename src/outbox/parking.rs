//! Everything that no batch holds yet becomes batches that are not sent: of a backup that is put back into service, nobody
//! but the receiver knows what was delivered since.

use std::time::{Duration, Instant};

use crate::batch::{AmountFormat, Settlement};
use crate::clock::Timestamp;
use crate::generation::Epoch;
use crate::lease::{FencingToken, LeaseState};
use crate::outbox::freeze::{FreezeStep, Freezing};
use crate::store::{Store, StoreError};

/// How long the end of the open window, a millisecond after its start at the latest, may lie ahead.
const CLOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Seals the open generation, makes batches of everything sealed, and puts these among the dead letters, for an operator to
/// replay or discard. Returns how many. Nobody else may hold the lease.
///
/// # Errors
/// Whatever the store says, and [`StoreError::Misconfigured`] if the clock is behind the store.
pub fn park(store: &dyn Store, batch_size: usize, format: AmountFormat, reason: &str) -> Result<u64, StoreError> {
    let mut parked = 0;
    for shard in 0..store.shards() {
        let token = match store.acquire_lease(shard, "restore", Duration::from_secs(3600))? {
            LeaseState::Held(token) => token,
            LeaseState::HeldByOther { holder, .. } => {
                return Err(StoreError::Misconfigured(format!("{holder} holds the lease")));
            }
        };
        let ended = store.end_window(shard)?;
        toggle(store, shard, token, ended)?;
        for sealed in store.sealed_generations(shard)? {
            let mut freezing = Freezing::new(shard, &sealed);
            while freezing.step(store, token, batch_size, format)? != FreezeStep::Finished {}
        }
        parked += condemn(store, token, reason)?;
        store.release_lease(shard, token)?;
    }
    Ok(parked)
}

fn toggle(store: &dyn Store, shard: u16, token: FencingToken, ended: Epoch) -> Result<(), StoreError> {
    let started = Instant::now();
    while !store.toggle(shard, token, ended)? {
        if started.elapsed() > CLOCK_PATIENCE {
            let text = "the clock is behind the open window's start; set it right first".to_owned();
            return Err(StoreError::Misconfigured(text));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Of the outbox, what this life of the store made.
fn condemn(store: &dyn Store, token: FencingToken, reason: &str) -> Result<u64, StoreError> {
    let mut parked = 0;
    for entry in store.outbox(usize::MAX)? {
        if !entry.batch.id.as_str().starts_with(store.incarnation()) {
            continue;
        }
        // The receiver may have its content, under another id, since nobody knows when: no memory of ids helps.
        let (attempt, ambiguous_since) = (entry.attempts, Some(Timestamp::default()));
        let settlement = Settlement::DeadLetter { attempt, ambiguous_since, reason: reason.to_owned() };
        store.settle(token, &entry.batch.id, &settlement)?;
        parked += 1;
    }
    Ok(parked)
}
