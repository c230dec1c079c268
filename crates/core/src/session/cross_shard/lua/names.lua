local found = {}
for _, key in ipairs(redis.call('KEYS', ARGV[1])) do
  if key:sub(1, 8) ~= '__shoal:' then found[#found + 1] = key end
end
return found
