// Matchers for vitest's `expect`, as plain functions: this module imports no test runner. `install` (setup.ts)
// gives them to one, vitest-types.ts tells TypeScript.
import { ErrnoError, type ErrnoName } from '../base/errno.js'
import type { IommuUnit } from '../machine.js'
import type { Bench } from './bench.js'
import type { DmaOutcome } from './spaces.js'

/** What a matcher answers. */
export interface MatcherResult {
  readonly pass: boolean
  readonly message: () => string
}

const result = (pass: boolean, message: string): MatcherResult => ({ pass, message: () => message })

/** What a call did: the value it returned, or the refusal it threw. Other errors are passed on. */
function outcomeOf(call: unknown): { value: unknown } | { refusal: ErrnoError } {
  if (typeof call !== 'function') throw new TypeError('expect(() => call()): a function is needed')
  try {
    return { value: (call as () => unknown)() }
  } catch (error) {
    if (error instanceof ErrnoError) return { refusal: error }
    throw error
  }
}

function shown(value: unknown): string {
  if (typeof value === 'bigint') return `${value}n`
  return typeof value === 'object' && value !== null
    ? 'an object'
    : (JSON.stringify(value) ?? 'nothing')
}

function toRefuse(call: unknown, code: ErrnoName): MatcherResult {
  const did = outcomeOf(call)
  if (!('refusal' in did))
    return result(false, `expected ${code}, but the call succeeded with ${shown(did.value)}`)
  const { refusal } = did
  return refusal.code === code
    ? result(true, `expected anything but ${code}: ${refusal.message}`)
    : result(false, `expected ${code}, got ${refusal.message}`)
}

function toSucceed(call: unknown, ...values: readonly unknown[]): MatcherResult {
  const did = outcomeOf(call)
  if ('refusal' in did) return result(false, `expected success, got ${did.refusal.message}`)
  const got = shown(did.value)
  if (values.length > 0 && !Object.is(did.value, values[0]))
    return result(false, `expected success with ${shown(values[0])}, got ${got}`)
  return result(true, `expected no success with ${got}`)
}

function toFaultWith(
  outcome: DmaOutcome,
  fault: string,
  more: { readonly pasid?: number; readonly at?: bigint } = {},
): MatcherResult {
  if (!('fault' in outcome))
    return result(false, `expected fault ${fault}, but the request moved ${shown(outcome.text)}`)
  const of = `fault ${outcome.fault} of PASID ${outcome.pasid} at 0x${outcome.at.toString(16)}`
  const pass =
    outcome.fault === fault &&
    (!('pasid' in more) || more.pasid === outcome.pasid) &&
    (more.at === undefined || more.at === outcome.at)
  if (pass) return result(true, `expected no ${of}`)
  const wanted = Object.entries(more).map(([name, value]) => `, ${name} ${value}`)
  return result(false, `expected fault ${fault}${wanted.join('')}; got ${of}`)
}

function toHoldNothing(bench: Bench<IommuUnit>): MatcherResult {
  const leaks = bench.leaks()
  return leaks.length === 0
    ? result(true, 'expected the bench to hold something')
    : result(false, `expected the bench to hold nothing; it holds ${leaks.join(', ')}`)
}

/** For `expect.extend`. */
export const matchers = { toRefuse, toSucceed, toFaultWith, toHoldNothing } as const
