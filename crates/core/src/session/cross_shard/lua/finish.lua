-- Whether a written key is as it was: a replaced or untouched one by its mark, another by its dump's digest and its time.
local function same(kind, key, value, before, at)
  if not value then return before == '' end
  if value[1] ~= tonumber(at) then return false end
  if kind == 'b' then return redis.call('TYPE', key).ok == 'string' and redis.call('GET', key) == before end
  return before ~= '' and redis.sha1hex(value[2]) == before
end
local tx, coordinator, message = ARGV[1], ARGV[2], ARGV[3]
local d, written, noted, count = '__shoal:d:' .. tx, {}, 0, 0
local fields = drop(tx)
local is_redone = false
for i = 1, #fields, 2 do is_redone = is_redone or fields[i] == 'r' end
for i = 4, #ARGV, 5 do
  local kind, key = ARGV[i], ARGV[i + 2]
  if kind ~= '-' then
    local value, n = held(key), #written + 1
    if same(kind, key, value, ARGV[i + 3], ARGV[i + 4]) then
      written[n] = 0
    else
      written[n] = value
      noted = noted + 1
      redis.call('HSET', d, 's' .. noted, ARGV[i + 1], 'k' .. noted, key)
      if value then redis.call('HSET', d, 't' .. noted, value[1], 'v' .. noted, value[2]) end
    end
  end
  redis.call('UNLINK', key)
end
if noted > 0 or is_redone then
  redis.call('HSET', d, 'c', coordinator, 'h', '')
  for i = 1, #fields, 2 do
    local name = fields[i]
    if name == 'h' then redis.call('HSET', d, 'h', fields[i + 1]) end
    if name:sub(1, 1) == 'p' then
      count = count + 1
      redis.call('HSET', d, 'p' .. count, fields[i + 1])
    end
  end
  redis.call('HSET', d, 'n', count, 'w', noted)
  redis.call('SADD', '__shoal:fs', tx)
else
  redis.call('SREM', '__shoal:fs', tx)
end
tell(message)
return written
