// Privileged instructions, segments, far transfers, ports, and the 64-byte stores.

import { beforeEach, describe, expect, it } from 'vitest'
import { CR4, EFER, EVENT, FLAG, SEGMENT, SLOT, VECTOR } from '../../../src/cpu/x86/registers.js'
import { CODE, DATA, flatCore } from './support/flat.js'

const bytes = (hex: string) =>
  Uint8Array.from(hex.split(' ').filter(Boolean), h => Number.parseInt(h, 16))
const at = (n: number) => BigInt(CODE + n)
const here = (n: number) => BigInt(DATA + n)

const GDT = 0x1000
const LDT_SELECTOR = 0x40
const TSS_SELECTOR = 0x50

/** Descriptors at DATA + GDT: kernel code 08, data 10, user data 1b, code 23, and one of each kind to refuse. */
// biome-ignore format: table
const DESCRIPTORS: Record<number, bigint> = {
  8: 0x00af_9a00_0000_ffffn,   // kernel code, not accessed
  16: 0x00cf_9200_0000_ffffn,   // kernel data
  24: 0x00cf_f200_0000_ffffn,   // user data
  32: 0x00af_fa00_0000_ffffn,   // user code
  40: 0x00cf_9a00_0000_ffffn,   // 32-bit code
  48: 0x00cf_1200_0000_ffffn,   // data, not present
  56: 0x00af_9800_0000_ffffn,   // execute-only code
  64: 0x0000_8200_0000_002fn | (BigInt(DATA + 0x1800) & 0xff_ffffn) << 16n | BigInt(DATA >> 24) << 56n,   // LDT
  80: 0x0000_8900_0000_0087n | (BigInt(DATA + 0x1900) & 0xff_ffffn) << 16n | BigInt(DATA >> 24) << 56n,   // TSS
}

function load(hex: string, cpl = 0) {
  const m = flatCore(cpl)
  m.code.set(bytes(hex))
  m.code.set(bytes('f4'), 0x100)
  m.state.r64[SLOT.RSP] = here(0x800)
  const view = new DataView(m.data.buffer)
  for (const [selector, raw] of Object.entries(DESCRIPTORS))
    view.setBigUint64(GDT + Number(selector), raw, true)
  m.state.gdtr.base = here(GDT)
  m.state.gdtr.limit = 0x5f
  m.state.cs.selector = cpl === 0 ? 0x08 : 0x23
  m.state.ss.selector = cpl === 0 ? 0x10 : 0x1b
  /** Runs one instruction and, when it faulted, delivery: the vector and error, or ''. */
  const step = () => {
    m.core.run(1)
    if (m.state.event) m.core.run(1)
    const e = m.system.events[0]
    return e ? `${e.vector}/${e.error?.toString(16)}` : ''
  }
  const push = (...values: bigint[]) =>
    values.forEach((v, i) => {
      view.setBigUint64(0x800 + 8 * i, v, true)
    })
  return { ...m, view, step, push }
}

// biome-ignore format: table
it.each([
  ['hlt', 'f4'], ['lgdt', '0f 01 10'], ['lidt', '0f 01 18'], ['ltr', '0f 00 d8'], ['lldt', '0f 00 d0'], ['lmsw', '0f 01 f0'],
  ['clts', '0f 06'], ['mov cr3', '0f 22 d8'], ['mov from cr0', '0f 20 c0'], ['mov dr7', '0f 23 f8'], ['mov from dr6', '0f 21 f0'],
  ['rdmsr', '0f 32'], ['wrmsr', '0f 30'], ['invlpg', '0f 01 38'], ['invpcid', '66 0f 38 82 00'], ['wbinvd', '0f 09'], ['invd', '0f 08'],
  ['sysret', '48 0f 07'], ['swapgs', '0f 01 f8'], ['cli', 'fa'], ['sti', 'fb'], ['in', 'ec'], ['out', 'e6 80'], ['enqcmds', 'f3 0f 38 f8 01'],
])('%s is #GP(0) in user mode', (_name, hex) => {
  const { step, state } = load(hex, 3)
  state.tr.unusable = 1
  state.r64[SLOT.RAX] = state.r64[SLOT.RCX] = here(0x40)
  expect(step()).toBe('13/0')
})

describe('system registers', () => {
  it('MOV to control registers goes to the system; CR2 is only a register', () => {
    const m = load('0f 22 d8 0f 22 d0 0f 20 d1 44 0f 22 c0 f4')
    m.state.r64[SLOT.RAX] = 0x5000n
    m.core.run(10)
    expect(m.system.controls).toEqual(['cr3=5000', 'cr8=5000'])
    expect(m.state.cr2).toBe(0x5000n)
    expect(m.state.r64[SLOT.RCX]).toBe(0x5000n)
  })

  it.each(['0f 22 c8', '0f 20 e8', '44 0f 23 c0', '8e c8', '8e f0'])(
    '%s names a register that does not exist: #UD',
    hex => {
      expect(load(hex).step()).toBe('6/undefined')
    },
  )

  it('LMSW sets PE but never clears it, CLTS clears TS', () => {
    const m = load('0f 01 f0 0f 06 f4')
    m.state.r64[SLOT.RAX] = 0xen
    m.core.run(1)
    expect(m.state.cr0 & 0xf).toBe(0xf)
    m.core.run(1)
    expect(m.state.cr0 & 0xf).toBe(0x7)
  })

  it('DR4 and DR5 are DR6 and DR7 unless CR4.DE', () => {
    const m = load('0f 21 e8 0f 21 e8')
    m.core.run(1)
    expect(m.state.r64[SLOT.RAX]).toBe(0x400n)
    m.state.cr4 |= CR4.DE
    expect(m.step()).toBe('6/undefined')
  })

  it('RDMSR and WRMSR move EDX:EAX and clear the upper halves; an unknown one is #GP(0)', () => {
    const m = load('0f 30 0f 32 0f 32')
    m.system.msrs.set(0xd93, 0n)
    m.state.r64.set([0xffff_ffff_8000_0007n, 0xd93n, 0xffff_ffff_0000_0001n], SLOT.RAX)
    m.core.run(2)
    expect(m.system.msrs.get(0xd93)).toBe(0x1_8000_0007n)
    expect(m.state.r64.slice(0, 3)).toEqual(new BigUint64Array([0x8000_0007n, 0xd93n, 1n]))
    m.state.r64[SLOT.RCX] = 1n
    expect(m.step()).toBe('13/0')
  })

  it('CPUID, RDTSC and RDTSCP fill 32-bit registers', () => {
    const m = load('0f a2 0f 31 0f 01 f9')
    m.state.r64.set([0x1_0000_0007n, 0x1_0000_0003n], SLOT.RAX)
    m.core.run(1)
    expect(m.state.r64.slice(0, 4)).toEqual(new BigUint64Array([7n, 0x11n, 0x22n, 3n]))
    m.state.tscAux = 5
    m.core.run(2)
    expect(m.state.r64.slice(0, 3)).toEqual(new BigUint64Array([0x2345_6789n, 5n, 1n]))
  })

  it('RDTSC in user mode obeys CR4.TSD', () => {
    const m = load('0f 31', 3)
    m.state.cr4 |= CR4.TSD
    expect(m.step()).toBe('13/0')
  })

  it('CR4.UMIP keeps tables from user mode', () => {
    const m = load('0f 01 00', 3)
    m.state.r64[SLOT.RAX] = here(0)
    m.state.cr4 |= CR4.UMIP
    expect(m.step()).toBe('13/0')
  })

  it('SWAPGS exchanges, RDGSBASE reads, WRFSBASE writes, and CR4.FSGSBASE allows', () => {
    const m = load('0f 01 f8 f3 48 0f ae c8 f3 48 0f ae d0 f3 48 0f ae c0')
    m.state.kernelGsBase = 0x1234n
    m.core.run(3)
    expect(m.state.r64[SLOT.RAX]).toBe(0x1234n)
    expect(m.state.segments[SEGMENT.FS]!.base).toBe(0x1234n)
    m.state.cr4 &= ~CR4.FSGSBASE
    expect(m.step()).toBe('6/undefined')
  })

  it('INVPCID refuses types and identifiers that do not exist', () => {
    for (const [type, first, linear, answer] of [
      [4n, 0n, 0n, '13/0'],
      [1n, 0x1000n, 0n, '13/0'],
      [1n, 5n, 0n, '13/0'],
      [0n, 0n, 1n << 60n, '13/0'],
      [2n, 0n, 0n, ''],
    ] as const) {
      const m = load('66 0f 38 82 01')
      m.state.r64[SLOT.RAX] = type
      m.state.r64[SLOT.RCX] = here(0)
      m.view.setBigUint64(0, first, true)
      m.view.setBigUint64(8, linear, true)
      expect(m.step()).toBe(answer)
    }
  })

  it('LGDT and SGDT round-trip; a non-canonical base is refused', () => {
    const m = load('0f 01 01 0f 01 11')
    m.state.r64[SLOT.RCX] = here(0)
    m.core.run(1)
    expect(m.view.getUint16(0, true)).toBe(0x5f)
    expect(m.view.getBigUint64(2, true)).toBe(here(GDT))
    m.view.setBigUint64(2, 1n << 60n, true)
    expect(m.step()).toBe('13/0')
    expect(m.state.gdtr.base).toBe(here(GDT))
  })
})

describe('segments', () => {
  it('a load fills the hidden part and sets the accessed bit in memory', () => {
    const m = load('8e d8')
    m.state.r64[SLOT.RAX] = 0x10n
    expect(m.step()).toBe('')
    const { selector, limit, type, dpl, g, db, unusable } = m.state.segments[SEGMENT.DS]!
    expect({ selector, limit, type, dpl, g, db, unusable }).toEqual({
      selector: 0x10,
      limit: 0xffff_ffff,
      type: 3,
      dpl: 0,
      g: 1,
      db: 1,
      unusable: 0,
    })
    expect(m.view.getUint8(GDT + 0x15)).toBe(0x93)
  })

  // biome-ignore format: table
  it.each([
    ['beyond the table', '8e d8', 0x68, '13/68'],
    ['in an LDT that is not there', '8e d8', 0x0c, '13/c'],
    ['of a page of no data', '8e d8', 0x38, '13/38'],
    ['that is not present', '8e d8', 0x30, '11/30'],
    ['of a system segment', '8e d8', 0x40, '13/40'],
    ['of another level for SS', '8e d0', 0x1b, '13/18'],
    ['of code for SS', '8e d0', 0x08, '13/8'],
    ['not present for SS', '8e d0', 0x30, '12/30'],
    ['null for SS with another level', '8e d0', 0x03, '13/0'],
    ['null for SS in the kernel', '8e d0', 0x00, ''],
    ['null for DS', '8e d8', 0x03, ''],
  ])('a selector %s', (_what, hex, selector, answer) => {
    const m = load(hex)
    m.state.ldtr.unusable = 1
    m.state.r64[SLOT.RAX] = BigInt(selector)
    expect(m.step()).toBe(answer)
  })

  it('MOV SS holds interrupts off for one instruction', () => {
    const m = load('8e d0 90 f4')
    m.state.r64[SLOT.RAX] = 0x10n
    m.state.flags |= FLAG.IF
    m.core.run(1)
    m.system.interrupt = 0x40
    m.core.run(1)
    expect(m.system.events).toEqual([])
    m.core.run(1)
    expect(m.system.events).toHaveLength(1)
  })

  it('LTR marks the task busy and LLDT takes a 16-byte descriptor', () => {
    const m = load('0f 00 d8 0f 00 d1 0f 00 c2')
    m.state.r64.set([BigInt(TSS_SELECTOR), BigInt(LDT_SELECTOR), 0xffn], SLOT.RAX)
    m.core.run(3)
    expect(m.state.tr).toMatchObject({
      selector: TSS_SELECTOR,
      base: here(0x1900),
      limit: 0x87,
      type: 11,
    })
    expect(m.view.getUint8(GDT + TSS_SELECTOR + 5)).toBe(0x8b)
    expect(m.state.ldtr).toMatchObject({ selector: LDT_SELECTOR, base: here(0x1800), limit: 0x2f })
    expect(m.state.r64[SLOT.RDX]).toBe(BigInt(LDT_SELECTOR))
    m.state.rip = at(0)
    expect(m.step()).toBe('13/50')
  })

  it('FS and GS bases move addresses; others have none', () => {
    const m = load('65 8b 03 3e 8b 0b')
    m.state.segments[SEGMENT.GS]!.base = 0x10n
    m.state.segments[SEGMENT.DS]!.base = 0x10n
    m.state.r64[SLOT.RBX] = here(0)
    m.view.setUint32(0, 1, true)
    m.view.setUint32(0x10, 2, true)
    m.core.run(2)
    expect(m.state.r64.slice(0, 2)).toEqual(new BigUint64Array([2n, 1n]))
  })
})

describe('far transfers', () => {
  it('SYSCALL saves RIP and RFLAGS and masks; SYSRET brings them back', () => {
    const m = load('0f 05', 3)
    m.code.set(bytes('48 0f 07'), 0x40)
    m.state.star = (0x13n << 48n) | (0x08n << 32n)
    m.state.lstar = at(0x40)
    m.state.sfmask = BigInt(FLAG.IF | FLAG.DF)
    m.state.flags |= FLAG.IF | FLAG.CF
    m.core.run(1)
    expect(m.state).toMatchObject({ cpl: 0, rip: at(0x40), flags: 0x3 })
    expect([m.state.cs.selector, m.state.ss.selector]).toEqual([0x08, 0x10])
    expect([m.state.r64[SLOT.RCX], m.state.r64[SLOT.R11]]).toEqual([at(2), 0x203n])
    m.core.run(1)
    expect(m.state).toMatchObject({ cpl: 3, rip: at(2), flags: 0x203 })
    expect([m.state.cs.selector, m.state.ss.selector]).toEqual([0x23, 0x1b])
  })

  it.each([
    ['SYSCALL without EFER.SCE', '0f 05', 3, '6/undefined'],
    ['SYSRET without EFER.SCE', '48 0f 07', 0, '6/undefined'],
  ] as const)('%s is #UD', (_what, hex, cpl, answer) => {
    const m = load(hex, cpl)
    m.state.efer &= ~EFER.SCE
    expect(m.step()).toBe(answer)
  })

  it('SYSRET to a non-canonical address faults in the kernel', () => {
    const m = load('48 0f 07')
    m.state.r64[SLOT.RCX] = 1n << 47n
    expect(m.step()).toBe('13/0')
    expect(m.state.cpl).toBe(0)
  })

  it('IRETQ to user mode pops five values and drops kernel data segments', () => {
    const m = load('48 cf')
    m.push(at(0x80), 0x23n, 0x3202n, here(0x400), 0x1bn)
    m.state.nmiBlocked = true
    expect(m.step()).toBe('')
    expect(m.state).toMatchObject({ cpl: 3, rip: at(0x80), flags: 0x3202, nmiBlocked: false })
    expect(m.state.r64[SLOT.RSP]).toBe(here(0x400))
    expect(m.state.segments[SEGMENT.DS]!.unusable).toBe(1)
    expect(m.state.ss).toMatchObject({ selector: 0x1b, dpl: 3 })
  })

  it('IRETQ in user mode changes neither IOPL nor IF', () => {
    const m = load('48 cf', 3)
    m.state.flags |= FLAG.IF
    m.push(at(0x80), 0x23n, 0x3002n, here(0x400), 0x1bn)
    expect(m.step()).toBe('')
    expect(m.state.flags).toBe(0x202)
  })

  // biome-ignore format: table
  it.each([
    ['a null CS', [0x80n, 0n, 2n, 0n, 0n], '13/0'],
    ['a data segment for CS', [0x80n, 0x10n, 2n, 0n, 0n], '13/10'],
    ['a 32-bit code segment', [0x80n, 0x28n, 2n, 0n, 0x10n], '13/28'],
    ['a CS whose level is not its RPL', [0x80n, 0x0bn, 2n, 0n, 0x1bn], '13/8'],
    ['a kernel SS for user mode', [0x80n, 0x23n, 2n, 0n, 0x10n], '13/10'],
    ['a null SS for user mode', [0x80n, 0x23n, 2n, 0n, 3n], '13/0'],
    ['a non-canonical RIP', [1n << 62n, 0x08n, 2n, 0n, 0x10n], '13/0'],
  ] as const)('IRETQ refuses %s and changes nothing', (_what, frame, answer) => {
    const m = load('48 cf')
    m.push(...frame)
    expect(m.step()).toBe(answer)
    expect(m.state).toMatchObject({ cpl: 0, rip: at(0) })
    expect(m.state.r64[SLOT.RSP]).toBe(here(0x800))
  })

  it('IRET with NT set is #GP(0)', () => {
    const m = load('48 cf')
    m.state.flags |= FLAG.NT
    expect(m.step()).toBe('13/0')
  })

  it('RETF, JMP and CALL through a pointer load CS; gates are refused', () => {
    const m = load('48 cb')
    m.push(at(0x80), 0x08n)
    expect(m.step()).toBe('')
    expect([m.state.rip, m.state.r64[SLOT.RSP]]).toEqual([at(0x80), here(0x810)])
    const call = load('ff 18')
    call.state.r64[SLOT.RAX] = here(0)
    call.view.setUint32(0, CODE + 0x90, true)
    call.view.setUint16(4, 0x08, true)
    expect(call.step()).toBe('')
    expect([call.state.rip, call.view.getUint32(0x7f8, true)]).toEqual([at(0x90), CODE + 2])
    const gate = load('ff 28')
    gate.state.r64[SLOT.RAX] = here(0)
    gate.view.setUint16(4, 0x50, true)
    expect(gate.step()).toBe('13/50')
  })

  it('RETF to user mode takes its stack from the frame', () => {
    const m = load('48 cb')
    m.push(at(0x80), 0x23n, here(0x500), 0x1bn)
    expect(m.step()).toBe('')
    expect(m.state).toMatchObject({ cpl: 3, rip: at(0x80) })
    expect(m.state.r64[SLOT.RSP]).toBe(here(0x500))
  })
})

describe('flags', () => {
  it.each([
    ['the kernel changes all', 0, 0, 0x3246],
    ['user mode changes neither IF nor IOPL', 3, 0, 0x46],
    ['user mode with IOPL 3 changes IF', 3, 3, 0x3246],
  ] as const)('POPF: %s', (_what, cpl, iopl, want) => {
    const m = load('9d', cpl)
    m.state.flags |= iopl << 12
    m.push(0x1_3246n)
    expect(m.step()).toBe('')
    expect(m.state.flags).toBe(want)
  })

  it('PUSHF shows RF clear', () => {
    const m = load('9c')
    m.state.flags |= FLAG.RF | FLAG.ID
    m.core.run(1)
    expect(m.view.getBigUint64(0x7f8, true)).toBe(0x20_0002n)
  })

  it('CLAC and STAC are #UD in user mode', () => {
    const m = load('0f 01 cb 0f 01 ca')
    m.core.run(1)
    expect(m.state.flags & FLAG.AC).toBe(FLAG.AC)
    m.core.run(1)
    expect(m.state.flags & FLAG.AC).toBe(0)
    expect(load('0f 01 cb', 3).step()).toBe('6/undefined')
  })
})

describe('ports', () => {
  it('moves 1, 2 or 4 bytes and never 8', () => {
    const m = load('e6 e9 66 e7 10 48 ef ed f4')
    m.state.r64[SLOT.RAX] = 0x1122_3344_5566_7788n
    m.state.r64[SLOT.RDX] = 0x1_03f8n
    m.core.run(10)
    expect(m.system.ports).toEqual(['e9.1=88', '10.2=7788', '3f8.4=55667788'])
    expect(m.state.r64[SLOT.RAX]).toBe(0x5an)
  })

  it.each([
    ['a clear bit allows', 0x3f8, ''],
    ['a set bit refuses', 0x3f9, '13/0'],
    ['a port beyond the bitmap is refused', 0x800, '13/0'],
  ] as const)('user mode and the TSS bitmap: %s', (_what, port, answer) => {
    const m = load('ec', 3)
    Object.assign(m.state.tr, { base: here(0x2000), limit: 0x68 + 0x80, unusable: 0 })
    m.view.setUint16(0x2000 + 102, 0x68, true)
    m.view.setUint8(0x2000 + 0x68 + (0x3f8 >> 3), 0x02)
    m.state.r64[SLOT.RDX] = BigInt(port)
    expect(m.step()).toBe(answer)
  })
})

describe('64-byte stores', () => {
  const DESTINATION = 0x100
  let m: ReturnType<typeof load>

  function enqueue(hex: string, cpl = 3) {
    m = load(hex, cpl)
    m.state.r64[SLOT.RAX] = here(DESTINATION)
    m.state.r64[SLOT.RCX] = here(0x11)
    m.state.pasid = 0x8000_0007
    m.system.pasids.set(7, 0x123).set(9, 0x456)
    for (let i = 4; i < 64; i++) m.data[0x11 + i] = i
    return m
  }

  beforeEach(() => {
    enqueue('f2 0f 38 f8 01')
  })

  it('ENQCMD sends the translated PASID, no privilege, and the rest as it is', () => {
    m.state.flags |= FLAG.CF | FLAG.ZF
    expect(m.step()).toBe('')
    const { at: where, bytes: sent } = m.memory.enqueued[0]!
    expect(where).toBe(DATA + DESTINATION)
    expect(new DataView(sent.buffer).getUint32(0, true)).toBe(0x123)
    expect(sent.subarray(4)).toEqual(m.data.subarray(0x15, 0x51))
    expect(m.state.flags & (FLAG.ZF | FLAG.CF)).toBe(0)
  })

  it('ZF says retry', () => {
    m.memory.accept = false
    m.state.flags |= FLAG.CF | FLAG.OF
    m.step()
    expect(m.state.flags & (FLAG.ZF | FLAG.CF | FLAG.OF)).toBe(FLAG.ZF)
  })

  // biome-ignore format: table
  it.each([
    ['IA32_PASID is not valid', () => { m.state.pasid = 7 }],
    ['the PASID has no translation', () => { m.state.pasid = 0x8000_0008 }],
    ['the destination is not aligned', () => { m.state.r64[SLOT.RAX] = here(DESTINATION + 32) }],
    ['the source begins with anything but zeros', () => { m.data[0x11] = 1 }],
  ])('ENQCMD is #GP(0) and sends nothing when %s', (_what, change) => {
    change()
    expect(m.step()).toBe('13/0')
    expect(m.memory.enqueued).toEqual([])
  })

  it('ENQCMDS takes PASID and privilege from the source, whatever IA32_PASID holds', () => {
    enqueue('f3 0f 38 f8 01', 0)
    m.state.pasid = 0
    m.view.setUint32(0x11, 0x8000_0009, true)
    expect(m.step()).toBe('')
    const sent = new DataView(m.memory.enqueued[0]!.bytes.buffer)
    expect(sent.getUint32(0, true)).toBe(0x8000_0456)
  })

  it('ENQCMDS refuses reserved bits', () => {
    enqueue('f3 0f 38 f8 01', 0)
    m.view.setUint32(0x11, 0x0010_0009, true)
    expect(m.step()).toBe('13/0')
  })

  it('MOVDIR64B copies 64 bytes to an aligned place, MOVDIRI stores a register', () => {
    enqueue('66 0f 38 f8 01 0f 38 f9 10')
    m.state.r64[SLOT.RDX] = 0x1234_5678n
    m.core.run(1)
    expect(m.data.subarray(DESTINATION, DESTINATION + 64)).toEqual(m.data.subarray(0x11, 0x51))
    m.core.run(1)
    expect(m.view.getUint32(DESTINATION, true)).toBe(0x1234_5678)
    enqueue('66 0f 38 f8 01')
    m.state.r64[SLOT.RAX] = here(8)
    expect(m.step()).toBe('13/0')
  })

  it('with 67 the destination is a 32-bit address', () => {
    enqueue('67 f2 0f 38 f8 01')
    m.state.r64[SLOT.RAX] = here(DESTINATION) | 0xdead_0000_0000_0000n
    expect(m.step()).toBe('')
    expect(m.memory.enqueued[0]!.at).toBe(DATA + DESTINATION)
  })
})

it('INT3 is a software interrupt of length one', () => {
  const m = load('cc')
  m.core.run(10)
  expect(m.system.events[0]).toMatchObject({ kind: EVENT.SOFTWARE, vector: VECTOR.BP, length: 1 })
})
