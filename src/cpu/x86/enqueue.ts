// 64-byte stores: MOVDIR64B, ENQCMD, ENQCMDS (SDM vol. 2 by mnemonic; IA32_PASID in vol. 4).
// ENQCMD sends the PASID that the system translated for this one. A PASID without a translation is #GP(0): the
// architecture leaves it to the hypervisor, and no identifier is ever guessed.

import type { Emitter } from './emitter.js'
import { aborted, generalProtection, high, low, routine, type X86Machine } from './machine.js'
import { ACCESS } from './ports.js'
import { FLAG, SLOT } from './registers.js'

const command = new Uint8Array(64)

/** Reads the source in b and checks the destination in a; false when it aborted. */
function readCommand(m: X86Machine, to: bigint, from: bigint): boolean {
  if (to & 63n) {
    generalProtection(m.state)
    return false
  }
  m.memory.read(high(from), low(from), command, ACCESS.READ)
  return !aborted(m)
}

/** Destination in a, source in b. */
const movdir64b = routine('movdir64b', (m, op) => {
  const { r64 } = m.state
  const to = r64[op.a]!
  if (!readCommand(m, to, r64[op.b]!)) return
  m.memory.write(high(to), low(to), command, ACCESS.WRITE)
})

/** Destination in a, source in b, 1 in imm for the supervisor's form. ZF: the device said retry. */
const enqueue = routine('enqueue', (m, op) => {
  const { state, memory, system } = m
  const supervisor = op.imm === 1
  const to = state.r64[op.a]!
  if (!supervisor && !(state.pasid & 0x8000_0000)) return generalProtection(state)
  if (!readCommand(m, to, state.r64[op.b]!)) return
  const view = new DataView(command.buffer)
  const head = view.getUint32(0, true)
  const reserved = supervisor ? head & 0x7ff0_0000 : head
  if (reserved !== 0) return generalProtection(state)
  const pasid = system.translatePasid((supervisor ? head : state.pasid) & 0xf_ffff)
  if (pasid < 0) return generalProtection(state)
  view.setUint32(0, ((supervisor ? head & 0x8000_0000 : 0) | pasid) >>> 0, true)
  const accepted = memory.enqueue(high(to), low(to), command)
  if (aborted(m)) return
  const status = FLAG.CF | FLAG.PF | FLAG.AF | FLAG.ZF | FLAG.SF | FLAG.OF
  state.flags = (state.flags & ~status) | (accepted ? 0 : FLAG.ZF)
})

/** The destination is an address in a register, through ES, of the address size. */
function destination(b: Emitter): number {
  const o = b.operand(0)
  const register = o.kind === 'register' ? o.register : SLOT.RAX
  return b.insn.addressSize === 8 ? register : b.value('i64.extendu', { a: register })
}

export function MOVDIR64B(b: Emitter): void {
  b.call(movdir64b, { a: destination(b), b: b.address(1) })
}

export function ENQCMD(b: Emitter): void {
  b.call(enqueue, { a: destination(b), b: b.address(1), imm: 0 })
}

export function ENQCMDS(b: Emitter): void {
  b.call(enqueue, { a: destination(b), b: b.address(1), imm: 1 })
}
