local tx, message = ARGV[1], ARGV[2]
local d = '__shoal:d:' .. tx
local count = redis.call('HGET', d, 'w')
if not count then
  drop(tx)
  redis.call('SREM', '__shoal:fs', tx)
  tell(message)
  return {'undone'}
end
local values = {}
for i = 1, count do
  local at, value = redis.call('HGET', d, 't' .. i), false
  if at then value = {tonumber(at), redis.call('HGET', d, 'v' .. i)} end
  values[i] = {redis.call('HGET', d, 's' .. i), redis.call('HGET', d, 'k' .. i), value}
end
return {'committed', values}
