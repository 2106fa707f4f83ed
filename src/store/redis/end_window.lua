#!lua flags=allow-oom
-- Brings the end of the open window forward to now, so that its toggle is due: an operator's step. Returns the epoch.
--
-- KEYS: 1 state
-- ARGV: none
local head = redis.call('HMGET', KEYS[1], 'epoch', 'start', 'end')
if not head[1] then return redis.error_reply('UNINITIALISED the shard holds no open generation') end
-- The window holds a millisecond at least.
local ends = math.max(now_ms(), tonumber(head[2]) + 1)
if ends < tonumber(head[3]) then redis.call('HSET', KEYS[1], 'end', digits(ends)) end
return head[1]
