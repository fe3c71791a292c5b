// E47 and E156 to E164: failure atomicity, interleavings, the end of a process.
import { describe, expect, it } from 'vitest'
import { ErrnoError } from '../../src/base/errno.js'
import type { IommuDriver } from '../../src/iommu/index.js'
import { bindData } from '../../src/testing/index.js'
import {
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  vfio_iommu_type1_nesting_op,
} from '../../src/uapi.js'
import { bench, bound, heard, nesting, standIn, testDevice, withPasid } from './support.js'

it('E156 without isolated interrupts SET_IOMMU is EPERM, and everything reserved is given back', () => {
  const b = bench({ vtd: { interruptRemapping: false } })
  const c = b.process().container(undefined, b.functions[0]!.group)
  const before = b.holdings()
  for (const type of [VFIO_TYPE1v2_IOMMU, VFIO_TYPE1_NESTING_IOMMU]) {
    expect(() => c.setIommu(type)).toRefuse('EPERM')
    expect(b.holdings()).toEqual(before)
  }
})

describe('BIND P while another thread frees P', () => {
  /** Where in BIND the other thread comes: at the first reading of the payload, or around the driver's bind. */
  const at = ['before the driver', 'after the driver'] as const
  it.each(at)('E157 free %s: bound and torn down, or ENOENT; never bound and not owned', when => {
    let free = () => {}
    const wrapDriver = (driver: IommuDriver) =>
      standIn(driver, domain => {
        const bind = domain.bindGpasid.bind(domain)
        domain.bindGpasid = (bdf, data) => {
          if (when === 'before the driver') free()
          bind(bdf, data)
          if (when === 'after the driver') free()
        }
      })
    const { b, c, id } = withPasid({ wrapDriver })
    free = () => void c.free(id)
    if (when === 'before the driver') expect(() => c.bind(id)).toRefuse('ENOENT')
    else expect(() => c.bind(id)).toSucceed(0)
    b.settle()
    expect(b.machine.ioasid.state(id)).toBe('FREE')
    expect(b.holdings()).toMatchObject({ bindings: 0, pasids: 0 })
    expect(b.dmaRead(0x1000n, { pasid: id })).toFaultWith('pasidEntryNotPresent')
  })
  it.each([1, 2, 3])('E157 free, and %d steps of its teardown, then bind: ENOENT', steps => {
    const { b, c, id } = bound()
    c.free(id)
    for (let i = 0; i < steps; i++) b.machine.step()
    expect(() => c.bind(id)).toRefuse('ENOENT')
    b.settle()
    expect(b.holdings()).toMatchObject({ bindings: 0, pasids: 0 })
  })
})

describe('E162 a bound P, its process killed', () => {
  const orders = [
    ['container', 'group', 'device'],
    ['container', 'device', 'group'],
    ['group', 'container', 'device'],
    ['group', 'device', 'container'],
    ['device', 'container', 'group'],
    ['device', 'group', 'container'],
  ] as const
  it.each(orders)('closing %s, %s, %s: unbind, detach, free, set released', (...order) => {
    const { b, p, c } = bound()
    const files = { container: c.fd, group: c.groups[0]!, device: c.deviceFd() }
    const seen: string[] = []
    const { trace } = b.machine
    trace.listen('vtd.driver', e => void seen.push(e.what))
    trace.listen('ioasid', e => void seen.push(e.what))
    for (const name of order) p.sys.close(files[name])
    b.settle()
    expect(seen.filter(what => what !== 'not-done')).toEqual([
      'unbind',
      'detach',
      'free',
      'reclaim',
    ])
    expect(b).toHoldNothing()
  })
})

it('E163 once the group left, calls on the container are EINVAL', () => {
  const { c } = withPasid()
  c.unset()
  expect(() => c.alloc()).toRefuse('EINVAL')
  expect(() => c.bind(1)).toRefuse('EINVAL')
})

it.each(['V7R', 'V7'] as const)('E164 the calls of %s are ENOTTY on group and device', profile => {
  const { p, c } = nesting({ profile })
  const device = c.deviceFd()
  for (const fd of [c.groups[0]!, device])
    for (const cmd of [0x3b76, 0x3b77]) expect(() => p.sys.ioctl(fd, cmd, 0)).toRefuse('ENOTTY')
})

describe('a step that fails', () => {
  const noMemory = () => {
    throw new ErrnoError('ENOMEM', 'injected')
  }
  it('E47 bookkeeping of an allocation: ENOMEM, and the id is back in the pool', () => {
    const { b, c } = nesting()
    c.alloc()
    const before = b.holdings()
    const { ioasid } = b.machine
    b.machine.vfio.failures.failNth(1)
    expect(() => c.alloc()).toRefuse('ENOMEM')
    expect(b.holdings()).toEqual(before)
    expect(ioasid.state(2)).toBe('FREE')
    expect(() => c.alloc()).toSucceed(2)
  })
  it.each(['attach', 'setIoasidSet', 'nestingInfo'] as const)(
    '%s of the driver during SET_IOMMU: its errno, and nothing is held',
    method => {
      const wrapDriver = (driver: IommuDriver) =>
        standIn(driver, domain => {
          const set = domain.setIoasidSet.bind(domain)
          if (method === 'setIoasidSet') domain.setIoasidSet = s => (s ? noMemory() : set(s))
          else domain[method] = noMemory
        })
      const b = bench({ wrapDriver })
      const c = b.process().container(undefined, b.functions[0]!.group)
      const before = b.holdings()
      expect(() => c.setIommu(VFIO_TYPE1_NESTING_IOMMU)).toRefuse('ENOMEM')
      expect(b.holdings()).toEqual(before)
    },
  )
  it.each([0, 1, 2])(
    'the driver bind of device %d of three: the ones before are undone',
    failing => {
      let calls = 0
      const wrapDriver = (driver: IommuDriver) =>
        standIn(driver, domain => {
          const bind = domain.bindGpasid.bind(domain)
          domain.bindGpasid = (bdf, data) => (calls++ === failing ? noMemory() : bind(bdf, data))
        })
      const { b, c, id } = withPasid({
        acs: false,
        devices: [[testDevice(), testDevice(), testDevice()]],
        wrapDriver,
      })
      const before = b.holdings()
      const seen = heard(b, 'vfio.bind', () => expect(() => c.bind(id)).toRefuse('ENOMEM'))
      expect(seen.filter(e => e.what === 'unbind')).toHaveLength(failing)
      expect(b.holdings()).toMatchObject({ bindings: 0, pasids: before.pasids })
      calls = 3
      expect(() =>
        c.op(0, vfio_iommu_type1_nesting_op({ data: bindData(id).bytes }).data),
      ).toSucceed(0)
    },
  )
})
