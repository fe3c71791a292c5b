// 52-bit output addresses with 64 KB granules: bits 51:48 stand in bits 15:12 of a descriptor (IHI 0070 3.4, FEAT_LPA).
import { describe, expect, it } from 'vitest'
import { NO_PASID } from '../../../src/pci/request.js'
import { Bench, type CdFields, REG, RW, RW2, type SteFields } from './bench.js'

/** RAM with a digit in address bits 51:48 that no 48-bit address reaches. */
const HIGH = 0x5_0000_4000_0000
const VA = 0x7fff_1234_0000n
const PAGE = 2 ** 16

/** A descriptor of a 64 KB granule. */
const at = (address: number | bigint, bits: bigint): bigint => {
  const a = BigInt(address)
  return (a & 0xffff_ffff_0000n) | ((a >> 48n) << 12n) | bits
}

function bench(outputAddressBits: 48 | 52 = 52) {
  const b = new Bench({ config: { outputAddressBits } }).start()
  b.memory.addRam(HIGH, new Uint8Array(16 * PAGE))
  return b
}

/** Three levels for one address, tables from `base` on; answers the root. */
function tables(b: Bench, va: bigint, leaf: bigint, base = HIGH): number {
  const [root, middle, last] = [base, base + PAGE, base + 2 * PAGE]
  const entry = (table: number, low: number) =>
    table + Number((va >> BigInt(low)) & (low === 42 ? 1023n : 8191n)) * 8
  b.memory.store(entry(root, 42), 8, at(middle, 3n))
  b.memory.store(entry(middle, 29), 8, at(last, 3n))
  b.memory.store(entry(last, 16), 8, leaf)
  return root
}

const stage1 = (b: Bench, cd: CdFields) =>
  b.ste({ config: 5, ctx: b.cd({ tg0: 1, ips: 6, ...cd }) })
const stage2 = (b: Bench, ste: Partial<SteFields>) =>
  b.ste({ config: 6, tg: 1, ps: 6, t0sz: 12, sl0: 2, ...ste })

describe('a unit with 52 output bits', () => {
  it('says so', () => {
    expect(bench().r32(REG.IDR5) & 7).toBe(6)
  })

  it.each([
    ['stage 1', VA, (b: Bench, root: number) => stage1(b, { ttb0: root }), RW],
    ['stage 2', VA, (b: Bench, root: number) => stage2(b, { s2ttb: root }), RW2],
    ['stage 2, IPA', VA | (9n << 48n), (b: Bench, r: number) => stage2(b, { s2ttb: r }), RW2],
  ])('%s: root, tables and pages lie anywhere in 52 bits', (_, va, configure, bits) => {
    const b = bench()
    configure(b, tables(b, va, at(0xa_8000_7777_0000n, bits)))
    for (let i = 0; i < 2; i++) expect(b.dma(va + 0x1234n)).toBe(0xa_8000_7777_1234)
    expect(b.unit.look(b.request.requester, NO_PASID, va).walks[0]!.output).toBe(0xa_8000_7777_0000)
  })

  it('nested: an IPA of 52 bits goes through stage 2', () => {
    const b = bench()
    const ipa = 0xc_0000_1111_0000n
    const first = tables(b, VA, at(ipa, RW))
    const second = tables(b, ipa, at(0xd_2222_3333_0000n, RW2), HIGH + 4 * PAGE)
    // Stage 2 also leads to the tables of stage 1, one to one, and to the CD below them.
    const cd = b.cd({ tg0: 1, ips: 6, ttb0: first })
    const last = HIGH + 7 * PAGE
    const entry = (table: number, a: number, low: number) =>
      table + Number((BigInt(a) >> BigInt(low)) & (low === 42 ? 1023n : 8191n)) * 8
    for (const [i, a] of [first, first + PAGE, first + 2 * PAGE, cd].entries()) {
      const table = i < 3 ? last : last + 2 * PAGE
      b.memory.store(entry(second, a, 42), 8, at(table + PAGE, 3n))
      b.memory.store(entry(table + PAGE, a, 29), 8, at(table, 3n))
      b.memory.store(entry(table, a, 16), 8, at(a - (a % PAGE), RW2))
    }
    b.ste({ config: 7, ctx: cd, s2ttb: second, tg: 1, ps: 6, t0sz: 12, sl0: 2 })
    expect(b.dma(VA + 8n)).toBe(0xd_2222_3333_0008)
  })

  it('a block holds its upper bits in the same place', () => {
    const b = bench()
    const root = tables(b, VA, 0n)
    const block = HIGH + PAGE + Number((VA >> 29n) & 8191n) * 8
    b.memory.store(block, 8, at(0xe_0000_2000_0000n, RW & ~2n))
    stage1(b, { ttb0: root })
    expect(b.dma(VA)).toBe(0xe_0000_2000_0000 + Number(VA & 0x1fff_ffffn))
  })

  it('a block of 4 TB at level 1 is one only here', () => {
    const leaf = at(0x3_4400_0000_0000n, RW & ~2n)
    for (const [bits, answer] of [
      [52, 0x3_4400_0000_0000 + Number(VA & 0x3ff_ffff_ffffn)],
      [48, 'F_TRANSLATION'],
    ] as const) {
      const b = bench(bits)
      const root = b.alloc(16)
      b.store(root + Number(VA >> 42n) * 8, leaf)
      stage1(b, { ttb0: root, ips: bits === 52 ? 6 : 5 })
      expect(b.dma(VA)).toBe(answer)
    }
  })

  it.each([
    ['above IPS', at(1n << 48n, RW), 'F_ADDR_SIZE'],
    ['within IPS', at(0x8000_0000n, RW), 0x8000_0000],
  ])('IPS of 48 bits: a page %s', (_, leaf, answer) => {
    const b = bench()
    stage1(b, { ips: 5, ttb0: tables(b, VA, leaf, 0x80_0000) })
    expect(b.dma(VA)).toBe(answer)
  })

  it.each([
    ['a root above IPS', { ips: 5, ttb0: HIGH }],
    ['a root above 48 bits with 4 KB', { tg0: 0, ttb0: HIGH }],
    ['a root above 48 bits with 16 KB', { tg0: 2, ttb0: HIGH }],
  ])('C_BAD_CD: %s', (_, cd) => {
    const b = bench()
    stage1(b, cd)
    expect(b.dma(VA)).toBe('C_BAD_CD')
  })

  it.each([
    ['a root above S2PS', { ps: 5, s2ttb: HIGH }],
    ['a root above 48 bits with 4 KB', { tg: 0, t0sz: 16, s2ttb: HIGH }],
  ])('C_BAD_STE: %s', (_, ste) => {
    const b = bench()
    stage2(b, ste)
    expect(b.dma(VA)).toBe('C_BAD_STE')
  })
})

it('with 48 output bits, bits 15:12 of a 64 KB descriptor mean nothing', () => {
  const b = bench(48)
  const low = 0x80_0000
  stage1(b, { ttb0: tables(b, VA, at(0xf_0000_0090_0000n, RW), low) })
  expect(b.dma(VA)).toBe(0x90_0000)
})
