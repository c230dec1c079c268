// BullMQ: a queue and a worker process; results, retries, delays, priorities, a flow, a schedule, a pause, events.

import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { FlowProducer, Queue, QueueEvents, Worker } from 'bullmq'
import { host, port, saidVersion, step, until } from './job.mjs'

const connection = { host, port }
const MILLISECONDS = 20000

function work () {
  const deeds = {
    add: ({ data }) => data.left + data.right,
    third: job => {
      if (job.attemptsMade < 2) throw new Error('not yet')
      return job.attemptsMade + 1
    },
    fail: () => { throw new Error('on purpose') },
    total: async job => Object.values(await job.getChildrenValues()).reduce((sum, value) => sum + value, 0),
    progress: async job => { await job.updateProgress(50); return 'half' },
    tick: () => 'tick'
  }
  const worker = new Worker('mail', async job => deeds[job.name](job), { connection, concurrency: 4 })
  process.on('SIGTERM', async () => { await worker.close(); process.exit(0) })
  worker.on('ready', () => process.send('ready'))
}

async function main () {
  saidVersion('bullmq')
  const queue = new Queue('mail', { connection })
  const events = new QueueEvents('mail', { connection })
  await events.waitUntilReady()
  const result = job => job.waitUntilFinished(events, MILLISECONDS)
  const early = await queue.addBulk([...Array(20).keys()].map(left => ({ name: 'add', data: { left, right: 1 } })))
  step('waiting', await queue.getWaitingCount(), 20)
  const worker = fork(fileURLToPath(import.meta.url), ['worker'])
  await new Promise(resolve => worker.once('message', resolve))
  step('results', await Promise.all(early.map(result)), [...Array(20).keys()].map(left => left + 1))
  step('retries', await result(await queue.add('third', {}, { attempts: 3, backoff: { type: 'fixed', delay: 50 } })), 3)
  const failed = await queue.add('fail', {})
  step('a failure', await result(failed).catch(error => error.message), 'on purpose')
  step('it is kept', (await queue.getFailed()).map(job => job.id), [failed.id])
  step('later', await result(await queue.add('add', { left: 3, right: 4 }, { delay: 500 })), 7)
  step('a priority', await result(await queue.add('add', { left: 5, right: 6 }, { priority: 2 })), 11)

  const heard = new Promise(resolve => events.once('progress', ({ data }) => resolve(data)))
  step('progress', [await result(await queue.add('progress', {})), await heard], ['half', 50])

  const children = [...Array(5).keys()].map(left => ({ name: 'add', queueName: 'mail', data: { left, right: 10 } }))
  const flow = new FlowProducer({ connection })
  const { job } = await flow.add({ name: 'total', queueName: 'mail', data: {}, children })
  step('a flow', await result(job), 60)

  await queue.upsertJobScheduler('every', { every: 200, limit: 3 }, { name: 'tick' })
  await until(async () => (await queue.getCompleted()).filter(job => job.name === 'tick').length >= 2, 'two ticks')
  step('a schedule', await queue.removeJobScheduler('every'))

  await queue.pause()
  const held = await queue.add('add', { left: 1, right: 1 })
  step('paused', await queue.isPaused())
  await queue.resume()
  step('resumed', await result(held), 2)
  const deduplicated = await Promise.all([1, 2].map(() =>
    queue.add('add', { left: 1, right: 2 }, { delay: 300, deduplication: { id: 'one' } })))
  step('a job exists once', new Set(deduplicated.map(job => job.id)).size, 1)
  await result(deduplicated[0])
  worker.kill('SIGTERM')
  await new Promise(resolve => worker.once('exit', resolve))
  const { active, wait = 0, waiting = wait, delayed } = await queue.getJobCounts()
  step('nothing is left', { active, waiting, delayed }, { active: 0, waiting: 0, delayed: 0 })
  await queue.obliterate()
  await Promise.all([flow.close(), events.close(), queue.close()])
}

if (process.argv[2] === 'worker') work()
else await main()
