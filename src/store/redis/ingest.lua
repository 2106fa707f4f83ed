#!lua
-- Adds the entries of one group that belong to one shard, each at most once, and returns one verdict a character:
-- S stored, D duplicate, C conflict, T tenant full, I no room for ids. Has no allow-oom: at maxmemory Redis refuses it
-- whole, before its first write.
--
-- KEYS: 1 writer, 2 state, 3 ledger, 4 A:lo, 5 A:hi, 6 A:tenants, 7 B:lo, 8 B:hi, 9 B:tenants, 10 ids:newer,
--       11 ids:older
-- ARGV: 1 sequence number, 2 how long to remember the writer (ms), 3 dedup window (ms), 4 ids at most,
--       5 aggregates a tenant at most, 6 how many measures follow, 7 how many entries follow, 8 whether their fields differ (1, 0);
--       then for each measure (a unit, or the corrections of one): name, and the sum of all entries as hi and lo;
--       then each entry's field; then each entry's amount (nano-units, decimal digits);
--       then for each entry with an id: its number (from 1), identity, content
local writer, state, ledger = KEYS[1], KEYS[2], KEYS[3]
local newer, older = KEYS[10], KEYS[11]

-- The same number as last time: the first answer was lost. The expiry is a write, so that WAIT has something to wait for.
local sequence, last, recorded = tonumber(ARGV[1]), 0, redis.call('GET', writer)
if recorded then
  local number, verdicts = string.match(recorded, '^(%d+) (.*)$')
  last = tonumber(number)
  if sequence == last then
    redis.call('PEXPIRE', writer, ARGV[2])
    return verdicts
  end
end
if sequence ~= last + 1 then
  return redis.error_reply('GAP expected number ' .. last + 1 .. ' of the writer, got ' .. ARGV[1])
end

local head = redis.call('HMGET', state, 'epoch', 'ids_since')
if not head[1] then
  return redis.error_reply('UNINITIALISED the shard holds no open generation')
end
local base = tonumber(head[1]) % 2 == 0 and 4 or 7
local lo_key, hi_key, tenants_key = KEYS[base], KEYS[base + 1], KEYS[base + 2]

local totals, large, first = {}, {}, 9
for i = 1, tonumber(ARGV[6]) do
  local measure, hi = ARGV[first], ARGV[first + 1]
  totals[measure] = {hi = hi, lo = ARGV[first + 2]}
  if hi ~= '0' then large[#large + 1] = 'acknowledged:' .. measure .. ':hi' end
  first = first + 3
end
-- Every counter and aggregate is at most what was acknowledged of its measure, so this one check keeps all from overflow. A call
-- without an upper limb carries at most one into it, and there is room for 2e17 of those.
if #large > 0 then
  for i, hi in ipairs(redis.call('HMGET', ledger, unpack(large))) do
    if hi and tonumber(hi) > 9e18 then
      return redis.error_reply('FULL ' .. large[i] .. ' can hold no more')
    end
  end
end

local count = tonumber(ARGV[7])
-- What the first entry's field, and its amount, stand behind.
local fields, amounts = first - 1, first - 1 + count
first = first + 2 * count
local ids, identities, contents_given = {}, {}, {}
for at = first, #ARGV, 3 do
  local i = tonumber(ARGV[at])
  ids[#ids + 1] = ARGV[at + 1]
  identities[i], contents_given[i] = ARGV[at + 1], ARGV[at + 2]
end

-- Ids recorded since ids_since are in the newer hash, those of the window before it in the older one.
local known, room = {}, 0
if #ids > 0 then
  local now, window, since = now_ms(), tonumber(ARGV[3]), tonumber(head[2])
  if now >= since + window then
    redis.call('UNLINK', older)
    if now >= since + 2 * window then
      redis.call('UNLINK', newer)
      since = now
    else
      if redis.call('EXISTS', newer) == 1 then redis.call('RENAME', newer, older) end
      since = since + window
    end
    redis.call('HSET', state, 'ids_since', digits(since))
  end
  room = tonumber(ARGV[4])
  for _, key in ipairs({older, newer}) do
    local length = redis.call('HLEN', key)
    if length > 0 then
      room = room - length
      local contents = redis.call('HMGET', key, unpack(ids))
      for i, id in ipairs(ids) do
        if contents[i] then known[id] = contents[i] end
      end
    end
  end
end

-- A group whose entries were all refused is sent again without any (`replay.rs`).
local present = {}
if count > 0 then present = redis.call('HMGET', lo_key, unpack(ARGV, fields + 1, fields + count)) end

-- Sums of up to fifteen digits are exact in a double, and Redis prints such a number as its digits. They are added here and written
-- all at once: cheaper for Redis and its log than an HINCRBY each.
local SHORT = 15

-- The short way: no ids, and each aggregate once, which is there and short. Then no entry depends on one before it. Most groups
-- are such; the functions of the long way are not even made for them.
local function sums_of_short()
  if ARGV[8] ~= '1' or #ids > 0 then return end
  local sums = {}
  for i = 1, count do
    local old, amount = present[i], ARGV[amounts + i]
    if not old or #old > SHORT or #amount > SHORT then return end
    sums[2 * i - 1], sums[2 * i] = ARGV[fields + i], old + amount
  end
  return sums
end

local function take_each()
  local created, tenants, grown, is_empty = {}, {}, {}, nil
  -- Redis keeps a hash of up to some hundred short fields as a list that it searches from the start for each of them. A long
  -- field, and be it for a moment, makes a table of it.
  local long = string.rep('-', 1000)

  -- Whether the tenant may have this aggregate; counts it if it is new.
  local function admit(field)
    local tenant = string.match(field, '^[^:]*')
    local size = tenants[tenant] or tonumber(redis.call('HGET', tenants_key, tenant) or 0)
    local admitted = size < tonumber(ARGV[5])
    if admitted then
      if is_empty == nil then
        is_empty = redis.call('EXISTS', lo_key) == 0
        if is_empty then redis.call('HSET', lo_key, long, 0) end
      end
      size = size + 1
      created[field] = true
      grown[tenant] = size
    end
    tenants[tenant] = size
    return admitted
  end

  -- The sums in ARGV are of all entries: take off one that is not added. Nine digits a part stay exact in a double. The measure is
  -- the third part of a field; an hour may follow.
  local function leave_out(field, amount)
    local total = totals[string.match(field, '^[^:]*:[^:]*:([^:]*)')]
    local middle, low = tonumber(string.sub(total.lo, 1, -10)) or 0, tonumber(string.sub(total.lo, -9))
    local parts = total.parts or {tonumber(total.hi), middle, low}
    parts[1] = parts[1] - (tonumber(string.sub(amount, 1, -19)) or 0)
    parts[2] = parts[2] - (tonumber(string.sub(amount, -18, -10)) or 0)
    parts[3] = parts[3] - tonumber(string.sub(amount, -9))
    total.parts = parts
  end

  -- What is not short is left to HINCRBY.
  local sums, is_long = {}, {}

  local function store(i)
    local field, amount, old = ARGV[fields + i], ARGV[amounts + i], present[i]
    local sum = sums[field]
    if not sum and not is_long[field] then
      if not old then
        sum = 0
      elseif #old <= SHORT then
        sum = tonumber(old)
      end
    end
    if sum and sum < 1e15 and #amount <= SHORT then
      sums[field] = sum + amount
      return
    end
    if sums[field] then
      redis.call('HSET', lo_key, field, digits(sum))
      sums[field] = nil
    end
    is_long[field] = true
    local hi, lo = string.sub(amount, 1, -19), string.gsub(string.sub(amount, -18), '^0+(.)', '%1')
    add(lo_key, field, hi_key, field, lo, hi == '' and '0' or hi)
  end

  local verdicts, fresh = {}, {}
  for i = 1, count do
    local field, id = ARGV[fields + i], identities[i]
    local verdict, content = 'S', id and known[id]
    if content then
      verdict = content == contents_given[i] and 'D' or 'C'
    elseif id and room <= 0 then
      verdict = 'I'
    elseif not present[i] and not created[field] and not admit(field) then
      verdict = 'T'
    end
    if verdict == 'S' then
      store(i)
      if id then
        room = room - 1
        known[id] = contents_given[i]
        fresh[#fresh + 1] = id
        fresh[#fresh + 1] = contents_given[i]
      end
    else
      leave_out(field, ARGV[amounts + i])
    end
    verdicts[i] = verdict
  end
  local to_write = {}
  for field, sum in pairs(sums) do
    to_write[#to_write + 1] = field
    to_write[#to_write + 1] = sum
  end
  if #to_write > 0 then redis.call('HSET', lo_key, unpack(to_write)) end
  if is_empty then redis.call('HDEL', lo_key, long) end
  if #fresh > 0 then redis.call('HSET', newer, unpack(fresh)) end
  for tenant, size in pairs(grown) do redis.call('HSET', tenants_key, tenant, size) end
  for _, total in pairs(totals) do
    if total.parts then
      local hi, middle, low = unpack(total.parts)
      local borrow = math.floor(low / 1e9)
      low, middle = low - borrow * 1e9, middle + borrow
      borrow = math.floor(middle / 1e9)
      middle, hi = middle - borrow * 1e9, hi + borrow
      total.hi, total.lo = digits(hi), middle > 0 and string.format('%.0f%09.0f', middle, low) or digits(low)
    end
  end
  return table.concat(verdicts)
end

local answer, sums = nil, sums_of_short()
if sums then
  if count > 0 then redis.call('HSET', lo_key, unpack(sums)) end
  answer = string.rep('S', count)
else
  answer = take_each()
end
for measure, total in pairs(totals) do
  local hi, lo = total.hi, total.lo
  if hi ~= '0' or lo ~= '0' then
    add_counter(state, '', measure, lo, hi)
    add_counter(ledger, 'acknowledged:', measure, lo, hi)
  end
end

redis.call('SET', writer, ARGV[1] .. ' ' .. answer, 'PX', ARGV[2])
return answer
