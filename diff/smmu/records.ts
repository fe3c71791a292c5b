// What deviations look at in a difference: its records, field by field, and how it ended.
import type { DmaOutcome, FaultRecord } from '../case.js'
import type { Difference } from '../deviation.js'

export const C_BAD_STREAMID = 0x02
export const C_BAD_STE = 0x04
export const F_CD_FETCH = 0x09
export const F_WALK_EABT = 0x0b
export const F_ACCESS = 0x12
export const F_PERMISSION = 0x13

export const field = (f: FaultRecord, name: string): bigint => BigInt(f[name] ?? 0)
export const typeOf = (o: DmaOutcome): number | undefined =>
  o.faults[0] === undefined ? undefined : Number(field(o.faults[0], 'type'))
export const nameOf = (d: Difference): string => d.fault?.name ?? ''
export const refused = (o: DmaOutcome): boolean => o.landed.includes(null)
export const silent = (o: DmaOutcome): boolean => o.faults.length === 0
/** The descriptor our walk stopped at. */
export const entryOf = (d: Difference) => d.fault?.entries.at(-1)

/** The fields in which the events of a DMA differ; undefined when there is more to it. */
export function fields(d: Difference): Set<string> | undefined {
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
export const pairs = (
  d: Difference,
  test: (mine: FaultRecord, theirs: FaultRecord) => boolean,
): boolean => d.ours.faults.every((f, i) => test(f, d.qemu.faults[i]!))

export const samePage = (mine: FaultRecord, theirs: FaultRecord): boolean =>
  field(mine, 'ipa') >> 12n === field(theirs, 'ipa') >> 12n
/** A descriptor and the table it is in. */
export const sameTable = (mine: FaultRecord, theirs: FaultRecord): boolean => {
  const distance = field(mine, 'ipa') - (field(theirs, 'ipa') & ~0xfffn)
  return field(mine, 'class') === 1n && distance >= 0n && distance < 0x1_0000n
}
export const fetchOfStage2 = (f: FaultRecord): boolean =>
  field(f, 's2') === 1n && field(f, 'class') < 2n

/** An earlier DMA to the same page was let pass by both, and ended where there is no memory. */
export function leadsNowhere(d: Difference): boolean {
  const dmas = d.case.steps.filter(s => s.op === 'dma')
  return d.all.qemu.dma.slice(0, d.index).some((o, i) => {
    const passed = silent(o) && silent(d.all.ours.dma[i]!) && refused(o)
    return passed && dmas[i]!.iova >> 12n === dmas[d.index]!.iova >> 12n
  })
}
