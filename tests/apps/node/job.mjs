// What each job in JavaScript stands on: where the server is, and how a step is said; as ../jobs/job.py.

import { createRequire } from 'node:module'
import { deepStrictEqual } from 'node:assert'
import { scheduler } from 'node:timers/promises'

export const host = process.env.APP_HOST
export const port = Number(process.env.APP_PORT)

export function saidVersion (name) {
  console.log(`version ${createRequire(import.meta.url)(`${name}/package.json`).version}`)
}

// Says that a step is done, or ends the job with what differed.
export function step (name, found, expected = true) {
  try {
    deepStrictEqual(found, expected)
  } catch (error) {
    console.log(`${name}: ${error.message}`)
    process.exit(1)
  }
  console.log(`ok ${name}`)
}

// The first true value of the condition.
export async function until (condition, text, milliseconds = 20000) {
  const end = Date.now() + milliseconds
  while (true) {
    const value = await condition()
    if (value) return value
    if (Date.now() > end) throw new Error(`not within ${milliseconds} ms: ${text}`)
    await scheduler.wait(10)
  }
}
