#!lua flags=allow-oom
-- Lets batches of the shard be sent again, whatever was lost. Returns what is forgotten by this: names and notes.
--
-- KEYS: 1 gaps
-- ARGV: none
local noted = redis.call('HGETALL', KEYS[1])
redis.call('UNLINK', KEYS[1])
return noted
