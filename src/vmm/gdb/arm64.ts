// An arm64 vCPU under a debugger: registers by KVM_GET_ONE_REG in gdb's order, addresses by its own walk of the guest's
// tables (KVM_TRANSLATE is not for arm64), breakpoints in the host's set of debug registers.

import { highHalf, lowHalf } from '../../base/addr.js'
import { ErrnoError } from '../../base/errno.js'
import {
  KVM_GET_ONE_REG,
  KVM_GUESTDBG_ENABLE,
  KVM_GUESTDBG_SINGLESTEP,
  KVM_GUESTDBG_USE_HW,
  KVM_GUESTDBG_USE_SW_BP,
  KVM_REG_ARM_CORE,
  KVM_REG_ARM64,
  KVM_REG_ARM64_SYSREG,
  KVM_REG_SIZE_U32,
  KVM_REG_SIZE_U64,
  KVM_REG_SIZE_U128,
  KVM_SET_GUEST_DEBUG,
  KVM_SET_ONE_REG,
  kvm_guest_debug,
  kvm_one_reg,
  kvm_run,
} from '../../cpu/kvm/uapi/arm64.js'
import { AddressSpace } from '../../mem/address-space.js'
import { vmsaFormat } from '../../paging/formats-vmsa.js'
import { ACCESS_PROBE, ACCESS_READ, Walk } from '../../paging/walk.js'
import { createWalker } from '../../paging/walker.js'
import {
  type ArmOptions,
  type DebugFeature,
  type DebuggedCpu,
  type DebugRegister,
  type DebugTarget,
  type HardwarePoint,
  numberOf,
  type Stop,
} from './target.js'

/** A register with its id for KVM_GET_ONE_REG. */
interface Place extends DebugRegister {
  readonly id: bigint
}

const core = (size: bigint, word: number): bigint =>
  KVM_REG_ARM64 | size | KVM_REG_ARM_CORE | BigInt(word)
const wide = (word: number): bigint => core(KVM_REG_SIZE_U64, word)
const system = (op0: number, op1: number, crn: number, crm: number, op2: number): bigint =>
  KVM_REG_ARM64 |
  KVM_REG_SIZE_U64 |
  KVM_REG_ARM64_SYSREG |
  BigInt((op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2)
const SCTLR = system(3, 0, 1, 0, 0)
const TTBR0 = system(3, 0, 2, 0, 0)
const TTBR1 = system(3, 0, 2, 0, 1)
const TCR = system(3, 0, 2, 0, 2)
const ESR = system(3, 0, 5, 2, 0)
const VBAR = system(3, 0, 12, 0, 0)
/** PSTATE: condition flags; EL1h with everything masked. */
const FLAGS = 0xf000_0000n
const EL1H = 0x3c5n
const PC = 64
const PSTATE = 66
const SP_EL0 = 62
const SP_EL1 = 68
const ELR = 70
const SPSR = 72
const VREGS = 84
const FPSR = 212

const CORE: readonly Place[] = [
  ...Array.from({ length: 31 }, (_, n) => ({
    name: `x${n}`,
    bits: 64,
    type: 'int',
    id: wide(2 * n),
  })),
  { name: 'sp', bits: 64, type: 'data_ptr', id: wide(SP_EL0) }, // the selected one
  { name: 'pc', bits: 64, type: 'code_ptr', id: wide(PC) },
  { name: 'cpsr', bits: 32, type: 'int32', id: wide(PSTATE) },
]
const FPU: readonly Place[] = [
  ...Array.from({ length: 32 }, (_, n) => ({
    name: `v${n}`,
    bits: 128,
    type: 'vec128',
    id: core(KVM_REG_SIZE_U128, VREGS + 4 * n),
  })),
  { name: 'fpsr', bits: 32, type: 'int', id: core(KVM_REG_SIZE_U32, FPSR), group: 'float' },
  { name: 'fpcr', bits: 32, type: 'int', id: core(KVM_REG_SIZE_U32, FPSR + 1), group: 'float' },
]
/** Registers of EL1 that a kernel's author wants to see. */
const SYSTEM: readonly Place[] = [
  ['SP_EL0', wide(SP_EL0)],
  ['SP_EL1', wide(SP_EL1)],
  ['ELR_EL1', wide(ELR)],
  ['SPSR_EL1', wide(SPSR)],
  ['ESR_EL1', ESR],
  ['FAR_EL1', system(3, 0, 6, 0, 0)],
  ['VBAR_EL1', VBAR],
  ['SCTLR_EL1', SCTLR],
  ['TCR_EL1', TCR],
  ['TTBR0_EL1', TTBR0],
  ['TTBR1_EL1', TTBR1],
].map(([name, id]) => ({
  name: name as string,
  bits: 64,
  type: 'int',
  id: id as bigint,
  group: 'system',
}))
const PLACES: readonly Place[] = [...CORE, ...FPU, ...SYSTEM]

const BREAKPOINTS = 6
const WATCHPOINTS = 4
/** DBGBCR: enabled, EL1 and EL0, all of an instruction. */
const BCR = 0x1e7n
const LOAD_STORE = { read: 1n, write: 2n, access: 3n } as const
const EC = { BREAKPOINT: 0x30, WATCHPOINT: 0x34, BRK: 0x3c } as const
/** Granules in KB by TCR_EL1.TG0 and TG1. */
const TG0 = [4, 64, 16, 4] as const
const TG1 = [4, 16, 4, 64] as const

/** An arm64 vCPU under a debugger. */
export class Arm64Target implements DebugTarget {
  readonly architecture = 'aarch64'
  readonly features: readonly DebugFeature[] = [
    { name: 'org.gnu.gdb.aarch64.core', registers: CORE },
    { name: 'org.gnu.gdb.aarch64.fpu', registers: FPU },
    { name: 'org.vfio-emu.aarch64.system', registers: SYSTEM },
  ]
  /** brk #0 */
  readonly breakpoint = Uint8Array.of(0, 0, 0x20, 0xd4)
  readonly #cpu: DebuggedCpu
  readonly #run
  readonly #memory = new AddressSpace()
  readonly #page: { readonly vaddr: bigint; readonly bytes: Uint8Array }

  constructor(cpu: DebuggedCpu) {
    this.#cpu = cpu
    this.#run = kvm_run.at(cpu.page)
    this.#memory.addRam(cpu.ramBase, cpu.ram)
    this.#page = cpu.sys.mmap(4096)
  }

  readRegisters(): Uint8Array[] {
    return PLACES.map(p => this.#read(this.#idOf(p)).slice(0, p.bits / 8))
  }

  writeRegisters(values: ReadonlyMap<number, Uint8Array>): boolean {
    try {
      for (const [n, bytes] of values) {
        const place = PLACES[n]!
        const id = this.#idOf(place)
        const whole = this.#read(id)
        whole.set(bytes)
        this.#page.bytes.set(whole)
        const one = kvm_one_reg({ id, addr: this.#page.vaddr })
        this.#cpu.sys.ioctl(this.#cpu.fd, KVM_SET_ONE_REG, one)
      }
    } catch (error) {
      if (error instanceof ErrnoError) return false
      throw error
    }
    return true
  }

  translate(address: bigint): number | undefined {
    if ((this.#value(SCTLR) & 1n) === 0n) return Number(address)
    const tcr = this.#value(TCR)
    const upper = ((address >> 55n) & 1n) === 1n
    const size = Number((tcr >> (upper ? 16n : 0n)) & 63n)
    const off = (tcr >> (upper ? 23n : 7n)) & 1n
    const inputBits = 64 - Math.min(39, Math.max(16, size))
    if (off === 1n) return undefined
    const granule = upper ? TG1[Number((tcr >> 30n) & 3n)]! : TG0[Number((tcr >> 14n) & 3n)]!
    const walker = createWalker(vmsaFormat({ granule, inputBits, upper }), this.#memory)
    const root = Number(this.#value(upper ? TTBR1 : TTBR0) & 0xffff_ffff_fffen)
    const walk = new Walk()
    // Bits 63:56 are a tag where TCR_EL1.TBI0 or TBI1 says so.
    const tagged = ((tcr >> (upper ? 38n : 37n)) & 1n) === 1n
    const plain = tagged ? BigInt.asUintN(64, BigInt.asIntN(56, address)) : address
    const [hi, lo] = [highHalf(plain), lowHalf(plain)]
    return walker(root, hi, lo, ACCESS_READ | ACCESS_PROBE, walk) ? walk.output : undefined
  }

  canPlace({ kind, address, length }: HardwarePoint, beside: readonly HardwarePoint[]) {
    const execute = kind === 'execute'
    const used = beside.filter(p => (p.kind === 'execute') === execute).length
    if (execute) return used < BREAKPOINTS && address % 4n === 0n ? 'yes' : 'no'
    const within = length > 0 && Number(address & 7n) + length <= 8
    return used < WATCHPOINTS && within ? 'yes' : 'no'
  }

  arm({ step, software, points }: ArmOptions): void {
    const arch = {
      dbg_bcr: new Array<bigint>(16).fill(0n),
      dbg_bvr: new Array<bigint>(16).fill(0n),
      dbg_wcr: new Array<bigint>(16).fill(0n),
      dbg_wvr: new Array<bigint>(16).fill(0n),
    }
    let [b, w] = [0, 0]
    for (const { kind, address, length } of points) {
      if (kind === 'execute') {
        arch.dbg_bvr[b] = address
        arch.dbg_bcr[b++] = BCR
      } else {
        const bytes = ((1n << BigInt(length)) - 1n) << (address & 7n)
        arch.dbg_wvr[w] = address & ~7n
        arch.dbg_wcr[w++] = 1n | (3n << 1n) | (LOAD_STORE[kind] << 3n) | (bytes << 5n)
      }
    }
    const on =
      (step ? KVM_GUESTDBG_SINGLESTEP : 0) |
      (software ? KVM_GUESTDBG_USE_SW_BP : 0) |
      (points.length > 0 ? KVM_GUESTDBG_USE_HW : 0)
    const debug = { control: on === 0 ? 0 : on | KVM_GUESTDBG_ENABLE, arch }
    this.#cpu.sys.ioctl(this.#cpu.fd, KVM_SET_GUEST_DEBUG, kvm_guest_debug(debug))
  }

  reason(points: readonly HardwarePoint[]): Stop {
    const { hsr, far } = this.#run.u.debug.arch
    switch (hsr >>> 26) {
      case EC.BRK:
        return { kind: 'software' }
      case EC.BREAKPOINT:
        return { kind: 'hardware' }
      case EC.WATCHPOINT: {
        // FAR is the lowest address of the access; what is watched may lie above it.
        const watched = points.filter(p => p.kind !== 'execute')
        const inside = watched.find(p => far >= p.address && far < p.address + BigInt(p.length))
        const above = watched.find(p => p.address >= far && p.address < far + 64n)
        const point = inside ?? above
        if (point !== undefined)
          return { kind: 'watch', point, address: inside === undefined ? point.address : far }
      }
    }
    return { kind: 'step' }
  }

  // The exception that BRK is (DDI 0487, D1.3.1): to EL1, everything masked, back to the instruction itself.
  reflect(): void {
    const pstate = this.#value(wide(PSTATE))
    const handler = (pstate & 0xfn) === 5n ? 0x200n : (pstate & 0xfn) === 4n ? 0n : 0x400n
    this.#write(wide(ELR), this.#value(wide(PC)))
    this.#write(wide(SPSR), pstate)
    this.#write(ESR, BigInt(this.#run.u.debug.arch.hsr))
    this.#write(wide(PSTATE), (pstate & FLAGS) | EL1H)
    this.#write(wide(PC), this.#value(VBAR) + handler)
  }

  release(): void {
    this.#cpu.sys.munmap(this.#page.vaddr, 4096)
  }

  // The stack pointer is SP_EL1 at EL1 with SPSel set.
  #idOf(place: Place): bigint {
    const handler = place.name === 'sp' && (this.#value(wide(PSTATE)) & 0xfn) === 5n
    return handler ? wide(SP_EL1) : place.id
  }

  #value(id: bigint): bigint {
    return numberOf(this.#read(id))
  }

  #write(id: bigint, value: bigint): void {
    const { sys, fd } = this.#cpu
    new DataView(this.#page.bytes.buffer, this.#page.bytes.byteOffset).setBigUint64(0, value, true)
    sys.ioctl(fd, KVM_SET_ONE_REG, kvm_one_reg({ id, addr: this.#page.vaddr }))
  }

  #read(id: bigint): Uint8Array {
    const { sys, fd } = this.#cpu
    sys.ioctl(fd, KVM_GET_ONE_REG, kvm_one_reg({ id, addr: this.#page.vaddr }))
    return this.#page.bytes.slice(0, 2 ** Number((id >> 52n) & 15n))
  }
}
