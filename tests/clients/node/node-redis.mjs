// SCENARIO.md with node-redis and its defaults: one connection, commands of one turn of the loop sent together.

import { createRequire } from 'node:module'
import { createClient, RESP_TYPES } from 'redis'
import { run } from './steps.mjs'

async function open ({ host, port, db }) {
  const client = createClient({ socket: { host, port }, database: db })
  client.on('error', error => console.log(`node-redis: ${error}`))
  await client.connect()
  return {
    call: (...words) => client.sendCommand(words),
    binary: key => client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer }).get(key),
    open: options => open({ host, port, ...options }),
    close: () => client.close(),
    pipeline: commands => Promise.all(commands.map(words => client.sendCommand(words)))
  }
}

const { version } = createRequire(import.meta.url)('redis/package.json')
await run(`node-redis ${version}`, open)
