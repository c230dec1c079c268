local tx, message = ARGV[1], ARGV[2]
if redis.call('EXISTS', '__shoal:f:' .. tx) == 0 then return 0 end
redis.call('DEL', '__shoal:')
local redo = redis.call('HGET', '__shoal:f:' .. tx, 'r')
if redo then
  empty(redo)
  tell(message)
  return 1
end
for i = 3, #ARGV, 3 do
  if ARGV[i + 1] == '' then
    redis.call('UNLINK', ARGV[i])
  else
    redis.call('RESTORE', ARGV[i], ARGV[i + 1], ARGV[i + 2], 'REPLACE', 'ABSTTL')
  end
end
drop(tx)
redis.call('SREM', '__shoal:fs', tx)
tell(message)
return 1
