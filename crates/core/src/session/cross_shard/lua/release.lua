local tx, message = ARGV[1], ARGV[2]
if redis.call('EXISTS', '__shoal:f:' .. tx) == 0 then return 0 end
drop(tx)
redis.call('SREM', '__shoal:fs', tx)
tell(message)
return 1
