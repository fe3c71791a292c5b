// Where QEMU's intel-iommu parts from the VT-d specification (revision 5.10), or chose otherwise than we where
// the specification leaves a choice. Each is as narrow as its predicate can be; what is not here is a bug.
import type { Case, DmaOutcome } from '../case.js'
import { sameRecord } from '../compare.js'
import type { Deviation, Difference, Form } from '../deviation.js'
import { beforeEveryDma, mapWords, wordsBefore } from '../rewrite.js'
import {
  cachedForOther,
  entriesInvalidated,
  iotlbInvalidated,
  mapInvalidations,
  pasidEntry,
  pathOf,
  scalablePlaces,
  staleIn,
  structuresChanged,
} from './look.js'
import { REQUESTERS, UNITS } from './units.js'

/** Reasons that QEMU gives with their legacy-mode number also in scalable mode. */
// biome-ignore format: table
const LEGACY_NUMBERS: readonly (readonly [name: string, number: number, condition: string])[] = [
  ['smRootEntryUnreadable', 0x08, 'SRT.1'],
  ['smRootEntryNotPresent', 0x01, 'SRT.2'],
  ['smRootEntryReserved',   0x0a, 'SRT.3'],
  ['smContextUnreadable',   0x09, 'SCT.1'],
  ['smContextNotPresent',   0x02, 'SCT.2'],
  ['smContextReserved',     0x0b, 'SCT.3'],
  ['ssEntryUnreadable',     0x07, 'SSS.1'],
  ['ssEntryReserved',       0x0c, 'SSS.3'],
  ['smAddressBeyondWidth',  0x04, 'SGN.5'],
]

const reasonOf = (o: DmaOutcome): number | undefined => {
  const reason = o.faults[0]?.['reason']
  return reason === undefined ? undefined : Number(reason)
}
const nameOf = (d: Difference): string => d.fault?.name ?? ''
const landed = (o: DmaOutcome): boolean => o.landed.every(at => at !== null)
const refused = (o: DmaOutcome): boolean => o.landed.includes(null)
const silent = (o: DmaOutcome): boolean => o.faults.length === 0

/** The same landing, and records that differ in nothing but the reason. */
function sameButReason({ ours, qemu }: Difference): boolean {
  if (ours.landed.some((at, i) => at !== qemu.landed[i])) return false
  if (ours.faults.length !== 1 || qemu.faults.length !== 1) return false
  return sameRecord({ ...ours.faults[0]!, reason: 0 }, { ...qemu.faults[0]!, reason: 0 })
}

/** QEMU's answer to another reason than ours, recorded or (FPD) not recorded by both. */
const asReason = (d: Difference, number: number): boolean =>
  reasonOf(d.qemu) === number && sameButReason(d)

/**
 * Words left in memory that differ in flags only: set by QEMU alone in an entry above a fault (`way`), or
 * by us alone in a leaf that had one of them (`half`), or in entries that QEMU no longer looked at (`stale`).
 */
function flagsExplain(d: Difference, kind: 'way' | 'half' | 'stale'): boolean {
  if (d.index >= 0 || UNITS[d.case.unit]!.mode !== 'first-stage') return false
  const ours = new Map(d.all.ours.changed)
  const qemu = new Map(d.all.qemu.changed)
  const kinds = new Set<string>()
  for (const [at, value] of wordsBefore(d.case, -1)) {
    const [mine, theirs] = [ours.get(at) ?? value, qemu.get(at) ?? value]
    if (mine === theirs) continue
    const has = theirs & 0x60n
    if ((mine | 0x20n) === theirs) kinds.add('way')
    else if (mine === (theirs | 0x60n) && (has === 0x20n || has === 0x40n)) kinds.add('half')
    else if (theirs === value && (mine & ~0x60n) === value && stores(d)) kinds.add('stale')
    else return false
  }
  return kinds.has(kind)
}

const dmaOf = (d: Difference) => d.case.steps.filter(s => s.op === 'dma')[d.index]
const isSupervisor = (d: Difference, entry: bigint): boolean =>
  UNITS[d.case.unit]!.mode === 'first-stage' && (entry & 4n) === 0n

/** QEMU left the words as they were, apart from those that we left alike. */
function untouched(d: Difference): boolean {
  const ours = new Map(d.all.ours.changed)
  return d.all.qemu.changed.every(([at, value]) => ours.get(at) === value)
}

const stores = (d: Difference): boolean => d.case.steps.some(s => s.op === 'store')

/** Reasons of QEMU's for an access without permission. */
const NO_PERMISSION = [0x05, 0x06, 0x81, 0x85, 0x86]

const forms: readonly Form[] = [
  ...LEGACY_NUMBERS.map(
    ([name, number, condition]): Form => ({
      name: `${condition} as ${number.toString(16)}h`,
      reason: `VT-d 7.1.3, ${condition}: scalable mode has a reason of its own; QEMU records the legacy one`,
      explains: d => nameOf(d) === name && asReason(d, number),
    }),
  ),
  {
    name: 'SSS.2 as 5h or 6h',
    reason:
      'VT-d 7.1.3, SSS.2: R and W clear in a scalable-mode second-stage entry is reason 79h; QEMU records the legacy reason of the access, write 5h or read 6h',
    explains: d =>
      nameOf(d) === 'ssEntryNotPresent' && asReason(d, d.qemu.faults[0]?.['read'] ? 6 : 5),
  },
  {
    name: 'SGN.6 as 5h, second stage',
    reason: 'VT-d 7.1.3, SGN.6: a refused write is reason 85h; QEMU records the legacy 5h',
    explains: d => nameOf(d) === 'smWriteNotPermitted' && asReason(d, 5),
  },
  {
    name: 'SGN.7 as 6h, second stage',
    reason: 'VT-d 7.1.3, SGN.7: a refused read is reason 86h; QEMU records the legacy 6h',
    explains: d => nameOf(d) === 'smReadNotPermitted' && asReason(d, 6),
  },
  {
    name: 'SSS.4 as 3h',
    reason:
      'VT-d 7.1.3, SSS.4: a second-stage top entry that cannot be read is reason 7bh; QEMU records the legacy reason of a context entry that cannot be used (LCT.4)',
    explains: d => nameOf(d) === 'ssTopEntryUnreadable' && asReason(d, 3),
  },
  {
    name: 'pass-through of wide addresses',
    reason:
      'VT-d 7.1.3, LGN.1 and SGN.4: an address beyond the host address width is a fault also in pass-through; QEMU passes it on, and nothing decodes it',
    explains: d =>
      ['addressBeyondWidth', 'hostAddressBeyondWidth'].includes(nameOf(d)) &&
      refused(d.qemu) &&
      silent(d.qemu),
  },
  {
    name: 'FPD of a malformed entry',
    reason:
      'VT-d 7.1.3: conditions LCT.2 to LCT.5, SCT.2 to SCT.9, SPD.2, SPD.3 and SPT.2 to SPT.4 are qualified, so FPD of that very entry keeps them from being recorded; QEMU looks at FPD only once the entry is found good',
    explains: d =>
      /^contextEntry|^smContext|^pasidDirectory|^pasidEntry/.test(nameOf(d)) &&
      silent(d.ours) &&
      refused(d.qemu) &&
      d.qemu.faults.length === 1,
  },
  {
    name: 'violation of a cached translation',
    reason:
      'VT-d 7.1: a request without permission is recorded, wherever the translation came from; QEMU refuses it silently when it finds the translation in its IOTLB, and looks there first',
    explains: d => refused(d.qemu) && silent(d.qemu) && cachedForOther(d),
  },
  {
    name: 'IOTLB before context',
    reason:
      'VT-d 6.5.2: after a change of a context or PASID entry the IOTLB must be invalidated too; QEMU looks into its IOTLB (by requester) before it looks at those entries, we (by domain) after',
    explains: d => {
      const places = d.case.steps.filter(s => s.op === 'dma')
      const shift = (dma: DmaOutcome, n: number) => BigInt(dma.landed[0] ?? -1) - places[n]!.iova
      for (let i = 0; i < d.index; i++) {
        const earlier = d.all.qemu.dma[i]!
        // Where nothing decodes the address of both, both are refused.
        const nowhere =
          refused(earlier) && refused(d.qemu) && d.all.ours.dma[i]!.faults.length === 0
        if (nowhere ? places[i]!.iova !== places[d.index]!.iova : !landed(earlier)) continue
        if (!silent(earlier) || !silent(d.qemu) || (!nowhere && !landed(d.qemu))) continue
        if (!structuresChanged(d.case, i, d.index)) continue
        if (!entriesInvalidated(d.case, i, d.index) || iotlbInvalidated(d.case, i, d.index))
          continue
        if (shift(earlier, i) === shift(d.qemu, d.index)) return true
      }
      return false
    },
  },
  {
    name: 'first write by a cached translation',
    reason:
      'VT-d 3.6.2: the first write to a page sets its dirty flag, for which we look at the tables again; QEMU writes by the translation it cached for a read, and sets no flag',
    explains: d => {
      if (d.index >= 0) {
        const write = dmaOf(d)?.write === true && UNITS[d.case.unit]!.mode === 'first-stage'
        return write && landed(d.qemu) && silent(d.qemu) && staleIn(d)
      }
      return flagsExplain(d, 'stale')
    },
  },
  {
    name: 'permission before what lies below',
    reason:
      'VT-d 7.1.3 sets no order between conditions: QEMU judges permissions entry by entry on the way down, and those of an entry before its reserved bits; we judge them when the leaf is known',
    explains: d =>
      /^(pagingEntry|ssEntry|fsEntry)(Reserved|NotPresent|Unreadable)$|^userAccess|^smWrite/.test(
        nameOf(d),
      ) &&
      NO_PERMISSION.includes(reasonOf(d.qemu) ?? 0) &&
      sameButReason(d) &&
      // The tables that are there, or those that a cached context entry leads to.
      [d.index, 0].some(asOf =>
        pathOf(d.case, d.index, asOf).some(
          ({ value: e }) => (e & 1n) === 0n || (e & 2n) === 0n || isSupervisor(d, e),
        ),
      ),
  },
  {
    name: 'AW of a first-stage PASID entry',
    reason:
      'VT-d 9.6: AW is the width of second-stage tables; QEMU takes first-stage addresses to be canonical at that width',
    explains: d => {
      const [lo = 0n] = pasidEntry(d)
      const width = 30n + 9n * ((lo >> 2n) & 7n)
      if (d.index < 0) return width !== 48n && ((lo >> 6n) & 7n) === 1n && untouched(d)
      const iova = BigInt.asIntN(64, dmaOf(d)?.iova ?? 0n)
      const canonical = BigInt.asIntN(Number(width), iova) === iova
      return (
        ((lo >> 6n) & 7n) === 1n &&
        width !== 48n &&
        !canonical &&
        refused(d.qemu) &&
        (reasonOf(d.qemu) === 0x80 || silent(d.qemu))
      )
    },
  },
  {
    name: 'accessed flags on the way to a fault',
    reason:
      'VT-d 3.6.2: a paging entry that is used for a translation gets its accessed flag; whether one above a failing entry was used is not said. QEMU sets flags on the way down, we when the translation succeeds',
    explains: d => d.all.qemu.dma.some(refused) && flagsExplain(d, 'way'),
  },
  {
    name: 'dirty or accessed flag of a leaf that has the other',
    reason:
      'VT-d 3.6.2: a write sets both flags of the leaf, whichever is clear; QEMU sets neither when one is set already',
    explains: d => flagsExplain(d, 'half'),
  },
  {
    name: 'type of a PASID entry before its P',
    reason:
      'VT-d 7.1.3: without P the other fields mean nothing (SPT.2, 59h); QEMU refuses a type it does not have before it looks at P (5bh)',
    explains: d => nameOf(d) === 'pasidEntryNotPresent' && asReason(d, 0x5b),
  },
  {
    name: 'wide table address of a PASID entry',
    reason:
      'VT-d 9.6: bits of a table address beyond the host address width are reserved (SPT.3, 5ah); QEMU takes the address and cannot read there, which it records as 73h (first stage) or with the legacy 3h (second stage)',
    explains: d => {
      const [lo = 0n, , flags = 0n] = pasidEntry(d)
      const { mode, config } = UNITS[d.case.unit]!
      const first = mode === 'first-stage'
      return (
        /^pasidEntry/.test(nameOf(d)) &&
        (first ? flags : lo) >> BigInt(config.hostAddressWidth!) !== 0n &&
        (asReason(d, first ? 0x73 : 3) || (silent(d.qemu) && refused(d.qemu)))
      )
    },
  },
  {
    name: 'SPD.3 as 58h for wide addresses',
    reason:
      'VT-d 9.5: address bits beyond the host address width are reserved in a PASID directory entry (52h); QEMU takes the address and cannot read there (58h)',
    explains: d => nameOf(d) === 'pasidDirectoryReserved' && asReason(d, 0x58),
  },
]

/** True when a device-selective context invalidation is for the requester of the case. */
function reaches(c: Case, lo: bigint): boolean {
  const dma = c.steps.find(s => s.op === 'dma')
  const ignore = [0, 4, 6, 7][Number((lo >> 48n) & 3n)]!
  const sid = Number((lo >> 32n) & 0xffffn)
  return dma?.op === 'dma' && (sid & ~ignore) === (REQUESTERS[dma.device] & ~ignore)
}

/** Reserved bits of the words of a PASID table entry, by unit. */
function pasidReserved(unit: string): readonly bigint[] {
  const { config } = UNITS[unit]!
  const wide = ((1n << 64n) - 1n) ^ ((1n << BigInt(config.hostAddressWidth!)) - 1n)
  const all = (1n << 64n) - 1n
  return [
    wide | 0xe20n,
    config.snoopControl ? all ^ 0x100_ffffn : all ^ 0xffffn,
    wide | 0xfd3n,
    all,
    all,
    all,
    all,
    all,
  ]
}

export const DEVIATIONS: readonly Deviation[] = [
  ...forms,
  {
    name: 'reserved fields of a PASID table entry',
    reason:
      'VT-d 7.1.3, SPT.3: a reserved field that is not zero is a fault (5ah); QEMU does not look at them',
    like: c => {
      const places = scalablePlaces(c)
      if (!places) return undefined
      const reserved = pasidReserved(c.unit)
      return mapWords(c, (at, value) => {
        const i = (at - places.pasid) / 8
        return i >= 0 && i < 8 ? value & ~reserved[i]! : value
      })
    },
  },
  {
    name: 'reserved fields of a PASID directory entry',
    reason:
      'VT-d 7.1.3, SPD.3: a reserved field that is not zero is a fault (52h); QEMU does not look at bits 11:2',
    like: c => {
      const places = scalablePlaces(c)
      return (
        places && mapWords(c, (at, value) => (at === places.directory ? value & ~0xffcn : value))
      )
    },
  },
  {
    name: 'reserved fields of a scalable-mode context entry',
    reason:
      'VT-d 9.4: RID_PASID, RID_PRIV, PASIDE, PRE and DTE are reserved in units without those features (SCT.3, 42h); QEMU does not look at them',
    like: c => {
      const places = scalablePlaces(c)
      return (
        places &&
        mapWords(c, (at, value) => {
          if (at === places.context) return value & ~0x1cn
          return at === places.context + 8 ? value & ~0x1f_ffffn : value
        })
      )
    },
  },
  {
    name: 'SNP in scalable mode',
    reason:
      'VT-d 9.8: bit 11 of a leaf is reserved where ECAP.SC is 0; QEMU tolerates it in scalable mode, for guests that set it regardless',
    like: (c, d) => {
      const { mode, config } = UNITS[c.unit]!
      const refusal = /^ssEntry(Reserved|NotPresent)$/.test(nameOf(d))
      if (!refusal || mode !== 'second-stage' || config.snoopControl) return undefined
      // The leaf that is there, or was at first: QEMU may have cached it.
      const entry = pathOf(c, d.index, nameOf(d) === 'ssEntryNotPresent' ? 0 : d.index).at(-1)!
      if (entry.level > 1 && (entry.value & 0x80n) === 0n) return undefined
      return mapWords(c, (at, value) => (at === entry.at ? value & ~0x800n : value))
    },
  },
  {
    name: 'P of a PASID entry behind a cached context entry',
    reason:
      'VT-d 7.1.3, SPT.2: P of the PASID entry counts at every walk; QEMU looks at it when it fetches the context entry, and not when that is cached',
    like: (c, d) => {
      const places = scalablePlaces(c)
      if (!places || d.index < 1 || nameOf(d) !== 'pasidEntryNotPresent') return undefined
      if (((new Map(c.words).get(places.pasid) ?? 0n) & 1n) === 0n) return undefined
      return mapWords(c, (at, value) => (at === places.pasid ? value | 1n : value))
    },
  },
  {
    name: 'no PASID cache',
    reason:
      'VT-d 6.2.3: PASID table entries may be cached until a PASID-cache invalidation; QEMU reads them at every walk',
    like: c => {
      if (!scalablePlaces(c)) return undefined
      return beforeEveryDma(c, [0x37n, 0n])
    },
  },
  {
    name: 'context entry behind a fault is not cached',
    reason:
      'VT-d 6.2.2: a context entry that is good may be cached, whatever its PASID entry is; QEMU caches it once a translation succeeded',
    like: c => {
      if (!scalablePlaces(c)) return undefined
      return beforeEveryDma(c, [0x11n, 0n])
    },
  },
  {
    name: '1 GB pages of the first stage',
    reason:
      'VT-d 9.7: PS of an FS-PDPE is reserved where CAP.FS1GP is 0; QEMU takes such a page in any case',
    like: c => (c.unit === 'first-stage-no-1g' ? { ...c, unit: 'first-stage' } : undefined),
  },
  {
    name: 'domain-selective context invalidation',
    reason:
      'VT-d 6.5.1.1: hardware may perform it at coarser granularity; QEMU drops all context entries',
    like: c => mapInvalidations(c, w => ((w[0] & 0x3fn) === 0x21n ? [0x11n, 0n] : w)),
  },
  {
    name: 'domain of a device-selective context invalidation',
    reason:
      'VT-d 6.5.2.1: it names the domain of the entry; QEMU drops the entry of the device whatever the domain is, which hardware may do',
    like: c =>
      mapInvalidations(c, w => ((w[0] & 0x3fn) === 0x31n && reaches(c, w[0]) ? [0x11n, 0n] : w)),
  },
  {
    name: 'PASID-selective IOTLB invalidation of second-stage entries',
    reason:
      'VT-d 6.5.2.4: entries of second-stage translations are tagged by domain and dropped by domain; QEMU also drops those of the PASID, which hardware may do',
    like: c =>
      UNITS[c.unit]!.mode === 'second-stage'
        ? mapInvalidations(c, w =>
            (w[0] & 0x3fn) === 0x26n ? [(w[0] & 0xffff_0000n) | 0x22n, 0n] : w,
          )
        : undefined,
  },
]
