// Faults of real devices on their way to a guest: through the host's SMMU, its driver, VFIO's fault region and the monitor
// into the guest's queues. The test plays the guest; what the arm64 guest itself sees of them is main-job.test.ts.
import { describe, expect, it } from 'vitest'
import { CD } from '../../../src/iommu/smmu/cd.js'
import { EVENTS } from '../../../src/iommu/smmu/events.js'
import { STE } from '../../../src/iommu/smmu/ste.js'
import {
  DESCRIPTOR,
  OPCODE,
  RECORD,
  STATUS,
} from '../../../src/pci/devices/sva-engine/descriptors.js'
import { MODE, queueOffset } from '../../../src/pci/devices/sva-engine/registers.js'
import { ARM64_MAP, guestBdf } from '../../../src/vmm/arm64/map.js'
import { image, monitor } from './support.js'

const { RAM, SMMU, ECAM } = ARM64_MAP
const STREAMS = RAM + 0x10_0000
const CONTEXTS = RAM + 0x11_0000
const TABLES = RAM + 0x12_0000
const COMMANDS = RAM + 0x13_0000
const EVENTQ = RAM + 0x14_0000
const PRIQ = RAM + 0x15_0000
const DATA = RAM + 0x16_0000
const PASID = 5

/** A guest whose device `n` has a ring at 0x4000 and a record at 0x3000; 0x1000 is there, 0x2000 is not. */
function guest(n: number, cd: Parameters<typeof CD.create>[0] = {}) {
  const { machine, vmm, end } = monitor(image, { ramBytes: 128 * 2 ** 20 })
  const stream = guestBdf(n)
  const config = ECAM + stream * 4096
  const put = (at: number, bytes: Uint8Array) => vmm.memory.set(bytes, at - RAM)
  const word = (at: number, value: bigint) =>
    put(at, new Uint8Array(BigUint64Array.of(value).buffer))
  const at = (address: number) =>
    new DataView(vmm.memory.buffer, vmm.memory.byteOffset + address - RAM)
  const reg = (offset: number, size: number, value: number) =>
    vmm.mmioWrite(SMMU + offset, size, BigInt(value))

  const ste = STE.create({
    V: true,
    Config: 5,
    S1ContextPtr: CONTEXTS,
    S1CDMax: 6,
    S1DSS: 1,
    EATS: n === 0 ? 1 : 0,
  })
  put(STREAMS + stream * STE.size, ste.bytes)
  const context = CD.create({
    V: true,
    AA64: true,
    T0SZ: 16,
    EPD1: true,
    IPS: 4,
    TTB0: TABLES,
    ASID: 1,
    ASET: true,
    R: true,
    A: true,
    ...cd,
  })
  put(CONTEXTS + PASID * CD.size, context.bytes)
  for (const level of [0, 1, 2])
    word(TABLES + level * 0x1000, BigInt(TABLES + level * 0x1000 + 0x1000) | 3n)
  const page = (gva: number, bits = 0xc43n) =>
    word(TABLES + 0x3000 + (gva >> 12) * 8, BigInt(DATA + gva) | bits)
  for (const gva of [0x1000, 0x3000, 0x4000]) page(gva)
  reg(0x80, 8, STREAMS)
  reg(0x88, 4, 8)
  reg(0x90, 8, COMMANDS + 6)
  reg(0xa0, 8, EVENTQ + 4)
  reg(0xc0, 8, PRIQ + 4)
  reg(0x20, 4, 15)

  vmm.mmioWrite(config + 4, 2, 6n)
  const bar = Number(vmm.mmioRead(config + 0x10, 4)) & ~15
  const engine = (name: Parameters<typeof queueOffset>[1], value: number) =>
    vmm.mmioWrite(bar + queueOffset(0, name), name === 'BASE' ? 8 : 4, BigInt(value >>> 0))
  engine('PASID', PASID)
  engine('BASE', 0x4000)
  engine('SIZE', 4)
  engine('CONFIG', (1 << 31) | (1 << 6) | (1 << 4) | MODE.RING)
  let tail = 0
  const record = () => RECORD.at(vmm.memory.slice(DATA + 0x3000 - RAM, DATA + 0x3020 - RAM)).STATUS
  /** Lets the device copy, and the kernel and the monitor hear of what came of it. */
  function copy(source: number, destination: number): number {
    put(DATA + 0x3000, new Uint8Array(32))
    const descriptor = DESCRIPTOR.create({
      RECORD: true,
      BLOCK: true,
      OPCODE: OPCODE.COPY,
      COMPLETION: 0x3000n,
      SRC: BigInt(source),
      DST: BigInt(destination),
      LENGTH: 64,
    })
    put(DATA + 0x4000 + tail * 64, descriptor.bytes)
    engine('TAIL', ++tail)
    machine.settle()
    vmm.poll()
    machine.settle()
    return record()
  }
  const event = (i = 0) => {
    const v = at(EVENTQ + i * 32)
    return {
      code: v.getUint8(0),
      stream: v.getUint32(4, true),
      pasid: (v.getUint32(0, true) >>> 12) & 0xf_ffff,
      stall: v.getUint32(8, true) >>> 31 === 1,
      read: ((v.getUint32(12, true) >>> 3) & 1) === 1,
      address: v.getBigUint64(16, true),
    }
  }
  const events = () => Number(vmm.mmioRead(SMMU + 0x1_00a8, 4))
  return { vmm, end, copy, event, events, page, record, put, word, at, machine, reg }
}

describe('a device that does not stall', () => {
  it.each([
    ['no page', () => {}, EVENTS.F_TRANSLATION.code],
    [
      'a page without access flag',
      (g: ReturnType<typeof guest>) => g.page(0x2000, 0x843n),
      EVENTS.F_ACCESS.code,
    ],
    [
      'a page that is read-only',
      (g: ReturnType<typeof guest>) => g.page(0x2000, 0xcc3n),
      EVENTS.F_PERMISSION.code,
    ],
  ])('%s: refused, and an event of the guest’s SMMU', (_, prepare, code) => {
    const g = guest(1)
    prepare(g)
    expect(g.copy(0x1000, 0x2000)).toBe(STATUS.REFUSED)
    expect(g.events()).toBe(1)
    expect(g.event()).toEqual({
      code,
      stream: guestBdf(1),
      pasid: PASID,
      stall: false,
      read: false,
      address: 0x2000n,
    })
    g.end()
  })

  it('a context descriptor that is not valid is the guest’s C_BAD_CD', () => {
    const g = guest(1, { V: false })
    g.copy(0x1000, 0x1000)
    expect(g.event()).toMatchObject({ code: EVENTS.C_BAD_CD.code, stream: guestBdf(1) })
    g.end()
  })
})

describe('a device that stalls', () => {
  it('waits until the guest resumes it, and goes on with the page that is there now', () => {
    const g = guest(1, { S: true })
    expect(g.copy(0x2000, 0x1000)).toBe(0)
    expect(g.event()).toEqual({
      code: EVENTS.F_TRANSLATION.code,
      stream: guestBdf(1),
      pasid: PASID,
      stall: true,
      read: true,
      address: 0x2000n,
    })
    g.page(0x2000)
    g.put(DATA + 0x2000, Uint8Array.of(1, 2, 3))
    g.word(COMMANDS, (BigInt(guestBdf(1)) << 32n) | (1n << 12n) | 0x44n)
    g.word(COMMANDS + 8, BigInt(g.at(EVENTQ + 8).getUint16(0, true)))
    g.reg(0x98, 4, 1)
    g.machine.settle()
    expect([g.record(), g.at(DATA + 0x1000).getUint8(2)]).toEqual([STATUS.SUCCESS, 3])
    g.end()
  })

  it.each([
    ['its SMMU off', (g: ReturnType<typeof guest>) => g.reg(0x20, 4, 0)],
    [
      'its entry away',
      (g: ReturnType<typeof guest>) => {
        g.put(STREAMS + guestBdf(1) * 64, new Uint8Array(64))
        g.word(COMMANDS, (BigInt(guestBdf(1)) << 32n) | 0x03n)
        g.reg(0x98, 4, 1)
      },
    ],
  ])('is aborted when the guest takes %s, and nothing waits for ever', (_, act) => {
    const g = guest(1, { S: true })
    expect(g.copy(0x2000, 0x1000)).toBe(0)
    act(g)
    g.machine.settle()
    expect(g.machine.unit.stalled).toBe(0)
    g.end()
  })

  it('is aborted when the monitor goes while it waits', () => {
    const g = guest(1, { S: true })
    expect(g.copy(0x2000, 0x1000)).toBe(0)
    expect(g.machine.unit.stalled).toBe(1)
    g.end()
  })
})

describe('a device that asks for pages', () => {
  it('waits until the guest answers; without a PRI queue it is told no', () => {
    const g = guest(0)
    expect(g.copy(0x1000, 0x2000)).toBe(0)
    expect(g.at(PRIQ).getUint32(0, true)).toBe(guestBdf(0))
    g.end()
    const off = guest(0)
    off.reg(0x20, 4, 13)
    expect(off.copy(0x1000, 0x2000)).toBe(STATUS.PAGE_FAILURE)
    off.end()
  })
})
