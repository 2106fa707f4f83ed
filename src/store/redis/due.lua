#!lua flags=no-writes
-- Ids and due times of the batches that are due by Redis's clock, earliest first.
--
-- KEYS: 1 outbox
-- ARGV: 1 how many at most
return redis.call('ZRANGE', KEYS[1], '-inf', digits(now_ms()), 'BYSCORE', 'LIMIT', 0, ARGV[1], 'WITHSCORES')
