local tx, coordinator, message = ARGV[1], ARGV[2], ARGV[3]
local d, written, count = '__shoal:d:' .. tx, {}, 0
local fields = drop(tx)
for i = 4, #ARGV, 3 do
  if ARGV[i] == 'w' then
    local value, n = held(ARGV[i + 2]), #written + 1
    written[n] = value
    redis.call('HSET', d, 's' .. n, ARGV[i + 1], 'k' .. n, ARGV[i + 2])
    if value then redis.call('HSET', d, 't' .. n, value[1], 'v' .. n, value[2]) end
  end
  redis.call('UNLINK', ARGV[i + 2])
end
if #written > 0 then
  redis.call('HSET', d, 'c', coordinator, 'h', '')
  for i = 1, #fields, 2 do
    local name = fields[i]
    if name == 'h' then redis.call('HSET', d, 'h', fields[i + 1]) end
    if name:sub(1, 1) == 'p' then
      count = count + 1
      redis.call('HSET', d, 'p' .. count, fields[i + 1])
    end
  end
  local now = redis.call('TIME')
  redis.call('HSET', d, 'n', count, 'w', #written, 'm', now[1] * 1000 + math.floor(now[2] / 1000))
  redis.call('SADD', '__shoal:fs', tx)
else
  redis.call('SREM', '__shoal:fs', tx)
end
tell(message)
return written
