-- Shared by the scripts: inserted behind their first line before they are loaded.
--
-- An amount is two integer limbs in two hash fields, hi * 1e18 + lo nano-units with 0 <= lo < 1e18. Lua's numbers are
-- doubles, so Lua does not add amounts but HINCRBY, on the arguments' own digits; Lua compares with 1e18 and 0. The one
-- exception, sums of at most fifteen digits in ingest.lua, is exact: doubles hold every whole number up to 2^53.
local LIMB = '1000000000000000000'

local function carry(lo_key, lo_field, hi_key, hi_field)
  if redis.call('HINCRBY', lo_key, lo_field, '-' .. LIMB) >= 0 then
    redis.call('HINCRBY', hi_key, hi_field, 1)
  else
    -- The sum was just below 1e18 and only its double was not: no carry, so that lo stays canonical.
    redis.call('HINCRBY', lo_key, lo_field, LIMB)
  end
end

local function add(lo_key, lo_field, hi_key, hi_field, lo, hi)
  if hi ~= '0' then redis.call('HINCRBY', hi_key, hi_field, hi) end
  if redis.call('HINCRBY', lo_key, lo_field, lo) >= 1e18 then carry(lo_key, lo_field, hi_key, hi_field) end
end

local function subtract(key, lo_field, hi_field, lo, hi)
  if hi ~= '0' then redis.call('HINCRBY', key, hi_field, '-' .. hi) end
  if lo ~= '0' and redis.call('HINCRBY', key, lo_field, '-' .. lo) < 0 then
    redis.call('HINCRBY', key, lo_field, LIMB)
    redis.call('HINCRBY', key, hi_field, -1)
  end
end

-- A counter is a pair of fields of one hash, named for its unit behind a prefix.
local function add_counter(key, prefix, unit, lo, hi)
  local name = prefix .. unit
  add(key, name .. ':lo', key, name .. ':hi', lo, hi)
end

local function subtract_counter(key, prefix, unit, lo, hi)
  local name = prefix .. unit
  subtract(key, name .. ':lo', name .. ':hi', lo, hi)
end

-- Each unit, and its corrections: they are counted under a name of their own, as what they take back, so that no counter is
-- below zero. A function, since `ingest.lua` has no use for them.
local function measures()
  local names = {'KB', 'MB', 'GB', 'KB/sec', 'MB/sec', 'GB/sec'}
  for i = 1, 6 do names[i + 6] = names[i] .. ' correction' end
  return names
end

local function now_ms()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
end

-- Whole numbers above 1e14 would print in scientific notation. Not '%d', which ends at 2^31 where Redis is built for 32 bits.
local function digits(number)
  return string.format('%.0f', number)
end

local function fenced(lease_key, token)
  return redis.call('HGET', lease_key, 'token') ~= token
end

local FENCED = 'FENCED another holder was given the lease'
