#!lua flags=allow-oom
-- Ends the lease now, if the token is still the highest. The token stays, so that the next one is higher.
--
-- KEYS: 1 lease
-- ARGV: 1 token
if fenced(KEYS[1], ARGV[1]) then return 0 end
return redis.call('HDEL', KEYS[1], 'holder', 'until', 'length', 'idle')
