// Operand kinds of the encoding table and what decoding makes of them (SDM vol. 2, appendix A.2 names the kinds).

import type { Width } from '../ir/builder.js'
import type { Emitter } from './emitter.js'

/** Says where an operand is encoded. The second letter group of the SDM, its size, is `size`. */
export type OperandKind =
  /** ModRM.rm: register or memory; M memory only, R register only. */
  | 'E'
  | 'M'
  | 'R'
  /** ModRM.reg: general, segment, control, debug register. */
  | 'G'
  | 'S'
  | 'C'
  | 'D'
  /** Low three bits of the opcode. */
  | 'Z'
  /** Immediate; J a displacement from the next instruction; O an absolute address. */
  | 'I'
  | 'J'
  | 'O'
  /** Fixed registers and the constant 1. */
  | 'A'
  | 'CL'
  | 'DX'
  | 'FS'
  | 'GS'
  | '1'

/**
 * Sizes: b w d q bytes 1 2 4 8, v the operand size, y 4 or 8, z an immediate of at most 4 bytes, s a byte
 * extended with its sign, a the address size, p a far pointer, o 16 and x 64 bytes, n no access at all.
 */
export type OperandSize =
  | 'b'
  | 'w'
  | 'd'
  | 'q'
  | 'v'
  | 'y'
  | 'z'
  | 's'
  | 'p'
  | 'o'
  | 'x'
  | 'n'
  | 'a'

export interface OperandSpec {
  readonly kind: OperandKind
  readonly size: OperandSize
}

/** A memory operand before address arithmetic. Register numbers, -1 for none, 16 for the next RIP. */
export interface MemoryReference {
  readonly base: number
  readonly index: number
  readonly scale: number
  readonly disp: bigint
  /** 4 FS, 5 GS, -1 none: no other segment has a base in 64-bit mode. */
  readonly segment: number
  /** 4 or 8 bytes of effective address. */
  readonly addressSize: 4 | 8
}

/** A decoded operand. `size` is its access size in bytes. */
export type Operand =
  | {
      readonly kind: 'register'
      readonly register: number
      readonly size: number
      readonly high: boolean
    }
  | { readonly kind: 'memory'; readonly memory: MemoryReference; readonly size: number }
  | { readonly kind: 'immediate'; readonly value: bigint; readonly size: number }
  | { readonly kind: 'relative'; readonly value: bigint; readonly size: number }
  | {
      readonly kind: 'segment' | 'control' | 'debug'
      readonly register: number
      readonly size: number
    }

/** Facts about an encoding beside its operands. */
export type Attribute =
  /** LOCK is allowed when the first operand is memory. */
  | 'lock'
  /** Operand size 64 without REX.W; 16 with 66. */
  | 'd64'
  /** Operand size always 64. */
  | 'f64'
  /** A string instruction: REP has a meaning; 'repz' for those that also look at ZF. */
  | 'rep'
  | 'repz'
  /** #GP(0) unless CPL is 0. */
  | 'cpl0'
  /** Ends a block: changes RIP, mode, translation or interruptibility. */
  | 'ends'
  /** Not for the random comparison with a real processor: system state, time, or control flow. */
  | 'special'
  /** Flags depend on a count: see the generator. */
  | 'count'

/** One row of the opcode map. */
export interface Encoding {
  /** 0 one-byte, 1 0F, 2 0F 38, 3 0F 3A. */
  readonly map: number
  readonly opcode: number
  /** Mandatory prefix; 'any' ignores 66, F2, F3; 'nf' refuses F2 and F3; 'np' refuses all three. */
  readonly prefix: 'any' | 'nf' | 'np' | '66' | 'f3' | 'f2'
  /** ModRM.reg or -1. */
  readonly extension: number
  /** The whole ModRM byte or -1. */
  readonly modrm: number
  /** A ModRM byte follows. */
  readonly hasModrm: boolean
  readonly name: string
  readonly operands: readonly OperandSpec[]
  readonly attributes: ReadonlySet<Attribute>
  /** Status flags it leaves undefined: the comparison with a processor ignores them. */
  readonly undefinedFlags: number
  /** Condition number for Jcc, SETcc, CMOVcc. */
  readonly condition: number
  readonly emit: (b: Emitter) => void
}

/** An instruction after decoding. */
export interface Instruction {
  readonly encoding: Encoding
  readonly bytes: Uint8Array
  readonly length: number
  /** Operand size in bytes: 2, 4 or 8. */
  readonly operandSize: 2 | 4 | 8
  readonly addressSize: 4 | 8
  readonly operands: readonly Operand[]
  readonly lock: boolean
  /** 'f3', 'f2' or none: the last one present. */
  readonly repeat: '' | 'f3' | 'f2'
  /** Segment override: 4 FS, 5 GS, else -1. */
  readonly segment: number
}

/** Width of an operand that arithmetic handles. */
export function widthOf(o: Operand): Width {
  if (o.size === 1 || o.size === 2 || o.size === 4 || o.size === 8) return o.size
  throw new Error(`no arithmetic on ${o.size} bytes`)
}
