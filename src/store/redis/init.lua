#!lua flags=allow-oom
-- Opens a shard's first generation, if the shard is new, and returns its format, incarnation and number of shards.
--
-- KEYS: 1 meta, 2 state
-- ARGV: 1 format, 2 incarnation for a new shard, 3 number of shards for a new shard, 4 interval (ms)
local meta, state = KEYS[1], KEYS[2]
local exists = redis.call('EXISTS', meta)
if exists ~= redis.call('EXISTS', state) then
  return redis.error_reply('DAMAGED half of the shard is missing')
end
if exists == 0 then
  local now, interval = now_ms(), tonumber(ARGV[4])
  redis.call('HSET', meta, 'format', ARGV[1], 'incarnation', ARGV[2], 'shards', ARGV[3])
  redis.call('HSET', state, 'epoch', '0', 'start', digits(now), 'end', digits(now - now % interval + interval),
    'ids_since', digits(now))
end
return redis.call('HMGET', meta, 'format', 'incarnation', 'shards')
