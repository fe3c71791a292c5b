// A guest of a few hundred bytes behind the real ioctls: 64-bit mode, identity-mapped, with a GDT, a TSS and an IDT
// whose every gate reports its vector by a port write and returns. Tests put code in and look at what comes out.
import { VirtualClock } from '../../../src/base/clock.js'
import { ErrnoError } from '../../../src/base/errno.js'
import { TraceBus } from '../../../src/base/trace.js'
import { type KvmParts, registerKvm } from '../../../src/cpu/kvm/system.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { createSevPlatform, type SevOptions } from '../../../src/cpu/sev/platform.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import { FrameAllocator } from '../../../src/mem/frames.js'
import { createRam } from '../../../src/mem/ram.js'
import { Kernel } from '../../../src/sys/kernel.js'
import { Sys } from '../../../src/sys/sys.js'

/** Guest-physical layout, below the code. */
export const AT = {
  GDT: 0x1000,
  TSS: 0x1800,
  PML4: 0x2000,
  PDPT: 0x3000,
  PD: 0x4000,
  /** The first 2 MiB, page by page. */
  PT: 0x5000,
  IDT: 0x6000,
  STUBS: 0x7000,
  /** Tops of stacks. */
  STACK: 0xa000,
  IST1: 0xb000,
  USER_STACK: 0xc000,
  CODE: 0x1_0000,
  DATA: 0x2_0000,
} as const
export const SELECTOR = { CODE: 0x08, DATA: 0x10, USER_DATA: 0x23, USER_CODE: 0x2b, TSS: 0x30 }
/** Vectors from here report at port 0xf0 with the vector in AL; those below, at port 0x80 + vector. */
export const RAM_BYTES = 0x40_0000

const P = 1n
const W = 2n
const U = 4n

/** An entry of the IDT. */
export interface Gate {
  readonly vector: number
  readonly type?: number
  readonly dpl?: number
  readonly ist?: number
  readonly present?: boolean
  readonly selector?: number
  readonly target?: bigint
}

/** What a delivered event left on the stack. */
export interface Frame {
  readonly vector: number
  readonly error: number | undefined
  readonly rip: bigint
  readonly cs: number
  readonly flags: number
  readonly rsp: bigint
  readonly ss: number
}

const WITH_ERROR = new Set([8, 10, 11, 12, 13, 14, 17, 21])

/** A host with /dev/kvm and one process; with SEV when options for it are given. */
export function host(parts: Partial<KvmParts> = {}, sev?: SevOptions) {
  const clock = new VirtualClock()
  const trace = new TraceBus(clock)
  const memory = new AddressSpace()
  const frames = new FrameAllocator(memory, memory.addRam(0, createRam(16 << 20)))
  const kernel = new Kernel({ clock, trace, memory, frames })
  const platform = sev && createSevPlatform(sev, { memory, clock, trace, addressBits: 52 })
  const kvm = registerKvm({ kernel, clock, trace, ...parts, ...(platform && { sev: platform }) })
  const sys = new Sys(kernel.spawn())
  return { clock, trace, memory, frames, kernel, kvm, platform, sys }
}

/** Bytes of a hex dump; blanks and what follows `;` on a line do not count. */
export const hex = (text: string): Uint8Array =>
  Uint8Array.from(text.replace(/;.*$/gm, '').match(/[0-9a-f]{2}/gi) ?? [], byte =>
    Number.parseInt(byte, 16),
  )

/** Tables and stubs, made once. */
let image: Uint8Array | undefined

/** What may differ from one guest to the next. */
export interface GuestOptions {
  readonly irqchip?: boolean
  readonly parts?: Partial<KvmParts>
  /** A host that is there already. */
  readonly host?: ReturnType<typeof host>
  /** KVM_CREATE_VM's argument. */
  readonly type?: number
  /** Bytes of guest memory; `RAM_BYTES` by default. */
  readonly ramBytes?: number
  /** Runs before there is a vCPU. */
  readonly prepare?: (sys: Sys, vm: number) => void
}

/** One VM with one vCPU that is ready to run at `AT.CODE`. */
export class Guest {
  readonly host: ReturnType<typeof host>
  readonly sys: Sys
  readonly vm: number
  readonly vcpu: number
  readonly ram: Uint8Array
  readonly view: DataView
  readonly vaddr: bigint
  readonly page: Uint8Array
  readonly run

  constructor(options: GuestOptions = {}) {
    this.host = options.host ?? host(options.parts)
    this.sys = this.host.sys
    const { sys } = this
    const kvm = sys.open('/dev/kvm')
    this.vm = sys.ioctl(kvm, uapi.KVM_CREATE_VM, options.type ?? 0)
    options.prepare?.(sys, this.vm)
    if (options.irqchip !== false) sys.ioctl(this.vm, uapi.KVM_CREATE_IRQCHIP)
    this.vcpu = sys.ioctl(this.vm, uapi.KVM_CREATE_VCPU, 0)
    const length = sys.ioctl(kvm, uapi.KVM_GET_VCPU_MMAP_SIZE)
    this.page = sys.mmap({ fd: this.vcpu, offset: 0, length }).bytes
    this.run = uapi.kvm_run.at(this.page)
    const cpuid = uapi.kvm_cpuid2({ nent: 80 }, 80 * 40)
    sys.ioctl(kvm, uapi.KVM_GET_SUPPORTED_CPUID, cpuid)
    sys.ioctl(this.vcpu, uapi.KVM_SET_CPUID2, cpuid)
    const ram = sys.mmap(options.ramBytes ?? RAM_BYTES)
    this.ram = ram.bytes
    this.vaddr = ram.vaddr
    this.view = new DataView(this.ram.buffer, this.ram.byteOffset, this.ram.length)
    this.slot({
      slot: 0,
      guest_phys_addr: 0n,
      memory_size: BigInt(ram.bytes.length),
      userspace_addr: ram.vaddr,
    })
    if (image === undefined) {
      this.#tables()
      image = this.ram.slice(0, AT.CODE)
    } else this.ram.set(image)
    this.setSregs(() => {})
    this.setRegs({ rip: BigInt(AT.CODE), rsp: BigInt(AT.STACK) })
  }

  slot(init: Parameters<typeof uapi.kvm_userspace_memory_region>[0]): void {
    const { vm, sys } = this
    sys.ioctl(vm, uapi.KVM_SET_USER_MEMORY_REGION, uapi.kvm_userspace_memory_region(init))
  }

  /** Code at `AT.CODE`, or elsewhere. */
  code(text: string, at: number = AT.CODE): void {
    this.ram.set(hex(text), at)
  }

  regs() {
    const regs = uapi.kvm_regs()
    this.sys.ioctl(this.vcpu, uapi.KVM_GET_REGS, regs)
    return regs
  }

  setRegs(change: Partial<Record<keyof ReturnType<Guest['regs']>, bigint>>): void {
    this.sys.ioctl(this.vcpu, uapi.KVM_SET_REGS, Object.assign(this.regs(), change))
  }

  sregs() {
    const sregs = uapi.kvm_sregs()
    this.sys.ioctl(this.vcpu, uapi.KVM_GET_SREGS, sregs)
    return sregs
  }

  /** 64-bit mode at CPL 0 with the tables of `AT`, then `change`. */
  setSregs(change: (sregs: ReturnType<Guest['sregs']>) => void): void {
    const s = this.sregs()
    const flat = { base: 0n, limit: 0xffff_ffff, s: 1, present: 1, g: 1, dpl: 0, unusable: 0 }
    Object.assign(s.cs, { ...flat, selector: SELECTOR.CODE, type: 11, l: 1, db: 0 })
    for (const d of [s.ds, s.es, s.fs, s.gs, s.ss])
      Object.assign(d, { ...flat, selector: SELECTOR.DATA, type: 3, l: 0, db: 1 })
    Object.assign(s.tr, {
      base: BigInt(AT.TSS),
      limit: 103,
      selector: SELECTOR.TSS,
      type: 11,
      s: 0,
    })
    Object.assign(s.ldt, { unusable: 1, present: 0, type: 2, s: 0 })
    Object.assign(s.gdt, { base: BigInt(AT.GDT), limit: 0x3f })
    Object.assign(s.idt, { base: BigInt(AT.IDT), limit: 0xfff })
    s.cr0 = 0x8001_0033n
    s.cr3 = BigInt(AT.PML4)
    s.cr4 = 0x20n
    s.efer = 0xd01n
    change(s)
    this.sys.ioctl(this.vcpu, uapi.KVM_SET_SREGS, s)
  }

  /** The same at CPL 3, interrupts on. */
  toUser(rip: number = AT.CODE): void {
    this.setSregs(s => {
      for (const d of [s.ds, s.es, s.ss]) Object.assign(d, { selector: SELECTOR.USER_DATA, dpl: 3 })
      Object.assign(s.cs, { selector: SELECTOR.USER_CODE, dpl: 3 })
    })
    this.setRegs({ rip: BigInt(rip), rsp: BigInt(AT.USER_STACK), rflags: 0x202n })
  }

  /** Entry of the page at a linear address below 2 MiB. */
  entry(address: number): number {
    return AT.PT + 8 * (address >> 12)
  }

  /** Sets a page's entry: physical address and bits. */
  map(address: number, entry: bigint): void {
    this.view.setBigUint64(this.entry(address), entry, true)
  }

  gate({ vector, type = 14, dpl = 0, ist = 0, present = true, selector = 8, target }: Gate): void {
    const to = target ?? BigInt(AT.STUBS + 16 * vector)
    const at = AT.IDT + 16 * vector
    const attributes = (present ? 0x80 : 0) | (dpl << 5) | type
    this.view.setUint16(at, Number(to & 0xffffn), true)
    this.view.setUint16(at + 2, selector, true)
    this.view.setUint8(at + 4, ist)
    this.view.setUint8(at + 5, attributes)
    this.view.setUint16(at + 6, Number((to >> 16n) & 0xffffn), true)
    this.view.setUint32(at + 8, Number(to >> 32n), true)
  }

  /** KVM_RUN; the exit reason, or the errno's name. */
  enter(): number | string {
    try {
      this.sys.ioctl(this.vcpu, uapi.KVM_RUN)
      return this.run.exit_reason
    } catch (error) {
      if (error instanceof ErrnoError) return error.code
      throw error
    }
  }

  /** Runs until a gate reports, and takes its frame apart. The handler's own instruction is done. */
  trap(): Frame {
    const reason = this.enter()
    if (reason !== uapi.KVM_EXIT_IO) throw new Error(`exit ${reason}, not a gate`)
    const { port } = this.run.u.io
    const vector = port === 0xf0 ? this.page[4096]! : port - 0x80
    let at = Number(this.regs().rsp) + (port === 0xf0 ? 8 : 0)
    let error: number | undefined
    if (WITH_ERROR.has(vector)) {
      error = this.view.getUint32(at, true)
      at += 8
    }
    const word = (n: number) => this.view.getBigUint64(at + 8 * n, true)
    const [cs, flags, ss] = [Number(word(1)), Number(word(2)), Number(word(4))]
    return { vector, error, rip: word(0), cs, flags, rsp: word(3), ss }
  }

  /** Runs until the guest writes to port 0x10; what it wrote. */
  answer(): number {
    const reason = this.enter()
    const { port, size } = this.run.u.io
    if (reason !== uapi.KVM_EXIT_IO || port !== 0x10) {
      throw new Error(`exit ${reason}, port ${port}, not an answer`)
    }
    const data = new DataView(this.page.buffer, this.page.byteOffset + 4096)
    return size === 4
      ? data.getUint32(0, true)
      : size === 2
        ? data.getUint16(0, true)
        : data.getUint8(0)
  }

  signalMsi(vector: number, address = 0xfee0_0000): number {
    const msi = uapi.kvm_msi({ address_lo: address, data: vector })
    return this.sys.ioctl(this.vm, uapi.KVM_SIGNAL_MSI, msi)
  }

  #tables(): void {
    const put = (at: number, v: bigint) => this.view.setBigUint64(at, v, true)
    put(AT.GDT + 0x08, 0x00af_9b00_0000_ffffn)
    put(AT.GDT + 0x10, 0x00cf_9300_0000_ffffn)
    put(AT.GDT + 0x20, 0x00cf_f300_0000_ffffn)
    put(AT.GDT + 0x28, 0x00af_fb00_0000_ffffn)
    put(AT.GDT + 0x30, 0x0000_8b00_0000_0067n | (BigInt(AT.TSS) << 16n))
    put(AT.TSS + 4, BigInt(AT.STACK))
    put(AT.TSS + 36, BigInt(AT.IST1))
    this.view.setUint16(AT.TSS + 102, 104, true) // no I/O bitmap
    put(AT.PML4, BigInt(AT.PDPT) | P | W | U)
    for (let gb = 0; gb < 4; gb++) put(AT.PDPT + 8 * gb, (BigInt(gb) << 30n) | 0x83n | U)
    put(AT.PDPT, BigInt(AT.PD) | P | W | U)
    put(AT.PD, BigInt(AT.PT) | P | W | U)
    for (let i = 1; i < 512; i++) put(AT.PD + 8 * i, (BigInt(i) << 21n) | 0x83n | U)
    for (let i = 0; i < 512; i++) put(AT.PT + 8 * i, (BigInt(i) << 12n) | P | W | U)
    for (let vector = 0; vector < 256; vector++) {
      this.gate({ vector })
      const small = vector < 32
      this.code(
        small
          ? `e6 ${(0x80 + vector).toString(16)} 48 cf` // out %al, $0x80+vector; iretq
          : `50 b0 ${vector.toString(16)} e6 f0 58 48 cf`, // push %rax; mov; out %al, $0xf0; pop; iretq
        AT.STUBS + 16 * vector,
      )
    }
  }
}
