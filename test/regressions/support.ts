// What regressions start from: the baseline of the documented list (V7R unless said, VT-d, 20 PASID bits, quota 1000,
// a nesting container with the first device's group), and what the unit was told by one call.
import { afterEach, expect } from 'vitest'
import type { TraceEvents } from '../../src/base/trace.js'
import type { IommuUnit } from '../../src/machine.js'
import {
  type Bench,
  type BenchOptions,
  bench,
  install,
  type SmmuBenchOptions,
} from '../../src/testing/index.js'

export { bench, LAST_PASID, LAST_REQUEST, standIn, testDevice } from '../../src/testing/index.js'

install({ afterEach, expect })

/** A bench, a process, its nesting container. */
export function nesting(options: BenchOptions = {}) {
  const b = bench(options)
  const p = b.process()
  return { b, p, c: p.nesting() }
}

/** The same with a PASID allocated; `bound` binds it to a table at 0x1000. */
export function withPasid(options: BenchOptions = {}) {
  const s = nesting(options)
  const id = s.c.alloc()
  return { ...s, id }
}

export function bound(options: BenchOptions = {}) {
  const s = withPasid(options)
  s.c.bind({ hpasid: s.id, gpgd: 0x1000n })
  return s
}

/** What a bench with an SMMUv3 is given. */
export type SmmuOptions = Omit<SmmuBenchOptions, 'iommu'>

/** A bench with an SMMUv3, a process, its nesting container under N13. */
export function nestingSmmu(options: SmmuOptions = {}) {
  const b = bench({ iommu: 'smmuv3', ...options })
  const p = b.process()
  return { b, p, c: p.nesting() }
}

/** What is heard on a trace point while `work` runs. */
export function heard<T extends keyof TraceEvents>(
  b: Bench<IommuUnit>,
  point: T,
  work: () => unknown,
): TraceEvents[T][] {
  const events: TraceEvents[T][] = []
  const stop = b.machine.trace.listen(point, e => void events.push(e))
  work()
  stop()
  return events
}

/** Names of what the unit invalidated while `work` ran. */
export const flushes = (b: Bench, work: () => unknown): string[] =>
  heard(b, 'vtd.invalidate', work).map(e => e.what)

/** What became of the stage-1 operations that `work` caused, hidden refusals included. */
export const outcomes = (b: Bench<IommuUnit>, work: () => unknown): string[] =>
  heard(b, 'vfio.bind', work).map(e => `${e.what} ${e.errno ?? 'done'}`)
