// A second translation table walker, deliberately plain: bigint, one step after another, written from Arm ARM
// D8 and IHI 0070 3.13, 7.3 without a line of src. Slow, and easy to check against the text.

export interface Stage {
  /** log2 of the granule. */
  granule: number
  inputBits: number
  startLevel: number
  root: bigint
  outputBits: number
  upper: boolean
  affd: boolean
  ha: boolean
  hd: boolean
  /** Stage 1 only. */
  el2: boolean
  hierarchical: boolean
  wxn: boolean
  pan: boolean
}

export interface Access {
  write: boolean
  execute: boolean
  privileged: boolean
}

/** Memory as 64-bit words; undefined where there is none. */
export interface Words {
  read(at: bigint): bigint | undefined
  write(at: bigint, value: bigint): boolean
}

export type Outcome =
  | { output: bigint }
  | {
      event: 'F_TRANSLATION' | 'F_ADDR_SIZE' | 'F_ACCESS' | 'F_PERMISSION' | 'F_WALK_EABT'
      stage: 1 | 2
      class: number
      ipa: bigint
    }

class Refused extends Error {
  readonly outcome: Outcome
  constructor(outcome: Outcome) {
    super()
    this.outcome = outcome
  }
}

const bit = (v: bigint, n: number): boolean => ((v >> BigInt(n)) & 1n) === 1n
const bits = (v: bigint, hi: number, lo: number): bigint =>
  (v >> BigInt(lo)) & ((1n << BigInt(hi - lo + 1)) - 1n)

const BLOCKS: Record<number, readonly number[]> = { 12: [1, 2], 14: [2], 16: [2] }

interface Leaf {
  output: bigint
  descriptor: bigint
  /** Where the descriptor is: physical, and as the stage sees it. */
  at: bigint
  seenAt: bigint
  apTable: { noUser: boolean; noWrite: boolean; uxn: boolean; pxn: boolean }
}

type Fail = (
  event: 'F_TRANSLATION' | 'F_ADDR_SIZE' | 'F_ACCESS' | 'F_PERMISSION' | 'F_WALK_EABT',
) => never

/** The descriptors of one stage, from the root to a page or block. */
function descend(
  s: Stage,
  address: bigint,
  place: (at: bigint) => bigint,
  memory: Words,
  fail: Fail,
): Leaf {
  const above = address >> BigInt(s.inputBits)
  const expected = s.upper ? (1n << BigInt(64 - s.inputBits)) - 1n : 0n
  if (above !== expected) fail('F_TRANSLATION')
  const stride = s.granule - 3
  let table = s.root
  const apTable = { noUser: false, noWrite: false, uxn: false, pxn: false }
  for (let level = s.startLevel; ; level++) {
    const low = s.granule + (3 - level) * stride
    const high = level === s.startLevel ? s.inputBits - 1 : low + stride - 1
    const seenAt = table + bits(address, high, low) * 8n
    const at = place(seenAt)
    const d = memory.read(at)
    if (d === undefined) return fail('F_WALK_EABT')
    if (!bit(d, 0)) fail('F_TRANSLATION')
    const pointer = bits(d, 47, s.granule) << BigInt(s.granule)
    const isTable = level < 3 && bit(d, 1)
    if (!isTable) {
      if (level === 3 ? !bit(d, 1) : !BLOCKS[s.granule]!.includes(level)) fail('F_TRANSLATION')
      if (pointer >> BigInt(s.outputBits) !== 0n) fail('F_ADDR_SIZE')
      const offset = (1n << BigInt(low)) - 1n
      return {
        output: (pointer & ~offset) | (address & offset),
        descriptor: d,
        at,
        seenAt,
        apTable,
      }
    }
    if (pointer >> BigInt(s.outputBits) !== 0n) fail('F_ADDR_SIZE')
    if (s.hierarchical) {
      apTable.pxn ||= bit(d, 59)
      apTable.uxn ||= bit(d, 60)
      apTable.noUser ||= bit(d, 61)
      apTable.noWrite ||= bit(d, 62)
    }
    table = pointer
  }
}

/** Stage 2 of an IPA; `forWhat` is the CLASS of the record. */
function stage2(s: Stage, ipa: bigint, access: Access, memory: Words, forWhat: number): bigint {
  const fail: Fail = event => {
    throw new Refused({ event, stage: 2, class: forWhat, ipa: (ipa >> 12n) << 12n })
  }
  const leaf = descend(s, ipa, at => at, memory, fail)
  let d = leaf.descriptor
  if (!bit(d, 10) && !s.ha && !s.affd) fail('F_ACCESS')
  const dirtiable = s.ha && s.hd && bit(d, 51)
  const permitted = access.write ? bit(d, 7) || dirtiable : access.execute ? !bit(d, 54) : bit(d, 6)
  if (!permitted) fail('F_PERMISSION')
  if (s.ha) d |= 1n << 10n
  if (access.write && dirtiable) d |= 1n << 7n
  if (d !== leaf.descriptor) memory.write(leaf.at, d)
  return leaf.output
}

/** Whether stage 1 permits an access. */
function stage1Permits(s: Stage, leaf: Leaf, access: Access): boolean {
  const { descriptor: d, apTable } = leaf
  const clean = bit(d, 7)
  const dirtiable = s.ha && s.hd && bit(d, 51)
  const readOnly = (access.write ? clean && !dirtiable : clean) || apTable.noWrite
  if (s.el2) {
    if (access.write) return !readOnly
    return access.execute ? !(bit(d, 54) || apTable.uxn || (s.wxn && !readOnly)) : true
  }
  const user = bit(d, 6) && !apTable.noUser
  if (access.privileged) {
    if (access.execute) {
      const pxn = bit(d, 53) || apTable.pxn || (user && !readOnly) || (s.wxn && !readOnly)
      return !pxn
    }
    if (s.pan && user) return false
    return !access.write || !readOnly
  }
  if (access.execute) return !(bit(d, 54) || apTable.uxn || (s.wxn && user && !readOnly))
  return user && (!access.write || !readOnly)
}

/** Translates by one stage or two, and sets what flags are to be set. */
export function reference(
  first: Stage | undefined,
  second: Stage | undefined,
  address: bigint,
  access: Access,
  memory: Words,
): Outcome {
  try {
    if (!first) return { output: stage2(second!, address, access, memory, 2) }
    const read = { write: false, execute: false, privileged: false }
    const fail: Fail = event => {
      throw new Refused({ event, stage: 1, class: event === 'F_WALK_EABT' ? 1 : 2, ipa: 0n })
    }
    const place = (at: bigint): bigint => (second ? stage2(second, at, read, memory, 1) : at)
    const leaf = descend(first, address, place, memory, fail)
    if (!bit(leaf.descriptor, 10) && !first.ha && !first.affd) fail('F_ACCESS')
    if (!stage1Permits(first, leaf, access)) fail('F_PERMISSION')
    const output = second ? stage2(second, leaf.output, access, memory, 2) : leaf.output
    let d = leaf.descriptor
    if (first.ha) d |= 1n << 10n
    if (access.write && first.ha && first.hd && bit(d, 51)) d &= ~(1n << 7n)
    if (d !== leaf.descriptor) {
      if (second) stage2(second, leaf.seenAt, { ...read, write: true }, memory, 1)
      memory.write(leaf.at, d)
    }
    return { output }
  } catch (e) {
    if (e instanceof Refused) return e.outcome
    throw e
  }
}
