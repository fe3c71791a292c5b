// Failure at the nth step: every allocation and driver call inside each call is made to fail once.
import { describe, expect, it } from 'vitest'
import { CASES, type FailCase } from '../../fuzz/fail-nth/cases.js'
import { failEach } from '../../fuzz/fail-nth/harness.js'

it.each(CASES)('$call refuses at every step, leaves all as it was, and works when repeated', c => {
  const { steps } = failEach(c)
  expect(steps.filter(s => s.wrong.length > 0)).toEqual([])
})

describe('the steps', () => {
  const stepsOf = (call: string) =>
    failEach(CASES.find(c => c.call === call)!).steps.map(s => s.step)
  it('of SET_IOMMU reach from the container to the tables of the last device', () => {
    const steps = stepsOf('container SET_IOMMU, nesting, two devices')
    expect(steps.slice(0, 3)).toEqual(['an IOMMU driver', 'a group on a domain', 'domainAlloc()'])
    expect(steps.filter(s => s === 'attach()')).toHaveLength(2)
    expect(steps.slice(-3)).toEqual(['PASID context', 'allocSet()', 'setIoasidSet()'])
  })
  it('of BIND are those of both devices', () => {
    expect(stepsOf('container NESTING_OP, BIND').filter(s => s === 'bindGpasid()')).toHaveLength(2)
  })
})

describe('what is wrong is told', () => {
  const broken = (run: FailCase['in']): FailCase => ({ call: 'broken', in: run })
  it('a call that succeeds although a step failed, and one that keeps what it took', () => {
    const swallows = broken(w => ({
      run() {
        try {
          w.sys.open('/dev/kvm')
        } catch {}
      },
    }))
    expect(failEach(swallows).steps[0]!.wrong).toContain('answered done')
    const leaks = broken(w => ({
      run() {
        w.host.kernel.frames.alloc()
        w.sys.open('/dev/kvm')
      },
    }))
    const [, second] = failEach(leaks).steps
    expect(second!.wrong.join()).toMatch(/state: frames \d+ became \d+/)
  })
})
