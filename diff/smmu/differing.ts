// Deviations of QEMU's smmuv3 by their form: what it records, checks and walks otherwise.
import type { Form } from '../deviation.js'
import { wordsBefore } from '../rewrite.js'
import {
  cdOf,
  concatenation,
  dmaOf,
  stage2Reads,
  startBits,
  steWords,
  tableWords,
  wordOf,
} from './look.js'
import {
  C_BAD_STE,
  C_BAD_STREAMID,
  entryOf,
  F_ACCESS,
  F_CD_FETCH,
  F_PERMISSION,
  F_WALK_EABT,
  fetchOfStage2,
  field,
  fields,
  nameOf,
  pairs,
  refused,
  samePage,
  sameTable,
  silent,
  typeOf,
} from './records.js'

/** Widths of S2PS. */
const SIZES = [32, 36, 40, 42, 44, 44] as const

export const FORMS: readonly Form[] = [
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
      return pairs(d, (mine, theirs) => fetchOfStage2(mine) && samePage(mine, theirs))
    },
  },
  {
    name: 'IPA of a descriptor fetch',
    reason:
      'SMMUv3 7.3.13: IPA is the address that stage 2 was given, that of the descriptor; QEMU asks stage 2 for the table and reports its address',
    explains: d => {
      const names = fields(d)
      if (!names?.has('ipa') || ![...names].every(n => ['ipa', 's2', 'rnw'].includes(n)))
        return false
      return pairs(
        d,
        (mine, theirs) =>
          fetchOfStage2(mine) && (samePage(mine, theirs) || sameTable(mine, theirs)),
      )
    },
  },
  {
    name: 'who records a stage 2 fault of a fetch',
    reason:
      'SMMUv3 5.2: S2R decides for all stage 2 faults; QEMU goes by CD.R when stage 2 refuses a descriptor fetch',
    explains: d => {
      // The CD that is in memory, or the one that may be cached.
      const cds = [0, d.index].map(n => wordsBefore(d.case, n).get(cdOf(d.case)) ?? 0n)
      const s2r = (steWords(d.case, d.index)[2]! >> 58n) & 1n
      return (
        d.case.unit === 'nested' &&
        d.fault?.stage === 2 &&
        d.fault.class === 1 &&
        cds.some(cd => s2r !== ((cd >> 45n) & 1n)) &&
        refused(d.qemu) &&
        silent(d.ours) !== silent(d.qemu)
      )
    },
  },
  {
    name: 'start level above the input size',
    reason:
      'SMMUv3 5.2: an S2SL0 that does not fit S2T0SZ makes the STE bad; QEMU refuses start levels that are too low, not those that are too high',
    explains: d => {
      const bits = startBits(d.case, d.index)
      return (
        nameOf(d) === 'C_BAD_STE' && bits !== undefined && bits < 1 && typeOf(d.qemu) !== C_BAD_STE
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
    explains: d => steWords(d.case, d.index)[0]! >> 59n !== 0n && typeOf(d.qemu) === C_BAD_STE,
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
      const [, , lo = 0n] = steWords(d.case, d.index)
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
      ((steWords(d.case, d.index)[0]! >> 1n) & 1n) === 0n &&
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
      (nameOf(d) !== 'F_PERMISSION' || d.ours.faults.length > 1 || d.fault?.stage === 2) &&
      dmaOf(d)?.write === true &&
      [undefined, F_PERMISSION].includes(typeOf(d.qemu)) &&
      refused(d.qemu) &&
      tableWords(d.case).some(e => (e & (1n << 62n)) !== 0n && (e & 3n) === 3n),
  },
  {
    name: 'no memory there',
    reason:
      'SMMUv3 has nothing to do with it: where nothing decodes an address, parts of QEMU’s machine take writes as done',
    explains: d =>
      d.index >= 0 &&
      d.fault === undefined &&
      silent(d.qemu) &&
      d.ours.landed.every(
        (at, i) => at === d.qemu.landed[i] || (at === null && d.qemu.landed[i] === -1),
      ),
  },
  {
    name: 'access flag and permissions before address size',
    reason:
      'SMMUv3 3.4 leaves the order of faults to VMSA: an output address that is too wide comes before the access flag and permissions; QEMU looks at those first',
    explains: d => {
      const names = fields(d)
      return (
        nameOf(d) === 'F_ADDR_SIZE' &&
        [F_ACCESS, F_PERMISSION].includes(typeOf(d.qemu) ?? 0) &&
        names !== undefined &&
        [...names].every(n => n === 'type' || n === 'ipa') &&
        pairs(d, samePage)
      )
    },
  },
  {
    name: 'FetchAddr in concatenated tables',
    reason:
      'SMMUv3 5.2 leaves the start level to VMSA, where up to 16 tables lie side by side there; QEMU uses the first for all, and names it in F_WALK_EABT',
    explains: d => {
      const names = fields(d)
      return (
        nameOf(d) === 'F_WALK_EABT' &&
        names?.size === 1 &&
        names.has('ipa') &&
        concatenation(d.case) !== undefined
      )
    },
  },
  {
    name: 'tables of both ranges',
    reason:
      'SMMUv3 7.3.13: stage 2 is asked for what a walk needs; QEMU asks it for the tables of both ranges when it reads a CD, and a refusal of one ends requests to the other',
    explains: d => {
      const cd = cdOf(d.case)
      const [event] = d.qemu.faults
      const tables = [8, 16].map(at => wordOf(d.case, cd + at) & 0xf_ffff_ffff_f000n)
      if (d.case.unit !== 'nested') return false
      // Without a record: CD.R is clear, and stage 2 does not let a table be read.
      if (event === undefined)
        return (
          d.fault?.stage !== 2 &&
          refused(d.qemu) &&
          tables.some(at => !stage2Reads(d.case, at, d.index))
        )
      return field(event, 'class') === 1n && tables.includes(field(event, 'ipa') & ~0xfffn)
    },
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
        ((entry.value & 3n) === 1n || (wordOf(d.case, entry.at) & 3n) === 1n)
      )
    },
  },
]
