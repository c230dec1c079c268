-- Its connections are gone; if it has joined again meanwhile, it is a member.
local terms = redis.call('HGET', '__shoal:m', ARGV[1])
if terms and terms:sub(-1) == '-' then redis.call('HDEL', '__shoal:m', ARGV[1]) end
