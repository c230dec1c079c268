-- How many keys of this database are ours.
local function own()
  local count = redis.call('EXISTS', '__shoal:m', '__shoal:fs', '__shoal:k', '__shoal:e')
  for _, tx in ipairs(redis.call('SMEMBERS', '__shoal:fs')) do
    count = count + redis.call('EXISTS', '__shoal:f:' .. tx, '__shoal:d:' .. tx)
  end
  return count
end
