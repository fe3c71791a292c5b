// E126 to E130 through the calls: who hears of a PASID, in which order, and when. The allocator alone: test/iommu.
import { describe, expect, it } from 'vitest'
import { IOASID_EVENT, type IoasidNotifier } from '../../src/iommu/ioasid-notify.js'
import { bench, LAST_REQUEST, nesting, testDevice } from './support.js'

const names = Object.fromEntries(Object.entries(IOASID_EVENT).map(([name, code]) => [code, name]))

/** A subscriber that writes down what it hears. */
function listener(seen: string[], priority: IoasidNotifier['priority'] = 'cpu'): IoasidNotifier {
  return { priority, notify: (event, id) => void seen.push(`${priority} ${names[event]} ${id}`) }
}

describe('a CPU that registers by address space', () => {
  it('E126 before the set exists hears nothing, then everything', () => {
    const b = bench()
    const p = b.process()
    const seen: string[] = []
    const end = b.machine.ioasid.subscribeMm(p.sys.process.mm, listener(seen))
    expect(seen).toEqual([])
    const c = p.nesting()
    c.bind({ hpasid: c.alloc(), gpasid: 101 })
    expect(seen).toEqual(['cpu ALLOC 1', 'cpu BIND 1'])
    end()
  })
  it('E127 is EBUSY once the set holds ids', () => {
    const { b, p, c } = nesting()
    c.alloc()
    const { ioasid } = b.machine
    expect(() => ioasid.subscribeMm(p.sys.process.mm, listener([]))).toRefuse('EBUSY')
  })
})

describe('events of a bound id', () => {
  /** A group of two devices, and what the CPU hears. */
  const two = () => {
    const b = bench({ acs: false, devices: [[testDevice(), testDevice()], [testDevice()]] })
    const p = b.process()
    const seen: string[] = []
    b.machine.ioasid.subscribeMm(p.sys.process.mm, listener(seen))
    return { b, p, seen, c: p.nesting() }
  }
  it('E128 one BIND for two devices, and for two containers; one UNBIND after the last', () => {
    const { p, c, seen } = two()
    const id = c.alloc()
    const c2 = p.nesting(2)
    c.bind({ hpasid: id, gpasid: 101 })
    c2.bind({ hpasid: id, gpasid: 101 })
    c.unbind(id)
    expect(seen).toEqual(['cpu ALLOC 1', 'cpu BIND 1'])
    c2.unbind(id)
    expect(seen).toEqual(['cpu ALLOC 1', 'cpu BIND 1', 'cpu UNBIND 1'])
  })
  it('E129 FREE is heard by the CPU, then the IOMMU, then the device', () => {
    const { b, p, c } = nesting()
    const { ioasid } = b.machine
    const id = c.alloc()
    c.bind({ hpasid: id, gpasid: 101 })
    const seen: string[] = []
    const set = ioasid.findMmSet(p.sys.process.mm)!
    for (const priority of ['device', 'cpu', 'iommu'] as const)
      ioasid.subscribe(listener(seen, priority), set)
    c.free(id)
    expect(seen).toEqual(['cpu FREE 1', 'iommu FREE 1', 'device FREE 1'])
  })
  it('E130 an unbind of an id being freed is not announced and drops no reference', () => {
    const { b, c, seen } = two()
    const id = c.alloc()
    c.bind({ hpasid: id, gpasid: 101 })
    c.free(id)
    const { ioasid } = b.machine
    const held = ioasid.references(id)
    expect(() => c.unbind(id)).toSucceed(0)
    expect(ioasid.references(id)).toBe(held)
    expect(seen.filter(e => e.includes('UNBIND'))).toEqual([])
    b.settle()
    expect(ioasid.state(id)).toBe('FREE')
  })
  it('an id goes through IDLE, ACTIVE, FREE_PENDING and FREE, one reference for each user', () => {
    const { b, c } = two()
    const { ioasid } = b.machine
    const id = c.alloc()
    const states = [[ioasid.state(id), ioasid.references(id)]]
    const step = (work: () => void) => {
      work()
      states.push([ioasid.state(id), ioasid.references(id)])
    }
    step(() => c.bind(id))
    step(() => c.free(0, LAST_REQUEST))
    step(() => b.settle())
    expect(states).toEqual([
      ['IDLE', 1],
      ['ACTIVE', 2],
      ['FREE_PENDING', 1],
      ['FREE', 0],
    ])
  })
})
