local tx, coordinator, home, scope, most, message, count = unpack(ARGV, 1, 7)
local f, k = '__shoal:f:' .. tx, '__shoal:k'
local standing = redis.call('HGET', '__shoal:m', coordinator)
if not standing or standing:sub(-1) == '-' then return {'stranger'} end
if redis.call('EXISTS', f, '__shoal:d:' .. tx) > 0 then return redis.error_reply('ERR prepared before') end
local first = 8 + count
local claim = redis.call('HGET', k, 'a')
if not claim and scope == 'a' then claim = redis.call('HVALS', k)[1] end
local claims = {}
for i = first, #ARGV, 2 do
  if claim then break end
  local other = redis.call('HGET', k, 'k' .. ARGV[i + 1])
  if other and (other:byte() == 88 or ARGV[i]:byte() == 88) then claim = other end
  claims[i] = other or ARGV[i]:sub(1, 1)
end
if claim then return {'conflict', claim:match('%s(%S+)')} end
local values, size = wanted(first, tonumber(most))
if not values then return {'large', size} end
redis.call('HSET', f, 'c', coordinator, 'h', home)
redis.call('SADD', '__shoal:fs', tx)
for i = 1, count do redis.call('HSET', f, 'p' .. i, ARGV[7 + i]) end
if scope == 'a' then
  redis.call('HSET', f, 'a', 'X')
  redis.call('HSET', k, 'a', 'X ' .. tx)
end
for i = first, #ARGV, 2 do
  redis.call('HSET', f, 'k' .. ARGV[i + 1], ARGV[i]:sub(1, 1))
  redis.call('HSET', k, 'k' .. ARGV[i + 1], claims[i] .. ' ' .. tx)
end
local members = redis.call('HKEYS', '__shoal:m')
local silent = {}
if #members > 1 then
  redis.call('PUBLISH', '__shoal:ctl', message)
  for _, pid in ipairs(members) do
    if redis.call('PUBSUB', 'NUMSUB', '__shoal:c:' .. pid)[2] == 0 then silent[#silent + 1] = pid end
  end
end
return {'prepared', members, silent, values}
