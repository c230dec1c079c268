// node-redis: the shop of ioredis.mjs in its own words, over RESP3 as its defaults are.

import { createClient, defineScript } from 'redis'
import { host, port, saidVersion, step, until } from './job.mjs'

const take = defineScript({
  NUMBER_OF_KEYS: 1,
  SCRIPT: "local left = redis.call('HINCRBY', KEYS[1], 'stock', -ARGV[1]) if left < 0 then redis.call('HINCRBY', KEYS[1], 'stock', ARGV[1]) return -1 end return left",
  parseCommand (parser, key, count) {
    parser.pushKey(key)
    parser.push(String(count))
  },
  transformReply: reply => reply
})

async function shop (client) {
  const items = [...Array(20).keys()]
  const replies = await Promise.all(items.map(item => client.hSet(`item:${item}`, { stock: 10, name: `item ${item}` })))
  step('a pipeline', replies, items.map(() => 2))
  const taken = await Promise.all([...Array(15).keys()].map(() => client.take('item:1', 1)))
  step('a script, fifteen times', taken.sort((a, b) => a - b), [...Array(5).fill(-1), ...Array(10).keys()])
  step('a hash', { ...await client.hGetAll('item:2') }, { stock: '10', name: 'item 2' })
  const order = await client.multi().hSet('{order:1}', 'item', 3).rPush('{order:1}:log', 'made').expire('{order:1}', 60).exec()
  step('a transaction', order, [1, 1, 1])
  await client.mSet(Object.fromEntries(items.map(item => [`price:${item}`, String(item)])))
  step('many keys', await client.mGet(items.map(item => `price:${item}`)), items.map(String))
  const seen = new Set()
  for await (const keys of client.scanIterator({ MATCH: 'item:*', COUNT: 5 })) for (const key of keys) seen.add(key)
  step('a scan', seen.size, 20)
  await client.zAdd('best', items.map(item => ({ score: item, value: `item ${item}` })))
  step('a sorted set', await client.zRangeWithScores('best', 0, 1), [{ value: 'item 0', score: 0 }, { value: 'item 1', score: 1 }])
}

async function feed (client) {
  const reader = client.duplicate()
  await reader.connect()
  const heard = []
  await reader.subscribe(['news', 'sport'], (text, channel) => heard.push([channel, text]))
  await reader.pSubscribe('local.*', (text, channel) => heard.push([channel, text]))
  step('published', await client.publish('news', 'one'), 1)
  await client.publish('local.here', 'two')
  await until(() => heard.length === 2, 'two messages')
  step('heard', heard.sort(), [['local.here', 'two'], ['news', 'one']])
  await reader.unsubscribe('news')
  step('unsubscribed', await client.publish('news', 'x'), 0)
  reader.destroy()
}

async function jobs (client) {
  const waiting = client.duplicate()
  await waiting.connect()
  const popped = waiting.blPop(['jobs:high', 'jobs:low'], 20)
  await client.rPush('jobs:low', 'sweep')
  step('a blocking pop of two lists', { ...await popped }, { key: 'jobs:low', element: 'sweep' })
  await client.xGroupCreate('events', 'readers', '$', { MKSTREAM: true })
  const read = waiting.xReadGroup('readers', 'one', { key: 'events', id: '>' }, { COUNT: 10, BLOCK: 20000 })
  const id = await client.xAdd('events', '*', { kind: 'made' })
  const [stream] = await read
  step('a stream', [stream.name, stream.messages[0].id, { ...stream.messages[0].message }], ['events', id, { kind: 'made' }])
  step('acknowledged', [await client.xAck('events', 'readers', id), (await client.xPending('events', 'readers')).pending], [1, 0])
  waiting.destroy()
}

saidVersion('redis')
const client = createClient({ url: `redis://${host}:${port}`, scripts: { take } })
client.on('error', error => console.log(`node-redis: ${error}`))
await client.connect()
await shop(client)
await feed(client)
await jobs(client)
client.destroy()
