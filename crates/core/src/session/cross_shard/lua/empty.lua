-- Does what empties the shard, in a server's own words, and enters again who is a member.
local function empty(redo)
  local words, members = {}, redis.call('HGETALL', '__shoal:m')
  for word in redo:gmatch('%S+') do words[#words + 1] = word end
  redis.call(unpack(words))
  if #members > 0 then redis.call('HSET', '__shoal:m', unpack(members)) end
end
