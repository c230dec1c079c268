-- A member is being evicted: it counts as one until its connections are gone, and coordinates nothing. On a full shard, too.
redis.call('DEL', '__shoal:')
if redis.call('HEXISTS', '__shoal:m', ARGV[1]) == 1 then redis.call('HSET', '__shoal:m', ARGV[1], ARGV[2] .. '-') end
