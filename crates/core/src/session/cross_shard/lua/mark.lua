local version = redis.call('HGET', '__shoal:m', ARGV[1])
if version and version:byte() ~= 45 then
  redis.call('DEL', '__shoal:')
  redis.call('HSET', '__shoal:m', ARGV[1], '-' .. version)
end
return 1
