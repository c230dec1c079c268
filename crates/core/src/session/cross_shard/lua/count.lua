-- How many keys there are but shoal's own: of these, all that are no lasting ones belong to a transaction of the set.
local count = redis.call('DBSIZE') - redis.call('EXISTS', '__shoal:m', '__shoal:fs', '__shoal:k', '__shoal:e')
for _, tx in ipairs(redis.call('SMEMBERS', '__shoal:fs')) do
  count = count - redis.call('EXISTS', '__shoal:f:' .. tx, '__shoal:d:' .. tx)
end
return count
