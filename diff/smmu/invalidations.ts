// Commands of random SMMUv3 cases: each type, with parameters that fit what was cached, or do not.
import type { Step } from '../case.js'
import type { Plan } from './generate.js'
import type { Mapping } from './tables.js'
import { STREAMS } from './units.js'

/** A command. */
export function drawInvalidation(p: Plan, m: Mapping | undefined): Step {
  const { draw } = p
  const sid = BigInt(STREAMS[p.device] ^ (draw.oneIn(5) ? 1 << draw.below(6) : 0)) << 32n
  const vmid =
    BigInt(draw.oneIn(4) ? p.vmid ^ 1 : p.mode === 'stage-1' && draw.oneIn(2) ? 0 : p.vmid) << 32n
  const asid = BigInt(draw.oneIn(4) ? p.asid ^ 1 : p.asid) << 48n
  const iova = m?.iova ?? 0n
  const page = (draw.oneIn(4) ? iova ^ (1n << BigInt(12 + draw.below(20))) : iova) & ~0xfffn
  const leaf = draw.oneIn(2) ? 1n : 0n
  let [lo, hi] = draw.weighted<readonly [bigint, bigint]>([
    [3, [0x03n | sid, leaf]],
    [1, [0x04n | sid, BigInt(draw.below(16))]],
    [1, [0x04n, 31n]],
    [3, [0x05n | sid, leaf]],
    [1, [0x06n | sid, 0n]],
    [2, [0x10n | vmid, 0n]],
    [3, [0x11n | vmid | asid, 0n]],
    [5, [0x12n | vmid | asid, page | leaf]],
    [2, [0x13n | vmid, page | leaf]],
    [2, [0x28n | vmid, 0n]],
    [2, [0x2an | vmid, (page & 0xf_ffff_ffff_f000n) | leaf]],
    [1, [0x30n, 0n]],
    [1, [0x46n, 0n]],
  ])
  // A range instead of one page.
  if ([0x12n, 0x13n, 0x2an].includes(lo & 0xffn) && m && draw.oneIn(4)) {
    const granule = BigInt((m.granule - 10) / 2)
    lo |= (BigInt(1 + draw.below(31)) << 12n) | (BigInt(draw.below(6)) << 20n)
    hi |= granule << 10n
  }
  return { op: 'invalidate', words: [lo, hi] }
}
