#!lua flags=allow-oom
-- Takes or renews the lease. Returns {1, token}, or {0, holder, until} if another has it. An idle lease is one that its
-- holder can't use, having no receiver: it goes at once to whoever can.
--
-- KEYS: 1 lease, 2 state
-- ARGV: 1 holder, 2 length (ms), 3 whether it is idle (1 or 0)
if redis.call('EXISTS', KEYS[2]) == 0 then return redis.error_reply('UNINITIALISED the shard holds no open generation') end
local lease, now, length = KEYS[1], now_ms(), tonumber(ARGV[2])
local current = redis.call('HMGET', lease, 'token', 'holder', 'until', 'length', 'idle')
local token, holder, ends = current[1], current[2], tonumber(current[3] or 0)
if holder ~= ARGV[1] then
  -- An end that lies absurdly far ahead was set by a clock that has gone back since.
  local believable = ends - now <= 3 * tonumber(current[4] or 0)
  local gives_way = current[5] == '1' and ARGV[3] == '0'
  if holder and ends > now and believable and not gives_way then return {0, holder, digits(ends)} end
  token = digits(redis.call('HINCRBY', lease, 'token', 1))
end
redis.call('HSET', lease, 'holder', ARGV[1], 'until', digits(now + length), 'length', digits(length), 'idle', ARGV[3])
return {1, token}
