if redis.replicate_commands then redis.replicate_commands() end
local pid, terms = ARGV[1], ARGV[2]
local members, mine = redis.call('HGETALL', '__shoal:m'), nil
-- Each has its terms, and since when it is a member; a `-` behind that: it is being evicted.
for i = 1, #members, 2 do
  if members[i] == pid then
    mine = members[i + 1]
  elseif members[i + 1]:match('^[^.@]*') ~= terms:match('^[^.@]*')
    and redis.call('PUBSUB', 'NUMSUB', '__shoal:c:' .. members[i])[2] > 0 then
    return {'other', members[i] .. ' ' .. members[i + 1]}
  end
end
if not mine or mine:sub(-1) == '-' or mine:match('^[^@]*') ~= terms then
  redis.call('DEL', '__shoal:')
  redis.call('HSET', '__shoal:m', pid, terms .. '@' .. redis.call('TIME')[1])
end
local records = {}
for _, tx in ipairs(redis.call('SMEMBERS', '__shoal:fs')) do
  local fields = redis.call('HGETALL', '__shoal:f:' .. tx)
  if #fields > 0 then
    records[#records + 1] = {tx, 'f', fields}
  else
    local d = '__shoal:d:' .. tx
    local count = redis.call('HGET', d, 'n')
    if count then
      fields = {'c', redis.call('HGET', d, 'c'), 'h', redis.call('HGET', d, 'h')}
      for i = 1, count do
        fields[#fields + 1] = 'p' .. i
        fields[#fields + 1] = redis.call('HGET', d, 'p' .. i)
      end
      records[#records + 1] = {tx, 'd', fields}
    end
  end
end
local dump = redis.call('DUMP', '__shoal:m')
local memory, evicts = redis.call('INFO', 'memory'), 0
if memory:find('maxmemory_policy:allkeys', 1, true) and not memory:find('maxmemory:0\r', 1, true) then evicts = 1 end
return {'joined', dump:byte(-10) + 256 * dump:byte(-9), evicts, redis.call('HKEYS', '__shoal:m'), records}
