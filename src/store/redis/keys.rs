//! Names of the keys: every key of a shard carries its hash tag, so that one script's keys share a slot.

use super::cluster::slot;
use crate::batch::BatchId;
use crate::generation::Epoch;

/// The shard of a tenant: FNV-1a (64 bits) of its encoded name, modulo the number of shards. Fixed for ever, since a
/// tenant that moved would have its ids forgotten and its aggregates split.
pub(super) fn shard_of(encoded_tenant: &str, shards: u16) -> u16 {
    let hash = encoded_tenant
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    (hash % u64::from(shards.max(1))) as u16
}

/// The keys of one shard.
#[derive(Debug)]
pub(super) struct ShardKeys {
    base: String,
    /// The slot of all of them, on a cluster.
    pub(super) slot: u16,
    /// Hash: format, incarnation, number of shards.
    pub(super) meta: String,
    /// Hash: the open generation's epoch, window and counters, and since when the newer ids are recorded.
    pub(super) state: String,
    /// Hash: window, next batch number and counters of each sealed generation, fields prefixed by its epoch.
    pub(super) sealed: String,
    /// Hash: the counters of acknowledged, outbox, delivered and dead letters.
    pub(super) ledger: String,
    /// Hash: the deliverer's token, name and the end of its lease.
    pub(super) lease: String,
    /// Sorted set: batches of the outbox by due time.
    pub(super) outbox: String,
    /// Sorted set: batches of the outbox by the time they were frozen.
    pub(super) frozen: String,
    /// Sorted set: dead letters by the time they became that.
    pub(super) dead: String,
    /// Hash: what was acknowledged and is lost for good, since no operator has decided on it.
    pub(super) gaps: String,
    /// Hash: identity to content of the pulse ids recorded last.
    pub(super) newer_ids: String,
    /// Hash: those of the dedup window before.
    pub(super) older_ids: String,
    /// Hashes of the open generation, by its label: lower limbs, upper limbs, aggregates of each tenant.
    pub(super) open: [[String; 3]; 2],
}

impl ShardKeys {
    pub(super) fn new(prefix: &str, shard: u16) -> Self {
        let base = format!("{prefix}:{{{shard}}}:");
        let key = |name: &str| format!("{base}{name}");
        let open = |label: char| ["lo", "hi", "tenants"].map(|part| key(&format!("{label}:{part}")));
        ShardKeys {
            meta: key("meta"),
            state: key("state"),
            sealed: key("sealed"),
            ledger: key("ledger"),
            lease: key("lease"),
            outbox: key("outbox"),
            frozen: key("frozen"),
            dead: key("dead"),
            gaps: key("gaps"),
            newer_ids: key("ids:newer"),
            older_ids: key("ids:older"),
            open: [open('A'), open('B')],
            slot: slot(shard.to_string().as_bytes()),
            base,
        }
    }

    /// The open generation's hashes while `epoch` is open.
    pub(super) fn open_at(&self, epoch: Epoch) -> &[String; 3] {
        &self.open[usize::from(epoch.label() == 'B')]
    }

    /// A sealed generation's lower and upper limbs.
    pub(super) fn sealed_at(&self, epoch: Epoch) -> [String; 2] {
        ["lo", "hi"].map(|part| format!("{}sealed:{}:{part}", self.base, epoch.0))
    }

    pub(super) fn batch(&self, id: &BatchId) -> String {
        format!("{}batch:{id}", self.base)
    }

    pub(super) fn writer(&self, id: &str) -> String {
        format!("{}writer:{id}", self.base)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenants_shard_never_changes() {
        assert_eq!(shard_of("acme", 1), 0);
        assert_eq!(shard_of("", 64), (0xcbf2_9ce4_8422_2325u64 % 64) as u16);
        // FNV-1a's published value for "a".
        assert_eq!(shard_of("a", 64), (0xaf63_dc4c_8601_ec8cu64 % 64) as u16);
    }

    #[test]
    fn keys_carry_the_hash_tag() {
        let keys = ShardKeys::new("ingestor", 3);
        assert_eq!(keys.state, "ingestor:{3}:state");
        assert_eq!(keys.open_at(Epoch(7))[0], "ingestor:{3}:B:lo");
        assert_eq!(keys.sealed_at(Epoch(7))[1], "ingestor:{3}:sealed:7:hi");
    }
}
