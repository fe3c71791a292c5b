// Invalidations of random VT-d cases: each type, with parameters that fit what was cached, or do not.
import type { Step } from '../case.js'
import type { Plan } from './generate.js'
import type { Mapping } from './tables.js'
import { REQUESTERS, UNITS } from './units.js'

/** Largest address mask that QEMU takes (CAP.MAMV). */
const MASKS = [0, 0, 0, 1, 3, 9, 18] as const

const invalidate = (lo: bigint, hi = 0n): Step => ({ op: 'invalidate', words: [lo, hi] })

/** One or two descriptors. */
export function drawInvalidation(p: Plan, m: Mapping): Step[] {
  const { draw } = p
  const scalable = UNITS[p.unit]!.mode !== 'legacy'
  const { did, sid, page, mask } = parameters(p, m)
  const to = draw.weighted([
    [3, 'iotlb'],
    [2, 'context'],
    [scalable ? 3 : 0, 'pasid'],
    [scalable ? 3 : 0, 'pasid-iotlb'],
  ] as const)
  switch (to) {
    case 'iotlb': {
      const g = BigInt(1 + draw.below(3))
      return [invalidate(2n | (g << 4n) | (did << 16n), g === 3n ? page | mask : 0n)]
    }
    case 'context': {
      const g = BigInt(1 + draw.below(3))
      const fm = BigInt(draw.below(4))
      return [invalidate(1n | (g << 4n) | (did << 16n) | (sid << 32n) | (fm << 48n))]
    }
    case 'pasid': {
      const g = draw.pick([0n, 1n, 3n])
      const pasid = draw.oneIn(4) ? BigInt(draw.below(4)) : 0n
      return [invalidate(7n | (g << 4n) | (did << 16n) | (pasid << 32n))]
    }
    default: {
      const g = draw.pick([2n, 3n])
      const pasid = draw.oneIn(4) ? BigInt(draw.below(4)) : 0n
      return [
        invalidate(6n | (g << 4n) | (did << 16n) | (pasid << 32n), g === 3n ? page | mask : 0n),
      ]
    }
  }
}

/** The register-based interface of legacy mode. */
export function drawRegisterInvalidation(p: Plan, m: Mapping): Step[] {
  const { draw } = p
  const { did, sid, page, mask } = parameters(p, m)
  const g = BigInt(1 + draw.below(3))
  if (draw.oneIn(2)) {
    const fm = BigInt(draw.below(4))
    const value = (1n << 63n) | (g << 61n) | (fm << 32n) | (sid << 16n) | did
    return [{ op: 'register', offset: 0x28, value }]
  }
  return [
    { op: 'register', offset: 0xf0, value: page | mask },
    { op: 'register', offset: 0xf8, value: (1n << 63n) | (g << 60n) | (did << 32n) },
  ]
}

function parameters(p: Plan, m: Mapping) {
  const { draw } = p
  return {
    did: BigInt(draw.oneIn(4) ? p.did ^ 1 : p.did),
    sid: BigInt(REQUESTERS[p.device] ^ (draw.oneIn(4) ? 1 << draw.below(8) : 0)),
    page: (draw.oneIn(4) ? m.iova ^ (1n << BigInt(12 + draw.below(20))) : m.iova) & ~0xfffn,
    mask: BigInt(draw.pick(MASKS)),
  }
}
