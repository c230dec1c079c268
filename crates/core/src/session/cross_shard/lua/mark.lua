-- A member is being evicted: it counts as one until its connections are gone, and coordinates nothing. On a full shard, too.
redis.call('DEL', '__shoal:')
local terms = redis.call('HGET', '__shoal:m', ARGV[1])
if terms and terms:sub(-1) ~= '-' then redis.call('HSET', '__shoal:m', ARGV[1], terms .. '-') end
