#!lua flags=allow-oom
-- Seals the open generation and opens the next one, if it is the expected one and due by Redis's clock. Returns whether
-- it did. The windows are those of `Window::toggle`. An empty generation leaves nothing sealed behind.
--
-- KEYS: 1 lease, 2 state, 3 sealed, 4 open lo, 5 open hi, 6 open tenants, 7 sealed lo, 8 sealed hi
-- ARGV: 1 token, 2 expected epoch, 3 interval (ms)
local state, sealed = KEYS[2], KEYS[3]
local head = redis.call('HMGET', state, 'epoch', 'start', 'end')
if not head[1] then return redis.error_reply('UNINITIALISED the shard holds no open generation') end
if fenced(KEYS[1], ARGV[1]) then return redis.error_reply(FENCED) end
local now, ends, interval = now_ms(), tonumber(head[3]), tonumber(ARGV[3])
if head[1] ~= ARGV[2] or now < ends then return 0 end

local next_end = now - now % interval + interval
local seam = digits(math.max(ends, next_end - interval))
local holds, counters = redis.call('EXISTS', KEYS[4], KEYS[5]) > 0, {}
for _, unit in ipairs(measures()) do
  for _, limb in ipairs({':lo', ':hi'}) do
    local value = redis.call('HGET', state, unit .. limb)
    if value then
      counters[#counters + 1] = head[1] .. ':' .. unit .. limb
      counters[#counters + 1] = value
      redis.call('HDEL', state, unit .. limb)
      holds = holds or value ~= '0'
    end
  end
end
if holds then
  local prefix = head[1] .. ':'
  redis.call('HSET', sealed, prefix .. 'start', head[2], prefix .. 'end', seam, prefix .. 'sealed_at', digits(now),
    prefix .. 'next_batch', '0', unpack(counters))
  if redis.call('EXISTS', KEYS[4]) == 1 then redis.call('RENAME', KEYS[4], KEYS[7]) end
  if redis.call('EXISTS', KEYS[5]) == 1 then redis.call('RENAME', KEYS[5], KEYS[8]) end
end
redis.call('UNLINK', KEYS[6])
redis.call('HSET', state, 'epoch', digits(tonumber(head[1]) + 1), 'start', seam, 'end', digits(next_end))
return 1
