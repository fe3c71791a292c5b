// Deviations of QEMU's smmuv3 that come from what its TLB holds, by their form.
import { sameRecord } from '../compare.js'
import type { Form } from '../deviation.js'
import {
  cachedEarlier,
  changesConfiguration,
  dmaOf,
  earlierPage,
  repeats,
  STAGE_2_COMMANDS,
  tableWords,
  tlbInvalidated,
} from './look.js'
import {
  F_PERMISSION,
  field,
  fields,
  leadsNowhere,
  nameOf,
  pairs,
  refused,
  silent,
  typeOf,
} from './records.js'

export const CACHED: readonly Form[] = [
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
    name: 'pages of 16 and 64 KB are cached whole',
    reason:
      'SMMUv3 3.21.3: what changes in tables is seen after an invalidation at the latest; QEMU caches a page as one entry, we keep 4 KB pieces of it and see the change in the others',
    explains: d => earlierPage(d) && !tlbInvalidated(d.case, d.index),
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
]
