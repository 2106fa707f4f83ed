#!lua flags=allow-oom
-- Notes that something acknowledged is lost for good. From then on no batch of the shard is sent (`due`, `settle`), until
-- `resume`. Takes the writer's numbers on to the last one that is lost, so that what comes behind it can follow.
--
-- KEYS: 1 gaps, 2 writer
-- ARGV: 1 name, so that a repetition notes nothing new, 2 last number that is lost (0 for what has none), 3 what is lost,
--       4 how long to remember the writer (ms)
local gaps, writer = KEYS[1], KEYS[2]
-- Whoever has so many must look anyway.
local GAPS_MAX = 1000
local last = tonumber(string.match(redis.call('GET', writer) or '', '^%d+') or 0)
if last < tonumber(ARGV[2]) then redis.call('SET', writer, ARGV[2] .. ' ', 'PX', ARGV[4]) end
if redis.call('HLEN', gaps) < GAPS_MAX then redis.call('HSETNX', gaps, ARGV[1], digits(now_ms()) .. ' ' .. ARGV[3]) end
return 1
