/**
 * A walk as lines a person can read: each entry with its address, raw value and flags, and what came of
 * it. Walks again, without setting flags, so that it tells what the tables say now.
 */
import { hex, highHalf, join } from '../base/addr.js'
import { addressOf, TableWalk } from './engine.js'
import type { PageTableFormat } from './format.js'
import {
  ACCESS_EXECUTE,
  ACCESS_FLAGS2,
  ACCESS_PROBE,
  ACCESS_READ,
  ACCESS_USER,
  ACCESS_WRITE,
  type EntrySource,
  FAILURE,
  type FailureCode,
  type FailureName,
  failureName,
  PERM_GLOBAL,
} from './walk.js'

// biome-ignore format: table
const MEANING: Record<FailureName, string> = {
  none:           'translated',
  notPresent:     'not present',
  reserved:       'a reserved bit is set',
  read:           'reads are not permitted',
  write:          'writes are not permitted',
  execute:        'execution is not permitted',
  user:           'not accessible to a user',
  smep:           'a supervisor may not execute a user page (SMEP)',
  smap:           'a supervisor may not access a user page (SMAP)',
  nonCanonical:   'the address is not canonical',
  addressSize:    'the address is too wide',
  unreadable:     'there is no memory at this address',
  accessFlag:     'the access flag is clear',
  flagUpdate:     'its flags cannot be written',
  interruptRange: 'the table lies in the interrupt address range',
}

/** The lines of a walk through one stage, from the input to the output or to where it stops. */
export function explainWalk(
  format: PageTableFormat,
  source: EntrySource,
  root: number,
  input: bigint,
  access: number = ACCESS_READ,
): string[] {
  const stage = new TableWalk(format, source)
  stage.setRoot(root)
  return new Explanation(source).walk(stage, input, access, '')
}

/** The lines of a nested walk; what the second stage does for a first-stage entry is indented under it. */
export function explainNestedWalk(
  first: PageTableFormat,
  second: PageTableFormat,
  source: EntrySource,
  firstRoot: number,
  secondRoot: number,
  input: bigint,
  access: number = ACCESS_READ,
): string[] {
  const inner = new TableWalk(second, source)
  const stage = new TableWalk(first, source, inner)
  inner.setRoot(secondRoot)
  stage.setRoot(firstRoot)
  const explanation = new Explanation(source)
  const lines = explanation.walk(stage, input, access, '')
  if (explanation.output === undefined) return lines
  const rest = access & (ACCESS_READ | ACCESS_WRITE | ACCESS_EXECUTE | ACCESS_FLAGS2)
  return [...lines, ...explanation.walk(inner, explanation.output, rest, '')]
}

class Explanation {
  /** Output of the last walk, when there is one. */
  output: bigint | undefined = undefined
  readonly #source: EntrySource

  constructor(source: EntrySource) {
    this.#source = source
  }

  walk(stage: TableWalk, input: bigint, access: number, indent: string): string[] {
    const { format } = stage.compiled
    const lines = [`${indent}${format.name}: ${hex(input)}, ${accessWords(access)}`]
    const hi = highHalf(input)
    const lo = Number(BigInt.asIntN(32, input))
    const failure = stage.translate(hi, lo, access | ACCESS_PROBE)
    const { depth, inner, innerFailed } = stage
    const why = innerFailed ? 'that entry is out of reach' : MEANING[failureName(failure)]
    const ends = failure === FAILURE.none ? granted(stage) : `stops: ${why}`
    this.output = failure === FAILURE.none ? BigInt(addressOf(stage.outHi, stage.outLo)) : undefined
    const { output } = this
    const trail = stage.trail.slice()
    for (let d = 0; d <= depth; d++) {
      const at = addressOf(trail[2 * d]!, trail[2 * d + 1]!)
      let physical: number | undefined = at
      let below: string[] = []
      if (inner !== undefined) {
        const read = ACCESS_READ | (access & ACCESS_FLAGS2)
        below = this.walk(inner, BigInt(at), read, `${indent}    `)
        physical = this.output === undefined ? undefined : Number(this.output)
      }
      const unread = d === depth && (innerFailed || unreached(failure))
      const text = unread || physical === undefined ? '' : this.#entry(stage, d, physical)
      lines.push(`${indent}  ${format.levels[d]!.name} at ${hex(at)}${text}`, ...below)
    }
    this.output = output
    return [...lines, `${indent}  ${ends}`]
  }

  #entry(stage: TableWalk, depth: number, at: number): string {
    const { format } = stage.compiled
    const into = { entryLo: 0, entryHi: 0 }
    this.#source.readEntry(at, into)
    const raw = BigInt.asUintN(64, join(into.entryHi, into.entryLo))
    const last = depth === format.levels.length - 1
    const mark = last ? undefined : format.block
    const leaf = mark === undefined || Number((raw >> BigInt(mark.bit)) & 1n) === mark.value
    const names = Object.entries(leaf ? format.bits.leaf : format.bits.table)
    const flags = names.filter(([, bit]) => (raw & bit) !== 0n).map(([name]) => ` ${name}`)
    return ` = ${hex(raw, 16)}${flags.join('')}`
  }
}

const unreached = (failure: FailureCode): boolean =>
  failure === FAILURE.unreadable || failure === FAILURE.interruptRange

function accessWords(access: number): string {
  const kinds = [
    (access & ACCESS_READ) !== 0 && 'read',
    (access & ACCESS_WRITE) !== 0 && 'write',
    (access & ACCESS_EXECUTE) !== 0 && 'execute',
  ]
  const user = (access & ACCESS_USER) !== 0 ? ' by a user' : ''
  return kinds.filter(Boolean).join(' and ') + user
}

function granted({ outHi, outLo, pageBits, rights }: TableWalk): string {
  const letters = [...'rwxrwx'].map((c, i) => ((rights & (1 << i)) !== 0 ? c : '-')).join('')
  const global = (rights & PERM_GLOBAL) !== 0 ? ', global' : ''
  const size =
    pageBits >= 30
      ? `${2 ** (pageBits - 30)} GiB`
      : pageBits >= 20
        ? `${2 ** (pageBits - 20)} MiB`
        : `${2 ** (pageBits - 10)} KiB`
  return `gives ${hex(addressOf(outHi, outLo))}: ${size}, supervisor ${letters.slice(0, 3)}, user ${letters.slice(3)}${global}`
}
