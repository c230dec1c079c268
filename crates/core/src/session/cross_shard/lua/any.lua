if redis.call('DBSIZE') <= own() then return false end
for _ = 1, 16 do
  local key = redis.call('RANDOMKEY')
  if not key then return false end
  if key:sub(1, 8) ~= '__shoal:' then return key end
end
-- Nearly all that is there is ours, or has expired.
local cursor = '0'
repeat
  local page = redis.call('SCAN', cursor, 'COUNT', 100)
  cursor = page[1]
  for _, key in ipairs(page[2]) do
    if key:sub(1, 8) ~= '__shoal:' then return key end
  end
until cursor == '0'
return false
