local tx, message = ARGV[1], ARGV[2]
local d = '__shoal:d:' .. tx
local count = redis.call('HGET', d, 'w')
if not count then
  drop(tx)
  redis.call('SREM', '__shoal:fs', tx)
  tell(message)
  return {'undone'}
end
local now, values = redis.call('TIME'), {}
local passed = math.max(0, now[1] * 1000 + math.floor(now[2] / 1000) - redis.call('HGET', d, 'm'))
for i = 1, count do
  local ttl, value = redis.call('HGET', d, 't' .. i), false
  if ttl then
    ttl = tonumber(ttl)
    if ttl ~= -1 then ttl = math.max(1, ttl - passed) end
    value = {ttl, redis.call('HGET', d, 'v' .. i)}
  end
  values[i] = {redis.call('HGET', d, 's' .. i), redis.call('HGET', d, 'k' .. i), value}
end
return {'committed', values}
