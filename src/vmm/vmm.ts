// A small virtual machine monitor: guest RAM, one vCPU, a virtual VT-d and one passed-through function.
// It is a client of the ioctls and of nothing else; any program could be in its place.

import type { TraceBus } from '../base/trace.js'
import { AddressSpace } from '../mem/address-space.js'
import type { Sys } from '../sys/sys.js'
import { NestingContainer } from './container.js'
import type { DebuggedCpu, DebugTarget } from './gdb/target.js'
import { X86Target } from './gdb/x86.js'
import { prepareGuest } from './guest-boot.js'
import { PageRequestChannel } from './page-requests.js'
import { type GuestBar, Passthrough } from './passthrough.js'
import './trace.js'
import { VirtualIommu } from './viommu.js'
import { type GuestDevices, Vm } from './vm.js'

/** The guest machine's addresses. */
export const GUEST_MAP = {
  ECAM: 0xb000_0000,
  BARS: 0xc000_0000,
  IOMMU: 0xfed9_0000,
  IOMMU_SIZE: 0x1000,
  CONSOLE_PORT: 0xe9,
  EXIT_PORT: 0xf4,
} as const

/** The passed-through function in the guest: bus 0, device 3. */
export const GUEST_BDF = 3 << 3
const RAM_SLOT = 0
const BAR_SLOT = 1

/** What a VMM is given. */
export interface VmmOptions {
  /** The VMM's own process. */
  readonly sys: Sys
  readonly trace: TraceBus
  /** Bytes of guest RAM, a multiple of 2 MiB. */
  readonly ramBytes: number
  /** A static x86-64 ELF image. */
  readonly image: Uint8Array
  /** VFIO group file, `/dev/vfio/N`, and the device in it, `0000:bb:dd.f`. */
  readonly group: string
  readonly device: string
}

/** How a guest ended. `code` is what it wrote to its exit port; `killed` is a debugger's doing. */
export type GuestEnd =
  | { readonly kind: 'exit'; readonly code: number }
  | { readonly kind: 'shutdown' | 'stuck' | 'limit' | 'killed' }
  | { readonly kind: 'unexpected'; readonly reason: number }

/** One guest with one assigned function. */
export class Vmm implements GuestDevices {
  readonly #sys: Sys
  readonly #ram: { readonly vaddr: bigint; readonly bytes: Uint8Array }
  readonly #container: NestingContainer
  readonly #vm: Vm
  readonly #function: Passthrough
  readonly #requests: PageRequestChannel
  readonly #iommu: VirtualIommu
  readonly #console
  readonly #exitPoint
  readonly #placed = new Map<number, number>()
  #line = ''
  #exitCode: number | undefined

  /** Builds everything up to the first instruction. Throws the kernel's ErrnoError or an ImageError. */
  constructor(options: VmmOptions) {
    const { sys, trace, ramBytes } = options
    this.#sys = sys
    this.#console = trace.point('guest.console')
    this.#exitPoint = trace.point('guest.exit')
    this.#ram = sys.mmap(ramBytes)
    const entry = prepareGuest(this.#ram.bytes, options.image, {
      ramBytes,
      ecamBase: GUEST_MAP.ECAM,
      iommuBase: GUEST_MAP.IOMMU,
    })

    this.#container = new NestingContainer(sys, options.group)
    this.#container.map(this.#ram.vaddr, 0n, BigInt(ramBytes))
    const { addr_width, pasid_bits, features } = this.#container.nesting
    trace
      .point('vmm.container')
      .emit({ addressWidth: addr_width, pasidBits: pasid_bits, features, ramBytes })

    const device = this.#container.openDevice(options.device)
    this.#vm = new Vm(sys)
    this.#vm.setSlot(RAM_SLOT, 0, ramBytes, this.#ram.vaddr)
    const raise = (address: number, data: number) => this.#vm.signalMsi(address, data)
    this.#function = new Passthrough(sys, device, GUEST_MAP.BARS, raise)
    this.#function.config.onChange = () => this.#functionChanged()
    this.#requests = new PageRequestChannel(sys, device, trace)
    this.#watch(this.#requests.eventfd)

    const memory = new AddressSpace()
    memory.addRam(0, this.#ram.bytes)
    this.#iommu = new VirtualIommu({
      memory,
      container: this.#container,
      interrupts: { message: (_requester, address, data) => raise(address, data) },
      guestBdf: GUEST_BDF,
      trace,
      respond: response => this.#requests.respond(response),
    })
    this.#vm.setEntry(entry)
  }

  /** Guest RAM, from guest physical address 0 on. */
  get memory(): Uint8Array {
    return this.#ram.bytes
  }

  /** The vCPU as a debugger gets it. */
  get debugged(): DebuggedCpu {
    return { sys: this.#sys, ...this.#vm.cpu, ram: this.#ram.bytes, ramBase: 0 }
  }

  /** A debugger's end for the vCPU. */
  debugTarget(): DebugTarget {
    return new X86Target(this.debugged)
  }

  /** Takes the vCPU out of KVM_RUN once, as a signal would. */
  kick(): void {
    this.#vm.kick()
  }

  /** Runs the guest to its end, at most `pauses` returns from KVM_RUN. */
  run(pauses = 10_000_000): GuestEnd {
    for (let n = 0; n < pauses; n++) {
      const pause = this.#vm.runOnce(this)
      if (this.#exitCode !== undefined) return { kind: 'exit', code: this.#exitCode }
      const events = this.#poll()
      if (pause.kind === 'again') continue
      if (pause.kind === 'halted') {
        if (!events) return { kind: 'stuck' }
      } else return pause
    }
    return { kind: 'limit' }
  }

  /** Gives everything back, in the order a VMM would: vCPU first, then device, then container. */
  close(): void {
    this.#flushConsole()
    this.#vm.close()
    this.#requests.close()
    this.#function.close()
    this.#container.close()
    this.#sys.munmap(this.#ram.vaddr, this.#ram.bytes.length)
  }

  portWrite(port: number, _size: number, value: number): void {
    if (port === GUEST_MAP.CONSOLE_PORT) {
      const character = String.fromCharCode(value & 0xff)
      if (character === '\n') this.#flushConsole()
      else this.#line += character
    } else if (port === GUEST_MAP.EXIT_PORT) {
      this.#flushConsole()
      this.#exitCode = value
      this.#exitPoint.emit({ code: value })
    }
  }

  portRead(_port: number, size: number): number {
    return 2 ** (8 * size) - 1
  }

  mmioRead(address: number, size: number): bigint {
    const config = this.#configOffset(address)
    if (config !== undefined) return this.#function.config.read(config, size)
    if (this.#inIommu(address))
      return this.#iommu.read(address - GUEST_MAP.IOMMU, size as 1 | 2 | 4 | 8)
    const bar = this.#barAt(address)
    if (bar)
      return this.#function.readBar(bar, address - this.#function.config.bar(bar.index), size)
    return (1n << BigInt(8 * size)) - 1n
  }

  mmioWrite(address: number, size: number, value: bigint): void {
    const config = this.#configOffset(address)
    if (config !== undefined) this.#function.config.write(config, size, value)
    else if (this.#inIommu(address))
      this.#iommu.write(address - GUEST_MAP.IOMMU, size as 1 | 2 | 4 | 8, value)
    else {
      const bar = this.#barAt(address)
      if (bar)
        this.#function.writeBar(bar, address - this.#function.config.bar(bar.index), size, value)
    }
  }

  /** Reads what the kernel signalled; true when there was anything. */
  #poll(): boolean {
    let events = this.#function.msix?.poll() ?? false
    if (this.#sys.readable(this.#requests.eventfd)) {
      events = true
      this.#requests.poll(GUEST_BDF, request => this.#iommu.pageRequest(request))
    }
    return events
  }

  /** Base addresses, memory decode or MSI-X control changed: slots and eventfds follow. */
  #functionChanged(): void {
    for (const bar of this.#function.bars) {
      if (bar.vaddr === undefined) continue
      const at = this.#function.decoding ? this.#function.config.bar(bar.index) : undefined
      if (this.#placed.get(bar.index) === at) continue
      this.#vm.setSlot(BAR_SLOT + bar.index, 0, 0, 0n)
      this.#placed.delete(bar.index)
      if (at === undefined || !this.#vm.trySlot(BAR_SLOT + bar.index, at, bar.size, bar.vaddr))
        continue
      this.#placed.set(bar.index, at)
    }
    this.#function.updateInterrupts()
    for (const fd of this.#function.msix?.eventfds ?? []) this.#watch(fd)
  }

  /** A signal on `fd` takes the vCPU out of KVM_RUN, as a signal handler would. */
  #watch(fd: number): void {
    this.#sys.onReadable(fd, () => this.#vm.kick())
  }

  #configOffset(address: number): number | undefined {
    const at = address - GUEST_MAP.ECAM - GUEST_BDF * 4096
    return at >= 0 && at < 4096 ? at : undefined
  }

  #inIommu(address: number): boolean {
    return address >= GUEST_MAP.IOMMU && address < GUEST_MAP.IOMMU + GUEST_MAP.IOMMU_SIZE
  }

  #barAt(address: number): GuestBar | undefined {
    if (!this.#function.decoding) return undefined
    return this.#function.bars.find(bar => {
      const base = this.#function.config.bar(bar.index)
      return address >= base && address < base + bar.size
    })
  }

  #flushConsole(): void {
    if (this.#line && this.#console.on) this.#console.emit({ line: this.#line })
    this.#line = ''
  }
}
