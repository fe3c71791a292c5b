// Failure at the nth step: every allocation and driver call inside each call is made to fail once.
import { describe, expect, it } from 'vitest'
import { CASES, type FailCase } from '../../fuzz/fail-nth/cases.js'
import { failEach } from '../../fuzz/fail-nth/harness.js'
import { World } from '../../fuzz/fail-nth/world.js'
import { VFIO_DEVICE_BIND_IOMMUFD, vfio_device_bind_iommufd } from '../../src/uapi.js'
import { isLong } from '../support/long.js'

// A short run takes every sixth call.
const chosen = CASES.filter((_, i) => isLong || i % 6 === 0)

it.each(chosen)('$call refuses at every step, leaves all as it was, and works when repeated', c => {
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

it('BIND_IOMMUFD that found no memory leaves the group to another iommufd', () => {
  const w = new World({ profile: 'L72' })
  const { sys, host } = w
  const device = sys.open(host.vfio.deviceFile(host.function('0000:01:00.0').bdf)!)
  const [first, second] = [sys.open('/dev/iommu'), sys.open('/dev/iommu')]
  const bind = (iommufd: number) =>
    w.ioctl(device, VFIO_DEVICE_BIND_IOMMUFD, vfio_device_bind_iommufd({ iommufd }))
  host.kernel.failures.failNth(1)
  expect(() => bind(first)).toThrow('ENOMEM')
  expect(bind(second)).toBe(0)
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
