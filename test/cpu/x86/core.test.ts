// The run loop: exact faults, restart, events in order, exits and their replay, code that changes under it.

import { describe, expect, it } from 'vitest'
import { EVENT, FLAG, SLOT, VECTOR } from '../../../src/cpu/x86/registers.js'
import { CODE, DATA, flatCore } from './support/flat.js'

const bytes = (hex: string) =>
  Uint8Array.from(hex.split(' ').filter(Boolean), h => Number.parseInt(h, 16))

/** A core with code at CODE and RSP in the middle of the data. */
function load(hex: string, cpl = 0) {
  const m = flatCore(cpl)
  m.code.set(bytes(hex))
  m.state.r64[SLOT.RSP] = BigInt(DATA + 0x800)
  return m
}

const at = (n: number) => BigInt(CODE + n)
const here = (n: number) => BigInt(DATA + n)

describe('a fault leaves no trace', () => {
  // biome-ignore format: table
  it.each([
    ['push to an absent page', '50', { 4: 8n }, VECTOR.PF],
    ['call to an absent stack', 'e8 00 00 00 00', { 4: 8n }, VECTOR.PF],
    ['a non-canonical address', '48 8b 00', { 0: 1n << 60n }, VECTOR.GP],
    ['a non-canonical stack address', '48 8b 45 00', { 5: 1n << 60n }, VECTOR.SS],
    ['a read-modify-write of an absent page', '48 01 18', { 0: 0x1000n, 3: 5n }, VECTOR.PF],
    ['xadd of an absent page', 'f0 48 0f c1 18', { 0: 0x1000n, 3: 5n }, VECTOR.PF],
    ['pop into an absent page', '8f 00', { 0: 0x1000n }, VECTOR.PF],
    ['leave with an absent frame', 'c9', { 5: 0x1000n }, VECTOR.PF],
    ['enter without room', 'c8 10 00 03', { 4: 8n }, VECTOR.PF],
    ['a branch to a non-canonical address', 'ff e0', { 0: 1n << 60n }, VECTOR.GP],
    ['a return to a non-canonical address', 'c3', {}, VECTOR.GP],
    ['division by zero', '48 f7 f1', { 0: 6n, 1: 0n }, VECTOR.DE],
    ['ud2', '0f 0b', {}, VECTOR.UD],
    ['an unknown opcode', '0f 04', {}, VECTOR.UD],
    ['sixteen bytes', `${'66 '.repeat(15)}90`, {}, VECTOR.GP],
    ['a misaligned cmpxchg16b', '48 0f c7 08', { 0: BigInt(DATA + 8) }, VECTOR.GP],
  ] as const)('%s', (_what, hex, regs, vector) => {
    const { core, state, system, data } = load(hex)
    new DataView(data.buffer).setBigUint64(0x800, 1n << 62n, true)
    for (const [r, v] of Object.entries(regs)) state.r64[Number(r)] = v
    const before = { regs: state.r64.slice(0, 16), flags: state.flags, data: data.slice() }
    expect(core.run(10)).toEqual({ kind: 'shutdown' })
    expect(system.events[0]).toMatchObject({ kind: EVENT.EXCEPTION, vector })
    expect(state.r64.slice(0, 16)).toEqual(before.regs)
    expect(state.flags).toBe(before.flags)
    expect(data).toEqual(before.data)
    expect(state.rip).toBe(at(0))
  })

  it('a store that crosses into an absent page writes neither part', () => {
    const { core, state, data, system } = load('48 89 03')
    state.r64[SLOT.RBX] = here(0x4000 - 4)
    state.r64[SLOT.RAX] = ~0n & 0xffff_ffff_ffff_ffffn
    core.run(1)
    core.run(1)
    expect(system.events[0]).toMatchObject({ vector: VECTOR.PF, error: 2 })
    expect(state.cr2).toBe(here(0x4000))
    expect(data.subarray(-4)).toEqual(new Uint8Array(4))
  })

  it('a repeated string instruction keeps what it did and stops where it faulted', () => {
    const { core, state, data, system } = load('f3 aa')
    state.r64[SLOT.RDI] = here(0x4000 - 3)
    state.r64[SLOT.RCX] = 10n
    state.r64[SLOT.RAX] = 0x55n
    core.run(100)
    expect(system.events[0]).toMatchObject({ vector: VECTOR.PF })
    expect(state.r64[SLOT.RCX]).toBe(7n)
    expect(state.r64[SLOT.RDI]).toBe(here(0x4000))
    expect(data.subarray(-4)).toEqual(new Uint8Array([0, 0x55, 0x55, 0x55]))
    expect(state.rip).toBe(at(0))
  })

  it('a compare-and-exchange that fails still needs a writable page', () => {
    const { core, state, memory, system } = load('0f b1 1a')
    memory.readOnly.add(DATA / 4096)
    state.r64[SLOT.RDX] = here(0)
    state.r64[SLOT.RAX] = 99n
    core.run(10)
    expect(system.events[0]).toMatchObject({ vector: VECTOR.PF, error: 3 })
  })
})

describe('code that changes', () => {
  it('a store into the running block is seen by the next instruction', () => {
    // mov byte [rip+1], 0x2a; then the immediate of `mov al, 0` is patched.
    const { core, state } = load('c6 05 01 00 00 00 2a b0 00 f4')
    expect(core.run(100).kind).toBe('hlt')
    expect(state.r64[SLOT.RAX]).toBe(0x2an)
  })

  it('bytes changed by somebody else are seen at the next block', () => {
    const { core, state, code } = load('b0 01 f4')
    core.run(100)
    code[1] = 7
    state.rip = at(0)
    state.halted = false
    core.run(100)
    expect(state.r64[SLOT.RAX]).toBe(7n)
  })

  it('an instruction that crosses pages is decoded from both, each time', () => {
    const { core, state, code } = load('')
    code.set(bytes('48 b8 11 22 33 44 55 66 77 08 f4'), 0xffc)
    for (const last of [8, 9]) {
      code[0xffc + 9] = last
      state.rip = at(0xffc)
      state.halted = false
      expect(core.run(100).kind).toBe('hlt')
      expect(state.r64[SLOT.RAX]! >> 56n).toBe(BigInt(last))
    }
  })

  it('the second half of a crossing instruction may be absent: the fault names its page', () => {
    const { core, state, code, system } = load('')
    code.set(bytes('48 b8'), 0x3ffe)
    state.rip = at(0x3ffe)
    core.run(10)
    expect(system.events[0]).toMatchObject({ vector: VECTOR.PF, error: 16 })
    expect(state.cr2).toBe(at(0x4000))
    expect(state.rip).toBe(at(0x3ffe))
  })

  it('an instruction that ends at the last byte of memory needs no next page', () => {
    const { core, state, code } = load('')
    code.set(bytes('b0 05 f4'), 0x3ffd)
    state.rip = at(0x3ffd)
    expect(core.run(10).kind).toBe('hlt')
  })
})

describe('events', () => {
  it('an interrupt waits for IF, and for the instruction after STI', () => {
    const { core, state, system } = load('90 fb 90 90 f4')
    system.interrupt = 0x40
    system.onEvent = () => {
      state.flags &= ~FLAG.IF
      return true
    }
    expect(core.run(3)).toEqual({ kind: 'limit' })
    expect(system.events).toEqual([])
    expect(state.rip).toBe(at(3))
    core.run(1)
    expect(system.events).toEqual([{ kind: EVENT.EXTERNAL, vector: 0x40, error: undefined }])
    expect(state.rip).toBe(at(3))
  })

  it('comes between the iterations of a repeated string instruction', () => {
    const { core, state, system } = load('f3 aa f4')
    state.r64[SLOT.RDI] = here(0)
    state.r64[SLOT.RCX] = 1000n
    core.run(10)
    expect(state.r64[SLOT.RCX]).toBe(990n)
    system.interrupt = 0x41
    state.flags |= FLAG.IF
    system.onEvent = () => {
      state.flags &= ~FLAG.IF
      return true
    }
    core.run(1)
    expect(system.events).toHaveLength(1)
    expect(state.rip).toBe(at(0))
    expect(core.run(2000).kind).toBe('hlt')
    expect(state.r64[SLOT.RCX]).toBe(0n)
  })

  it('HLT waits until an interrupt is deliverable', () => {
    const { core, state, system } = load('f4 b0 01 f4')
    state.flags |= FLAG.IF
    system.onEvent = () => true
    expect(core.run(10)).toEqual({ kind: 'hlt' })
    expect(core.run(10)).toEqual({ kind: 'hlt' })
    system.interrupt = 0x42
    expect(core.run(10)).toEqual({ kind: 'hlt' })
    expect(state.r64[SLOT.RAX]).toBe(1n)
    expect(system.events).toHaveLength(1)
  })

  it('an NMI wakes HLT without IF, unless NMIs are blocked', () => {
    const { core, state, system } = load('f4 90 f4')
    core.run(10)
    state.nmiPending = state.nmiBlocked = true
    expect(core.run(10)).toEqual({ kind: 'hlt' })
    expect(system.events).toEqual([])
    state.nmiBlocked = false
    system.onEvent = () => true
    core.run(10)
    expect(system.events).toMatchObject([{ kind: EVENT.NMI, vector: 2 }])
  })

  it('tells its owner when interrupts become deliverable', () => {
    const { core, state } = load('90 fb 90 90 f4')
    core.wantsInterruptWindow = true
    expect(core.run(100)).toEqual({ kind: 'interrupt-window' })
    expect(state.rip).toBe(at(3))
  })

  it('TF traps after one instruction with DR6.BS', () => {
    const { core, state, system } = load('90 90 f4')
    state.flags |= FLAG.TF
    core.run(2)
    expect(system.events).toMatchObject([{ kind: EVENT.EXCEPTION, vector: VECTOR.DB }])
    expect(state.rip).toBe(at(1))
    expect(state.dr[6]! & 0x4000n).toBe(0x4000n)
  })

  it('INT n is delivered with RIP at the instruction and its length beside', () => {
    const { core, state, system } = load('cd 80')
    core.run(10)
    expect(system.events[0]).toEqual({
      kind: EVENT.SOFTWARE,
      vector: 0x80,
      error: undefined,
      length: 2,
    })
    expect(state.rip).toBe(at(0))
  })

  it('faults for ever without retiring anything, and still comes back', () => {
    const { core, system } = load('0f 0b')
    system.onEvent = () => true
    expect(core.run(1000)).toEqual({ kind: 'limit' })
    expect(core.retired).toBe(1000)
  })
})

describe('exits', () => {
  it('an IN leaves the core, and finishes with the answer', () => {
    const { core, state, system } = load('66 ed f4')
    system.input = undefined
    state.r64[SLOT.RDX] = 0x3f8n
    state.r64[SLOT.RAX] = 0x1111_2222n
    const exit = core.run(10)
    expect(exit).toEqual({ kind: 'io', write: false, port: 0x3f8, size: 2, value: 0 })
    expect(state.rip).toBe(at(0))
    expect(core.run(10)).toBe(exit)
    core.completeAccess(new Uint8Array([0xcd, 0xab]))
    expect(core.run(10)).toEqual({ kind: 'hlt' })
    expect(state.r64[SLOT.RAX]).toBe(0x1111_abcdn)
  })

  it('an answered access is finished before an interrupt is taken', () => {
    const { core, state, system } = load('ec 90 f4')
    system.input = undefined
    state.flags |= FLAG.IF
    core.run(10)
    core.completeAccess(new Uint8Array([9]))
    system.interrupt = 0x50
    system.onEvent = () => {
      state.flags &= ~FLAG.IF
      return true
    }
    core.run(1)
    expect(state.r64[SLOT.RAX]).toBe(9n)
    expect(system.events).toEqual([])
  })

  it('REP OUTS leaves once an element', () => {
    const { core, state, system, data } = load('f3 6e f4')
    system.input = undefined
    data.set([1, 2])
    state.r64[SLOT.RSI] = here(0)
    state.r64[SLOT.RCX] = 2n
    state.r64[SLOT.RDX] = 0xe9n
    for (const value of [1, 2]) {
      expect(core.run(100)).toMatchObject({ kind: 'io', write: true, port: 0xe9, size: 1, value })
      core.completeAccess()
    }
    expect(core.run(100)).toEqual({ kind: 'hlt' })
  })

  it('a hypercall retires and leaves', () => {
    const { core, state } = load('0f 01 c1 f4')
    expect(core.run(10)).toEqual({ kind: 'hypercall' })
    expect(state.rip).toBe(at(3))
  })

  it('a debugger gets steps and breakpoints instead of exceptions', () => {
    const { core, state, system } = load('90 cc 90')
    core.debug.singleStep = true
    expect(core.run(10)).toMatchObject({ kind: 'debug', vector: VECTOR.DB, address: at(1) })
    core.debug.singleStep = false
    core.debug.softwareBreakpoints = true
    expect(core.run(10)).toEqual({ kind: 'debug', vector: VECTOR.BP, address: at(1) })
    expect(state.rip).toBe(at(1))
    expect(system.events).toEqual([])
  })

  it('somebody asks to stop', () => {
    const { core } = load('eb fe')
    core.requestExit()
    expect(core.run(1000)).toEqual({ kind: 'interrupted' })
    expect(core.run(1000)).toEqual({ kind: 'limit' })
    expect(core.retired).toBe(1000)
  })

  // biome-ignore format: table
  it.each([
    ['paging off', (s: ReturnType<typeof flatCore>['state']) => { s.cr0 = 1 }],
    ['long mode off', (s: ReturnType<typeof flatCore>['state']) => { s.efer = 0 }],
    ['a 32-bit code segment', (s: ReturnType<typeof flatCore>['state']) => { s.cs.l = 0 }],
  ] as const)('refuses to enter with %s', (_what, change) => {
    const { core, state } = load('90')
    change(state)
    expect(core.run(10).kind).toBe('fail-entry')
  })
})
