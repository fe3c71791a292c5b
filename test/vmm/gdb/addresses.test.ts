// Guest-virtual addresses on arm64, where a debugger walks the guest's tables itself: granules, both ranges, tags.
import { describe, expect, it } from 'vitest'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { TableBuilder } from '../../../src/paging/builder.js'
import { vmsaFormat } from '../../../src/paging/formats-vmsa.js'
import { PERM_RW } from '../../../src/paging/walk.js'
import { Arm64Target } from '../../../src/vmm/gdb/arm64.js'
import { MemoryBreakpoints } from '../../../src/vmm/gdb/memory.js'
import { AT, Guest, sysreg } from '../../cpu/kvm-arm64/guest.js'

const TG = { 4: [0n, 2n], 16: [2n, 1n], 64: [1n, 3n] } as const
/** 39 bits in both ranges, 44 bits out. */
const SIZES = 25n | (25n << 16n) | (4n << 32n)
const LOW = 0x1234_0000n
const HIGH = 0xffff_ff80_1234_0000n

/** A guest whose LOW and HIGH are 64 KB at AT.DATA. */
function mapped(granule: 4 | 16 | 64, more = 0n) {
  const g = new Guest()
  const memory = new AddressSpace()
  memory.addRam(AT.CODE, g.ram)
  let next: number = AT.TABLES
  const roots = [false, true].map(upper => {
    const format = vmsaFormat({ granule, inputBits: 39, upper })
    const allocTable = () => {
      next += granule * 1024
      return next - granule * 1024
    }
    const builder = new TableBuilder(format, memory, { allocTable })
    const root = allocTable()
    builder.map(root, Number((upper ? HIGH : LOW) >> 12n), AT.DATA / 4096, 16, PERM_RW)
    return root
  })
  const [tg0, tg1] = TG[granule]
  g.cpu.set(sysreg(3, 0, 2, 0, 2), SIZES | (tg0 << 14n) | (tg1 << 30n) | more)
  g.cpu.set(sysreg(3, 0, 2, 0, 0), BigInt(roots[0]!) | (7n << 48n))
  g.cpu.set(sysreg(3, 0, 2, 0, 1), BigInt(roots[1]!))
  g.cpu.set(sysreg(3, 0, 1, 0, 0), 0x30d0_0981n)
  const { fd, page } = g.cpu
  const cpu = { sys: g.sys, fd, page, ram: g.ram, ramBase: AT.CODE }
  const target = new Arm64Target(cpu)
  return { g, target, memory: new MemoryBreakpoints(cpu, target) }
}

describe.each([4, 16, 64] as const)('%i KB pages', granule => {
  it('both ranges lead to the same memory, and nowhere else', () => {
    const { g, target, memory } = mapped(granule)
    for (const base of [LOW, HIGH]) {
      expect(target.translate(base + 0x5678n)).toBe(AT.DATA + 0x5678)
      expect(target.translate(base - 1n)).toBeUndefined()
      expect(target.translate(base + 0x1_0000n)).toBeUndefined()
    }
    expect(target.translate(1n << 45n)).toBeUndefined()
    // A write across pages of the debugger's own size.
    expect(memory.write(HIGH + 0xffen, Uint8Array.of(1, 2, 3, 4))).toBe(true)
    expect([...g.ram.subarray(AT.DATA - AT.CODE + 0xffe).subarray(0, 4)]).toEqual([1, 2, 3, 4])
    expect([...memory.read(LOW + 0xffen, 4)]).toEqual([1, 2, 3, 4])
    // What leaves the mapping is refused whole, and read as far as it goes.
    expect(memory.write(LOW + 0xfffen, Uint8Array.of(9, 9, 9, 9))).toBe(false)
    expect(memory.read(LOW + 0xfffen, 4)).toEqual(new Uint8Array(2))
  })

  it('a range that is switched off leads nowhere', () => {
    const { target } = mapped(granule, 1n << 7n)
    expect(target.translate(LOW)).toBeUndefined()
    expect(target.translate(HIGH)).toBe(AT.DATA)
  })

  it('tags are ignored where TBI says so', () => {
    const tag = 0xab00_0000_0000_0000n
    expect(mapped(granule, 1n << 37n).target.translate(LOW | tag)).toBe(AT.DATA)
    expect(mapped(granule).target.translate(LOW | tag)).toBeUndefined()
    const high = HIGH & ~(0xffn << 56n)
    expect(mapped(granule, 1n << 38n).target.translate(high | tag)).toBe(AT.DATA)
  })
})
