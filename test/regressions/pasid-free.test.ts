// E48 to E60: PASID free.
import { describe, expect, it } from 'vitest'
import { bench, bound, LAST_REQUEST, nesting, testDevice } from './support.js'

const states = (b: ReturnType<typeof bench>, ...ids: number[]) =>
  ids.map(id => b.machine.ioasid.state(id))

describe('FREE', () => {
  it('E48 of everything succeeds when nothing is held', () => {
    expect(() => nesting().c.free(1, LAST_REQUEST)).toSucceed(0)
  })
  it('E49 takes what lies in the range and nothing else', () => {
    const { b, c } = nesting()
    for (const id of [3, 9, 500]) c.alloc(id, id)
    expect(() => c.free(4, 499)).toSucceed(0)
    expect(states(b, 3, 9, 500)).toEqual(['IDLE', 'FREE', 'IDLE'])
  })
  it('E50 may be repeated', () => {
    const { c } = nesting()
    c.alloc(3, 3)
    expect(() => c.free(3)).toSucceed(0)
    expect(() => c.free(3)).toSucceed(0)
  })
  it('E51 of [0, 2^32-1] is EINVAL; everything is [0, 2^31-1]', () => {
    const { b, c } = nesting()
    c.alloc(3, 3)
    expect(() => c.free(0, 0xffff_ffff)).toRefuse('EINVAL')
    expect(states(b, 3)).toEqual(['IDLE'])
    expect(() => c.free(0, LAST_REQUEST)).toSucceed(0)
    expect(states(b, 3)).toEqual(['FREE'])
  })
  it("E52 leaves another process's id alone", () => {
    const { b, c } = nesting()
    b.process().nesting(1).alloc(9, 9)
    expect(() => c.free(9)).toSucceed(0)
    expect(states(b, 9)).toEqual(['IDLE'])
  })
  it('E170 of a thousand ids leaks none: the lowest is next again', () => {
    const { c } = nesting()
    for (let i = 0; i < 1000; i++) c.alloc()
    expect(() => c.free(0, LAST_REQUEST)).toSucceed(0)
    expect(() => c.alloc()).toSucceed(1)
  })
})

describe('FREE of a bound id', () => {
  it('E53 tears the binding down; DMA faults afterwards', () => {
    const b = bench()
    const space = b.bind(7)
    space.map(0x1000n, b.page('data'))
    expect(b.dmaRead(0x1000n, { pasid: 7 })).toEqual({ text: 'data' })
    space.free()
    expect(b.dmaRead(0x1000n, { pasid: 7 })).toFaultWith('pasidEntryNotPresent', { pasid: 7 })
  })
  it('E54 an unbind after the teardown succeeds', () => {
    const { b, c, id } = bound()
    c.free(id)
    b.settle()
    expect(() => c.unbind(id)).toSucceed(0)
  })
  it('E55 a bind before it is reclaimed is refused', () => {
    const { c, id } = bound()
    c.free(id)
    expect(() => c.bind(id)).toRefuse('ENOENT')
  })
  it('E56 after it is reclaimed the same id can be had', () => {
    const { b, c, id } = bound()
    c.free(id)
    b.settle()
    expect(() => c.alloc(id, id)).toSucceed(id)
  })
  it('E57 removes the entries of both devices before the id is reused', () => {
    const b = bench({ acs: false, devices: [[testDevice(), testDevice()]] })
    const c = b.process().nesting()
    const id = c.alloc()
    c.bind(id)
    expect(b.holdings().bindings).toBe(2)
    c.free(id)
    expect(() => c.alloc(id, id)).toRefuse('ENOSPC')
    b.settle()
    expect(b.holdings().bindings).toBe(0)
    expect(() => c.alloc(id, id)).toSucceed(id)
  })
  it('E161 is refused to others too until reclaimed; the new owner finds no old entry', () => {
    const { b, c, id } = bound()
    const other = b.process().nesting(1)
    c.free(id)
    expect(() => c.alloc(id, id)).toRefuse('ENOSPC')
    expect(() => other.alloc(id, id)).toRefuse('ENOSPC')
    b.settle()
    expect(() => other.alloc(id, id)).toSucceed(id)
    for (const device of [0, 1])
      expect(b.dmaRead(0x1000n, { pasid: id, device })).toFaultWith('pasidEntryNotPresent')
  })
})

describe('the last container', () => {
  it('E58, E59 of a process frees its ids; one before it does not', () => {
    const { b, p, c } = nesting()
    const c2 = p.nesting(1)
    const reserved = b.holdings().pasidsReserved
    for (let i = 0; i < 10; i++) c.alloc()
    c.unset()
    expect(b.holdings()).toMatchObject({ pasids: 10, pasidsReserved: reserved })
    c2.unset()
    expect(b.holdings()).toMatchObject({ pasids: 0, pasidsReserved: reserved - 1000 })
  })
  it('E60 a killed process gives ids and reservation back', () => {
    const { b } = nesting()
    const before = b.holdings()
    const other = b.process()
    const c = other.nesting(1)
    for (let i = 0; i < 10; i++) c.bind(c.alloc())
    other.exit()
    b.settle()
    expect(b.holdings()).toEqual(before)
  })
})
