redis.call('DEL', '__shoal:d:' .. ARGV[1])
redis.call('SREM', '__shoal:fs', ARGV[1])
