-- What a key holds: until when (ms since 1970, -1: for ever), and its dump; false if it is not there. An instant, as servers keep
-- it themselves: what is left of a time would grow by each way between shards. 2^53: what a number of Lua can tell apart.
local function held(key)
  local dump = redis.call('DUMP', key)
  if not dump then return false end
  local at = redis.pcall('PEXPIRETIME', key)
  if type(at) == 'table' then
    -- Redis 6.2 says only what is left.
    at = redis.call('PTTL', key)
    local now = redis.call('TIME')
    if at ~= -1 then at = now[1] * 1000 + math.floor(now[2] / 1000) + at end
  end
  return {math.min(at, 9007199254740991), dump}
end
