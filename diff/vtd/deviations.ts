// Where QEMU's intel-iommu parts from the VT-d specification (revision 5.10), or chose otherwise than we where
// the specification leaves a choice. Each is as narrow as its predicate can be; what is not here is a bug.
import type { DmaOutcome } from '../case.js'
import type { Deviation, Difference } from '../deviation.js'

/** Reasons that QEMU gives with their legacy-mode number also in scalable mode. */
// biome-ignore format: table
const LEGACY_NUMBERS: readonly (readonly [name: string, number: number, section: string])[] = [
  ['smRootEntryUnreadable', 0x08, 'SRT.1'],
  ['smRootEntryNotPresent', 0x01, 'SRT.2'],
  ['smRootEntryReserved',   0x0a, 'SRT.3'],
  ['smContextUnreadable',   0x09, 'SCT.1'],
  ['smContextNotPresent',   0x02, 'SCT.2'],
  ['smContextReserved',     0x0b, 'SCT.3'],
  ['ssEntryUnreadable',     0x07, 'SSS.1'],
  ['ssTopEntryUnreadable',  0x07, 'SSS.4'],
  ['ssEntryReserved',       0x0c, 'SSS.3'],
  ['smAddressBeyondWidth',  0x04, 'SGN.5'],
]

const reasonOf = (o: DmaOutcome): number | undefined => {
  const reason = o.faults[0]?.['reason']
  return reason === undefined ? undefined : Number(reason)
}
const nameOf = (d: Difference): string | undefined => (d.index < 0 ? undefined : d.why[d.index])
const landed = (o: DmaOutcome): boolean => o.landed.every(at => at !== null)
const refused = (o: DmaOutcome): boolean => o.landed.includes(null)
const silent = (o: DmaOutcome): boolean => o.faults.length === 0

/** The same landing, and records that differ in nothing but the reason. */
function sameButReason({ ours, qemu }: Difference): boolean {
  if (ours.landed.some((at, i) => at !== qemu.landed[i])) return false
  if (ours.faults.length !== 1 || qemu.faults.length !== 1) return false
  const [a, b] = [ours.faults[0]!, qemu.faults[0]!]
  return Object.keys(a).every(
    k => k === 'reason' || (b[k] !== undefined && BigInt(a[k]!) === BigInt(b[k])),
  )
}

/** True when an earlier DMA of the case touched one of these pages. */
function warm(d: Difference): boolean {
  return d.index > 0
}

export const DEVIATIONS: readonly Deviation[] = [
  ...LEGACY_NUMBERS.map(
    ([name, number, condition]): Deviation => ({
      name: `${condition} as ${number.toString(16)}h`,
      reason: `VT-d 7.1.3, ${condition}: scalable mode has a reason of its own; QEMU records the legacy one`,
      explains: d => nameOf(d) === name && reasonOf(d.qemu) === number && sameButReason(d),
    }),
  ),
  {
    name: 'SSS.2 as 5h or 6h',
    reason:
      'VT-d 7.1.3, SSS.2: R and W clear in a scalable-mode second-stage entry is reason 79h; QEMU records the legacy reason of the access, write 5h or read 6h',
    explains: d =>
      nameOf(d) === 'ssEntryNotPresent' &&
      reasonOf(d.qemu) === (d.qemu.faults[0]?.['read'] ? 6 : 5) &&
      sameButReason(d),
  },
  {
    name: 'SGN.6 and SGN.7 of the second stage as 5h and 6h',
    reason: 'VT-d 7.1.3, SGN.6 and SGN.7: reasons 85h and 86h; QEMU records the legacy ones',
    explains: d =>
      (nameOf(d) === 'smWriteNotPermitted' ? 5 : nameOf(d) === 'smReadNotPermitted' ? 6 : -1) ===
        reasonOf(d.qemu) && sameButReason(d),
  },
  {
    name: 'pass-through of wide addresses',
    reason:
      'VT-d 7.1.3, LGN.1 and SGN.4: an address beyond the host address width is a fault also in pass-through; QEMU passes it on, and nothing decodes it',
    explains: d =>
      ['addressBeyondWidth', 'hostAddressBeyondWidth'].includes(nameOf(d) ?? '') &&
      refused(d.qemu) &&
      silent(d.qemu),
  },
  {
    name: 'FPD of a malformed entry',
    reason:
      'VT-d 7.1.3: conditions LCT.2 to LCT.5 and SCT.2 to SCT.9 are qualified, so FPD of that very context entry keeps them from being recorded; QEMU looks at FPD only once the entry is found good',
    explains: d =>
      /^contextEntry|^smContext/.test(nameOf(d) ?? '') &&
      silent(d.ours) &&
      refused(d.qemu) &&
      d.qemu.faults.length === 1,
  },
  {
    name: 'violation of a cached translation',
    reason:
      'VT-d 7.1: a request without permission is recorded, wherever the translation came from; QEMU refuses it silently when it finds the translation in its IOTLB',
    explains: d =>
      /NotPermitted$/.test(nameOf(d) ?? '') &&
      warm(d) &&
      refused(d.qemu) &&
      silent(d.qemu) &&
      !landed(d.ours),
  },
]
