// Where QEMU's smmuv3 parts from IHI 0070 (G.b), or chose otherwise than we where the specification leaves a
// choice. Each is as narrow as its predicate can be; what is not here is a bug.
import type { Case, DmaOutcome, FaultRecord } from '../case.js'
import type { Deviation, Difference, Form, Likeness } from '../deviation.js'
import { mapWords } from '../rewrite.js'
import { cdOf, concatenation, dmaOf, spanAt, steWords, tableWords } from './look.js'

const C_BAD_STREAMID = 0x02
const C_BAD_STE = 0x04
const F_CD_FETCH = 0x09
const F_WALK_EABT = 0x0b
const F_PERMISSION = 0x13

const field = (f: FaultRecord, name: string): bigint => BigInt(f[name] ?? 0)
const typeOf = (o: DmaOutcome): number | undefined =>
  o.faults[0] === undefined ? undefined : Number(field(o.faults[0], 'type'))
const nameOf = (d: Difference): string => d.fault?.name ?? ''
const refused = (o: DmaOutcome): boolean => o.landed.includes(null)
const silent = (o: DmaOutcome): boolean => o.faults.length === 0
/** The descriptor our walk stopped at. */
const entryOf = (d: Difference) => d.fault?.entries.at(-1)

/** The fields in which the events of a DMA differ; undefined when there is more to it. */
function fields(d: Difference): Set<string> | undefined {
  const { ours, qemu } = d
  if (d.index < 0 || ours.faults.length !== qemu.faults.length) return undefined
  if (ours.landed.some((at, i) => at !== qemu.landed[i])) return undefined
  const names = new Set<string>()
  ours.faults.forEach((mine, i) => {
    const theirs = qemu.faults[i]!
    for (const name of Object.keys({ ...mine, ...theirs }))
      if (field(mine, name) !== field(theirs, name)) names.add(name)
  })
  return names
}

/** Every pair of events fulfils this. */
const pairs = (d: Difference, test: (mine: FaultRecord, theirs: FaultRecord) => boolean): boolean =>
  d.ours.faults.every((f, i) => test(f, d.qemu.faults[i]!))

const samePage = (mine: FaultRecord, theirs: FaultRecord): boolean =>
  field(mine, 'ipa') === (field(theirs, 'ipa') & ~0xfffn)

/** Widths of S2PS. */
const SIZES = [32, 36, 40, 42, 44, 44] as const

const forms: readonly Form[] = [
  {
    name: 'page offset in IPA',
    reason: 'SMMUv3 7.3.13: an event holds IPA bits 55:12; QEMU stores the bits below too',
    explains: d => {
      const names = fields(d)
      return names?.size === 1 && names.has('ipa') && pairs(d, samePage)
    },
  },
  {
    name: 'transaction of a stage 2 fault of a fetch',
    reason:
      'SMMUv3 7.3.13: S2 is 1 in every stage 2 fault, and RnW is the transaction; QEMU clears S2 when stage 2 refuses a descriptor fetch, and its RnW is not the transaction’s for fetches of CDs and descriptors',
    explains: d => {
      const names = fields(d)
      if (!names?.size || ![...names].every(n => ['ipa', 's2', 'rnw'].includes(n))) return false
      return pairs(
        d,
        (mine, theirs) =>
          field(mine, 's2') === 1n && field(mine, 'class') < 2n && samePage(mine, theirs),
      )
    },
  },
  {
    name: 'place of FetchAddr',
    reason:
      'SMMUv3 7.3.10: FetchAddr of F_CD_FETCH is in bits 247:195 of the record; QEMU stores it where InputAddr is',
    explains: d =>
      nameOf(d) === 'F_CD_FETCH' &&
      typeOf(d.qemu) === F_CD_FETCH &&
      pairs(d, (mine, theirs) => field(mine, 'ipa') === field(theirs, 'address')),
  },
  {
    name: 'invalid StreamIDs are recorded',
    reason: 'SMMUv3 6.3.12: without CR2.RECINVSID C_BAD_STREAMID is not recorded; QEMU records it',
    explains: d =>
      nameOf(d) === 'C_BAD_STREAMID' &&
      ((d.case.setup['CR2'] ?? 0n) & 2n) === 0n &&
      silent(d.ours) &&
      refused(d.qemu) &&
      [C_BAD_STREAMID, C_BAD_STE].includes(typeOf(d.qemu) ?? 0),
  },
  {
    name: 'StreamIDs beyond Span as C_BAD_STE',
    reason:
      'SMMUv3 7.3.3: a StreamID that its level 1 descriptor does not cover is C_BAD_STREAMID; QEMU reports C_BAD_STE',
    explains: d =>
      nameOf(d) === 'C_BAD_STREAMID' &&
      entryOf(d)?.kind === 'l1std' &&
      typeOf(d.qemu) === C_BAD_STE,
  },
  {
    name: 'S1CDMax without substreams',
    reason:
      'SMMUv3 5.2: S1CDMax is ignored where IDR1.SSIDSIZE is 0 and where stage 1 is bypassed; QEMU takes the STE to be bad',
    explains: d => steWords(d.case)[0]! >> 59n !== 0n && typeOf(d.qemu) === C_BAD_STE,
  },
  {
    name: 'S1STALLD without stage 1',
    reason:
      'SMMUv3 5.2: S1STALLD is ignored where stage 1 is bypassed; QEMU takes the STE to be bad',
    explains: d =>
      d.case.unit === 'stage-2' &&
      ((steWords(d.case)[1]! >> 27n) & 1n) === 1n &&
      typeOf(d.qemu) === C_BAD_STE,
  },
  {
    name: 'S1ContextPtr beyond the output size',
    reason:
      'SMMUv3 5.2.2: an S1ContextPtr outside the output (or intermediate) address size makes the STE bad; QEMU fetches the CD from there',
    explains: d =>
      nameOf(d) === 'C_BAD_STE' &&
      ((entryOf(d)?.value ?? 0n) & 0xf_ffff_ffff_ffc0n) >> 44n !== 0n &&
      refused(d.qemu) &&
      typeOf(d.qemu) !== C_BAD_STE,
  },
  {
    name: 'stage 2 input wider than S2PS',
    reason:
      'SMMUv3 5.2: S2T0SZ is bounded by the sizes that the unit has; QEMU also takes an STE to be bad whose input is wider than its S2PS',
    explains: d => {
      const [, , lo = 0n] = steWords(d.case)
      const input = 64 - Number((lo >> 32n) & 63n)
      return typeOf(d.qemu) === C_BAD_STE && input > SIZES[Number((lo >> 48n) & 7n)]!
    },
  },
  {
    name: 'address size of a bypassed stage 1',
    reason:
      'SMMUv3 3.4: where stage 1 is bypassed an address beyond the output size is a stage 1 address size fault, and recorded; QEMU does not record it',
    explains: d =>
      nameOf(d) === 'F_ADDR_SIZE' &&
      (dmaOf(d)?.iova ?? 0n) >> 44n !== 0n &&
      d.case.unit !== 'stage-1' &&
      refused(d.qemu) &&
      silent(d.qemu),
  },
  {
    name: 'address size of table descriptors',
    reason:
      'SMMUv3 7.3.14: a table address beyond the output size is F_ADDR_SIZE; QEMU fetches from there, and has a translation fault of stage 2 or F_WALK_EABT',
    explains: d => {
      const entry = entryOf(d)
      return (
        nameOf(d) === 'F_ADDR_SIZE' &&
        entry !== undefined &&
        entry.level < 3 &&
        (entry.value & 3n) === 3n &&
        refused(d.qemu) &&
        (typeOf(d.qemu) === F_WALK_EABT || d.case.unit === 'nested' || silent(d.qemu))
      )
    },
  },
  {
    name: 'permission before what lies below',
    reason:
      'SMMUv3 3.4 leaves walks to VMSA, where permissions count once the translation is known; QEMU judges APTable on the way down',
    explains: d =>
      nameOf(d) !== 'F_PERMISSION' &&
      dmaOf(d)?.write === true &&
      [undefined, F_PERMISSION].includes(typeOf(d.qemu)) &&
      refused(d.qemu) &&
      tableWords(d.case).some(e => (e & (1n << 62n)) !== 0n && (e & 3n) === 3n),
  },
  {
    name: 'blocks where there are none',
    reason:
      'SMMUv3 3.4 leaves walks to VMSA, where level 0 (and level 1 of 16 and 64 KB granules) has no blocks: such a descriptor is a translation fault; QEMU takes it for a block',
    explains: d => {
      const entry = entryOf(d)
      return (
        nameOf(d) === 'F_TRANSLATION' &&
        entry !== undefined &&
        entry.level < 2 &&
        (entry.value & 3n) === 1n
      )
    },
  },
]

const likenesses: readonly Likeness[] = [
  {
    name: 'TBI0 for both ranges',
    reason: 'SMMUv3 5.4: TBI1 is for the upper range; QEMU goes by TBI0 there',
    like: c =>
      mapWords(c, (at, value) =>
        at === cdOf(c) ? (value & ~(1n << 39n)) | (((value >> 38n) & 1n) << 39n) : value,
      ),
  },
  {
    name: 'Span counts twice as many',
    reason: 'SMMUv3 5.1: Span is 1 for one STE, 2 for two; QEMU takes 2^Span STEs to be there',
    like: (c, d) => {
      const at = spanAt(c)
      if (at < 0 || nameOf(d) !== 'C_BAD_STREAMID') return undefined
      return mapWords(c, (a, value) => (a === at && (value & 31n) < 11n ? value + 1n : value))
    },
  },
  {
    name: 'privileged transactions',
    reason:
      'SMMUv3 3.3.4: transactions of these devices are unprivileged, so AP[1] and APTable[0] count; QEMU looks at write permission alone',
    like: (c, d) => {
      if (c.setup['PRIV'] || nameOf(d) !== 'F_PERMISSION') return undefined
      const at = cdOf(c)
      const other = mapWords(c, (a, value) => (a === at ? value & ~(1n << 40n) : value)) ?? c
      return { ...other, setup: { ...c.setup, PRIV: 1n } }
    },
  },
  {
    name: 'concatenated stage 2 tables',
    reason:
      'SMMUv3 5.2 leaves the start level to VMSA, where up to 16 tables lie side by side there; QEMU uses the first for all',
    like: (c: Case) => {
      const tables = concatenation(c)
      if (!tables) return undefined
      const { root, bytes, count } = tables
      const within = (at: number) => at >= root && at < root + bytes * count
      const first = c.words.filter(([at]) => at >= root && at < root + bytes)
      const copies = Array.from({ length: count }, (_, i) =>
        first.map(([at, value]) => [at + i * bytes, value] as const),
      )
      return { ...c, words: [...c.words.filter(([at]) => !within(at)), ...copies.flat()] }
    },
  },
]

export const DEVIATIONS: readonly Deviation[] = [...forms, ...likenesses]
