#!lua flags=allow-oom
-- Makes batches of the outbox due that are not: an operator's step. Returns how many, at most as many as asked for.
--
-- KEYS: 1 outbox
-- ARGV: 1 limit
local now = digits(now_ms())
local waiting = redis.call('ZRANGEBYSCORE', KEYS[1], '(' .. now, '+inf', 'LIMIT', 0, ARGV[1])
for _, id in ipairs(waiting) do redis.call('ZADD', KEYS[1], now, id) end
return #waiting
