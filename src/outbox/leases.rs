//! Which shards this process may deliver for, shared by the scheduler (which renews) and the delivery (which asks).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::lease::FencingToken;

/// The shards whose lease this process holds, with their tokens.
#[derive(Clone, Debug, Default)]
pub struct Leases(Arc<Mutex<BTreeMap<u16, FencingToken>>>);

impl Leases {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes a lease that was taken or renewed; returns whether it is new.
    pub fn hold(&self, shard: u16, token: FencingToken) -> bool {
        self.lock().insert(shard, token) != Some(token)
    }

    /// Forgets a lease; returns whether there was one.
    pub fn lose(&self, shard: u16) -> bool {
        self.lock().remove(&shard).is_some()
    }

    /// Forgets a lease that was refused under this token; one that was taken anew since stays.
    pub fn lose_token(&self, shard: u16, token: FencingToken) {
        let mut held = self.lock();
        if held.get(&shard) == Some(&token) {
            held.remove(&shard);
        }
    }

    /// Every held shard with its token.
    pub fn held(&self) -> Vec<(u16, FencingToken)> {
        self.lock().iter().map(|(&shard, &token)| (shard, token)).collect()
    }

    /// The token of one shard.
    pub fn token(&self, shard: u16) -> Option<FencingToken> {
        self.lock().get(&shard).copied()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, FencingToken>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outdated_refusal_takes_no_newer_lease() {
        let leases = Leases::new();
        assert!(leases.hold(0, FencingToken(2)));
        assert!(!leases.hold(0, FencingToken(2)));
        leases.lose_token(0, FencingToken(1));
        assert_eq!(leases.token(0), Some(FencingToken(2)));
        leases.lose_token(0, FencingToken(2));
        assert!(leases.held().is_empty());
    }
}
