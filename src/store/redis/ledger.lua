#!lua flags=no-writes
-- The counters of a shard, all read in one step.
--
-- KEYS: 1 state, 2 sealed, 3 ledger
-- ARGV: none
return {redis.call('HGETALL', KEYS[1]), redis.call('HGETALL', KEYS[2]), redis.call('HGETALL', KEYS[3])}
