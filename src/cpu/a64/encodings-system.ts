// Encodings of branches, exception generation and system instructions (DDI 0487, C4.1).

import * as branches from './branches.js'
import { type Encoding, row, signed } from './encodings.js'
import { PSTATE_FIELD } from './ports.js'
import { systemText } from './system-text.js'
import { CONDITIONS, hex, label, reg } from './text.js'

// biome-ignore format: table
const branchRows: Encoding[] = [
  row('B/BL', 'branch', 'op 00101 imm26:26', {
    emit: branches.B, ends: true,
    print: (f, pc) => `${f.op ? 'bl' : 'b'} ${label(pc, signed(f.imm26, 26) * 4)}`,
  }),
  row('B.cond', 'branch', '01010100 imm19:19 0 cond:4', {
    emit: branches.B_COND, ends: true,
    print: (f, pc) => `b.${CONDITIONS[f.cond]!} ${label(pc, signed(f.imm19, 19) * 4)}`,
  }),
  row('CBZ/CBNZ', 'branch', 'sf 011010 op imm19:19 Rt:5', {
    emit: branches.CBZ, ends: true,
    print: (f, pc) => `cb${f.op ? 'n' : ''}z ${reg(f.sf, f.Rt)}, ${label(pc, signed(f.imm19, 19) * 4)}`,
  }),
  row('TBZ/TBNZ', 'branch', 'b5 011011 op b40:5 imm14:14 Rt:5', {
    emit: branches.TBZ, ends: true,
    print: (f, pc) =>
      `tb${f.op ? 'n' : ''}z ${reg(f.b5, f.Rt)}, #${(f.b5 << 5) | f.b40}, ${label(pc, signed(f.imm14, 14) * 4)}`,
  }),
  row('BR', 'branch', '1101011 0 0 00 11111 000000 Rn:5 00000', {
    emit: (b, f) => branches.BR(b, f), print: f => `br ${reg(1, f.Rn)}`, ends: true, target: f => f.Rn,
  }),
  row('BLR', 'branch', '1101011 0 0 01 11111 000000 Rn:5 00000', {
    emit: (b, f) => branches.BR(b, f, true), print: f => `blr ${reg(1, f.Rn)}`, ends: true, target: f => f.Rn,
  }),
  row('RET', 'branch', '1101011 0 0 10 11111 000000 Rn:5 00000', {
    emit: (b, f) => branches.BR(b, f), print: f => (f.Rn === 30 ? 'ret' : `ret ${reg(1, f.Rn)}`), ends: true, target: f => f.Rn,
  }),
  row('ERET', 'exception', '1101011 0 100 11111 000000 11111 00000', {
    emit: branches.ERET, print: () => 'eret', ends: true, special: 'not at EL0',
  }),
  row('DRPS', 'exception', '1101011 0 101 11111 000000 11111 00000', {
    emit: b => b.undefined(), print: () => 'drps', ends: true,
  }),
]

// biome-ignore format: table
const exceptionRows: Encoding[] = [
  row('SVC', 'exception', '11010100 000 imm16:16 000 01', { emit: branches.SVC, print: f => `svc ${hex(f.imm16)}`, ends: true, special: 'a system call there' }),
  row('HVC', 'exception', '11010100 000 imm16:16 000 10', { emit: branches.HVC, print: f => `hvc ${hex(f.imm16)}`, ends: true }),
  row('SMC', 'exception', '11010100 000 imm16:16 000 11', { emit: branches.SMC, print: f => `smc ${hex(f.imm16)}`, ends: true }),
  row('BRK', 'exception', '11010100 001 imm16:16 000 00', { emit: branches.BRK, print: f => `brk ${hex(f.imm16)}`, ends: true }),
  row('HLT', 'exception', '11010100 010 imm16:16 000 00', { emit: branches.HLT, print: f => `hlt ${hex(f.imm16)}`, ends: true, special: 'semihosting there for some numbers' }),
  row('DCPS1/DCPS2/DCPS3', 'exception', '11010100 101 imm16:16 000 LL:2', {
    allocated: f => f.LL !== 0,
    emit: b => b.undefined(), // outside Debug state
    print: f => `dcps${f.LL}${f.imm16 ? ` ${hex(f.imm16)}` : ''}`, ends: true,
  }),
  row('UDF', 'exception', '0000000000000000 imm16:16', { emit: b => b.undefined(), print: f => `udf #${f.imm16}`, ends: true }),
]

/** Hints that have a name; the others are `hint #n`. */
// biome-ignore format: table
const HINT_NAMES: Readonly<Record<number, string>> = {
  0: 'nop', 1: 'yield', 6: 'dgh', 7: 'xpaclri', 8: 'pacia1716', 10: 'pacib1716',
  12: 'autia1716', 14: 'autib1716', 16: 'esb', 17: 'psb csync', 18: 'tsb csync', 20: 'csdb', 22: 'clearbhb', 24: 'paciaz', 25: 'paciasp',
  26: 'pacibz', 27: 'pacibsp', 28: 'autiaz', 29: 'autiasp', 30: 'autibz', 31: 'autibsp', 32: 'bti', 34: 'bti c',
  36: 'bti j', 38: 'bti jc',
}

// biome-ignore format: table
const BARRIER_OPTIONS = ['', 'oshld', 'oshst', 'osh', '', 'nshld', 'nshst', 'nsh', '', 'ishld', 'ishst', 'ish', '', 'ld', 'st', 'sy'] as const

/** `sy` and its kin, or the number. */
const option = (n: number) => BARRIER_OPTIONS[n] || `#0x${n.toString(16).padStart(2, '0')}`

const PSTATE_NAMES: ReadonlyMap<number, string> = new Map([
  [PSTATE_FIELD.SPSEL, 'spsel'],
  [PSTATE_FIELD.DAIFSET, 'daifset'],
  [PSTATE_FIELD.DAIFCLR, 'daifclr'],
])

// biome-ignore format: table
const systemRows: Encoding[] = [
  row('HINT', 'hint', '1101010100 0 00 011 0010 CRm:4 op2:3 11111', {
    emit: () => {}, // what is not one of the two rows below does nothing
    print: f => HINT_NAMES[(f.CRm << 3) | f.op2] ?? `hint ${hex((f.CRm << 3) | f.op2)}`,
  }),
  row('WFE/WFI', 'hint', '1101010100 0 00 011 0010 0000 01 op 11111', {
    emit: (b, f) => branches.WAIT(b, f.op), ends: true, special: 'waits',
    print: f => (f.op ? 'wfi' : 'wfe'),
  }),
  row('SEV/SEVL', 'hint', '1101010100 0 00 011 0010 0000 10 op 11111', {
    emit: (b, f) => branches.SEND_EVENT(b, f.op), ends: true,
    print: f => (f.op ? 'sevl' : 'sev'),
  }),
  row('CLREX', 'barrier', '1101010100 0 00 011 0011 CRm:4 010 11111', {
    emit: branches.CLREX, print: f => (f.CRm === 15 ? 'clrex' : `clrex ${hex(f.CRm)}`),
  }),
  row('DSB', 'barrier', '1101010100 0 00 011 0011 CRm:4 100 11111', {
    emit: (b, f) => branches.BARRIER(b, f, 4), ends: true,
    print: f => (f.CRm === 0 ? 'ssbb' : f.CRm === 4 ? 'pssbb' : `dsb ${option(f.CRm)}`),
  }),
  row('DMB', 'barrier', '1101010100 0 00 011 0011 CRm:4 101 11111', {
    emit: (b, f) => branches.BARRIER(b, f, 5), print: f => `dmb ${option(f.CRm)}`,
  }),
  row('ISB', 'barrier', '1101010100 0 00 011 0011 CRm:4 110 11111', {
    emit: (b, f) => branches.BARRIER(b, f, 6), ends: true, print: f => (f.CRm === 15 ? 'isb' : `isb ${hex(f.CRm)}`),
  }),
  row('MSR (immediate)', 'system', '1101010100 0 00 op1:3 0100 CRm:4 op2:3 11111', {
    allocated: branches.isPstateField,
    emit: branches.MSR_IMMEDIATE, ends: true, special: 'not at EL0',
    print: f => {
      const field = (f.op1 << 3) | f.op2
      if (field === PSTATE_FIELD.SPSEL && f.CRm > 1) return `msr s0_0_c4_c${f.CRm}_5, xzr`
      return `msr ${PSTATE_NAMES.get(field)!}, ${hex(f.CRm)}`
    },
  }),
  row('SYS', 'system', '1101010100 0 01 op1:3 CRn:4 CRm:4 op2:3 Rt:5', {
    emit: branches.SYS, ends: true, special: 'system state', print: f => systemText.sys(f),
  }),
  row('SYSL', 'system', '1101010100 1 01 op1:3 CRn:4 CRm:4 op2:3 Rt:5', {
    emit: branches.SYSL, ends: true, special: 'system state',
    print: f => `sysl ${reg(1, f.Rt)}, #${f.op1}, C${f.CRn}, C${f.CRm}, #${f.op2}`,
  }),
  row('MSR (register)', 'system', '1101010100 0 1 o0 op1:3 CRn:4 CRm:4 op2:3 Rt:5', {
    emit: branches.MSR, ends: true, special: 'system state',
    print: f => `msr ${systemText.register(f, true)}, ${reg(1, f.Rt)}`,
  }),
  row('MRS', 'system', '1101010100 1 1 o0 op1:3 CRn:4 CRm:4 op2:3 Rt:5', {
    emit: branches.MRS, special: 'system state',
    print: f => `mrs ${reg(1, f.Rt)}, ${systemText.register(f, false)}`,
  }),
]

/** Branches, exceptions and the system. */
export const SYSTEM_ENCODINGS: readonly Encoding[] = [
  ...branchRows,
  ...exceptionRows,
  ...systemRows,
]
