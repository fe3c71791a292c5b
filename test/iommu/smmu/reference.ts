// A second reading of IHI 0070 and Arm ARM D8, deliberately plain: bigint, one step after another, without a line
// of src. It knows a stream's substreams (3.4, 5.2), both stages in all granules, 52-bit addresses, tagged
// addresses, flags in tables (3.13) and the records of faults (7.3). Nothing is cached.

export interface Stage {
  /** log2 of the granule. */
  granule: number
  inputBits: number
  startLevel: number
  root: bigint
  outputBits: number
  /** Bits 15:12 of a descriptor are address bits 51:48 (64 KB granule). */
  wide: boolean
  upper: boolean
  /** The top byte of an address is a tag. */
  tagged: boolean
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

type FaultName = 'F_TRANSLATION' | 'F_ADDR_SIZE' | 'F_ACCESS' | 'F_PERMISSION' | 'F_WALK_EABT'

export type Outcome =
  | { output: bigint }
  | { event: FaultName; stage: 1 | 2; class: number; ipa: bigint }
  /** Configuration errors. */
  | { event: 'C_BAD_SUBSTREAMID' | 'C_BAD_CD' | 'F_STREAM_DISABLED' }

/** A stream, as its STE and CD table describe it. */
export interface Stream {
  readonly stage1: boolean
  readonly second: Stage | undefined
  /** Output bits of the unit. */
  readonly oas: number
  readonly s1CdMax: number
  readonly s1Dss: number
  /** 0: linear; 1: 64 CDs in a table of the second level. */
  readonly s1Fmt: number
  readonly contextPtr: bigint
  /** The valid CDs, by substream. */
  readonly contexts: ReadonlyMap<number, Stage>
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

const hasBlocks = (s: Stage, level: number): boolean =>
  level === 2 || (level === 1 && (s.granule === 12 || s.wide))

interface Leaf {
  output: bigint
  descriptor: bigint
  /** Where the descriptor is: physical, and as the stage sees it. */
  at: bigint
  seenAt: bigint
  apTable: { noUser: boolean; noWrite: boolean; uxn: boolean; pxn: boolean }
}

type Fail = (event: FaultName) => never

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
    const pointer =
      (bits(d, 47, s.granule) << BigInt(s.granule)) | (s.wide ? bits(d, 15, 12) << 48n : 0n)
    const isTable = level < 3 && bit(d, 1)
    if (!isTable) {
      if (level === 3 ? !bit(d, 1) : !hasBlocks(s, level)) fail('F_TRANSLATION')
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

/** What becomes of a request of a stream, and what flags are to be set. `substream`: -1 for none. */
export function reference(
  stream: Stream,
  substream: number,
  address: bigint,
  access: Access,
  memory: Words,
): Outcome {
  const { s1CdMax, s1Dss, stage1 } = stream
  let first = stage1
  let index = 0
  if (substream >= 0) {
    if (!stage1 || s1CdMax === 0 || substream >> s1CdMax !== 0)
      return { event: 'C_BAD_SUBSTREAMID' }
    if (substream === 0 && s1Dss === 2) return { event: 'F_STREAM_DISABLED' }
    index = substream
  } else if (stage1 && s1CdMax > 0) {
    if (s1Dss === 0) return { event: 'F_STREAM_DISABLED' }
    if (s1Dss === 1) first = false
  }
  try {
    if (!first && address >> BigInt(stream.oas) !== 0n)
      return { event: 'F_ADDR_SIZE', stage: 1, class: 2, ipa: 0n }
    if (!first) return { output: through(undefined, stream.second, address, access, memory) }
    const context = contextOf(stream, index, memory)
    if (typeof context === 'string') return { event: context }
    return { output: through(context, stream.second, address, access, memory) }
  } catch (e) {
    if (e instanceof Refused) return e.outcome
    throw e
  }
}

/** Reads the CD of a substream, through stage 2 where there is one. */
function contextOf(
  stream: Stream,
  index: number,
  memory: Words,
): Stage | 'C_BAD_SUBSTREAMID' | 'C_BAD_CD' {
  const { second, s1Fmt, s1CdMax, contextPtr } = stream
  const read = { write: false, execute: false, privileged: false }
  const fetch = (at: bigint): bigint =>
    memory.read(second ? stage2(second, at, read, memory, 0) : at)!
  let at = contextPtr + BigInt(index) * 64n
  if (s1CdMax > 0 && s1Fmt === 1) {
    const l1 = fetch(contextPtr + BigInt(index >> 6) * 8n)
    if (!bit(l1, 0)) return 'C_BAD_SUBSTREAMID'
    at = (bits(l1, 51, 12) << 12n) + BigInt(index & 63) * 64n
  }
  return bit(fetch(at), 31) ? stream.contexts.get(index)! : 'C_BAD_CD'
}

/** Translates by one stage or two, and sets what flags are to be set. */
function through(
  first: Stage | undefined,
  second: Stage | undefined,
  input: bigint,
  access: Access,
  memory: Words,
): bigint {
  if (!first) return second ? stage2(second, input, access, memory, 2) : input
  const address = first.tagged ? untag(first, input) : input
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
  return output
}

/** An address without its tag: bit 55 decides what stands in the top byte; in EL2 contexts zeros do. */
const untag = (s: Stage, address: bigint): bigint =>
  s.el2 ? BigInt.asUintN(56, address) : BigInt.asUintN(64, BigInt.asIntN(56, address))
