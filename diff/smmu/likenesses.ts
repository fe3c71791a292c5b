// Deviations of QEMU's smmuv3 as other cases: it answers as we would if something were not as it is.
import type { Case, FaultRecord, Step } from '../case.js'
import type { Likeness } from '../deviation.js'
import { beforeEveryDma, mapQueued, mapWords } from '../rewrite.js'
import {
  cdOf,
  changesConfiguration,
  concatenation,
  spanAt,
  steOf,
  tlbInvalidated,
  wordOf,
} from './look.js'
import { F_PERMISSION, field, nameOf, refused, silent } from './records.js'

const SYNC = [0x46n, 0n] as const

const forbidden = (f: FaultRecord): boolean => field(f, 'type') === BigInt(F_PERMISSION)

const PRIVCFG_SET = 3n << 48n
const CD_PAN = 1n << 40n

export const LIKENESSES: readonly Likeness[] = [
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
