// Random interleavings of everything a container can ask for, against a model: what devices reach is what is mapped
// and bound, ids come back when their users are gone, and at the end nothing is left.
import { expect, it } from 'vitest'
import type { Domain } from '../../src/iommu/domain.js'
import { INVALID_IOASID } from '../../src/iommu/ioasid.js'
import { IOASID_SET_TYPE } from '../../src/iommu/ioasid-set.js'
import { bdfOf, bench, bindData, codeOf, GuestTable } from './driver-bench.js'

/** Deterministic numbers below `n` (mulberry32). */
function random(seed: number) {
  let a = seed
  return (n: number): number => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return ((t ^ (t >>> 14)) >>> 0) % n
  }
}

const DEVICES = [0, 1]
const PAGES = 24
const STEPS = 300

/** What the model knows of one domain. */
interface Model {
  readonly domain: Domain
  readonly table: GuestTable
  /** Value behind a page; guest virtual page k leads to guest physical page k. */
  readonly pages: Map<number, number>
}

it.each(Array.from({ length: 12 }, (_, i) => 1000 + i))('seed %i', seed => {
  const pick = random(seed)
  const ats = seed % 2 === 0
  const b = bench({ devices: DEVICES.map(() => ({ ats, pri: ats })) })
  const values = Array.from({ length: PAGES }, (_, i) => b.page(0x5000 + i))
  const usedAtStart = b.frames.used
  const set = b.ioasid.allocSet(IOASID_SET_TYPE.MM, {}, 12)

  const models = [0, 1].map((): Model => {
    const domain = b.core.domainAlloc(bdfOf(0), { nesting: true })
    domain.setIoasidSet(set)
    const table = new GuestTable(b, domain, 0x1000)
    for (let k = 0; k < PAGES; k++) table.map(BigInt(k) << 12n, k)
    return { domain, table, pages: new Map() }
  })
  /** Domain of each device, -1 for none. */
  const of = DEVICES.map(() => -1)
  /** Ids held, and those freed whose teardown has not run. */
  const held = new Set<number>()
  const going = new Set<number>()
  /** PASIDs bound on each device. */
  const bound = DEVICES.map(() => new Set<number>())
  const inUse = (id: number) => bound.some(s => s.has(id))
  const anyOf = (s: Set<number>) => [...s][pick(s.size || 1)] ?? 1 + pick(12)

  function settled() {
    for (const id of going) for (const s of bound) s.delete(id)
    going.clear()
  }

  /** Reads a page with and without PASID: what the model has there, or a refusal. */
  function check(n: number, page: number, id: number) {
    const expected = models[of[n]!]?.pages.get(page)
    const plain = b.read(n, BigInt(page) << 12n)
    const nested = b.read(n, BigInt(page) << 12n, id)
    if (expected === undefined) expect(plain).toBeTypeOf('string')
    else expect(plain).toBe(expected)
    if (expected !== undefined && bound[n]!.has(id)) expect(nested).toBe(expected)
    else expect(nested).toBeTypeOf('string')
  }

  const actions = {
    attach() {
      const n = pick(2)
      const to = pick(2)
      const errno = codeOf(() => models[to]!.domain.attach(bdfOf(n)))
      expect(errno).toBe(of[n] === -1 ? 'ok' : 'EBUSY')
      if (errno === 'ok') of[n] = to
    },
    detach() {
      const n = pick(2)
      const from = pick(2)
      models[from]!.domain.detach(bdfOf(n))
      if (of[n] !== from) return
      of[n] = -1
      bound[n]!.clear()
      for (const id of going) if (!inUse(id)) going.delete(id)
    },
    map() {
      const { domain, pages } = models[pick(2)]!
      const page = pick(PAGES)
      const errno = codeOf(() => domain.map(page, values[page]!, 1, 3))
      expect(errno).toBe(pages.has(page) ? 'EEXIST' : 'ok')
      if (errno === 'ok') pages.set(page, 0x5000 + page)
    },
    unmap() {
      const { domain, pages } = models[pick(2)]!
      const page = pick(PAGES)
      const count = 1 + pick(4)
      for (const n of DEVICES) check(n, page, anyOf(bound[n]!)) // caches are warm now
      let expected = 0
      for (let i = page; i < page + count; i++) if (pages.delete(i)) expected++
      expect(domain.unmap(page, count)).toBe(expected)
      domain.flush()
      for (const n of DEVICES) check(n, page, anyOf(bound[n]!))
    },
    alloc() {
      const id = b.ioasid.alloc(set, 1, 0xf_ffff)
      const full = held.size + going.size >= 12
      expect(id === INVALID_IOASID).toBe(full)
      if (!full) held.add(id)
    },
    free() {
      const id = anyOf(held)
      b.ioasid.free(set, id)
      if (held.delete(id) && inUse(id)) going.add(id)
    },
    bind() {
      const n = pick(2)
      const to = pick(2)
      const id = anyOf(held)
      const { domain, table } = models[to]!
      const data = bindData({
        hpasid: BigInt(id),
        gpgd: BigInt(table.root),
        flags: 1n,
        gpasid: BigInt(id + 100),
      })
      const errno = codeOf(() => domain.bindGpasid(bdfOf(n), data))
      if (!held.has(id)) expect(errno).toBe('ENOENT')
      else if (bound[n]!.has(id)) expect(errno).toBe('EBUSY')
      else if (of[n] !== to) expect(errno).toBe('EINVAL')
      else {
        expect(errno).toBe('ok')
        bound[n]!.add(id)
      }
    },
    unbind() {
      const n = pick(2)
      const from = pick(2)
      const id = anyOf(bound[n]!)
      check(n, pick(PAGES), id)
      const errno = codeOf(() => models[from]!.domain.unbindGpasid(bdfOf(n), BigInt(id)))
      expect(errno).toBe(held.has(id) ? 'ok' : 'ENOENT')
      if (held.has(id) && of[n] === from) bound[n]!.delete(id)
      for (let page = 0; page < PAGES; page++) check(n, page, id)
    },
    step() {
      b.clock.settle()
      settled()
    },
    dma() {
      const n = pick(2)
      check(n, pick(PAGES), anyOf(bound[n]!))
    },
  }
  const names = Object.keys(actions) as (keyof typeof actions)[]
  // Reads and binds are what the rest is about: more of them.
  names.push('dma', 'dma', 'dma', 'bind', 'bind', 'alloc', 'map', 'map', 'attach')

  for (let i = 0; i < STEPS; i++) {
    actions[names[pick(names.length)]!]()
    expect(b.driver.bindingCount).toBe(bound[0]!.size + bound[1]!.size)
    expect(b.ioasid.held).toBe(held.size + going.size)
    for (const id of held) {
      const users = inUse(id) ? 2 : 1
      expect(b.ioasid.references(id)).toBe(users)
    }
  }

  for (const n of DEVICES) for (const { domain } of models) domain.detach(bdfOf(n))
  expect(b.driver.bindingCount).toBe(0)
  b.ioasid.putSet(set)
  b.clock.settle()
  for (const { domain, table } of models) {
    domain.free()
    table.free()
  }
  expect([b.ioasid.held, b.frames.used]).toEqual([0, usedAtStart])
  expect([b.unit.regs.FSTS_REG.IQE, b.unit.regs.FSTS_REG.ITE, b.clock.pending]).toEqual([
    false,
    false,
    0,
  ])
})
