-- Its connections are gone; if it has joined again meanwhile, it is a member.
if redis.call('HGET', '__shoal:m', ARGV[1]) == ARGV[2] .. '-' then redis.call('HDEL', '__shoal:m', ARGV[1]) end
