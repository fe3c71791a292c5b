// An x86-64 vCPU under a debugger: registers of KVM_GET_REGS, KVM_GET_SREGS and KVM_GET_FPU in gdb's order, addresses by
// KVM_TRANSLATE, breakpoints in DR0 to DR3.

import { ErrnoError } from '../../base/errno.js'
import {
  KVM_GET_FPU,
  KVM_GET_REGS,
  KVM_GET_SREGS,
  KVM_GUESTDBG_BLOCKIRQ,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_INJECT_BP,
  KVM_GUESTDBG_SINGLESTEP,
  KVM_GUESTDBG_USE_HW_BP,
  KVM_GUESTDBG_USE_SW_BP,
  KVM_SET_FPU,
  KVM_SET_GUEST_DEBUG,
  KVM_SET_REGS,
  KVM_SET_SREGS,
  KVM_TRANSLATE,
  kvm_fpu,
  kvm_guest_debug,
  kvm_regs,
  kvm_run,
  kvm_sregs,
  kvm_translation,
} from '../../cpu/kvm/uapi.js'
import {
  type ArmOptions,
  bytesOf,
  type DebugFeature,
  type DebuggedCpu,
  type DebugRegister,
  type DebugTarget,
  type HardwarePoint,
  numberOf,
  type Stop,
} from './target.js'

type Regs = ReturnType<typeof kvm_regs>
type Sregs = ReturnType<typeof kvm_sregs>
type Fpu = ReturnType<typeof kvm_fpu>
interface State {
  readonly regs: Regs
  readonly sregs: Sregs
  readonly fpu: Fpu
}

/** A register with its place in KVM's structures. */
interface Place extends DebugRegister {
  get(s: State): bigint
  /** False: the value cannot be. */
  set(s: State, value: bigint): boolean
}

// biome-ignore format: table
const GENERAL = [
  'rax', 'rbx', 'rcx', 'rdx', 'rsi', 'rdi', 'rbp', 'rsp', 'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15', 'rip',
] as const
const POINTERS: Readonly<Record<string, string>> = {
  rbp: 'data_ptr',
  rsp: 'data_ptr',
  rip: 'code_ptr',
}
const SEGMENTS = ['cs', 'ss', 'ds', 'es', 'fs', 'gs'] as const

const general = (name: (typeof GENERAL)[number]): Place => ({
  name,
  bits: 64,
  type: POINTERS[name] ?? 'int64',
  get: s => s.regs[name],
  set: (s, v) => {
    s.regs[name] = v
    return true
  },
})

/** A selector cannot be changed by itself: the descriptor belongs to it. Writing what is there is no change. */
const segment = (name: (typeof SEGMENTS)[number]): Place => ({
  name,
  bits: 32,
  type: 'int32',
  get: s => BigInt(s.sregs[name].selector),
  set: (s, v) => v === BigInt(s.sregs[name].selector),
})

const part = (
  name: string,
  bits: number,
  type: string,
  at: (s: State) => Uint8Array,
  group?: string,
): Place => ({
  name,
  bits,
  type,
  ...(group !== undefined && { group }),
  get: s => numberOf(at(s)),
  set: (s, v) => {
    at(s).set(bytesOf(v, bits / 8))
    return true
  },
})

const fpuWord = (
  name: string,
  get: (f: Fpu) => number | bigint,
  set?: (f: Fpu, v: bigint) => void,
): Place => ({
  name,
  bits: 32,
  type: 'int',
  group: 'float',
  get: s => BigInt(get(s.fpu)) & 0xffff_ffffn,
  set: (s, v) => {
    set?.(s.fpu, v)
    return true
  },
})

const base = (name: string, of: 'fs' | 'gs'): Place => ({
  name,
  bits: 64,
  type: 'int64',
  get: s => s.sregs[of].base,
  set: (s, v) => {
    s.sregs[of].base = v
    return true
  },
})

const CORE: readonly Place[] = [
  ...GENERAL.map(general),
  {
    name: 'eflags',
    bits: 32,
    type: 'int32',
    get: s => s.regs.rflags & 0xffff_ffffn,
    set: (s, v) => {
      s.regs.rflags = v
      return true
    },
  },
  ...SEGMENTS.map(segment),
  ...Array.from({ length: 8 }, (_, i) =>
    part(`st${i}`, 80, 'i387_ext', s => s.fpu.fpr.subarray(16 * i, 16 * i + 10)),
  ),
  fpuWord(
    'fctrl',
    f => f.fcw,
    (f, v) => (f.fcw = Number(v & 0xffffn)),
  ),
  fpuWord(
    'fstat',
    f => f.fsw,
    (f, v) => (f.fsw = Number(v & 0xffffn)),
  ),
  fpuWord(
    'ftag',
    f => f.ftwx,
    (f, v) => (f.ftwx = Number(v & 0xffn)),
  ),
  fpuWord('fiseg', () => 0),
  fpuWord('fioff', f => f.last_ip),
  fpuWord('foseg', () => 0),
  fpuWord('fooff', f => f.last_dp),
  fpuWord('fop', f => f.last_opcode),
]
const SSE: readonly Place[] = [
  ...Array.from({ length: 16 }, (_, i) =>
    part(`xmm${i}`, 128, 'vec128', s => s.fpu.xmm.subarray(16 * i, 16 * i + 16)),
  ),
  fpuWord(
    'mxcsr',
    f => f.mxcsr,
    (f, v) => (f.mxcsr = Number(v & 0xffff_ffffn)),
  ),
]
const BASES: readonly Place[] = [base('fs_base', 'fs'), base('gs_base', 'gs')]
const PLACES: readonly Place[] = [...CORE, ...SSE, ...BASES]

const BREAKPOINTS = 4
const LENGTHS: Readonly<Record<number, number>> = { 1: 0, 2: 1, 4: 3, 8: 2 }
const KINDS = { execute: 0, write: 1, access: 3 } as const
const BP = 3

/** An x86-64 vCPU under a debugger. */
export class X86Target implements DebugTarget {
  readonly architecture = 'i386:x86-64'
  readonly features: readonly DebugFeature[] = [
    { name: 'org.gnu.gdb.i386.core', registers: CORE },
    { name: 'org.gnu.gdb.i386.sse', registers: SSE },
    { name: 'org.gnu.gdb.i386.segments', registers: BASES },
  ]
  readonly breakpoint = Uint8Array.of(0xcc)
  readonly #cpu: DebuggedCpu
  readonly #run
  #armed: { readonly control: number; readonly arch?: { readonly debugreg: bigint[] } } = {
    control: 0,
  }

  constructor(cpu: DebuggedCpu) {
    this.#cpu = cpu
    this.#run = kvm_run.at(cpu.page)
  }

  readRegisters(): Uint8Array[] {
    const state = this.#state()
    return PLACES.map(p => bytesOf(p.get(state), p.bits / 8))
  }

  writeRegisters(values: ReadonlyMap<number, Uint8Array>): boolean {
    const state = this.#state()
    for (const [n, bytes] of values) if (!PLACES[n]!.set(state, numberOf(bytes))) return false
    const { sys, fd } = this.#cpu
    try {
      sys.ioctl(fd, KVM_SET_SREGS, state.sregs)
      sys.ioctl(fd, KVM_SET_FPU, state.fpu)
      sys.ioctl(fd, KVM_SET_REGS, state.regs)
    } catch (error) {
      if (error instanceof ErrnoError) return false
      throw error
    }
    return true
  }

  translate(address: bigint): number | undefined {
    const t = kvm_translation({ linear_address: address })
    this.#cpu.sys.ioctl(this.#cpu.fd, KVM_TRANSLATE, t)
    return t.valid === 0 ? undefined : Number(t.physical_address)
  }

  canPlace({ kind, address, length }: HardwarePoint, beside: readonly HardwarePoint[]) {
    if (kind === 'read') return 'unsupported'
    const size = kind === 'execute' ? 1 : length
    const fits = LENGTHS[size] !== undefined && address % BigInt(size) === 0n
    return fits && beside.length < BREAKPOINTS ? 'yes' : 'no'
  }

  arm({ step, software, points }: ArmOptions): void {
    const debugreg = new Array<bigint>(8).fill(0n)
    let control = 0
    for (const [i, { kind, address, length }] of points.entries()) {
      debugreg[i] = address
      const size = kind === 'execute' ? 0 : LENGTHS[length]!
      const how = KINDS[kind as keyof typeof KINDS] | (size << 2)
      control |= (1 << (2 * i)) | (how << (16 + 4 * i))
    }
    debugreg[7] = BigInt(control >>> 0)
    const on =
      (step ? KVM_GUESTDBG_SINGLESTEP | KVM_GUESTDBG_BLOCKIRQ : 0) |
      (software ? KVM_GUESTDBG_USE_SW_BP : 0) |
      (points.length > 0 ? KVM_GUESTDBG_USE_HW_BP : 0)
    this.#armed = { control: on === 0 ? 0 : on | KVM_GUESTDBG_ENABLE, arch: { debugreg } }
    this.#cpu.sys.ioctl(this.#cpu.fd, KVM_SET_GUEST_DEBUG, kvm_guest_debug(this.#armed))
  }

  reason(points: readonly HardwarePoint[]): Stop {
    const { exception, dr6 } = this.#run.u.debug.arch
    if (exception === BP) return { kind: 'software' }
    const hit = points.findIndex((_, i) => ((dr6 >> BigInt(i)) & 1n) === 1n)
    const point = points[hit]
    if (point === undefined) return { kind: 'step' }
    if (point.kind === 'execute') return { kind: 'hardware' }
    return { kind: 'watch', point, address: point.address }
  }

  reflect(): void {
    const debug = kvm_guest_debug(this.#armed)
    debug.control |= KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_INJECT_BP
    this.#cpu.sys.ioctl(this.#cpu.fd, KVM_SET_GUEST_DEBUG, debug)
  }

  release(): void {}

  #state(): State {
    const { sys, fd } = this.#cpu
    const state = { regs: kvm_regs(), sregs: kvm_sregs(), fpu: kvm_fpu() }
    sys.ioctl(fd, KVM_GET_REGS, state.regs)
    sys.ioctl(fd, KVM_GET_SREGS, state.sregs)
    sys.ioctl(fd, KVM_GET_FPU, state.fpu)
    return state
  }
}
