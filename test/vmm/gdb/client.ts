// A scripted debugger: sends packets to a stub, runs the small guests of the KVM tests when the stub says so, and gives
// back what came.
import * as arm64 from '../../../src/cpu/kvm/uapi/arm64.js'
import * as x86 from '../../../src/cpu/kvm/uapi.js'
import { Arm64Target } from '../../../src/vmm/gdb/arm64.js'
import { packet } from '../../../src/vmm/gdb/packets.js'
import { GdbStub } from '../../../src/vmm/gdb/stub.js'
import type { DebuggedCpu, DebugTarget } from '../../../src/vmm/gdb/target.js'
import { X86Target } from '../../../src/vmm/gdb/x86.js'
import { AT as X86_AT, Guest as X86Guest } from '../../cpu/kvm/guest.js'
import { AT as ARM64_AT, Guest as Arm64Guest } from '../../cpu/kvm-arm64/guest.js'

/** A guest on either processor, as the protocol's tests need it. */
export interface Subject {
  readonly cpu: DebuggedCpu
  readonly target: DebugTarget
  /** Where its code begins, and some of its memory. */
  readonly code: number
  readonly data: number
  enter(): number | string
}

/** KVM_EXIT_DEBUG. */
const DEBUG = 4

/** The guest runs `code`, hex on x86-64. */
export function x86Subject(code: string): Subject {
  const g = new X86Guest()
  g.code(code)
  const cpu = { sys: g.sys, fd: g.vcpu, page: g.page, ram: g.ram, ramBase: 0 }
  const target = new X86Target(cpu)
  return { cpu, target, code: X86_AT.CODE, data: X86_AT.DATA, enter: () => g.enter() }
}

/** The guest runs `words`. */
export function arm64Subject(words: readonly number[]): Subject {
  const g = new Arm64Guest()
  g.code(words)
  const { fd, page } = g.cpu
  const cpu = { sys: g.sys, fd, page, ram: g.ram, ramBase: ARM64_AT.CODE }
  const target = new Arm64Target(cpu)
  return { cpu, target, code: ARM64_AT.CODE, data: ARM64_AT.DATA, enter: () => g.cpu.enter() }
}

/** A debugger at a subject. */
export class Client {
  readonly stub: GdbStub
  readonly subject: Subject
  readonly #sent: string[] = []

  constructor(subject: Subject) {
    this.subject = subject
    this.stub = new GdbStub(subject.cpu, subject.target, bytes => {
      this.#sent.push(String.fromCharCode(...bytes))
    })
  }

  /** Bytes as they come from the network. */
  raw(text: string): string {
    this.stub.receive(Uint8Array.from(text, c => c.charCodeAt(0)))
    return this.#sent.splice(0).join('')
  }

  /** Sends a packet; the text of the one that answers, or undefined: none does. */
  ask(text: string): string | undefined {
    const answer = this.raw(String.fromCharCode(...packet(text)))
    return /\$(.*)#[0-9a-f]{2}$/s.exec(answer)?.[1]
  }

  /** Sends a packet that lets the guest run, runs it, and gives the stop reply. */
  resume(text: string): string | undefined {
    const refused = this.ask(text)
    if (refused !== undefined) return refused
    for (;;) {
      const reason = this.subject.enter()
      if (reason === DEBUG) {
        this.stub.stopped()
        if (this.stub.state === 'stopped') break
        continue
      }
      if (this.stub.interrupted) {
        this.stub.stoppedByRequest()
        break
      }
      if (typeof reason === 'string') throw new Error(`the guest stopped with ${reason}`)
    }
    return /\$(.*)#/s.exec(this.#sent.splice(0).join(''))?.[1]
  }

  /** The program counter, by its register's number. */
  get pc(): bigint {
    const registers = this.subject.target.features.flatMap(f => f.registers)
    const n = registers.findIndex(r => r.type === 'code_ptr')
    return little(this.ask(`p${n.toString(16)}`)!)
  }
}

/** The number that little-endian hex digits spell. */
export const little = (hex: string): bigint =>
  BigInt(`0x${(hex.match(/../g) ?? []).reverse().join('')}`)

export { arm64, x86 }
