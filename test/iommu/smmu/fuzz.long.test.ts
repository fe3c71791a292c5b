// Random registers, tables, queues and requests: nothing throws, hangs, or reaches outside memory.
import { describe, expect, it } from 'vitest'
import type { PageRequest } from '../../../src/pci/request.js'
import { often } from '../../support/long.js'
import { watched } from '../watched.js'
import { Bench, command, REG, SID } from './bench.js'
import { random } from './random.js'

const SEED = 0xf022
const PARTS = Array.from({ length: often(2, 30) }, (_, i) => i)

/** A request of any kind; what comes back must make sense. */
function anyRequest(b: Bench, r: ReturnType<typeof random>, streams = 1): void {
  const va =
    (BigInt(r.below(2 ** 32)) << 32n) | BigInt(r.chance(0.5) ? r.below(2 ** 32) : r.below(2 ** 16))
  const request = b.fill(r.chance(0.7) ? va & 0xffff_ffffn : va, {
    requester: r.chance(0.7) ? SID + r.below(streams) : r.below(0x1_0000),
    pasid: r.chance(0.5) ? -1 : r.below(r.pick([2, 64, 2 ** 20])),
    write: r.chance(0.5),
    execute: r.chance(0.2),
    privileged: r.chance(0.2),
  })
  request.at = r.pick([0, 0, 0, 1, 2] as const)
  request.noWrite = r.chance(0.3)
  if (request.at === 1) b.unit.translateAts(request, b.answer)
  else b.unit.translate(request, b.answer)
  const { status, output, pageBits } = b.answer
  expect([0, 1, 4]).toContain(status)
  if (status !== 0) return
  const limit = 2 ** b.unit.config.outputAddressBits
  expect(output >= 0 && output < limit, `output ${output}`).toBe(true)
  expect(pageBits >= 12 && pageBits <= 48, `2^${pageBits}`).toBe(true)
}

const anyPageRequest = (r: ReturnType<typeof random>): PageRequest => ({
  requester: r.below(0x1_0000),
  pasid: r.chance(0.5) ? -1 : r.below(2 ** 20),
  hi: r.below(2 ** 32) | 0,
  lo: (r.below(2 ** 32) & -4096) | 0,
  read: r.chance(0.7),
  write: r.chance(0.5),
  execute: r.chance(0.2),
  privileged: r.chance(0.2),
  prgIndex: r.below(512),
  last: r.chance(0.6),
})

const word = (r: ReturnType<typeof random>): bigint => {
  const v = (BigInt(r.below(2 ** 32)) << 32n) | BigInt(r.below(2 ** 32))
  // Mostly addresses that are there, and small fields.
  return r.chance(0.5) ? v : r.chance(0.5) ? v & 0xff_ffffn : v & 0x8000_0000_00ff_f0ffn
}

const word32 = (r: ReturnType<typeof random>): number => Number(word(r) & 0xffff_ffffn)

/** 64 bytes that may be an STE, a CD, commands, or descriptors that point into the lowest MiB; or anything. */
function block(r: ReturnType<typeof random>): bigint[] {
  const near = (bits: number) => BigInt(r.below(2 ** (20 - bits))) << BigInt(bits)
  const rest = () => (r.chance(0.1) ? word(r) : 0n)
  switch (r.below(6)) {
    case 0: {
      const head = near(6) | (BigInt(r.below(8)) << 1n) | 1n | (BigInt(r.below(4)) << 4n)
      const s2 =
        (BigInt(r.pick([16, 24, 25, 34])) << 32n) | (BigInt(r.pick([2, 1])) << 38n) | (1n << 51n)
      const ats = BigInt(r.below(4)) << 28n
      return [head, ats | rest(), s2 | (5n << 48n) | rest(), near(12), rest(), 0n, 0n, rest()]
    }
    case 1: {
      const sizes = BigInt(16 + r.below(24)) | (BigInt(16 + r.below(24)) << 16n)
      const rules = (1n << 31n) | (5n << 32n) | (1n << 41n) | (3n << 45n) | (1n << 22n)
      return [sizes | rules | rest(), near(12), near(12), rest(), 0n, 0n, 0n, rest()]
    }
    case 2:
      return Array.from({ length: 8 }, (_, i) =>
        i % 2 === 0
          ? (word(r) & ~0x4ffn) | BigInt(r.pick([1, 3, 4, 5, 0x12, 0x40, 0x41, 0x44, 0x46]))
          : word(r),
      )
    case 3:
    case 4:
      return Array.from(
        { length: 8 },
        () => near(12) | BigInt(r.pick([0, 1, 3, 3, 3, 0x443, 0x4c3, 0xc43])),
      )
    default:
      return Array.from({ length: 8 }, () => word(r))
  }
}

describe('fuzz', () => {
  it.each(PARTS)(`registers, seed 0x${SEED.toString(16)} + %i`, part => {
    const r = random(SEED + part)
    const b = new Bench({ config: r.pick([{}, { stallModel: 2 as const }, { ats: false }]) })
    watched(b.memory)
    const offsets = Object.values(REG)
    for (let i = 0; i < 3000; i++) {
      const at = r.chance(0.8)
        ? r.pick(offsets) + (r.chance(0.1) ? r.below(8) : 0)
        : r.below(0x2_0000)
      const size = r.pick([1, 2, 4, 4, 4, 8] as const)
      if (r.chance(0.7)) b.unit.write(at, size, BigInt.asUintN(size * 8, word(r)))
      else expect(b.unit.read(at, size) >> BigInt(size * 8)).toBe(0n)
      if (r.chance(0.2)) anyRequest(b, r)
      if (r.chance(0.05)) b.unit.pageRequest(anyPageRequest(r))
      if (r.chance(0.05)) b.unit.message(r.below(0x1_0000), r.below(2 ** 32), r.below(2 ** 32))
    }
    b.clock.settle(10_000)
  })

  it.each(PARTS)(`tables, seed 0x${SEED.toString(16)} + %i`, part => {
    const r = random(SEED + 100 + part)
    const b = new Bench().start({ cr2: 10 })
    watched(b.memory)
    b.w32(REG.CR0, 0x1f)
    const names: Record<string, number> = {}
    for (let i = 0; i < 400; i++) {
      const root = 0x20_0000
      // Tables of random descriptors, of which many point at each other.
      for (let at = root; at < root + 0x4000; at += 8 * (1 + r.below(16)))
        b.store(at, word(r) | (r.chance(0.8) ? 3n : 0n))
      const ctx = r.pick([0x20_0000, 0x20_1000, 0x30_0000, 0x4000_0000])
      for (let ssid = 0; ssid < 8; ssid++) {
        b.cd(
          {
            ttb0: root,
            s: Number(r.chance(0.1)),
            ha: Number(r.chance(0.5)),
            hd: Number(r.chance(0.5)),
            asid: r.below(4),
            epd1: Number(r.chance(0.5)),
            ttb1: root,
            tbi: r.below(4),
          },
          0x30_0000 + ssid * 64,
        )
        if (r.chance(0.3)) b.store(0x30_0000 + ssid * 64 + r.below(8) * 8, word(r))
      }
      const at = b.ste({
        config: r.below(8),
        ctx,
        cdmax: r.below(21),
        s1fmt: r.below(4),
        dss: r.below(4),
        eats: r.below(4),
        s2ttb: root + 0x1000,
        tg: r.pick([0, 0, 1, 2]),
        sl0: r.pick([2, 2, 1]),
        ha: 1,
        hd: Number(r.chance(0.5)),
        vmid: r.below(3),
      })
      if (r.chance(0.5)) b.store(at + r.below(8) * 8, word(r))
      b.submit(command.cfgiSte(SID))
      for (let n = 0; n < 6; n++) {
        anyRequest(b, r)
        const { lastFault } = b.unit
        if (lastFault) names[lastFault.name] = (names[lastFault.name] ?? 0) + 1
      }
      b.consume()
      if (r.chance(0.2)) b.submit(command.tlbi(0x30), command.stallTerm(SID))
    }
    expect(Object.keys(names).length, JSON.stringify(names)).toBeGreaterThan(8)
  })

  it.each(PARTS)(`RAM of random words, seed 0x${SEED.toString(16)} + %i`, part => {
    const r = random(SEED + 300 + part)
    const config = r.pick([{}, { stallModel: 2 as const }, { outputAddressBits: 52 as const }])
    const b = new Bench({ config, ramBytes: 1 << 20 })
    watched(b.memory)
    const outcomes = new Set<string>()
    for (let round = 0; round < 6; round++) {
      b.w32(REG.CR0, 0)
      for (let at = 0; at < 1 << 20; at += 64) b.words(at, block(r))
      const page = (bits = 12) => r.below(2 ** (20 - bits)) * 2 ** bits
      b.w64(REG.STRTAB_BASE, page(6))
      const split = r.pick([6, 8, 10]) << 6
      b.w32(REG.STRTAB_BASE_CFG, r.pick([4, 9, 16]) | split | (r.below(2) << 16))
      for (const base of [REG.CMDQ_BASE, REG.EVENTQ_BASE, REG.PRIQ_BASE])
        b.w64(base, (r.chance(0.9) ? page() : r.below(2 ** 32)) | r.below(8))
      b.w32(REG.CR2, r.below(8))
      b.w32(REG.CR0, 0x1f)
      for (let i = 0; i < 250; i++) {
        if (r.chance(0.1)) b.w32(REG.CMDQ_PROD, r.below(256))
        if (r.chance(0.1)) b.w32(r.pick([REG.EVENTQ_CONS, REG.PRIQ_CONS]), word32(r))
        if (r.chance(0.1)) b.unit.pageRequest(anyPageRequest(r))
        if (r.chance(0.2)) b.w32(REG.GERRORN, b.r32(REG.GERROR))
        b.completes = r.chance(0.8)
        const before = b.faults.length
        anyRequest(b, r, 64)
        outcomes.add(b.answer.status === 0 ? 'translated' : (b.faults[before]?.name ?? 'refused'))
      }
      for (let n = 0; n < 100 && b.clock.step(); n++);
    }
    expect(outcomes.size, [...outcomes].join(' ')).toBeGreaterThan(3)
  })

  it.each(PARTS)(`commands, seed 0x${SEED.toString(16)} + %i`, part => {
    const r = random(SEED + 200 + part)
    const b = new Bench().start()
    watched(b.memory)
    b.stage1({ s: 1 })
    const opcodes = [
      0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x10, 0x11, 0x12, 0x13, 0x20, 0x21, 0x22, 0x23, 0x28,
      0x2a, 0x30, 0x40, 0x41, 0x44, 0x45, 0x46,
    ]
    let errors = 0
    /** Software mends a refused command by making it a CMD_SYNC. */
    const mend = () => {
      if (((b.r32(REG.GERROR) ^ b.r32(REG.GERRORN)) & 1) !== 0) {
        errors++
        b.words(b.commands + (b.r32(REG.CMDQ_CONS) & 63) * 16, command.sync())
      }
      b.w32(REG.GERRORN, b.r32(REG.GERROR))
    }
    for (let i = 0; i < 1500; i++) {
      const opcode = r.chance(0.95) ? r.pick(opcodes) : r.below(256)
      const low = (word(r) & ~0xffn) | BigInt(opcode)
      b.submit([r.chance(0.9) ? low & ~0x400n : low, word(r)])
      b.completes = r.chance(0.8)
      anyRequest(b, r)
      mend()
      b.consume()
    }
    // The last CMD_SYNC may have failed because a device did not answer.
    b.completes = true
    mend()
    expect(b.r32(REG.CMDQ_CONS) & 127, 'everything was consumed').toBe(b.r32(REG.CMDQ_PROD) & 127)
    expect(errors).toBeGreaterThan(20)
  })

  it('a command queue that its own CMD_SYNC keeps feeding goes on from the clock, and ends', () => {
    const b = new Bench().start()
    let fed = 0
    b.memory.addMmio(
      0x4000_0000,
      4096,
      {
        read: () => 0n,
        write: () => {
          if (fed++ < 500) b.w32(REG.CMDQ_PROD, (b.r32(REG.CMDQ_PROD) + 1) & 127)
        },
      },
      'feeder',
    )
    for (let i = 0; i < 64; i++) b.words(b.commands + i * 16, command.sync(1, 0x4000_0000, 1))
    b.w32(REG.CMDQ_PROD, 1)
    expect(fed, 'one queue at a time').toBeLessThan(70)
    b.clock.settle()
    expect(fed).toBe(501)
  })
})
