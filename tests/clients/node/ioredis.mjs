// SCENARIO.md with ioredis and its defaults: a connection of its own, INFO on connecting, command queue.

import { createRequire } from 'node:module'
import { Redis } from 'ioredis'
import { run } from './steps.mjs'

async function open ({ host, port, db }) {
  const redis = new Redis({ host, port, db })
  redis.on('error', error => console.log(`ioredis: ${error}`))
  return {
    call: (...words) => redis.call(...words),
    binary: key => redis.getBuffer(key),
    open: options => open({ host, port, ...options }),
    close: () => redis.quit(),
    async pipeline (commands) {
      const replies = await redis.pipeline(commands.map(([name, ...words]) => ['call', name, ...words])).exec()
      return replies.map(([error, reply]) => error ?? reply)
    }
  }
}

const { version } = createRequire(import.meta.url)('ioredis/package.json')
await run(`ioredis ${version}`, open)
