-- At home, within the commit: the record and what is claimed stay for its last step. Nobody else has records here.
local tx, f = ARGV[1], '__shoal:f:' .. ARGV[1]
local fields, claims = redis.call('HGETALL', f), redis.call('HGETALL', '__shoal:k')
empty(ARGV[2])
redis.call('HSET', f, unpack(fields))
redis.call('HSET', '__shoal:k', unpack(claims))
redis.call('SADD', '__shoal:fs', tx)
return redis.status_reply('OK')
