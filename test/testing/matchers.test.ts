import { afterEach, describe, expect, it } from 'vitest'
import { ErrnoError } from '../../src/base/errno.js'
import { bench, checkBenches, install, matchers, testDevice } from '../../src/testing/index.js'

install({ afterEach, expect })

const refuse = (code: 'EBUSY' | 'EINVAL') => () => {
  throw new ErrnoError(code, 'a reason')
}
const fault = { pasid: 7, fault: 'fsEntryNotPresent', at: 0x2000n }

describe('toRefuse', () => {
  it('holds for that errno alone', () => {
    expect(refuse('EBUSY')).toRefuse('EBUSY')
    expect(refuse('EBUSY')).not.toRefuse('EINVAL')
    expect(() => 0).not.toRefuse('EBUSY')
  })
  it.each([
    [() => 5, 'expected EBUSY, but the call succeeded with 5'],
    [() => 5n, 'expected EBUSY, but the call succeeded with 5n'],
    [() => undefined, 'expected EBUSY, but the call succeeded with nothing'],
    [refuse('EINVAL'), 'expected EBUSY, got EINVAL: a reason'],
  ])('says what happened instead: %#', (call, message) => {
    expect(matchers.toRefuse(call, 'EBUSY').message()).toBe(message)
  })
  it('passes on what is no refusal, and wants a function', () => {
    const broken = () => {
      throw new RangeError('ours')
    }
    expect(() => expect(broken).toRefuse('EBUSY')).toThrow(RangeError)
    expect(() => expect(5).toRefuse('EBUSY')).toThrow('a function is needed')
  })
})

describe('toSucceed', () => {
  it('holds for any value, or for that one', () => {
    expect(() => 5).toSucceed()
    expect(() => 5).toSucceed(5)
    expect(() => undefined).toSucceed(undefined)
    expect(() => 5).not.toSucceed(6)
    expect(refuse('EBUSY')).not.toSucceed()
  })
  it.each([
    [() => 5, 'expected success with 6, got 5'],
    [refuse('EBUSY'), 'expected success, got EBUSY: a reason'],
  ])('says what happened instead: %#', (call, message) => {
    expect(matchers.toSucceed(call, 6).message()).toBe(message)
  })
})

describe('toFaultWith', () => {
  it('compares the name, and PASID and address where they are given', () => {
    expect(fault).toFaultWith('fsEntryNotPresent')
    expect(fault).toFaultWith('fsEntryNotPresent', { pasid: 7, at: 0x2000n })
    expect(fault).not.toFaultWith('fsEntryNotPresent', { pasid: 8 })
    expect(fault).not.toFaultWith('fsEntryNotPresent', { at: 0n })
    expect(fault).not.toFaultWith('fsEntryNotPresent', { pasid: undefined })
    expect({ text: 'x' }).not.toFaultWith('fsEntryNotPresent')
  })
  it.each([
    [fault, 'expected fault other, pasid 8; got fault fsEntryNotPresent of PASID 7 at 0x2000'],
    [{ text: 'x' }, 'expected fault other, but the request moved "x"'],
  ])('says what happened instead: %#', (outcome, message) => {
    expect(matchers.toFaultWith(outcome, 'other', { pasid: 8 }).message()).toBe(message)
  })
})

describe('leaks', () => {
  it('toHoldNothing names what is held, and checkBenches ends those who hold it', () => {
    const b = bench()
    expect(b).toHoldNothing()
    const c = b.process().nesting()
    c.bind(c.alloc())
    expect(b).not.toHoldNothing()
    expect(matchers.toHoldNothing(b).message()).toMatch(/bindings 1 \(0\)/)
    checkBenches()
    expect(b).toHoldNothing()
  })
  it('check is an Error when something outlives every process', () => {
    const b = bench()
    const { ioasid } = b.machine
    const id = ioasid.alloc(ioasid.hostSet, 1, 9)
    expect(() => b.check()).toThrow('the bench leaks: pasids 1 (0)')
    ioasid.free(ioasid.hostSet, id)
  })
})

describe('a bench', () => {
  it('is deterministic: two runs of one story say the same on the trace', () => {
    const story = () => {
      const b = bench()
      const seen: string[] = []
      const say = (_: string, v: unknown) => (typeof v === 'bigint' ? `${v}n` : v)
      for (const point of ['vfio.bind', 'vtd.translate', 'vtd.fault', 'ioasid'] as const)
        b.machine.trace.listen(point, e => void seen.push(JSON.stringify(e, say)))
      const space = b.bind(3)
      space.map(0x1000n, b.page('x'))
      b.dmaRead(0x1000n, { pasid: 3 })
      space.unmap(0x1000n)
      space.invalidate()
      b.dmaRead(0x1000n, { pasid: 3 })
      space.free()
      return seen
    }
    expect(story().length).toBeGreaterThan(5)
    expect(story()).toEqual(story())
  })
  it('writes through a table, and both ends see it', () => {
    const b = bench()
    const page = b.page()
    b.bind(5).map(0x7000n, page)
    expect(b.dmaWrite(0x7010n, 'written', { pasid: 5 })).toEqual({ text: 'written' })
    expect(new TextDecoder().decode(page.bytes.subarray(0x10, 0x17))).toBe('written')
  })
  it('tells what a function with ATS knows where the unit records nothing', () => {
    const b = bench({ device: testDevice({ ats: true }) })
    b.bind(5)
    expect(b.dmaRead(0x1000n, { pasid: 5 })).toFaultWith('not-present', { pasid: 5 })
  })
  it('has address spaces on each function', () => {
    const b = bench()
    b.bind(1, 0).map(0x1000n, b.page('zero'))
    b.bind(2, 1).map(0x1000n, b.page('one'))
    expect(b.dmaRead(0x1000n, { pasid: 2, device: 1 })).toEqual({ text: 'one' })
    expect(b.dmaRead(0x1000n, { pasid: 2, device: 0 })).toFaultWith('pasidEntryNotPresent')
  })
  it('binds again after unbind, with the table as it was', () => {
    const b = bench()
    const space = b.bind(9)
    space.map(0x1000n, b.page('kept'))
    space.unbind()
    expect(b.dmaRead(0x1000n, { pasid: 9 })).toFaultWith('pasidEntryNotPresent')
    space.bind()
    expect(b.dmaRead(0x1000n, { pasid: 9 })).toEqual({ text: 'kept' })
  })
})
