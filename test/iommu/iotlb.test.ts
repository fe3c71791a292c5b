import { describe, expect, it } from 'vitest'
import {
  ANY_SOURCE,
  IOTLB_ANY,
  IOTLB_FIRST,
  IOTLB_NESTED,
  IOTLB_SECOND,
  Iotlb,
} from '../../src/iommu/iotlb.js'
import {
  FAILURE,
  PERM_GLOBAL,
  PERM_READ,
  PERM_RW,
  PERM_USER_READ,
  Walk,
} from '../../src/paging/walk.js'
import { hiOf, loOf, random } from '../paging/support.js'

interface Entry {
  domain: number
  pasid: number
  source: number
  kind: number
  first: bigint
  bits: number
  output: number
  permissions: number
}

/** A cache that is a list. */
class Model {
  entries: Entry[] = []

  insert(e: Entry): void {
    this.entries = this.entries.filter(
      o =>
        o.domain !== e.domain ||
        o.pasid !== e.pasid ||
        o.source !== e.source ||
        o.bits !== e.bits ||
        o.first !== e.first,
    )
    this.entries.push(e)
  }

  drop(which: (e: Entry) => boolean): number {
    const before = this.entries.length
    this.entries = this.entries.filter(e => !which(e))
    return before - this.entries.length
  }
}

const overlaps = (e: Entry, address: bigint, bits: number): boolean => {
  const b = BigInt(Math.max(e.bits, bits))
  return e.first >> b === address >> b
}

const address = (n: bigint): [number, number] => [hiOf(n), loOf(n)]

describe('an IOTLB', () => {
  it('translates with the page offset of every size, and only under its own tag', () => {
    const t = new Iotlb(8)
    const [hi, lo] = address(0x7f12_3456_7abcn)
    t.insert(1, 5, ANY_SOURCE, IOTLB_NESTED, hi, lo, 0x12_3456_7abc, 12, PERM_RW)
    t.insert(1, 6, ANY_SOURCE, IOTLB_NESTED, hi, lo, 0x12_3456_7abc, 21, PERM_READ)
    t.insert(1, -1, 0x0100, IOTLB_SECOND, hi, lo, 0xf_0000_3456_7abc, 30, PERM_RW)

    const [nearHi, nearLo] = address(0x7f12_3456_7123n)
    const four = t.lookup(1, 5, ANY_SOURCE, nearHi, nearLo)
    expect(t.output(four, nearHi, nearLo)).toBe(0x12_3456_7123)
    expect([t.pageBits(four), t.permissions(four), t.kind(four)]).toEqual([
      12,
      PERM_RW,
      IOTLB_NESTED,
    ])
    const two = t.lookup(1, 6, ANY_SOURCE, nearHi, loOf(0x345f_ffffn))
    expect(t.output(two, nearHi, loOf(0x345f_ffffn))).toBe(0x12_345f_ffff)
    const one = t.lookup(1, -1, 0x0100, hi, loOf(0x0000_0001n))
    expect(t.output(one, hi, loOf(1n))).toBe(0xf_0000_0000_0001)

    expect(t.lookup(1, 5, ANY_SOURCE, nearHi, nearLo ^ 0x1000)).toBe(-1)
    expect(t.lookup(1, 5, ANY_SOURCE, nearHi ^ 1, nearLo)).toBe(-1)
    expect(t.lookup(2, 5, ANY_SOURCE, nearHi, nearLo)).toBe(-1)
    expect(t.lookup(1, 7, ANY_SOURCE, nearHi, nearLo)).toBe(-1)
    expect(t.lookup(1, 5, 0x0100, nearHi, nearLo)).toBe(-1)
    expect(t.lookup(1, -1, 0x0101, hi, 1)).toBe(-1)
  })

  it('knows pages larger than 4 GiB', () => {
    const t = new Iotlb(4)
    const [hi, lo] = address(0x12_8765_4321n)
    t.insert(1, 0, ANY_SOURCE, IOTLB_FIRST, hi, lo, 0x3_0012_8765_4321, 39, PERM_READ)
    const [otherHi, otherLo] = address(0x7f_ffff_ffffn)
    const slot = t.lookup(1, 0, ANY_SOURCE, otherHi, otherLo)
    expect(t.output(slot, otherHi, otherLo)).toBe(0x3_007f_ffff_ffff)
    expect(t.lookup(1, 0, ANY_SOURCE, 0x80, 0)).toBe(-1)
  })

  it('replaces one slot after the other when it is full, and never grows', () => {
    const t = new Iotlb(4)
    for (let i = 0; i < 6; i++) {
      t.insert(1, i, ANY_SOURCE, IOTLB_FIRST, 0, i << 12, i << 12, 12, PERM_READ)
    }
    expect(t.size).toBe(4)
    const held = [0, 1, 2, 3, 4, 5].filter(i => t.lookup(1, i, ANY_SOURCE, 0, i << 12) >= 0)
    expect(held).toEqual([2, 3, 4, 5])
  })

  it('tells a slot that its tables no longer agree with', () => {
    const t = new Iotlb(4)
    const slot = t.insert(1, 0, ANY_SOURCE, IOTLB_FIRST, 0, 0x1000, 0x5000, 12, PERM_READ)
    const w = new Walk()
    w.output = 0x5010
    w.permissions = PERM_READ | PERM_USER_READ
    expect(t.agrees(slot, 0, 0x1010, w)).toBe(true)
    w.permissions = PERM_USER_READ
    expect(t.agrees(slot, 0, 0x1010, w)).toBe(false)
    w.permissions = PERM_READ
    w.output = 0x6010
    expect(t.agrees(slot, 0, 0x1010, w)).toBe(false)
    w.output = 0x5010
    w.failure = FAILURE.notPresent
    expect(t.agrees(slot, 0, 0x1010, w)).toBe(false)
  })

  it('keeps global entries when asked to', () => {
    const t = new Iotlb(4)
    t.insert(1, 5, ANY_SOURCE, IOTLB_FIRST, 0, 0x1000, 0x5000, 12, PERM_READ | PERM_GLOBAL)
    t.insert(1, 5, ANY_SOURCE, IOTLB_FIRST, 0, 0x2000, 0x6000, 12, PERM_READ)
    expect(t.invalidatePasid(1, 5, IOTLB_ANY, PERM_GLOBAL)).toBe(1)
    expect(t.invalidatePasidRange(1, 5, 0, 0x1000, 12, IOTLB_ANY, PERM_GLOBAL)).toBe(0)
    expect(t.lookup(1, 5, ANY_SOURCE, 0, 0x1000)).toBeGreaterThanOrEqual(0)
    expect(t.invalidatePasid(1, 5)).toBe(1)
  })

  it.each([0, 2 ** 20 + 1, 1.5])('refuses %d entries', capacity => {
    expect(() => new Iotlb(capacity)).toThrow('IOTLB of')
  })
})

describe.each([
  ['roomy', 512],
  ['crowded', 24],
])('a %s IOTLB of %d entries against a list', (name, capacity) => {
  it('drops exactly what 5000 random changes name, seed 3', () => {
    const draw = random(3)
    const t = new Iotlb(capacity)
    const model = new Model()
    const pages = [0n, 0x1000n, 0x20_0000n, 0x3f_f000n, 0x4000_0000n, 0x7f12_3450_0000n, 1n << 47n]
    const anyAddress = (): bigint =>
      pages[draw(pages.length)]! + BigInt(draw(4)) * [0x1000n, 0x20_0000n][draw(2)]!
    const anyKinds = (): number => [IOTLB_ANY, IOTLB_SECOND, IOTLB_FIRST | IOTLB_NESTED][draw(3)]!
    let dropped = 0
    for (let i = 0; i < 5000; i++) {
      const domain = draw(3)
      const pasid = [-1, 0, 1, 0xfffff][draw(4)]!
      const source = [ANY_SOURCE, 0x0100][draw(2)]!
      const at = anyAddress()
      const [hi, lo] = address(at)
      const range = [12, 13, 15, 21, 24, 30, 40, 64][draw(8)]!
      const kinds = anyKinds()
      const keep = draw(4) === 0 ? PERM_GLOBAL : 0
      const matches = (e: Entry): boolean => e.domain === domain && (e.kind & kinds) !== 0
      const mayGo = (e: Entry): boolean => (e.permissions & keep) === 0
      let got = 0
      let want = 0
      const what = draw(40)
      if (what < 30) {
        const bits = [12, 12, 12, 21, 30][draw(5)]!
        const kind = [IOTLB_FIRST, IOTLB_SECOND, IOTLB_NESTED][draw(3)]!
        const output = draw(2 ** 20) * 2 ** 30 + Number(at & ((1n << BigInt(bits)) - 1n))
        const permissions = 1 + draw(127)
        t.insert(domain, pasid, source, kind, hi, lo, output, bits, permissions)
        const first = (at >> BigInt(bits)) << BigInt(bits)
        const base = output - Number(at - first)
        model.insert({ domain, pasid, source, kind, first, bits, output: base, permissions })
      } else if (what === 30 && draw(8) === 0) {
        got = t.invalidateAll()
        want = model.drop(() => true)
      } else if (what < 32) {
        got = t.invalidateDomain(domain, kinds)
        want = model.drop(matches)
      } else if (what < 34) {
        got = t.invalidateDomainRange(domain, hi, lo, range, kinds)
        want = model.drop(e => matches(e) && overlaps(e, at, range))
      } else if (what < 36) {
        got = t.invalidatePasid(domain, pasid, kinds, keep)
        want = model.drop(e => matches(e) && e.pasid === pasid && mayGo(e))
      } else {
        got = t.invalidatePasidRange(domain, pasid, hi, lo, range, kinds, keep)
        want = model.drop(
          e => matches(e) && e.pasid === pasid && overlaps(e, at, range) && mayGo(e),
        )
      }
      dropped += got
      // A crowded cache may have lost entries to replacement before: the list forgets them too.
      const held = model.entries.filter(e => {
        const [h, l] = address(e.first)
        const slot = t.lookup(e.domain, e.pasid, e.source, h, l)
        return slot >= 0
      })
      if (name === 'roomy') {
        expect(`${i} ${got}`).toBe(`${i} ${want}`)
        expect(held.length).toBe(model.entries.length)
      } else expect(got).toBeLessThanOrEqual(want)
      if (name === 'roomy') expect(t.size).toBe(model.entries.length)
      else expect(t.size).toBeLessThanOrEqual(capacity)

      const probe = anyAddress()
      const [ph, pl] = address(probe)
      const slot = t.lookup(domain, pasid, source, ph, pl)
      const fits = model.entries.filter(
        e =>
          e.domain === domain && e.pasid === pasid && e.source === source && overlaps(e, probe, 12),
      )
      if (slot < 0) {
        if (name === 'roomy') expect(fits).toEqual([])
      } else {
        const found = fits.find(e => e.bits === t.pageBits(slot))!
        expect(t.output(slot, ph, pl)).toBe(found.output + Number(probe - found.first))
        expect([t.permissions(slot), t.kind(slot)]).toEqual([found.permissions, found.kind])
      }
    }
    expect(dropped).toBeGreaterThan(100)
  })
})
