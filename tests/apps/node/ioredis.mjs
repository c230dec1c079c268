// ioredis: a small shop. Stock in hashes, orders in MULTI, a feed by pub/sub, jobs by blocking pops and a stream.

import { Redis } from 'ioredis'
import { host, port, saidVersion, step, until } from './job.mjs'

async function shop (redis) {
  const items = [...Array(20).keys()]
  const replies = await redis.pipeline(items.map(item => ['hset', `item:${item}`, 'stock', 10, 'name', `item ${item}`])).exec()
  step('a pipeline', replies, items.map(() => [null, 2]))
  redis.defineCommand('take', {
    numberOfKeys: 1,
    lua: "local left = redis.call('HINCRBY', KEYS[1], 'stock', -ARGV[1]) if left < 0 then redis.call('HINCRBY', KEYS[1], 'stock', ARGV[1]) return -1 end return left"
  })
  const taken = await Promise.all([...Array(15).keys()].map(() => redis.take('item:1', 1)))
  step('a script, fifteen times', taken.sort((a, b) => a - b), [...Array(5).fill(-1), ...Array(10).keys()])
  const order = await redis.multi().hset('{order:1}', 'item', 3).rpush('{order:1}:log', 'made').expire('{order:1}', 60).exec()
  step('a transaction', order, [[null, 1], [null, 1], [null, 1]])
  await redis.mset(Object.fromEntries(items.map(item => [`price:${item}`, item])))
  step('many keys', await redis.mget(items.map(item => `price:${item}`)), items.map(String))
  const seen = new Set()
  for await (const keys of redis.scanStream({ match: 'item:*', count: 5 })) for (const key of keys) seen.add(key)
  step('a scan', seen.size, 20)
}

async function feed (redis) {
  const reader = redis.duplicate()
  const heard = []
  reader.on('message', (channel, text) => heard.push([channel, text]))
  reader.on('pmessage', (pattern, channel, text) => heard.push([pattern, channel, text]))
  step('subscribed', [await reader.subscribe('news', 'sport'), await reader.psubscribe('local.*')], [2, 3])
  step('published', await redis.publish('news', 'one'), 1)
  await redis.publish('local.here', 'two')
  await until(() => heard.length === 2, 'two messages')
  step('heard', heard.sort(), [['local.*', 'local.here', 'two'], ['news', 'one']])
  step('unsubscribed', [await reader.unsubscribe('news'), await redis.publish('news', 'x')], [2, 0])
  await reader.quit()
}

async function jobs (redis) {
  const waiting = redis.duplicate()
  const popped = waiting.blpop('jobs:high', 'jobs:low', 20)
  await redis.rpush('jobs:low', 'sweep')
  step('a blocking pop of two lists', await popped, ['jobs:low', 'sweep'])
  await redis.xgroup('CREATE', 'events', 'readers', '$', 'MKSTREAM')
  const read = waiting.xreadgroup('GROUP', 'readers', 'one', 'COUNT', 10, 'BLOCK', 20000, 'STREAMS', 'events', '>')
  const id = await redis.xadd('events', '*', 'kind', 'made')
  step('a stream', await read, [['events', [[id, ['kind', 'made']]]]])
  step('acknowledged', [await redis.xack('events', 'readers', id), (await redis.xpending('events', 'readers'))[0]], [1, 0])
  await waiting.quit()
}

saidVersion('ioredis')
const redis = new Redis({ host, port })
await shop(redis)
await feed(redis)
await jobs(redis)
await redis.quit()
