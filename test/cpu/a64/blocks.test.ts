// Blocks: where they begin and end, where PC is when one ends early, and code that changes.

import { describe, expect, it } from 'vitest'
import { FlatMachine, FlatRegion } from '../../../diff/a64/flat.js'
import { CodeCache, compileBlock, runBlock } from '../../../src/cpu/a64/code-cache.js'
import { decode, ENCODINGS, encode } from '../../../src/cpu/a64/decode.js'
import { A64State, ABORT, EC } from '../../../src/cpu/a64/registers.js'
import type { MmioTarget } from '../../../src/mem/address-space.js'
import { AddressSpace } from '../../../src/mem/address-space.js'

const CODE = 0x1000
const DATA = 0x8000

/** Words by mnemonic. */
const add = (d: number, n: number, imm: number) => 0x9100_0000 | (imm << 10) | (n << 5) | d
const ldr = (t: number, n: number) => 0xf940_0000 | (n << 5) | t
const str = (t: number, n: number) => 0xf900_0000 | (n << 5) | t
const adr = (d: number) => 0x1000_0000 | d
const branch = (words: number) => 0x1400_0000 | (words & 0x3ff_ffff)
const brk = 0xd420_0000 | 0
const dmb = 0xd503_3bbf | 0
const isb = 0xd503_3fdf | 0

function machine(words: readonly number[], base = CODE) {
  const code = new FlatRegion(base, 0x2000)
  const data = new FlatRegion(DATA, 4096)
  code.words.set(words)
  const m = new FlatMachine([code, data])
  m.state.pc = BigInt(base)
  return { m, code, data, state: m.state }
}

describe('a block', () => {
  const words = [add(1, 1, 1), adr(2), dmb, adr(3), add(1, 1, 1), adr(4), branch(-6)]

  it.each([1, 2, 3, 4, 5, 6, 7, 20])(
    'of seven instructions runs %i of them and leaves PC there',
    most => {
      const { m, state } = machine(words)
      const block = compileBlock(CODE, Int32Array.from(words))
      const count = Math.min(most, 7)
      expect(runBlock(m, block, most)).toBe(count)
      expect(state.pc).toBe(BigInt(count === 7 ? CODE : CODE + 4 * count))
      expect(state.x(1)).toBe(BigInt((count > 0 ? 1 : 0) + (count > 4 ? 1 : 0)))
      expect([state.x(2), state.x(3), state.x(4)]).toEqual(
        [1, 3, 5].map(i => (count > i ? BigInt(CODE + 4 * i) : 0n)),
      )
    },
  )

  it.each([0, 1, 2, 3, 4, 5])(
    'that faults in instruction %i leaves PC at it, those before it done',
    at => {
      const faulting: number[] = [
        add(1, 1, 1),
        dmb,
        add(1, 1, 1),
        adr(2),
        add(1, 1, 1),
        add(1, 1, 1),
      ]
      faulting[at] = ldr(5, 6)
      const { m, state } = machine(faulting)
      state.setX(5, 42n)
      expect(m.run(100)).toBe(at)
      expect(state.ec).toBe(EC.DATA_ABORT_LOWER)
      expect(state.pc).toBe(BigInt(CODE + 4 * at))
      expect(state.x(5)).toBe(42n)
      expect(state.x(1)).toBe(BigInt(faulting.slice(0, at).filter(w => w === add(1, 1, 1)).length))
    },
  )

  it('ends at the end of a page, and PC goes on into the next, over 4 GiB too', () => {
    const base = 0xffff_e000
    const { m, state, code } = machine([], base)
    code.words.fill(add(1, 1, 1), 0, 1024)
    state.pc = BigInt(base + 0xff8)
    code.words[1024] = brk
    m.run(100)
    expect(state.ec).toBe(EC.BRK)
    expect(state.pc).toBe(BigInt(base + 0x1000))
    state.pc = BigInt(base + 0x1ff8)
    code.words.fill(add(1, 1, 1), 2046)
    expect(m.run(100)).toBe(2)
    expect(state.pc).toBe(0x1_0000_0000n)
    expect(state.x(1)).toBe(4n)
  })
})

describe('code that changes', () => {
  it('is seen after a store, at the next block', () => {
    // x2 holds the words of `add x1, x1, #16` twice; they replace what follows the ISB.
    const { m, state } = machine([str(2, 3), isb, add(1, 1, 1), add(1, 1, 1), brk])
    const word = BigInt(add(1, 1, 16) >>> 0)
    state.setX(2, (word << 32n) | word)
    state.setX(3, BigInt(CODE + 8))
    m.run(100)
    expect(state.x(1)).toBe(32n)
    expect(state.ec).toBe(EC.BRK)
  })

  it('is seen when somebody else changed it', () => {
    const { m, state, code } = machine([add(1, 1, 1), brk])
    m.run(100)
    code.words[0] = add(1, 1, 16)
    state.pc = BigInt(CODE)
    m.run(100)
    expect(state.x(1)).toBe(17n)
  })

  it('outside RAM is read anew each time, one instruction and no more', () => {
    const reads: number[] = []
    const target: MmioTarget = {
      read: (offset: number) => {
        reads.push(offset)
        return BigInt(add(1, 1, reads.length) >>> 0)
      },
      write: () => {},
    }
    const space = new AddressSpace()
    space.addMmio(0x4000, 0x1000, target, 'rom')
    const cache = new CodeCache(space)
    const [first, second] = [cache.find(0x4010), cache.find(0x4010)]
    expect(first.words.length).toBe(1)
    expect([...first.words, ...second.words]).toEqual([add(1, 1, 1) | 0, add(1, 1, 2) | 0])
    expect(reads).toEqual([0x10, 0x10])
  })

  it('is found again when the memory under it was replaced', () => {
    const space = new AddressSpace()
    const before = space.addRam(CODE, new Uint8Array(Int32Array.of(add(1, 1, 1), brk).buffer))
    const cache = new CodeCache(space)
    expect(cache.find(CODE).words[0]).toBe(add(1, 1, 1) | 0)
    space.remove(before)
    space.addRam(CODE, new Uint8Array(Int32Array.of(add(1, 1, 2), brk).buffer))
    expect(cache.find(CODE).words[0]).toBe(add(1, 1, 2) | 0)
  })
})

describe('the stack pointer', () => {
  it.each([
    ['load', 0xf940_03e1],
    ['store of a pair', 0xa900_07e1],
    ['load-exclusive', 0xc85f_7fe1],
    ['atomic', 0xf821_03e2],
  ])('that is misaligned fails a %s where the check is on, before anything else', (_name, word) => {
    const { m, state } = machine([word | 0, brk])
    state.sp = BigInt(DATA + 8)
    state.checksStack = true
    m.run(10)
    expect(state.ec).toBe(EC.SP_ALIGNMENT)
    expect(state.pc).toBe(BigInt(CODE))
    state.checksStack = false
    m.run(10)
    expect(state.ec).toBe(EC.BRK)
  })

  it('is banked: EL0 and EL1t share SP_EL0, EL1h has its own', () => {
    const s = new A64State()
    s.sp = 0x1000n
    s.setMode(1, 0)
    expect(s.sp).toBe(0n)
    s.sp = 0x2000n
    s.setMode(0, 0)
    expect(s.sp).toBe(0x2000n)
    expect([s.stack(0), s.stack(1)]).toEqual([0x2000n, 0x1000n])
    s.setStack(0, 0x3000n)
    s.setStack(1, 0x4000n)
    expect(s.sp).toBe(0x3000n)
    s.setMode(1, 1)
    expect(s.sp).toBe(0x4000n)
  })
})

describe('the exclusive monitor', () => {
  const ldxr = 0xc85f_7c20 | 0 // x0, [x1]
  const stxr = 0xc802_7c23 | 0 // w2, x3, [x1]
  const stxrWord = 0x8802_7c23 | 0 // w2, w3, [x1]
  const store = (offset: number) => str(4, 1) | ((offset / 8) << 10)

  it.each([
    ['nothing', [], 0n],
    ['a store of its own to the granule', [store(8)], 1n],
    ['a store of its own outside the granule', [store(64)], 0n],
    ['CLREX', [0xd503_3f5f | 0], 1n],
    ['another load-exclusive of the same place', [ldxr], 0n],
  ] as const)('after %s between load and store', (_name, between, status) => {
    const { m, state, data } = machine([ldxr, ...between, stxr, brk])
    state.setX(1, BigInt(DATA))
    state.setX(3, 7n)
    state.setX(4, 9n)
    m.run(10)
    expect(state.x(2)).toBe(status)
    expect(data.words[0]).toBe(status === 0n ? 7 : 0)
    expect(state.exclusive).toBe(false)
    expect(state.steppedExclusive).toBe(true)
  })

  it('is for one size', () => {
    const { m, state } = machine([ldxr, stxrWord, brk])
    state.setX(1, BigInt(DATA))
    m.run(10)
    expect(state.x(2)).toBe(1n)
  })

  it('is not armed by a load that faults', () => {
    const { m, state } = machine([ldxr, brk])
    m.run(10)
    expect(state.abort).toBe(ABORT.EXCEPTION)
    expect(state.exclusive).toBe(false)
  })
})

describe('the encoding table', () => {
  it('names every row once', () => {
    const names = ENCODINGS.map(e => e.name)
    expect(names.filter((name, i) => names.indexOf(name) !== i)).toEqual([])
  })

  it('encodes what it decodes, 20,000 random words of seed 9', () => {
    let x = 9
    for (let i = 0; i < 20_000; i++) {
      x = (Math.imul(x, 1664525) + 1013904223) | 0
      const word = x ^ (x >>> 15)
      const insn = decode(word)
      if (insn) expect(encode(insn.encoding, insn.fields, word)).toBe(word | 0)
    }
  })
})
