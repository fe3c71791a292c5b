// Hostile guests: random words and system accesses at both levels, under random translation, debug registers, strict
// synchronisation and a host that debugs. Whatever they do is the architecture's answer or an exit; nothing is thrown.
import { describe, expect, it } from 'vitest'
import { ENCODINGS, encode } from '../../../src/cpu/a64/decode.js'
import { SYSTEM_REGISTERS } from '../../../src/cpu/a64/system-register-table.js'
import { often } from '../../support/long.js'
import { xorshift } from '../../support/random.js'
import { Bench, CODE, RAM_SIZE, VECTORS } from './asm.js'

const KEYS = [...SYSTEM_REGISTERS.values()].map(r => r.key)
/** What may end a run of a hostile guest. */
const EXITS = ['limit', 'hlt', 'hypercall', 'mmio', 'debug', 'interrupted']

function attack(seed: number, instructions: number): void {
  const draw = xorshift(seed)
  const word = () => (draw(0x1_0000) << 16) | draw(0x1_0000)
  const value = () => {
    const any = (BigInt(word() >>> 0) << 32n) | BigInt(word() >>> 0)
    // Addresses in RAM, small numbers, single bits, and anything.
    const kinds = [any, any & BigInt(RAM_SIZE - 8), any & 0xfffn, 1n << BigInt(draw(64))]
    return kinds[draw(4)]!
  }
  const instruction = (): number => {
    const kind = draw(8)
    if (kind === 0) return word()
    if (kind === 1)
      return (0xd5000000 | (KEYS[draw(KEYS.length)]! << 5) | draw(31)) ^ (draw(2) << 21)
    if (kind === 2)
      return (
        0xd5080000 |
        (draw(8) << 16) |
        ((7 + draw(2)) << 12) |
        (draw(16) << 8) |
        (draw(8) << 5) |
        draw(31)
      )
    const e = ENCODINGS[draw(ENCODINGS.length)]!
    const fields: Record<string, number> = {}
    for (const [name, { width }] of e.fields) fields[name] = draw(2 ** width)
    return encode(e, fields, word())
  }
  const lines = { irq: false, fiq: false }
  const b = new Bench({ sync: draw(2) === 0 ? 'strict' : 'immediate', interrupts: lines })
  for (let at = 0; at < 0x400; at += 8) b.ram.setBigUint64(0x10_0000 + at, value() | 0x701n, true)
  b.set('TTBR0_EL1', 0x10_0000n)
  b.set('TTBR1_EL1', 0x10_0000n)
  let left = instructions
  while (left > 0) {
    for (let i = 0; i < 256; i++) b.ram.setInt32(CODE + 4 * i, instruction(), true)
    const { core } = b
    for (let n = 0; n < 31; n++) core.state.setX(n, value())
    core.setPstate([0, 4, 5][draw(3)]! | (draw(16) << 6) | (draw(4) << 20))
    core.state.pc = draw(8) === 0 ? value() : BigInt(CODE + 4 * draw(200))
    b.set('VBAR_EL1', VECTORS)
    b.set('SCTLR_EL1', 0)
    if (draw(4) === 0) {
      b.set('SCTLR_EL1', value())
      b.set('TCR_EL1', value())
      b.set('MAIR_EL1', value())
    }
    lines.irq = draw(8) === 0
    lines.fiq = draw(8) === 0
    if (draw(8) === 0) core.pendSerror(draw(0x100_0000))
    const hardware = {
      bvr: BigUint64Array.from({ length: 16 }, value),
      bcr: Int32Array.from({ length: 16 }, word),
      wvr: BigUint64Array.from({ length: 16 }, value),
      wcr: Int32Array.from({ length: 16 }, word),
    }
    const asked = [undefined, { singleStep: true }, { singleStep: draw(2) === 0, hardware }]
    core.setGuestDebug(asked[draw(8)])
    const before = core.retired
    for (let runs = 0; runs < 20; runs++) {
      const exit = core.run(1 + draw(200))
      if (!EXITS.includes(exit.kind)) expect.fail(`seed ${seed}: ${exit.kind}`)
      if (exit.kind === 'mmio') core.completeAccess(Uint8Array.from({ length: 8 }, () => draw(256)))
      core.halted = false
    }
    left -= Math.max(1, core.retired - before)
    if (draw(8) === 0) {
      const saved = core.save()
      core.restore(saved)
      if (draw(4) === 0) expect(core.save(), `seed ${seed}`).toEqual(saved)
    }
  }
}

describe('a hostile guest', () => {
  it.each(Array.from({ length: often(6, 24) }, (_, seed) => seed + 1))(
    'gets an answer to everything it tries: seed %i',
    seed => attack(seed, often(4_000, 100_000)),
  )
})
