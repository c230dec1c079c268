local redis = (function(redis)
  local declared = {}
  for _, key in ipairs(KEYS) do declared[key] = true end
  local keyless = {ping = true, echo = true, time = true, publish = true, spublish = true}
  local elsewhere = {sort = {by = true, get = true}, sort_ro = {by = true, get = true}, copy = {db = true}, move = {}}
  local function refusal(name, ...)
    local command = tostring(name):lower()
    if keyless[command] then return end
    local words = elsewhere[command]
    local keys = redis.pcall('COMMAND', 'GETKEYS', name, ...)
    local is_refused = command == 'move'
    if keys.err then is_refused = select('#', ...) ~= 1 or not declared[...] end
    if words then
      for _, word in ipairs({...}) do is_refused = is_refused or words[tostring(word):lower()] end
    end
    if is_refused then return 'a script with keys on several shards cannot do this: ' .. command end
    for _, key in ipairs(keys) do
      if not declared[key] then return 'a script with keys on several shards must be given every key: ' .. key end
    end
  end
  local guarded = {}
  function guarded.call(...)
    local text = refusal(...)
    if text then error(text, 2) end
    return redis.call(...)
  end
  function guarded.pcall(...)
    local text = refusal(...)
    if text then return {err = 'ERR ' .. text} end
    return redis.pcall(...)
  end
  return setmetatable(guarded, {__index = redis})
end)(redis);
local server = redis;
