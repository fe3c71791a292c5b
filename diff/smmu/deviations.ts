// Where QEMU's smmuv3 parts from IHI 0070 (G.b), or chose otherwise than we where the specification leaves a
// choice. Each is as narrow as its predicate can be; what is not here is a bug.
import type { Case, DmaOutcome, FaultRecord, Step } from '../case.js'
import { sameRecord } from '../compare.js'
import type { Deviation, Difference, Form, Likeness } from '../deviation.js'
import { beforeEveryDma, mapQueued, mapWords, wordsBefore } from '../rewrite.js'
import {
  cachedEarlier,
  cdOf,
  changesConfiguration,
  concatenation,
  dmaOf,
  earlierPage,
  repeats,
  STAGE_2_COMMANDS,
  spanAt,
  stage2Reads,
  startBits,
  steOf,
  steWords,
  tableWords,
  tlbInvalidated,
  wordOf,
} from './look.js'

const C_BAD_STREAMID = 0x02
const C_BAD_STE = 0x04
const F_CD_FETCH = 0x09
const F_WALK_EABT = 0x0b
const F_ACCESS = 0x12
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
  field(mine, 'ipa') >> 12n === field(theirs, 'ipa') >> 12n
/** A descriptor and the table it is in. */
const sameTable = (mine: FaultRecord, theirs: FaultRecord): boolean => {
  const distance = field(mine, 'ipa') - (field(theirs, 'ipa') & ~0xfffn)
  return field(mine, 'class') === 1n && distance >= 0n && distance < 0x1_0000n
}
const fetchOfStage2 = (f: FaultRecord): boolean => field(f, 's2') === 1n && field(f, 'class') < 2n

/** An earlier DMA to the same page was let pass by both, and ended where there is no memory. */
function leadsNowhere(d: Difference): boolean {
  const dmas = d.case.steps.filter(s => s.op === 'dma')
  return d.all.qemu.dma.slice(0, d.index).some((o, i) => {
    const passed = silent(o) && silent(d.all.ours.dma[i]!) && refused(o)
    return passed && dmas[i]!.iova >> 12n === dmas[d.index]!.iova >> 12n
  })
}

const SYNC = [0x46n, 0n] as const

const forbidden = (f: FaultRecord): boolean => field(f, 'type') === BigInt(F_PERMISSION)

const PRIVCFG_SET = 3n << 48n
const CD_PAN = 1n << 40n

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
    name: 'APTable of a cached translation',
    reason:
      'SMMUv3 3.4 leaves permissions to VMSA, where those of tables count; QEMU caches a page with the permissions of its leaf alone',
    explains: d =>
      refused(d.ours) &&
      cachedEarlier(d) &&
      dmaOf(d)?.write === true &&
      silent(d.qemu) &&
      (!refused(d.qemu) || leadsNowhere(d)) &&
      tableWords(d.case).some(e => (e & (1n << 62n)) !== 0n && (e & 3n) === 3n),
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
    name: 'pages of 16 and 64 KB are cached whole',
    reason:
      'SMMUv3 3.21.3: what changes in tables is seen after an invalidation at the latest; QEMU caches a page as one entry, we keep 4 KB pieces of it and see the change in the others',
    explains: d => earlierPage(d) && !tlbInvalidated(d.case, d.index),
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
    name: 'violation of a cached translation',
    reason:
      'SMMUv3 7.3.16: a stage 2 permission fault is recorded with its IPA; QEMU leaves the IPA out, or does not record it, when it finds the translation in its TLB, and takes what tables of stage 1 forbid (APTable) for stage 2’s',
    explains: d => {
      if (!cachedEarlier(d) || !refused(d.qemu)) return false
      const names = fields(d)
      const only = (name: string) => names?.size === 1 && names.has(name)
      if (d.fault?.stage !== 2)
        return d.case.unit === 'nested' && nameOf(d) === 'F_PERMISSION' && only('s2')
      return silent(d.qemu) || (only('ipa') && pairs(d, (_, theirs) => field(theirs, 'ipa') === 0n))
    },
  },
  {
    name: 'stage 2 of fetches is cached',
    reason:
      'SMMUv3 3.21.3: what changes in an STE’s stage 2 needs its TLB entries invalidated; QEMU finds where CDs and tables are in its TLB, we walk for them',
    explains: d => {
      const dmas = d.case.steps.filter(s => s.op === 'dma')
      const again = d.all.qemu.dma.slice(0, Math.max(d.index, 0)).some((o, i) => {
        const same =
          o.faults.length === d.qemu.faults.length && dmas[i]!.iova === dmas[d.index]!.iova
        return same && o.faults.every((f, k) => sameRecord(f, d.qemu.faults[k]!))
      })
      const [mine, theirs] = [d.fault?.class ?? 2, d.qemu.faults[0]]
      // QEMU comes to what it came to before, or at least further than we do.
      const further = theirs !== undefined && field(theirs, 'class') > BigInt(mine)
      return (
        (again || further) &&
        d.fault?.stage === 2 &&
        mine !== 2 &&
        changesConfiguration(d.case) &&
        !tlbInvalidated(d.case, d.index, STAGE_2_COMMANDS)
      )
    },
  },
  {
    name: 'violation of what tables no longer say',
    reason:
      'SMMUv3 3.21.3: what changes in tables is seen after an invalidation at the latest; QEMU refuses (and does not always record) what a cached translation forbids, we look at the tables before we refuse',
    explains: d => {
      const names = fields(d)
      // The IPA of a cached translation's fault is left out.
      const alike =
        names?.has('type') === true &&
        [...names].every(n => n === 'type' || n === 'ipa') &&
        pairs(d, (mine, theirs) => [field(mine, 'ipa'), 0n].includes(field(theirs, 'ipa')))
      return (
        refused(d.qemu) &&
        [F_PERMISSION, undefined].includes(typeOf(d.qemu)) &&
        (alike || d.fault === undefined) &&
        cachedEarlier(d) &&
        !tlbInvalidated(d.case, d.index)
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
    name: 'stage 2 permissions of a cached translation',
    reason:
      'SMMUv3 3.4: stage 2 permissions count in every access; QEMU caches a nested translation with what stage 1 permits',
    explains: d =>
      d.case.unit === 'nested' &&
      refused(d.ours) &&
      !refused(d.qemu) &&
      silent(d.qemu) &&
      (d.fault?.stage === 2 || !tlbInvalidated(d.case, d.index)) &&
      repeats(d),
  },
  {
    name: 'tagged addresses are invalidated apart',
    reason:
      'SMMUv3 4.4.1: the tag of an address is not part of it under TBI; QEMU looks for the address that a command names among those that devices used',
    explains: d => {
      const tag = (dmaOf(d)?.iova ?? 0n) >> 56n
      return tag !== 0n && tag !== 0xffn && silent(d.qemu) && (repeats(d) || leadsNowhere(d))
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
      const before = d.all.ours.dma.slice(0, d.index + 1)
      if (
        c.setup['PRIV'] ||
        !before.some(o => refused(o) && (silent(o) || o.faults.some(forbidden)))
      )
        return undefined
      const [at, cd] = [steOf(c) + 8, cdOf(c)]
      const other = mapWords(c, (a, value) => {
        if (a === at) return value | PRIVCFG_SET
        return a === cd ? value & ~CD_PAN : value
      })
      // An STE whose second word is zero does not say so.
      const said = other?.words ?? c.words
      const words = said.some(([a]) => a === at) ? said : [...said, [at, PRIVCFG_SET] as const]
      return { ...c, ...other, words, setup: { ...c.setup, PRIV: 1n } }
    },
  },
  {
    name: 'tagged addresses are cached apart',
    reason:
      'SMMUv3 3.21.3: what changes in tables is seen after an invalidation at the latest; with TBI QEMU caches each tag of an address, we the address',
    like: c => {
      const tags = new Set(c.steps.flatMap(s => (s.op === 'dma' ? [s.iova >> 56n] : [])))
      return tags.size > 1 ? beforeEveryDma(c, [0x30n, 0n]) : undefined
    },
  },
  {
    name: 'contiguous hint',
    reason:
      'SMMUv3 3.4 leaves walks to VMSA, where a run of descriptors with the contiguous hint may be cached as one page; QEMU does not look at the hint',
    like: c => {
      const [ste, cd] = [steOf(c), cdOf(c)]
      const other = (at: number) =>
        (at >= ste && at < ste + 64) || (at >= cd && at < cd + 64) ? 0n : 1n << 52n
      return mapWords(c, (at, value) => ((value & 3n) !== 0n ? value & ~other(at) : value))
    },
  },
  {
    name: 'S2HA and S2HD without table updates',
    reason:
      'SMMUv3 5.2.2: S2HA and S2HD make an STE bad where IDR0.HTTU is 0; QEMU does not look at them',
    like: c => {
      const at = steOf(c) + 16
      return mapWords(c, (a, value) => (a === at ? value & ~(3n << 55n) : value))
    },
  },
  {
    name: 'stage 1 invalidations reach stage 2 alone',
    reason:
      'SMMUv3 4.4.2: TLBI_NH commands are about stage 1; QEMU also drops entries of streams with stage 2 alone, which hardware may do',
    like: c =>
      c.unit === 'stage-2'
        ? mapQueued(c, w =>
            [0x10n, 0x11n, 0x12n, 0x13n].includes(w[0] & 0xffn)
              ? [(w[0] & 0xffff_0000_0000n) | 0x28n, 0n]
              : w,
          )
        : undefined,
  },
  {
    name: 'configuration is cached as one',
    reason:
      'SMMUv3 4.3.3: CMD_CFGI_CD is about a CD; QEMU keeps STE and CD together and drops both, which hardware may do',
    like: c =>
      mapQueued(c, w => ([5n, 6n].includes(w[0] & 0xffn) ? [(w[0] & ~0xffn) | 3n, 0n] : w)),
  },
  {
    name: 'configuration behind a fault is not cached',
    reason:
      'SMMUv3 3.21.1: an STE that is good may be cached, whatever its CD and tables are; QEMU keeps no configuration whose CD or tables stage 2 refused',
    like: (c, d) =>
      d.all.qemu.dma.slice(0, Math.max(d.index, 0)).some(refused)
        ? beforeEveryDma(c, [4n, 31n])
        : undefined,
  },
  {
    name: 'configuration before TLB',
    reason:
      'SMMUv3 3.21.3: a CD that changes needs its TLB entries invalidated; QEMU holds an address against its new configuration before it looks into the TLB',
    like: (c, d) =>
      changesConfiguration(c) && !tlbInvalidated(c, d.index)
        ? beforeEveryDma(c, [0x30n, 0n])
        : undefined,
  },
  {
    name: 'global pages have an ASID',
    reason:
      'SMMUv3 4.4.2.2: invalidation by ASID leaves global pages alone; QEMU tags all pages by ASID: it drops these too, and keeps them when another ASID’s page is invalidated',
    like: c => {
      const asid = wordOf(c, cdOf(c)) >> 48n
      return mapQueued(c, words => {
        const [lo, hi] = words
        const op = lo & 0xffn
        if (op !== 0x11n && op !== 0x12n) return words
        // Pages of another ASID, global or not, stay.
        if (lo >> 48n !== asid) return op === 0x12n ? SYNC : words
        return [(lo & 0xffff_ffff_ff00n) | (op === 0x11n ? 0x10n : 0x13n), op === 0x11n ? 0n : hi]
      })
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
      const copies = (at: number) =>
        Array.from({ length: count }, (_, i) => ((at - root) % bytes) + root + i * bytes)
      const words = c.words.flatMap(([at, value]): [number, bigint][] => {
        if (!within(at)) return [[at, value]]
        return at < root + bytes ? copies(at).map(a => [a, value]) : []
      })
      const steps = c.steps.flatMap((s): Step[] => {
        if (s.op !== 'store' || !within(s.at)) return [s]
        return s.at < root + bytes ? copies(s.at).map(at => ({ ...s, at })) : []
      })
      return { ...c, words, steps }
    },
  },
]

export const DEVIATIONS: readonly Deviation[] = [...forms, ...likenesses]
