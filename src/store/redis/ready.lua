#!lua
-- Returns the open epoch. Writes nothing, but is not marked so: Redis refuses it whenever it would refuse a group
-- (maxmemory, replica, failing disk, too few replicas).
--
-- KEYS: 1 state
-- ARGV: none
return redis.call('HGET', KEYS[1], 'epoch')
