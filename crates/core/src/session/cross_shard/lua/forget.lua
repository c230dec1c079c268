local version = redis.call('HGET', '__shoal:m', ARGV[1])
if version and version:byte() == 45 then redis.call('HDEL', '__shoal:m', ARGV[1]) end
return 1
