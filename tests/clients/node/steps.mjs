// SCENARIO.md over one adapter: what differs between client libraries is in ioredis.mjs and node-redis.mjs.
//
// An adapter gives `call(...words)`: one command as the library sends it, its reply in the library's own types (maps and
// numbers differ between protocol versions, so replies are made plain here); `pipeline(commands)`; `open({db})`: another
// connection with the same defaults; `binary(key)`; `close()`. Steps that libraries have typed methods for use those.

import assert from 'node:assert/strict'

const [host, port, target] = process.argv.slice(2)

/** A hash reply as a plain object, whichever shape the protocol version gave it. */
function pairs (reply) {
  if (reply instanceof Map) return Object.fromEntries(reply)
  if (!Array.isArray(reply)) return { ...reply }
  return Object.fromEntries(reply.map((key, i) => [key, reply[i + 1]]).filter((_, i) => i % 2 === 0))
}

/** Members and scores as [[member, number]], whether they came flat or in pairs. */
function scored (reply) {
  const flat = reply.flat()
  return flat.map((member, i) => [member, Number(flat[i + 1])]).filter((_, i) => i % 2 === 0)
}

async function failure (promise) {
  try {
    await promise
  } catch (error) {
    return String(error.message)
  }
  return null
}

const steps = {
  async connect (client) {
    assert.equal(await client.call('PING'), 'PONG')
  },

  async strings (client) {
    assert.equal(await client.call('SET', 'smoke:s', '7'), 'OK')
    assert.equal(await client.call('GET', 'smoke:s'), '7')
    assert.deepEqual([await client.call('INCR', 'smoke:s'), await client.call('INCR', 'smoke:s')], [8, 9])
    assert.equal(await client.call('EXPIRE', 'smoke:s', '100'), 1)
    const ttl = await client.call('TTL', 'smoke:s')
    assert.ok(ttl > 0 && ttl <= 100)
    assert.equal(await client.call('DEL', 'smoke:s'), 1)
    assert.equal(await client.call('GET', 'smoke:s'), null)
  },

  async binary (client) {
    const value = Buffer.concat([Buffer.from(Array.from({ length: 99998 }, (_, i) => i % 256)), Buffer.from('\r\n')])
    await client.call('SET', 'smoke:b', value)
    assert.ok(value.equals(await client.binary('smoke:b')))
  },

  async 'many-keys' (client) {
    const keys = Array.from({ length: 20 }, (_, i) => `smoke:m:${i}`)
    assert.equal(await client.call('MSET', ...keys.flatMap(key => [key, key])), 'OK')
    const reversed = [...keys].reverse()
    assert.deepEqual(await client.call('MGET', ...reversed, 'smoke:m:none'), [...reversed, null])
    assert.equal(await client.call('DEL', ...keys), 20)
  },

  async hash (client) {
    assert.equal(await client.call('HSET', 'smoke:h', 'a', '1', 'b', '2'), 2)
    assert.deepEqual(pairs(await client.call('HGETALL', 'smoke:h')), { a: '1', b: '2' })
  },

  async list (client) {
    assert.equal(await client.call('LPUSH', 'smoke:l', 'x', 'y', 'z'), 3)
    assert.deepEqual(await client.call('LRANGE', 'smoke:l', '0', '-1'), ['z', 'y', 'x'])
  },

  async 'sorted-set' (client) {
    assert.equal(await client.call('ZADD', 'smoke:z', '1', 'one', '2', 'two', '0.5', 'half'), 3)
    const members = await client.call('ZRANGE', 'smoke:z', '0', '-1', 'WITHSCORES')
    assert.deepEqual(scored(members), [['half', 0.5], ['one', 1], ['two', 2]])
  },

  async scan (client) {
    const keys = Array.from({ length: 500 }, (_, i) => `smoke:scan:${i}`)
    await client.call('MSET', ...keys.flatMap(key => [key, 'v']))
    const found = new Set()
    let cursor = '0'
    do {
      const [next, page] = await client.call('SCAN', cursor, 'MATCH', 'smoke:scan:*', 'COUNT', '50')
      page.forEach(key => found.add(key))
      cursor = String(next)
    } while (cursor !== '0')
    assert.deepEqual([...found].sort(), [...keys].sort())
  },

  async pipeline (client) {
    const numbers = Array.from({ length: 50 }, (_, i) => String(i))
    const replies = await client.pipeline([
      ...numbers.map(i => ['SET', `smoke:p:${i}`, i]),
      ...numbers.map(i => ['GET', `smoke:p:${i}`])
    ])
    assert.deepEqual(replies, [...numbers.map(() => 'OK'), ...numbers])
  },

  async script (client) {
    const text = "redis.call('SET', KEYS[1], ARGV[1]) return redis.call('GET', KEYS[1])"
    assert.equal(await client.call('EVAL', text, '1', 'smoke:lua', 'by eval'), 'by eval')
    const sha = await client.call('SCRIPT', 'LOAD', text)
    assert.equal(await client.call('EVALSHA', sha, '1', 'smoke:lua2', 'by sha'), 'by sha')
  },

  async info (client) {
    const info = await client.call('INFO')
    assert.match(info, /\r\nredis_version:([6-9]|\d\d)\./)
    assert.match(info, /\r\nrole:master\r\n/)
  },

  async name (client) {
    assert.equal(await client.call('CLIENT', 'SETNAME', 'smoke'), 'OK')
    assert.equal(await client.call('CLIENT', 'GETNAME'), 'smoke')
  },

  async database (client) {
    const third = await client.open({ db: 3 })
    await third.call('SET', 'smoke:db', 'three')
    assert.equal(await third.call('GET', 'smoke:db'), 'three')
    assert.equal(await client.call('GET', 'smoke:db'), null)
    await third.close()
  },

  async 'far-keys' (client) {
    await client.call('SADD', 'a', '1', '2')
    await client.call('SADD', 'b', '2', '3')
    let union
    const text = await failure(client.call('SUNION', 'a', 'b').then(reply => { union = reply }))
    if (text === null) {
      assert.deepEqual([...union].sort(), ['1', '2', '3'])
    } else {
      assert.equal(target, 'shards')
      assert.match(text, /slot/i)
    }
  },

  async error (client) {
    assert.match(await failure(client.call('INCR', 'smoke:l')), /WRONGTYPE/)
    assert.equal(await client.call('PING'), 'PONG')
  }
}

/** Runs every step over `open({host, port, db})` of a library; the process ends with its exit code. */
export async function run (version, open) {
  console.log(version)
  const client = await open({ host, port: Number(port), db: 0 })
  try {
    for (const [name, step] of Object.entries(steps)) {
      await step(client)
      console.log(`ok ${name}`)
    }
    await client.close()
  } catch (error) {
    console.log(error)
    process.exit(1)
  }
}
