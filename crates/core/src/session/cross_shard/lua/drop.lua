local function tell(message)
  if redis.call('HLEN', '__shoal:m') > 1 then redis.call('PUBLISH', '__shoal:ctl', message) end
end
-- Takes away what is claimed, and says what the record said. Its first step is a write that memory cannot refuse.
local function drop(tx)
  local fields = redis.call('HGETALL', '__shoal:f:' .. tx)
  redis.call('DEL', '__shoal:f:' .. tx)
  for i = 1, #fields, 2 do
    local name = fields[i]
    local claim = (name == 'a' or name:sub(1, 1) == 'k') and redis.call('HGET', '__shoal:k', name)
    if claim then
      local left, is_mine = claim:sub(1, 1), false
      for other in claim:sub(2):gmatch('%S+') do
        if other == tx then is_mine = true else left = left .. ' ' .. other end
      end
      if is_mine and #left == 1 then
        redis.call('HDEL', '__shoal:k', name)
      elseif is_mine then
        redis.call('HSET', '__shoal:k', name, left)
      end
    end
  end
  return fields
end
