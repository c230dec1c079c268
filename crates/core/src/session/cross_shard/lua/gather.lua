if redis.call('EXISTS', '__shoal:f:' .. ARGV[1]) == 0 then return {'gone'} end
local values, size = wanted(3, tonumber(ARGV[2]))
if not values then return {'large', size} end
return {'values', values}
