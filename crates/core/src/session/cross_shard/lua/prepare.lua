local tx, coordinator, home, scope, most, message, redo, count = unpack(ARGV, 1, 8)
local f, k = '__shoal:f:' .. tx, '__shoal:k'
local standing = redis.call('HGET', '__shoal:m', coordinator)
if not standing or standing:sub(-1) == '-' then return {'stranger'} end
-- Values are brought under their own names: to who places keys differently, they may be something else there.
local listed = redis.call('HGETALL', '__shoal:m')
for i = 1, #listed, 2 do
  if listed[i + 1]:match('^[^@]*') ~= standing:match('^[^@]*')
    and redis.call('PUBSUB', 'NUMSUB', '__shoal:c:' .. listed[i])[2] > 0 then
    return redis.error_reply('ERR another shoal uses these servers and places keys differently; no operation across shards is safe until one of the two is stopped')
  end
end
if redis.call('EXISTS', f, '__shoal:d:' .. tx) > 0 then return redis.error_reply('ERR prepared before') end
local first = 9 + count
local claim = redis.call('HGET', k, 'a')
if not claim and scope == 'a' then
  -- Also one that is decided: values that others have not got yet are in its record.
  local other = redis.call('SRANDMEMBER', '__shoal:fs')
  if other then claim = 'X ' .. other end
end
local claims = {}
for i = first, #ARGV, 2 do
  if claim then break end
  local other = redis.call('HGET', k, 'k' .. ARGV[i + 1])
  if other and (other:byte() == 88 or ARGV[i]:byte() == 88) then claim = other end
  claims[i] = other or ARGV[i]:sub(1, 1)
end
if claim then return {'conflict', claim:match('%s(%S+)')} end
if redo ~= '' then
  local tried = redis.pcall(redo:match('%S+'), 'no such word')
  if not tried.err or not tried.err:find('syntax') then return tried end
end
local values, size = wanted(first, tonumber(most))
if not values then return {'large', size} end
redis.call('HSET', f, 'c', coordinator, 'h', home)
redis.call('SADD', '__shoal:fs', tx)
for i = 1, count do redis.call('HSET', f, 'p' .. i, ARGV[8 + i]) end
if scope == 'a' then
  redis.call('HSET', f, 'a', 'X')
  if redo ~= '' then redis.call('HSET', f, 'r', redo) end
  redis.call('HSET', k, 'a', 'X ' .. tx)
end
for i = first, #ARGV, 2 do
  redis.call('HSET', f, 'k' .. ARGV[i + 1], ARGV[i]:sub(1, 1))
  redis.call('HSET', k, 'k' .. ARGV[i + 1], claims[i] .. ' ' .. tx)
end
local members, silent = {}, {}
if #listed > 2 then redis.call('PUBLISH', '__shoal:ctl', message) end
for i = 1, #listed, 2 do
  members[#members + 1] = listed[i]
  -- Who has just come may not listen yet.
  local since = tonumber(listed[i + 1]:match('@(%d+)') or 0)
  if #listed > 2 and redis.call('PUBSUB', 'NUMSUB', '__shoal:c:' .. listed[i])[2] == 0
    and redis.call('TIME')[1] - since >= 2 then silent[#silent + 1] = listed[i] end
end
return {'prepared', members, silent, values}
