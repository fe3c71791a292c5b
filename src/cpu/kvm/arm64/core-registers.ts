// Core registers of KVM_GET_ONE_REG and KVM_SET_ONE_REG: an id is an offset into `struct kvm_regs`, in units of four
// bytes, and the size must be the member's (Documentation of KVM's API, 4.68).

import { FPCR_WRITABLE, FPSR_WRITABLE } from '../../a64/fp/float-format.js'
import { SLOT, vectorSlot } from '../../a64/registers.js'
import { refuse } from '../arguments.js'
import * as uapi from '../uapi/arm64.js'
import { registerSize } from './ids.js'
import type { Arm64Processor } from './processor.js'

const { kvm_regs } = uapi
const WORDS = kvm_regs.size / 4
const at = (member: keyof typeof kvm_regs.offsets): number => kvm_regs.offsets[member] / 4
// Offsets of members in words.
const SP = 62
const PC = 64
const PSTATE = 66
const SP_EL1 = at('sp_el1')
const ELR_EL1 = at('elr_el1')
const SPSR = at('spsr')
const VREGS = at('fp_regs')
const FPSR = VREGS + 32 * 4
const FPCR = FPSR + 1

/** Bytes of the register at an offset, or 0: no register starts there. */
function sizeAt(word: number): number {
  if (word === FPSR || word === FPCR) return 4
  if (word >= VREGS) return word < FPSR && (word - VREGS) % 4 === 0 ? 16 : 0
  return word % 2 === 0 && word < SPSR + 2 * uapi.KVM_NR_SPSR ? 8 : 0
}

/** Offset that an id names; ENOENT beyond the structure, EINVAL inside a register or with another's size. */
function offsetOf(id: bigint): number {
  const word = id & ~(uapi.KVM_REG_ARCH_MASK | uapi.KVM_REG_SIZE_MASK | uapi.KVM_REG_ARM_CORE)
  const size = registerSize(id)
  if (word >= WORDS || Number(word) + size / 4 >= WORDS)
    throw refuse('ENOENT', `no core register ${word}`)
  if (sizeAt(Number(word)) !== size)
    throw refuse('EINVAL', `no core register of ${size} bytes at ${word}`)
  return Number(word)
}

/** Ids of all core registers, in KVM's order. */
export const CORE_IDS: readonly bigint[] = Array.from({ length: WORDS }, (_, word) => {
  const size = word < WORDS - 2 ? sizeAt(word) : 0
  const bits = { 4: uapi.KVM_REG_SIZE_U32, 8: uapi.KVM_REG_SIZE_U64, 16: uapi.KVM_REG_SIZE_U128 }
  const sized = bits[size as 4 | 8 | 16]
  return sized === undefined
    ? undefined
    : uapi.KVM_REG_ARM64 | sized | uapi.KVM_REG_ARM_CORE | BigInt(word)
}).filter(id => id !== undefined)

/** The bytes of a core register; ENOENT, EINVAL. */
export function readCore(p: Arm64Processor, id: bigint): Uint8Array {
  const word = offsetOf(id)
  const { state } = p
  if (word >= VREGS) {
    if (word < FPSR) {
      const slot = vectorSlot((word - VREGS) / 4)
      return state.r8.slice(8 * slot, 8 * slot + 16)
    }
    const slot = word === FPSR ? SLOT.FPSR : SLOT.FPCR
    return state.r8.slice(8 * slot, 8 * slot + 4)
  }
  const bytes = new Uint8Array(8)
  new DataView(bytes.buffer).setBigUint64(0, readWord(p, word), true)
  return bytes
}

function readWord(p: Arm64Processor, word: number): bigint {
  const { state } = p
  if (word < SP) return state.x(word / 2)
  switch (word) {
    case SP:
      return state.stack(0)
    case PC:
      return state.pc
    case PSTATE:
      return p.pstate
    case SP_EL1:
      return state.stack(1)
    case ELR_EL1:
      return p.named('ELR_EL1')
    case SPSR:
      return p.named('SPSR_EL1')
    default:
      return p.spsr32[(word - SPSR) / 2 - 1]!
  }
}

/** Checks the id of a core register to be written; ENOENT, EINVAL. Returns what takes the bytes: EINVAL. */
export function coreWriter(p: Arm64Processor, id: bigint): (bytes: Uint8Array) => void {
  const word = offsetOf(id)
  return bytes => {
    const { state } = p
    const view = new DataView(bytes.buffer, bytes.byteOffset)
    if (word >= VREGS && word < FPSR) state.r8.set(bytes, 8 * vectorSlot((word - VREGS) / 4))
    else if (word === FPSR)
      state.r64[SLOT.FPSR] = BigInt((view.getUint32(0, true) & FPSR_WRITABLE) >>> 0)
    else if (word === FPCR)
      state.r64[SLOT.FPCR] = BigInt((view.getUint32(0, true) & FPCR_WRITABLE) >>> 0)
    else writeWord(p, word, view.getBigUint64(0, true))
  }
}

/** PSTATE.M of the modes there are: EL0t, EL1t, EL1h. */
const MODES: ReadonlySet<number> = new Set([0, 4, 5])

function writeWord(p: Arm64Processor, word: number, value: bigint): void {
  const { state } = p
  if (word < SP) state.setX(word / 2, value)
  else if (word === SP) state.setStack(0, value)
  else if (word === PC) p.setPc(value)
  else if (word === PSTATE) {
    const mode = Number(value & 0x1fn)
    if (!MODES.has(mode)) throw refuse('EINVAL', `PSTATE.M ${mode}`)
    p.pstate = value
  } else if (word === SP_EL1) state.setStack(1, value)
  else if (word === ELR_EL1) p.setNamed('ELR_EL1', value)
  else if (word === SPSR) p.setNamed('SPSR_EL1', value)
  else p.spsr32[(word - SPSR) / 2 - 1] = value
}
