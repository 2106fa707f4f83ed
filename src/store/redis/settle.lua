#!lua flags=allow-oom
-- Moves a batch through its delivery. Returns 1, or 0 if the batch is not where the step starts: the outbox, or for
-- `replay` and `discard` the dead letters; and for `retry` and `dead` also if a later attempt has begun, for
-- `attempt` also while there are gaps.
--
-- KEYS: 1 lease, 2 ledger, 3 outbox, 4 frozen, 5 dead letters, 6 batch, 7 gaps
-- ARGV: 1 token (empty for replay and discard, which an operator may do at any time), 2 batch id, 3 step, then by step
--       attempt | confirm | discard: nothing; replay: 4 whether it is known not to be received (0 or 1); retry | dead: 4 attempt, 5 ambiguous since (ms, or empty), then
--       retry: 6 delay (ms), 7 error; dead: 6 reason
local ledger, outbox, frozen, dead, batch = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, step = ARGV[2], ARGV[3]
local by_operator = step == 'replay' or step == 'discard'
if not by_operator and fenced(KEYS[1], ARGV[1]) then return redis.error_reply(FENCED) end
if not redis.call('ZSCORE', by_operator and dead or outbox, id) then return 0 end
if step == 'attempt' and redis.call('EXISTS', KEYS[7]) == 1 then return 0 end
if redis.call('EXISTS', batch) == 0 then return redis.error_reply('DAMAGED the batch is listed but missing') end
local now = digits(now_ms())
if step == 'retry' or step == 'dead' then
  -- It may come late, and must not take back the note of an attempt that it knows nothing about.
  if tonumber(redis.call('HGET', batch, 'attempts')) > tonumber(ARGV[4]) then return 0 end
  if ARGV[5] == '' then
    redis.call('HDEL', batch, 'ambiguous_since')
  else
    redis.call('HSET', batch, 'ambiguous_since', ARGV[5])
  end
end

local function move(from, to)
  for _, unit in ipairs(measures()) do
    local total = redis.call('HMGET', batch, unit .. ':lo', unit .. ':hi')
    if total[1] then
      subtract_counter(ledger, from, unit, total[1], total[2])
      add_counter(ledger, to, unit, total[1], total[2])
    end
  end
end

if step == 'attempt' then
  redis.call('HINCRBY', batch, 'attempts', 1)
  redis.call('HSETNX', batch, 'ambiguous_since', now)
elseif step == 'retry' then
  redis.call('ZADD', outbox, digits(tonumber(now) + tonumber(ARGV[6])), id)
  redis.call('HSET', batch, 'error', ARGV[7])
elseif step == 'confirm' then
  move('outbox:', 'delivered:')
  redis.call('ZREM', outbox, id)
  redis.call('ZREM', frozen, id)
  redis.call('UNLINK', batch)
elseif step == 'dead' then
  move('outbox:', 'dead_letters:')
  redis.call('ZREM', outbox, id)
  redis.call('ZREM', frozen, id)
  redis.call('ZADD', dead, now, id)
  redis.call('HSET', batch, 'reason', ARGV[6])
elseif step == 'replay' then
  move('dead_letters:', 'outbox:')
  redis.call('ZREM', dead, id)
  redis.call('ZADD', outbox, now, id)
  redis.call('ZADD', frozen, redis.call('HGET', batch, 'frozen_at'), id)
  -- The backoff starts anew. Attempts go on being counted, so that a late settlement finds those after it; and what
  -- the receiver may have, it may have all the same, unless somebody has looked.
  redis.call('HDEL', batch, 'reason', 'error')
  if ARGV[4] == '1' then redis.call('HDEL', batch, 'ambiguous_since') end
  redis.call('HSET', batch, 'attempts_before', redis.call('HGET', batch, 'attempts'))
elseif step == 'discard' then
  move('dead_letters:', 'discarded:')
  redis.call('ZREM', dead, id)
  redis.call('UNLINK', batch)
end
return 1
