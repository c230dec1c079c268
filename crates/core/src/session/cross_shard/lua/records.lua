redis.call('SELECT', ARGV[1])
return own()
