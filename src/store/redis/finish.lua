#!lua flags=allow-oom
-- Forgets a sealed generation that holds no aggregates any more, its counters included: a remainder in them is data that
-- went missing, and shows in the ledger's difference from here on.
--
-- KEYS: 1 lease, 2 sealed, 3 generation lo, 4 generation hi
-- ARGV: 1 token, 2 epoch
if fenced(KEYS[1], ARGV[1]) then return redis.error_reply(FENCED) end
if redis.call('EXISTS', KEYS[3], KEYS[4]) > 0 then return 0 end
local fields = {}
for _, name in ipairs({'start', 'end', 'sealed_at', 'next_batch'}) do fields[#fields + 1] = ARGV[2] .. ':' .. name end
for _, unit in ipairs(measures()) do
  fields[#fields + 1] = ARGV[2] .. ':' .. unit .. ':lo'
  fields[#fields + 1] = ARGV[2] .. ':' .. unit .. ':hi'
end
redis.call('HDEL', KEYS[2], unpack(fields))
return 1
