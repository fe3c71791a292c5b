// Encodings of loads, stores and atomics of general registers (DDI 0487, C4.1).

import * as atomics from './atomics.js'
import { type Encoding, row, signed } from './encodings.js'
import * as memory from './memory-ops.js'
import { ACCESS } from './ports.js'
import { address, EXTENDS, label, reg, regsp } from './text.js'

interface Single {
  readonly size: number
  readonly opc: number
  readonly Rn: number
  readonly Rt: number
}

const B = ['b', 'h', '', ''] as const

/** `ldrsb x0`, with the stem `r`, `ur` or `tr`. */
function singleText(f: Single, stem: string): string {
  const { size, opc } = f
  if (opc < 2) return `${opc ? 'ld' : 'st'}${stem}${B[size]!} ${reg(size === 3 ? 1 : 0, f.Rt)}`
  return `ld${stem}s${'bhw'[size]!} ${reg(opc === 2 ? 1 : 0, f.Rt)}`
}

/** Whether size and opc name a load or store, or where `prefetch` is allowed PRFM. */
const isSingle = (f: Single, prefetch: boolean) =>
  f.size === 3 ? f.opc < 2 || (prefetch && f.opc === 2) : f.size === 2 ? f.opc < 3 : true

/** The first operand of PRFM. */
function prefetchText(n: number): string {
  const [type, target, policy] = [n >> 3, (n >> 1) & 3, n & 1]
  if (type === 3 || target === 3) return `#0x${n.toString(16).padStart(2, '0')}`
  return `${['pld', 'pli', 'pst'][type]!}l${target + 1}${policy ? 'strm' : 'keep'}`
}

const bytesOf = (f: { size: number }) => 1 << f.size

const singles: Encoding[] = [
  row('LDR/STR (unsigned offset)', 'load-store', 'size:2 111001 opc:2 imm12:12 Rn:5 Rt:5', {
    allocated: f => isSingle(f, true),
    emit: (b, f) => memory.LDR(b, f, f.imm12 << f.size),
    print: f => {
      const at = address(f.Rn, f.imm12 << f.size)
      if (memory.isPrefetch(f)) return `prfm ${prefetchText(f.Rt)}, ${at}`
      return `${singleText(f, 'r')}, ${at}`
    },
    memory: f => ({ base: f.Rn, displacement: f.imm12 << f.size, bytes: bytesOf(f) }),
  }),
  row('LDUR/STUR', 'load-store', 'size:2 111000 opc:2 0 imm9:9 00 Rn:5 Rt:5', {
    allocated: f => isSingle(f, true),
    emit: (b, f) => memory.LDR(b, f, signed(f.imm9, 9)),
    print: f => {
      const at = address(f.Rn, signed(f.imm9, 9))
      if (memory.isPrefetch(f)) return `prfum ${prefetchText(f.Rt)}, ${at}`
      return `${singleText(f, 'ur')}, ${at}`
    },
    memory: f => ({ base: f.Rn, displacement: signed(f.imm9, 9), bytes: bytesOf(f) }),
  }),
  row('LDR/STR (post-index)', 'load-store', 'size:2 111000 opc:2 0 imm9:9 01 Rn:5 Rt:5', {
    allocated: f => isSingle(f, false),
    emit: (b, f) => memory.LDR(b, f, signed(f.imm9, 9), 'post'),
    print: f => `${singleText(f, 'r')}, [${regsp(1, f.Rn)}], #${signed(f.imm9, 9)}`,
    memory: f => ({ base: f.Rn, displacement: 0, bytes: bytesOf(f) }),
  }),
  row('LDTR/STTR', 'load-store', 'size:2 111000 opc:2 0 imm9:9 10 Rn:5 Rt:5', {
    allocated: f => isSingle(f, false),
    emit: (b, f) => memory.LDR(b, f, signed(f.imm9, 9), 'none', ACCESS.UNPRIVILEGED),
    print: f => `${singleText(f, 'tr')}, ${address(f.Rn, signed(f.imm9, 9))}`,
    memory: f => ({ base: f.Rn, displacement: signed(f.imm9, 9), bytes: bytesOf(f) }),
  }),
  row('LDR/STR (pre-index)', 'load-store', 'size:2 111000 opc:2 0 imm9:9 11 Rn:5 Rt:5', {
    allocated: f => isSingle(f, false),
    emit: (b, f) => memory.LDR(b, f, signed(f.imm9, 9), 'pre'),
    print: f => `${singleText(f, 'r')}, [${regsp(1, f.Rn)}, #${signed(f.imm9, 9)}]!`,
    memory: f => ({ base: f.Rn, displacement: signed(f.imm9, 9), bytes: bytesOf(f) }),
  }),
  row('LDR/STR (register)', 'load-store', 'size:2 111000 opc:2 1 Rm:5 option:3 S 10 Rn:5 Rt:5', {
    allocated: f => isSingle(f, true) && (f.option & 2) !== 0,
    emit: memory.LDR_REGISTER,
    print: f => {
      const amount = f.S ? ` #${f.size}` : ''
      const extend =
        f.option === 3 ? (f.S ? `, lsl${amount}` : '') : `, ${EXTENDS[f.option]!}${amount}`
      const at = `[${regsp(1, f.Rn)}, ${reg(f.option & 1, f.Rm)}${extend}]`
      if (memory.isPrefetch(f)) return `prfm ${prefetchText(f.Rt)}, ${at}`
      return `${singleText(f, 'r')}, ${at}`
    },
    memory: f => ({
      base: f.Rn,
      displacement: 0,
      index: { register: f.Rm, option: f.option, shift: f.S ? f.size : 0 },
      bytes: bytesOf(f),
    }),
  }),
  row('LDR (literal)', 'load-store', 'opc:2 011000 imm19:19 Rt:5', {
    emit: (b, f) => memory.LDR_LITERAL(b, f, signed(f.imm19, 19) * 4),
    print: (f, pc) => {
      const at = label(pc, signed(f.imm19, 19) * 4)
      if (f.opc === 3) return `prfm ${prefetchText(f.Rt)}, ${at}`
      return `${f.opc === 2 ? 'ldrsw' : 'ldr'} ${reg(f.opc ? 1 : 0, f.Rt)}, ${at}`
    },
  }),
]

interface Pair {
  readonly opc: number
  readonly L: number
  readonly imm7: number
  readonly Rt2: number
  readonly Rn: number
  readonly Rt: number
}

const pairOffset = (f: Pair) => signed(f.imm7, 7) * (f.opc === 2 ? 8 : 4)
const pairText = (f: Pair, stem = 'p') =>
  `${f.L ? 'ld' : 'st'}${stem}${f.opc === 1 ? 'sw' : ''} ${reg(f.opc ? 1 : 0, f.Rt)}, ${reg(f.opc ? 1 : 0, f.Rt2)}`
const isPair = (f: Pair) => f.opc === 0 || f.opc === 2 || (f.opc === 1 && f.L === 1)
const pairUse = (f: Pair, displacement: number) => ({
  base: f.Rn,
  displacement,
  bytes: f.opc === 2 ? 16 : 8,
})

const pairs: Encoding[] = [
  row('LDNP/STNP', 'load-store-pair', 'opc:2 101000 0 L imm7:7 Rt2:5 Rn:5 Rt:5', {
    allocated: f => isPair(f) && f.opc !== 1,
    emit: (b, f) => memory.LDP(b, f, 'none'),
    print: f => `${pairText(f, 'np')}, ${address(f.Rn, pairOffset(f))}`,
    memory: f => pairUse(f, pairOffset(f)),
  }),
  row('LDP/STP/LDPSW (post-index)', 'load-store-pair', 'opc:2 101000 1 L imm7:7 Rt2:5 Rn:5 Rt:5', {
    allocated: isPair,
    emit: (b, f) => memory.LDP(b, f, 'post'),
    print: f => `${pairText(f)}, [${regsp(1, f.Rn)}], #${pairOffset(f)}`,
    memory: f => pairUse(f, 0),
  }),
  row('LDP/STP/LDPSW (offset)', 'load-store-pair', 'opc:2 101001 0 L imm7:7 Rt2:5 Rn:5 Rt:5', {
    allocated: isPair,
    emit: (b, f) => memory.LDP(b, f, 'none'),
    print: f => `${pairText(f)}, ${address(f.Rn, pairOffset(f))}`,
    memory: f => pairUse(f, pairOffset(f)),
  }),
  row('LDP/STP/LDPSW (pre-index)', 'load-store-pair', 'opc:2 101001 1 L imm7:7 Rt2:5 Rn:5 Rt:5', {
    allocated: isPair,
    emit: (b, f) => memory.LDP(b, f, 'pre'),
    print: f => `${pairText(f)}, [${regsp(1, f.Rn)}, #${pairOffset(f)}]!`,
    memory: f => pairUse(f, pairOffset(f)),
  }),
]

interface Exclusive {
  readonly size: number
  readonly L: number
  readonly Rs: number
  readonly o0: number
  readonly Rt2: number
  readonly Rn: number
  readonly Rt: number
}

function exclusiveText(f: Exclusive, pair: boolean): string {
  const wide = f.size === 3 ? 1 : 0
  const order = f.o0 ? (f.L ? 'a' : 'l') : ''
  const stem = `${f.L ? 'ld' : 'st'}${order}x${pair ? 'p' : `r${B[f.size]!}`}`
  const status = f.L ? '' : `${reg(0, f.Rs)}, `
  const second = pair ? `, ${reg(wide, f.Rt2)}` : ''
  return `${stem} ${status}${reg(wide, f.Rt)}${second}, ${address(f.Rn, 0)}`
}

const alignedUse = (f: { size: number; Rn: number }, pair = false) => {
  const bytes = (1 << f.size) * (pair ? 2 : 1)
  return { base: f.Rn, displacement: 0, bytes, align: bytes }
}

/** Spelling of acquire and release, as CAS, SWP and the LD<op> have it. */
const order = (acquire: number, release: number) => `${acquire ? 'a' : ''}${release ? 'l' : ''}`

const exclusives: Encoding[] = [
  row('LDXR/STXR', 'exclusive', 'size:2 001000 0 L 0 Rs:5 o0 Rt2:5 Rn:5 Rt:5', {
    emit: (b, f) => atomics.EXCLUSIVE(b, f, false),
    print: f => exclusiveText(f, false),
    memory: f => alignedUse(f),
  }),
  row('LDXP/STXP', 'exclusive', '1 sz 001000 0 L 1 Rs:5 o0 Rt2:5 Rn:5 Rt:5', {
    emit: (b, f) => atomics.EXCLUSIVE(b, { ...f, size: 2 + f.sz }, true),
    print: f => exclusiveText({ ...f, size: 2 + f.sz }, true),
    memory: f => alignedUse({ ...f, size: 2 + f.sz }, true),
  }),
  row('LDAR/STLR', 'acquire-release', 'size:2 001000 1 L 0 xxxxx 1 xxxxx Rn:5 Rt:5', {
    emit: atomics.ORDERED,
    print: f =>
      `${f.L ? 'ldar' : 'stlr'}${B[f.size]!} ${reg(f.size === 3 ? 1 : 0, f.Rt)}, ${address(f.Rn, 0)}`,
    memory: f => alignedUse(f),
  }),
]

const LSE_NAMES = ['add', 'clr', 'eor', 'set', 'smax', 'smin', 'umax', 'umin'] as const

const atomic: Encoding[] = [
  row('CAS', 'atomic', 'size:2 001000 1 L 1 Rs:5 o0 11111 Rn:5 Rt:5', {
    emit: atomics.CAS,
    print: f => {
      const wide = f.size === 3 ? 1 : 0
      return `cas${order(f.L, f.o0)}${B[f.size]!} ${reg(wide, f.Rs)}, ${reg(wide, f.Rt)}, ${address(f.Rn, 0)}`
    },
    memory: f => alignedUse(f),
    feature: 'FEAT_LSE',
  }),
  row('CASP', 'atomic', '0 sz 001000 0 L 1 Rs:5 o0 11111 Rn:5 Rt:5', {
    allocated: f => ((f.Rs | f.Rt) & 1) === 0,
    emit: atomics.CASP,
    print: f => {
      const names = [f.Rs, f.Rs + 1, f.Rt, f.Rt + 1].map(n => reg(f.sz, n)).join(', ')
      return `casp${order(f.L, f.o0)} ${names}, ${address(f.Rn, 0)}`
    },
    memory: f => alignedUse({ ...f, size: 2 + f.sz }, true),
    feature: 'FEAT_LSE',
  }),
  row('LDADD and its kin', 'atomic', 'size:2 111000 A R 1 Rs:5 0 opc:3 00 Rn:5 Rt:5', {
    emit: atomics.LDADD,
    print: f => {
      const wide = f.size === 3 ? 1 : 0
      const name = LSE_NAMES[f.opc]!
      const store = f.Rt === 31 && !f.A
      const stem = `${store ? 'st' : 'ld'}${name}${order(f.A, f.R)}${B[f.size]!}`
      const target = store ? '' : `, ${reg(wide, f.Rt)}`
      return `${stem} ${reg(wide, f.Rs)}${target}, ${address(f.Rn, 0)}`
    },
    memory: f => alignedUse(f),
    feature: 'FEAT_LSE',
  }),
  row('SWP', 'atomic', 'size:2 111000 A R 1 Rs:5 1 000 00 Rn:5 Rt:5', {
    emit: atomics.SWP,
    print: f => {
      const wide = f.size === 3 ? 1 : 0
      const stem = `swp${order(f.A, f.R)}${B[f.size]!}`
      return `${stem} ${reg(wide, f.Rs)}, ${reg(wide, f.Rt)}, ${address(f.Rn, 0)}`
    },
    memory: f => alignedUse(f),
    feature: 'FEAT_LSE',
  }),
]

/** Loads, stores and atomics of general registers. */
export const MEMORY_ENCODINGS: readonly Encoding[] = [
  ...singles,
  ...pairs,
  ...exclusives,
  ...atomic,
]
