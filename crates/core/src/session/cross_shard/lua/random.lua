-- A key that is not shoal's own. As many draws as make it certain enough that there is no other.
for _ = 1, 100 do
  local key = redis.call('RANDOMKEY')
  if not key or key:sub(1, 8) ~= '__shoal:' then return key end
end
return false
