return redis.call('DBSIZE') - own()
