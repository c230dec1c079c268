-- What a key holds: how long yet (-1: for ever), and its dump; false if it is not there.
local function held(key)
  local dump = redis.call('DUMP', key)
  if not dump then return false end
  local ttl = redis.call('PTTL', key)
  if ttl ~= -1 and ttl < 1 then ttl = 1 end
  return {ttl, dump}
end
