// An arm64 guest of a few words behind the real ioctls: EL1 with translation off, RAM from 1 GiB on, a device page where
// nothing is. Tests put words in (their assembly stands beside them) and look at what comes out.
import { VirtualClock } from '../../../src/base/clock.js'
import { ErrnoError } from '../../../src/base/errno.js'
import { TraceBus } from '../../../src/base/trace.js'
import { systemKey } from '../../../src/cpu/a64/ports.js'
import { type KvmParts, registerKvm } from '../../../src/cpu/kvm/system.js'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { FrameAllocator } from '../../../src/mem/frames.js'
import { createRam } from '../../../src/mem/ram.js'
import { Kernel } from '../../../src/sys/kernel.js'
import { Sys } from '../../../src/sys/sys.js'

/** Guest-physical layout. */
export const AT = {
  /** Nothing: accesses go to the owner. */
  DEVICE: 0x0900_0000,
  GICD: 0x0800_0000,
  ITS: 0x0808_0000,
  GICR: 0x080a_0000,
  CODE: 0x4000_0000,
  VECTORS: 0x4000_8000,
  DATA: 0x4001_0000,
  TABLES: 0x4010_0000,
} as const
export const RAM_BYTES = 0x20_0000

/** Instructions that tests use, by their text. X1 holds AT.DEVICE, X2 AT.DATA. */
// biome-ignore format: table
export const I = {
  nop: 0xd503201f, isb: 0xd5033fdf, wfi: 0xd503207f, stay: 0x14000000, eret: 0xd69f03e0,
  hvc: 0xd4000002, smc: 0xd4000003, svc7: 0xd40000e1, brk: 0xd4202460,
  device1: 0xd2a12001,     // mov x1, #0x9000000
  inc0: 0x11000400,        // add w0, w0, #1
  load: 0xb9400020,        // ldr w0, [x1]
  store8: 0xb9000820,      // str w0, [x1, #8]
  answer: 0xf9000820,      // str x0, [x1, #16]
  zero0: 0xd2800000,       // mov x0, #0
  one0: 0xd2800020,        // mov x0, #1
  thousand0: 0xd2807d00,   // mov x0, #1000
  put: 0xf9000043,         // str x3, [x2]
  get: 0xf9400043,         // ldr x3, [x2]
  pair: 0xa9000440,        // stp x0, x1, [x2]
  cntvTval: 0xd51be300, cntvCtl: 0xd51be320,              // msr ..., x0
  vbar: 0xd518c000, unmaskIrq: 0xd50342ff, unmaskSerror: 0xd50344ff,
  iar: 0xd538cc00, eoir: 0xd518cc20, esr: 0xd5385200, isr: 0xd538c100, mpidr: 0xd53800a0,
  oslar: 0xd5101080, oslsr: 0xd5301180, mdscr: 0xd5100240,
  setBvr: 0xd5100083, getBvr: 0xd5300084, setWvr: 0xd51000c3, getWvr: 0xd53000c5,
  add3: 0x91001063,        // add x3, x3, #4
} as const

/** b to `words` instructions from here. */
export const branch = (words: number): number => (0x1400_0000 | (words & 0x3ff_ffff)) >>> 0

/** A host with /dev/kvm of arm64 and one process. */
export function host(parts: Partial<KvmParts> = {}) {
  const clock = new VirtualClock()
  const trace = new TraceBus(clock)
  const memory = new AddressSpace()
  const frames = new FrameAllocator(memory, memory.addRam(0, createRam(8 << 20)))
  const kernel = new Kernel({ clock, trace, memory, frames })
  const kvm = registerKvm({ kernel, clock, trace, cpu: 'arm64', ...parts })
  return { clock, trace, memory, frames, kernel, kvm, sys: new Sys(kernel.spawn()) }
}

export const sysreg = (...e: [number, number, number, number, number]): bigint =>
  uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | BigInt(systemKey(...e))

const core = (word: number) =>
  uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM_CORE | BigInt(word)
/** Ids of registers. */
export const REG = {
  x: (n: number) => core(2 * n),
  sp: core(62),
  pc: core(64),
  pstate: core(66),
  spEl1: core(68),
  elr: core(70),
  spsr: core(72),
  v: (n: number) =>
    uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U128 | uapi.KVM_REG_ARM_CORE | BigInt(84 + 4 * n),
  fpsr: uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_CORE | 212n,
  fpcr: uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_CORE | 213n,
  midr: sysreg(3, 0, 0, 0, 0),
  mpidr: sysreg(3, 0, 0, 0, 5),
  isar0: sysreg(3, 0, 0, 6, 0),
  mmfr0: sysreg(3, 0, 0, 7, 0),
  dfr0: sysreg(3, 0, 0, 5, 0),
  sctlr: sysreg(3, 0, 1, 0, 0),
  vbar: sysreg(3, 0, 12, 0, 0),
  esr: sysreg(3, 0, 5, 2, 0),
  mdscr: sysreg(2, 0, 0, 2, 2),
  oslar: sysreg(2, 0, 1, 0, 4),
  oslsr: sysreg(2, 0, 1, 1, 4),
  bvr: (n: number) => sysreg(2, 0, 0, n, 4),
  bcr: (n: number) => sysreg(2, 0, 0, n, 5),
  wvr: (n: number) => sysreg(2, 0, 0, n, 6),
  wcr: (n: number) => sysreg(2, 0, 0, n, 7),
} as const

/** What a call came to: its result, or the errno's name. */
export function outcome(call: () => number): number | string {
  try {
    return call()
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}

/** One vCPU's descriptor, with its page. */
export class GuestCpu {
  readonly sys: Sys
  readonly fd: number
  readonly page: Uint8Array
  readonly run
  readonly #scratch

  constructor(sys: Sys, vm: number, id: number, features = 1 << uapi.KVM_ARM_VCPU_PSCI_0_2) {
    this.sys = sys
    this.#scratch = sys.mmap(4096)
    this.fd = sys.ioctl(vm, uapi.KVM_CREATE_VCPU, id)
    this.page = sys.mmap({ fd: this.fd, offset: 0, length: 8192 }).bytes
    this.run = uapi.kvm_run.at(this.page)
    this.init(features)
  }

  init(features: number): void {
    const init = uapi.kvm_vcpu_init({
      target: uapi.KVM_ARM_TARGET_GENERIC_V8,
      features: [features],
    })
    this.sys.ioctl(this.fd, uapi.KVM_ARM_VCPU_INIT, init)
  }

  /** The bytes of a register. */
  bytes(id: bigint): Uint8Array {
    const size = 2 ** Number((id & uapi.KVM_REG_SIZE_MASK) >> 52n)
    const { vaddr, bytes } = this.#scratch
    this.sys.ioctl(this.fd, uapi.KVM_GET_ONE_REG, uapi.kvm_one_reg({ id, addr: vaddr }))
    return bytes.slice(0, size)
  }

  setBytes(id: bigint, bytes: Uint8Array): void {
    const { vaddr } = this.#scratch
    this.#scratch.bytes.set(bytes)
    this.sys.ioctl(this.fd, uapi.KVM_SET_ONE_REG, uapi.kvm_one_reg({ id, addr: vaddr }))
  }

  get(id: bigint): bigint {
    return this.bytes(id).reduceRight((v, b) => (v << 8n) | BigInt(b), 0n)
  }

  set(id: bigint, value: bigint): void {
    const view = new DataView(new ArrayBuffer(16))
    view.setBigUint64(0, BigInt.asUintN(64, value), true)
    view.setBigUint64(8, value >> 64n, true)
    const size = 2 ** Number((id & uapi.KVM_REG_SIZE_MASK) >> 52n)
    this.setBytes(id, new Uint8Array(view.buffer, 0, Math.min(16, size)))
  }

  /** The same: 0, or the errno's name. */
  trySet(id: bigint, value: bigint): number | string {
    return outcome(() => {
      this.set(id, value)
      return 0
    })
  }

  /** Ids of KVM_GET_REG_LIST. */
  list(): bigint[] {
    const asked = uapi.kvm_reg_list({ n: 512n }, 512 * 8)
    this.sys.ioctl(this.fd, uapi.KVM_GET_REG_LIST, asked)
    return [...asked.reg].slice(0, Number(asked.n))
  }

  /** KVM_RUN; the exit reason, or the errno's name. */
  enter(): number | string {
    return outcome(() => {
      this.sys.ioctl(this.fd, uapi.KVM_RUN)
      return this.run.exit_reason
    })
  }

  /** Completes the access of the last exit, so that registers may be set. */
  settle(): void {
    this.run.immediate_exit = 1
    this.enter()
    this.run.immediate_exit = 0
  }

  /** Runs until the guest stores to AT.DEVICE + 16; what it stored. */
  answer(): bigint {
    const reason = this.enter()
    const { phys_addr, is_write, data } = this.run.u.mmio
    if (reason !== uapi.KVM_EXIT_MMIO || is_write === 0 || phys_addr !== BigInt(AT.DEVICE + 16))
      throw new Error(`exit ${reason} at 0x${phys_addr.toString(16)}, no answer`)
    return new DataView(data.buffer, data.byteOffset).getBigUint64(0, true)
  }

  /** KVM_SET_GUEST_DEBUG with ENABLE; the errno's name when it is refused. */
  debug(control: number, arch: Parameters<typeof uapi.kvm_guest_debug>[0] = {}): number | string {
    const arg = uapi.kvm_guest_debug({ ...arch, control: control | uapi.KVM_GUESTDBG_ENABLE })
    return outcome(() => this.sys.ioctl(this.fd, uapi.KVM_SET_GUEST_DEBUG, arg))
  }
}

/** One VM with one vCPU that is ready to run at `AT.CODE`. */
export class Guest {
  readonly host: ReturnType<typeof host>
  readonly sys: Sys
  readonly kvm: number
  readonly vm: number
  readonly cpu: GuestCpu
  readonly ram: Uint8Array
  readonly view: DataView
  readonly vaddr: bigint

  constructor(options: { parts?: Partial<KvmParts>; on?: ReturnType<typeof host> } = {}) {
    this.host = options.on ?? host(options.parts)
    const { sys } = this.host
    this.sys = sys
    this.kvm = sys.open('/dev/kvm')
    this.vm = sys.ioctl(this.kvm, uapi.KVM_CREATE_VM, 0)
    const ram = sys.mmap(RAM_BYTES)
    this.ram = ram.bytes
    this.vaddr = ram.vaddr
    this.view = new DataView(this.ram.buffer, this.ram.byteOffset, this.ram.length)
    this.slot({ guest_phys_addr: BigInt(AT.CODE), memory_size: BigInt(RAM_BYTES) })
    this.cpu = this.start(0)
  }

  slot(init: Parameters<typeof uapi.kvm_userspace_memory_region>[0]): void {
    const region = uapi.kvm_userspace_memory_region({ userspace_addr: this.vaddr, ...init })
    this.sys.ioctl(this.vm, uapi.KVM_SET_USER_MEMORY_REGION, region)
  }

  /** A vCPU at AT.CODE. */
  start(id: number, features?: number): GuestCpu {
    const cpu = new GuestCpu(this.sys, this.vm, id, features)
    cpu.set(REG.pc, BigInt(AT.CODE))
    cpu.set(REG.x(1), BigInt(AT.DEVICE))
    cpu.set(REG.x(2), BigInt(AT.DATA))
    return cpu
  }

  /** Words at `AT.CODE`, or elsewhere. */
  code(words: readonly number[], at: number = AT.CODE): void {
    words.forEach((word, i) => {
      this.view.setUint32(at - AT.CODE + 4 * i, word, true)
    })
  }

  /** A word of memory. */
  word(at: number): bigint {
    return this.view.getBigUint64(at - AT.CODE, true)
  }

  /** KVM_CREATE_DEVICE; the descriptor, or the errno's name. */
  device(type: number, flags = 0): number | string {
    const arg = uapi.kvm_create_device({ type, flags })
    return outcome(() => {
      this.sys.ioctl(this.vm, uapi.KVM_CREATE_DEVICE, arg)
      return arg.fd
    })
  }

  /** An attribute call: 0, or the errno's name. `value` has 8 bytes, in and out. */
  attribute(
    call: number,
    fd: number,
    group: number,
    attr: number | bigint,
    value = new BigUint64Array(1),
  ) {
    const at = this.sys.mmap(4096)
    at.bytes.set(new Uint8Array(value.buffer))
    const arg = uapi.kvm_device_attr({ group, attr: BigInt(attr), addr: at.vaddr })
    const result = outcome(() => this.sys.ioctl(fd, call, arg))
    new Uint8Array(value.buffer).set(at.bytes.subarray(0, 8))
    this.sys.munmap(at.vaddr, 4096)
    return result
  }

  setAttribute(fd: number, group: number, attr: number | bigint, value: number | bigint = 0) {
    return this.attribute(
      uapi.KVM_SET_DEVICE_ATTR,
      fd,
      group,
      attr,
      BigUint64Array.of(BigInt(value)),
    )
  }

  /** The value of an attribute, or the errno's name. */
  getAttribute(fd: number, group: number, attr: number | bigint): bigint | string {
    const value = new BigUint64Array(1)
    const result = this.attribute(uapi.KVM_GET_DEVICE_ATTR, fd, group, attr, value)
    return typeof result === 'string' ? result : value[0]!
  }

  /** A GICv3 with its places, initialised; an ITS with it. */
  gic(its = false): { gic: number; its: number } {
    const gic = this.device(uapi.KVM_DEV_TYPE_ARM_VGIC_V3) as number
    const addr = uapi.KVM_DEV_ARM_VGIC_GRP_ADDR
    this.setAttribute(gic, addr, uapi.KVM_VGIC_V3_ADDR_TYPE_DIST, AT.GICD)
    this.setAttribute(gic, addr, uapi.KVM_VGIC_V3_ADDR_TYPE_REDIST, AT.GICR)
    this.setAttribute(gic, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT)
    if (!its) return { gic, its: -1 }
    const fd = this.device(uapi.KVM_DEV_TYPE_ARM_VGIC_ITS) as number
    this.setAttribute(fd, addr, uapi.KVM_VGIC_ITS_ADDR_TYPE, AT.ITS)
    this.setAttribute(fd, uapi.KVM_DEV_ARM_VGIC_GRP_CTRL, uapi.KVM_DEV_ARM_VGIC_CTRL_INIT)
    return { gic, its: fd }
  }
}
