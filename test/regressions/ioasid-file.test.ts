// E134, E135: PASIDs from /dev/ioasid, and what profile V8 makes of them.
import { describe, expect, it } from 'vitest'
import { bench, nesting, withPasid } from './support.js'

const V8 = { profile: 'V8' } as const

describe('/dev/ioasid', () => {
  it('E134 is open once in a process: EBUSY, until it is closed', () => {
    const b = bench(V8)
    const { sys } = b.process()
    const fd = sys.open('/dev/ioasid')
    expect(() => sys.open('/dev/ioasid')).toRefuse('EBUSY')
    b.process().sys.open('/dev/ioasid')
    sys.close(fd)
    expect(() => sys.open('/dev/ioasid')).toSucceed()
  })
  it('E135 hands out nothing in a control group with max 0: EINVAL', () => {
    const { c } = nesting({ ...V8, parameters: { ioasidsMax: 0 } })
    expect(() => c.alloc()).toRefuse('EINVAL')
  })
  it('is not there in other profiles', () => {
    const { sys } = bench().process()
    expect(() => sys.open('/dev/ioasid')).toRefuse('ENOENT')
  })
})

describe('profile V8', () => {
  it('binds, uses and frees a PASID of the file; number 19 is unknown', () => {
    const b = bench(V8)
    const space = b.bind(7)
    space.map(0x1000n, b.page('v8'))
    expect(b.dmaRead(0x1000n, { pasid: 7 })).toEqual({ text: 'v8' })
    space.free()
    expect(b.dmaRead(0x1000n, { pasid: 7 })).toFaultWith('pasidEntryNotPresent')
    const { c } = nesting(V8)
    expect(() => c.call(0x3b77)).toRefuse('ENOTTY')
  })
  it('closing the file frees its ids, bound or not; opened again, it serves the same container', () => {
    const { b, p, c, id } = withPasid(V8)
    c.bind(id)
    p.sys.close([...Array(20).keys()].find(fd => p.sys.process.fds.get(fd)?.kind === 'ioasid')!)
    b.settle()
    expect(b.holdings()).toMatchObject({ bindings: 0, pasids: 0 })
    const again = p.inherit(c)
    expect(() => again.bind(id)).toRefuse('ENOENT')
  })
  it('an id being freed is EBUSY', () => {
    const { c, id } = withPasid(V8)
    c.bind(id)
    c.free(id)
    expect(() => c.bind(id)).toRefuse('EBUSY')
  })
  it("a PASID beyond the range is nobody's, with bit 32 set too", () => {
    const { c, id } = withPasid(V8)
    for (const hpasid of [0n, 0x10_0000n, 0x1_0000_0000n + BigInt(id)])
      expect(() => c.bind({ hpasid })).toRefuse('ENOENT')
  })
})
