#!lua flags=no-writes
-- Ids and due times of the batches that are due by Redis's clock, earliest first. None while there are gaps.
--
-- KEYS: 1 outbox, 2 gaps
-- ARGV: 1 how many at most
if redis.call('EXISTS', KEYS[2]) == 1 then return {} end
return redis.call('ZRANGE', KEYS[1], '-inf', digits(now_ms()), 'BYSCORE', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
