/**
 * A walk as data: every entry with its address, raw value and the bits that matter, and what came of it.
 * Walks again with the ordinary engine, without setting flags, so that it tells what the tables say now.
 * As lines of text: explain-walk.ts. Faults keep one (iommu/vtd/fault-trail.ts).
 */
import { highHalf, join } from '../base/addr.js'
import { addressOf, TableWalk } from './engine.js'
import { type LevelFormat, masksOf, type PageTableFormat } from './format.js'
import {
  ACCESS_FLAGS2,
  ACCESS_NXE,
  ACCESS_PROBE,
  ACCESS_READ,
  type EntrySource,
  FAILURE,
  type FailureCode,
  type FailureName,
  failureName,
} from './walk.js'

/** One entry of a walk. */
export interface WalkStep {
  /** The specification's name of the entry. */
  readonly name: string
  readonly level: number
  /** Its address in the space its stage's tables live in. */
  readonly at: number
  /** Its physical address; undefined when the second stage does not lead there. */
  readonly physical: number | undefined
  /** Its value; undefined when it could not be read. */
  readonly raw: bigint | undefined
  /** It maps a page, or would if it were present. */
  readonly leaf: boolean
  /** Names of the flags that are set. */
  readonly flags: readonly string[]
  /** Bits that are set and must be zero. */
  readonly reserved: bigint
  /** How the second stage translated its address. */
  readonly below?: StageWalk
}

/** A walk through one stage. */
export interface StageWalk {
  /** Name of the format. */
  readonly format: string
  readonly spec: string
  readonly stage: 1 | 2
  readonly root: number
  readonly input: bigint
  /** ACCESS_*. */
  readonly access: number
  readonly steps: readonly WalkStep[]
  readonly failure: FailureName
  /** The second stage of the last step failed, not this one. */
  readonly innerFailed: boolean
  /** With a failure of `none`. */
  readonly output: number | undefined
  readonly pageBits: number
  /** PERM_*. */
  readonly permissions: number
}

/** The walk through one stage; its entries are read from `source`. */
export function walkSteps(
  format: PageTableFormat,
  source: EntrySource,
  root: number,
  input: bigint,
  access: number,
): StageWalk {
  return describe(new TableWalk(format, source), source, root, input, access)
}

/** A nested walk: the first stage, each entry with its second stage, and then the second stage of its output. */
export function nestedWalkSteps(
  first: PageTableFormat,
  second: PageTableFormat,
  source: EntrySource,
  firstRoot: number,
  secondRoot: number,
  input: bigint,
  access: number,
): StageWalk[] {
  const inner = new TableWalk(second, source)
  inner.setRoot(secondRoot)
  const outer = describe(new TableWalk(first, source, inner), source, firstRoot, input, access)
  if (outer.output === undefined) return [outer]
  const rest = access & SECOND_STAGE
  return [outer, describe(inner, source, secondRoot, BigInt(outer.output), rest)]
}

/** What a second stage is asked for of a first stage's access: read, write, execute; and its flags. */
const SECOND_STAGE = 7 | ACCESS_FLAGS2

function describe(
  stage: TableWalk,
  source: EntrySource,
  root: number,
  input: bigint,
  access: number,
): StageWalk {
  const { format } = stage.compiled
  stage.setRoot(root)
  const lo = Number(BigInt.asIntN(32, input))
  const failure = stage.translate(highHalf(input), lo, access | ACCESS_PROBE)
  const { depth, inner, innerFailed, outHi, outLo, pageBits, rights } = stage
  const trail = stage.trail.slice()
  const steps: WalkStep[] = []
  for (let d = 0; d <= depth; d++) {
    const at = addressOf(trail[2 * d]!, trail[2 * d + 1]!)
    const read = ACCESS_READ | (access & ACCESS_FLAGS2)
    const below = inner && describe(inner, source, innerRoot(inner), BigInt(at), read)
    const physical = below ? below.output : at
    const out = d === depth && (innerFailed || unreached(failure))
    steps.push({
      ...entryStep(format, source, d, at, out ? undefined : physical, access),
      physical,
      ...(below && { below }),
    })
  }
  const done = failure === FAILURE.none
  return {
    format: format.name,
    spec: format.spec,
    stage: format.stage,
    root,
    input,
    access,
    steps,
    failure: failureName(failure),
    innerFailed,
    output: done ? addressOf(outHi, outLo) : undefined,
    pageBits: done ? pageBits : 0,
    permissions: done ? rights : 0,
  }
}

const innerRoot = (inner: TableWalk): number => addressOf(inner.rootHi, inner.rootLo)

function entryStep(
  format: PageTableFormat,
  source: EntrySource,
  depth: number,
  at: number,
  physical: number | undefined,
  access: number,
): WalkStep {
  const level = format.levels[depth]!
  const step = { name: level.name, level: level.level, at, physical }
  const into = { entryLo: 0, entryHi: 0 }
  if (physical === undefined || !source.readEntry(physical, into))
    return { ...step, raw: undefined, leaf: false, flags: [], reserved: 0n }
  const raw = BigInt.asUintN(64, join(into.entryHi, into.entryLo))
  const last = depth === format.levels.length - 1
  const { bit, value } = format.block
  const leaf = last || ((into.entryLo >>> bit) & 1) === value
  const names = Object.entries(leaf ? format.bits.leaf : format.bits.table)
  const flags = names.filter(([, mask]) => (raw & mask) !== 0n).map(([name]) => name)
  return { ...step, raw, leaf, flags, reserved: raw & mustBeZero(format, level, leaf, access) }
}

/** Bits that must be zero in an entry; of a page or table where the level knows none, what makes it one. */
function mustBeZero(
  format: PageTableFormat,
  level: LevelFormat,
  leaf: boolean,
  access: number,
): bigint {
  const ranges = leaf ? level.leaf : level.table
  const misplaced = format.misplaced === 'reserved' ? 1n << BigInt(format.block.bit) : 0n
  const xd = format.executeDisable === true && (access & ACCESS_NXE) === 0 ? 1n << 63n : 0n
  return (ranges === undefined ? misplaced : masksOf(ranges)) | xd
}

const unreached = (failure: FailureCode): boolean =>
  failure === FAILURE.unreadable || failure === FAILURE.interruptRange
