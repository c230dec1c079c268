-- Empties what it is told to, but for who is a member; not while operations have records here.
if ARGV[1] ~= '' then redis.call('SELECT', ARGV[1]) end
if redis.call('EXISTS', '__shoal:fs') == 1 then
  return redis.error_reply('TRYAGAIN an operation across shards has keys of this shard')
end
empty(table.concat(ARGV, ' ', 2))
return redis.status_reply('OK')
