// E22 to E47: PASID allocation.
import { describe, expect, it } from 'vitest'
import { vfio_iommu_type1_pasid_request } from '../../src/uapi.js'
import { bench, LAST_PASID, LAST_REQUEST, nesting, testDevice } from './support.js'

const request = vfio_iommu_type1_pasid_request

describe('which id', () => {
  it('E22 the lowest free one', () => {
    const { c } = nesting()
    expect(() => c.alloc(1, LAST_PASID)).toSucceed(1)
    expect(() => c.alloc(1, LAST_PASID)).toSucceed(2)
  })
  it('E23, E24 never 0', () => {
    const { c } = nesting()
    expect(() => c.alloc(0, LAST_PASID)).toSucceed(1)
    expect(() => c.alloc(0, 0)).toRefuse('ENOSPC')
  })
  it('E25 the last of 20 bits', () => {
    expect(() => nesting().c.alloc(LAST_PASID, LAST_PASID)).toSucceed(LAST_PASID)
  })
  it.each(['V7R', 'V7'] as const)('E26, E27 nothing above 20 bits: %s', profile => {
    const { c } = nesting({ profile })
    expect(() => c.alloc(LAST_PASID + 1, LAST_REQUEST)).toRefuse('ENOSPC')
    expect(() => c.alloc(LAST_PASID, LAST_REQUEST)).toSucceed(LAST_PASID)
    expect(() => c.alloc(LAST_PASID, LAST_REQUEST)).toRefuse('ENOSPC')
  })
  it.each([
    ['E28', 'V7R', 1, 0x8000_0000, 'EINVAL'],
    ['E28', 'V7', 1, 0x8000_0000, 1],
    ['E29', 'V7R', 0x8000_0000, 0x8000_0000, 'EINVAL'],
    ['E29', 'V7', 0x8000_0000, 0x8000_0000, 'ENOSPC'],
    ['E30', 'V7R', 1, 0xffff_ffff, 'EINVAL'],
    ['E30', 'V7', 1, 0xffff_ffff, 'EINVAL'],
  ] as const)('%s %s: alloc [%d, %d] gives %s', (_, profile, min, max, answer) => {
    const call = () => nesting({ profile }).c.alloc(min, max)
    if (typeof answer === 'number') expect(call).toSucceed(answer)
    else expect(call).toRefuse(answer)
  })
  it('E31 not one that the process holds', () => {
    const { c } = nesting()
    expect(() => c.alloc(7, 7)).toSucceed(7)
    expect(() => c.alloc(7, 7)).toRefuse('ENOSPC')
  })
  it('E32 not one that another process holds', () => {
    const { b, c } = nesting()
    b.process().nesting(1).alloc(7, 7)
    expect(() => c.alloc(7, 7)).toRefuse('ENOSPC')
  })
  it('E33 not one that the host holds', () => {
    const { b, c } = nesting()
    const { ioasid } = b.machine
    ioasid.alloc(ioasid.hostSet, 7, 7)
    expect(() => c.alloc(7, 8)).toSucceed(8)
    ioasid.free(ioasid.hostSet, 7)
  })
})

describe('the argument', () => {
  it('E34 argsz 12 is EINVAL', () => {
    const { p, c } = nesting()
    const { vaddr } = p.memory()
    expect(() => c.requestAt(vaddr)).toRefuse('EINVAL')
    const { bytes } = request({ argsz: 12, flags: 1, range: { min: 1, max: 9 } })
    expect(() => c.requestAt(p.atEndOfPage(bytes))).toRefuse('EINVAL')
  })
  it('E35 argsz 64 with 16 readable bytes succeeds: no more are read', () => {
    const { p, c } = nesting()
    const { bytes } = request({ argsz: 64, flags: 1, range: { min: 5, max: 9 } })
    expect(() => c.requestAt(p.atEndOfPage(bytes))).toSucceed(5)
  })
  it('E36 flags 3 is EINVAL, and nothing is allocated or freed', () => {
    const { b, c } = nesting()
    c.alloc()
    const before = b.holdings()
    expect(() => c.request(3)).toRefuse('EINVAL')
    expect(b.holdings()).toEqual(before)
    expect(() => c.alloc()).toSucceed(2)
  })
  it.each([4, 5])('E37 flags %d is EINVAL', flags => {
    expect(() => nesting().c.request(flags)).toRefuse('EINVAL')
  })
})

describe('the quota', () => {
  it('E38 ends allocation, and one id freed is one more to have', () => {
    const { c } = nesting()
    for (let i = 0; i < 1000; i++) c.alloc()
    expect(() => c.alloc()).toRefuse('ENOSPC')
    c.free(500)
    expect(() => c.alloc()).toSucceed(500)
  })
  it('E39 is one for all containers of a process', () => {
    const { p, c } = nesting()
    const c2 = p.nesting(1)
    for (let i = 0; i < 600; i++) c.alloc()
    for (let i = 0; i < 400; i++) c2.alloc()
    expect(() => c2.alloc()).toRefuse('ENOSPC')
  })
  it('E40 counts an id whose teardown is pending', () => {
    const { b, c } = nesting({ parameters: { pasidQuota: 3 } })
    for (const id of [c.alloc(), c.alloc(), c.alloc()]) if (id === 2) c.bind(id)
    c.free(2)
    expect(() => c.alloc()).toRefuse('ENOSPC')
    b.settle()
    expect(() => c.alloc()).toSucceed(2)
  })
  it('E41 of 0 makes SET_IOMMU(6) EINVAL', () => {
    expect(() => nesting({ parameters: { pasidQuota: 0 } })).toRefuse('EINVAL')
  })
  it('E42, E43 is reserved at attach: ENOSPC there when capacity is gone, until a process exits', () => {
    // 2^20 ids without the host's 32768 are two such quotas.
    const devices = [[testDevice()], [testDevice()], [testDevice()]]
    const b = bench({ devices, parameters: { pasidQuota: 507_904 } })
    const first = b.process()
    first.nesting(0)
    b.process().nesting(1)
    const third = () => b.process().nesting(2)
    expect(third).toRefuse('ENOSPC')
    first.exit()
    b.machine.kernel.processes.at(-1)!.exit()
    expect(third).toSucceed()
  })
  it('E169 does not help when no id of the range is free', () => {
    const { b, c } = nesting()
    const { ioasid } = b.machine
    const others = b.process().nesting(1)
    for (let i = 1; i <= 60; i++) others.alloc(i, i)
    for (let i = 61; i <= 100; i++) ioasid.alloc(ioasid.hostSet, i, i)
    expect(() => c.alloc(1, 100)).toRefuse('ENOSPC')
    expect(() => c.alloc(1, 101)).toSucceed(101)
    ioasid.freeRange(ioasid.hostSet, 61, 100)
  })
})

describe('whose ids', () => {
  it("E44 a child allocates into its parent's set through the inherited container", () => {
    const { b, p, c } = nesting()
    const child = p.fork()
    const id = child.inherit(c).alloc()
    const { ioasid } = b.machine
    expect(ioasid.owner(id)).toBe(ioasid.findMmSet(p.sys.process.mm))
    expect(ioasid.findMmSet(child.sys.process.mm)).toBeUndefined()
  })
  it("E45 a child's own container frees nothing of its parent", () => {
    const { b, p, c } = nesting()
    const id = c.alloc()
    const own = p.fork().nesting(1)
    expect(() => own.free(id)).toSucceed(0)
    expect(b.machine.ioasid.state(id)).toBe('IDLE')
  })
  it('E46 an id of one container is bound through another of the same process', () => {
    const { p, c } = nesting()
    const id = c.alloc()
    expect(() => p.nesting(1).bind(id)).toSucceed(0)
  })
})
