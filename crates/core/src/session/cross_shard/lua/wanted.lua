-- The values of the wanted keys among pairs (mode, key), from an argument on; or how many bytes they take, if too many.
local function wanted(first, most)
  local size, values = 0, {}
  for i = first, #ARGV, 2 do
    if #ARGV[i] > 1 then size = size + (redis.call('MEMORY', 'USAGE', ARGV[i + 1]) or 0) end
  end
  if size > most then return nil, size end
  size = 0
  for i = first, #ARGV, 2 do
    local value = false
    if #ARGV[i] > 1 then value = held(ARGV[i + 1]) end
    if value then size = size + #value[2] end
    values[#values + 1] = value
  end
  if size > most then return nil, size end
  return values
end
