// Random code at EL1 and EL0, system instructions included: nothing a guest executes throws, hangs the core or leaves it
// half-way through an instruction, and the same seed ends in the same state.

import { expect, it } from 'vitest'
import { drawFields } from '../../../diff/a64/generate.js'
import { Draw } from '../../../diff/random.js'
import { A64Core } from '../../../src/cpu/a64/core.js'
import { ENCODINGS, encode } from '../../../src/cpu/a64/decode.js'
import { ABORT } from '../../../src/cpu/a64/registers.js'
import { keyOf } from '../../../src/cpu/a64/system-register-table.js'
import { NAMED_SYSTEM_KEYS } from '../../../src/cpu/a64/system-text.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { isLong, PATIENCE } from '../../support/long.js'

const BYTES = 0x8000
const RAM = 0x4000_0000
const INSTRUCTIONS = 3000

const system = ENCODINGS.filter(e => e.group === 'system')

/** A word: any at all, of any row, or of a system instruction that has a name. */
function drawWord(draw: Draw): number {
  const kind = draw.below(8)
  if (kind === 0) return draw.word()
  const e = kind < 3 ? draw.pick(system) : draw.pick(ENCODINGS)
  const word = encode(e, drawFields(e, draw) ?? {}, -1)
  if (e.group !== 'system' || e.name === 'MSR (immediate)' || draw.oneIn(8)) return word
  return (word & ~0x0f_ffe0) | ((draw.pick(NAMED_SYSTEM_KEYS) & 0x7fff) << 5)
}

/** Translation off, vectors in RAM, floating point on: whatever random code made of them. */
function settle(core: A64Core): void {
  const { registers } = core
  registers.hostWrite(keyOf('SCTLR_EL1'), 0x30d0_0980n)
  registers.hostWrite(keyOf('VBAR_EL1'), BigInt(RAM))
  registers.hostWrite(keyOf('CPACR_EL1'), 3n << 20n)
}

/** A core in RAM of random code, vectors and tables, and what became of it. */
function live(seed: number): string {
  const draw = new Draw(seed, 0)
  const ram = new Uint8Array(BYTES)
  const words = new Int32Array(ram.buffer)
  for (let i = 0; i < words.length; i++) words[i] = drawWord(draw)
  const space = new AddressSpace()
  space.addRam(RAM, ram)
  const core = new A64Core({ memory: space })
  const { state } = core
  const { r32 } = state
  for (let n = 0; n < 31; n++) state.setX(n, BigInt(RAM + 16 * draw.below(BYTES / 16)))
  for (let i = 128; i < 256; i++) r32[i] = draw.word()
  const seen: Record<string, number> = {}
  for (let i = 0; i < INSTRUCTIONS; ) {
    // A core that waits, faults for ever or left RAM starts somewhere else, at either exception level.
    core.halted = false
    if (draw.oneIn(2)) settle(core)
    core.setPstate(draw.oneIn(3) ? 0x3c0 : 0x3c5)
    state.pc = BigInt(RAM + 4 * draw.below(words.length))
    for (let n = 0; n < 31; n += 2)
      if (draw.oneIn(2)) state.setX(n, BigInt(RAM + 8 * draw.below(BYTES / 8)))
    const budget = 1 + draw.below(60)
    const before = core.retired
    const exit = core.run(budget)
    expect(core.retired - before).toBeLessThanOrEqual(budget)
    expect(state.abort).toBe(ABORT.NONE)
    seen[exit.kind] = (seen[exit.kind] ?? 0) + 1
    if (exit.kind === 'mmio') {
      core.completeAccess(
        exit.write ? undefined : new Uint8Array(exit.bytes.length).fill(draw.word()),
      )
      core.run(1)
      if (state.accesses.waiting) core.inject(0, 0)
    }
    i += budget
  }
  return JSON.stringify([seen, core.retired, [...r32.subarray(0, 256)]])
}

const seeds = Array.from({ length: isLong ? 300 : 4 }, (_, i) => i + 1)

it.each(seeds)(
  `random code of seed %i, ${INSTRUCTIONS} instructions, twice the same`,
  seed => {
    expect(live(seed)).toBe(live(seed))
  },
  PATIENCE,
)
