#!lua flags=allow-oom
-- Moves aggregates out of a sealed generation into a batch of the outbox, due now. Returns 1, or 0 with nothing changed
-- if the generation no longer holds exactly these or another batch number is next.
--
-- KEYS: 1 lease, 2 meta, 3 sealed, 4 ledger, 5 outbox, 6 frozen, 7 generation lo, 8 generation hi, 9 batch
-- ARGV: 1 token, 2 incarnation, 3 epoch, 4 batch number, 5 batch id, 6 window start, 7 window end, 8 body,
--       9 how many units follow; then for each unit: name, lo, hi; then for each aggregate: field, lo, hi
local sealed, ledger, lo_key, hi_key, batch = KEYS[3], KEYS[4], KEYS[7], KEYS[8], KEYS[9]
if fenced(KEYS[1], ARGV[1]) then return redis.error_reply(FENCED) end
if redis.call('HGET', KEYS[2], 'incarnation') ~= ARGV[2] then
  return redis.error_reply('FOREIGN the store was made anew or restored: restart this process')
end
local prefix, number = ARGV[3] .. ':', ARGV[4]
if redis.call('HGET', sealed, prefix .. 'next_batch') ~= number then return 0 end

local units, first = {}, 10
for i = 1, tonumber(ARGV[9]) do
  units[i] = {ARGV[first], ARGV[first + 1], ARGV[first + 2]}
  first = first + 3
end
-- Lua's stack holds about 8000 values, so that long lists go in pieces.
local count, piece, seen, pieces = (#ARGV - first + 1) / 3, 1000, {}, {}
for from = 0, count - 1, piece do
  local fields = {}
  for i = from, math.min(from + piece, count) - 1 do fields[#fields + 1] = ARGV[first + i * 3] end
  local los, his = redis.call('HMGET', lo_key, unpack(fields)), redis.call('HMGET', hi_key, unpack(fields))
  for i, field in ipairs(fields) do
    local at = first + (from + i - 1) * 3
    if seen[field] or los[i] ~= ARGV[at + 1] or (his[i] or '0') ~= ARGV[at + 2] then return 0 end
    seen[field] = true
  end
  pieces[#pieces + 1] = fields
end

for _, fields in ipairs(pieces) do
  redis.call('HDEL', lo_key, unpack(fields))
  redis.call('HDEL', hi_key, unpack(fields))
end
local now = digits(now_ms())
redis.call('HSET', batch, 'id', ARGV[5], 'epoch', ARGV[3], 'number', number, 'start', ARGV[6], 'end', ARGV[7],
  'aggregates', digits(count), 'body', ARGV[8], 'frozen_at', now, 'attempts', '0')
for _, total in ipairs(units) do
  local unit, lo, hi = total[1], total[2], total[3]
  redis.call('HSET', batch, unit .. ':lo', lo, unit .. ':hi', hi)
  subtract_counter(sealed, prefix, unit, lo, hi)
  add_counter(ledger, 'outbox:', unit, lo, hi)
end
redis.call('HINCRBY', sealed, prefix .. 'next_batch', 1)
redis.call('ZADD', KEYS[5], now, ARGV[5])
redis.call('ZADD', KEYS[6], now, ARGV[5])
return 1
