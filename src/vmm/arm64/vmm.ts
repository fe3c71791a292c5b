// A small virtual machine monitor for arm64: guest RAM, one vCPU, a virtual SMMUv3 and passed-through functions behind it,
// each in a nesting container of its own (profile N13). It is a client of the ioctls; any program could be in its place.

import { TraceBus } from '../../base/trace.js'
import { AddressSpace } from '../../mem/address-space.js'
import type { Sys } from '../../sys/sys.js'
import { PageRequestChannel } from '../page-requests.js'
import { type GuestBar, Passthrough } from '../passthrough.js'
import '../trace.js'
import { Arm64Target } from '../gdb/arm64.js'
import type { DebuggedCpu, DebugTarget } from '../gdb/target.js'
import type { GuestEnd } from '../vmm.js'
import { prepareArm64Guest } from './boot.js'
import { TableContainer } from './container.js'
import { ARM64_MAP, guestBdf, ITS_MESSAGE_PAGE } from './map.js'
import { Arm64GuestVm, type MmioDevices } from './vm.js'
import { VIRTUAL_SMMU, VirtualSmmu } from './vsmmu.js'

const RAM_SLOT = 0
const BAR_SLOT = 1
const BARS_EACH = 6
const CONFIG_BYTES = 4096
const WIRES = {
  eventq: ARM64_MAP.SPI_EVENTQ,
  priq: ARM64_MAP.SPI_PRIQ,
  sync: ARM64_MAP.SPI_SYNC,
  gerror: ARM64_MAP.SPI_GERROR,
} as const

/** A device to pass through. */
export interface PassedDevice {
  /** VFIO group file, `/dev/vfio/N`, and the device in it, `0000:bb:dd.f`. */
  readonly group: string
  readonly device: string
  /** Its faulting accesses stall, instead of being answered by a page request of its own. Firmware knows. */
  readonly stalling: boolean
}

/** What an arm64 VMM is given. */
export interface Arm64VmmOptions {
  /** The VMM's own process. */
  readonly sys: Sys
  readonly trace: TraceBus
  /** Bytes of guest RAM, a multiple of 2 MiB. */
  readonly ramBytes: number
  /** A static arm64 ELF image. */
  readonly image: Uint8Array
  /** In the guest they are devices 3 and up of bus 0. */
  readonly devices: readonly PassedDevice[]
}

/** A passed-through function and what belongs to it. */
interface Passed {
  readonly bdf: number
  readonly stalling: boolean
  readonly container: TableContainer
  readonly function: Passthrough
  readonly requests: PageRequestChannel
  /** Slot of its first BAR. */
  readonly slot: number
  /** Guest addresses of the BARs that are in slots, by index. */
  readonly placed: Map<number, number>
}

/** One guest with assigned functions. */
export class Arm64Vmm implements MmioDevices {
  readonly #sys: Sys
  readonly #ram: { readonly vaddr: bigint; readonly bytes: Uint8Array }
  readonly #vm: Arm64GuestVm
  readonly #passed: Passed[] = []
  readonly #smmu: VirtualSmmu
  readonly #console
  readonly #exitPoint
  #line = ''
  #exitCode: number | undefined

  /** Builds everything up to the first instruction. Throws the kernel's ErrnoError or an ImageError. */
  constructor(options: Arm64VmmOptions) {
    const { sys, trace, ramBytes, devices } = options
    this.#sys = sys
    this.#console = trace.point('guest.console')
    this.#exitPoint = trace.point('guest.exit')
    this.#ram = sys.mmap(ramBytes)
    const stalling = devices.findIndex(d => d.stalling)
    const entry = prepareArm64Guest(
      this.#ram.bytes,
      options.image,
      stalling < 0 ? -1 : guestBdf(stalling),
    )
    this.#vm = new Arm64GuestVm(sys)
    this.#vm.setSlot(RAM_SLOT, ARM64_MAP.RAM, ramBytes, this.#ram.vaddr)
    for (const [n, device] of devices.entries()) this.#pass(n, device, options)

    const memory = new AddressSpace()
    memory.addRam(ARM64_MAP.RAM, this.#ram.bytes)
    this.#smmu = new VirtualSmmu({
      memory,
      streams: this.#passed.map(({ bdf, container, requests }) => ({
        stream: bdf,
        container,
        respond: response => requests.respond(response),
      })),
      trace,
      wire: wire => this.#vm.pulse(WIRES[wire]),
    })
    this.#vm.setEntry(entry)
  }

  /** Guest RAM, from ARM64_MAP.RAM on. */
  get memory(): Uint8Array {
    return this.#ram.bytes
  }

  /** The guest's SMMU. */
  get smmu(): VirtualSmmu {
    return this.#smmu
  }

  /** The vCPU as a debugger gets it. */
  get debugged(): DebuggedCpu {
    return { sys: this.#sys, ...this.#vm.cpu, ram: this.#ram.bytes, ramBase: ARM64_MAP.RAM }
  }

  /** A debugger's end for the vCPU. */
  debugTarget(): DebugTarget {
    return new Arm64Target(this.debugged)
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
      const events = this.poll()
      if (pause.kind === 'again') continue
      if (pause.kind === 'halted') {
        if (!events) return { kind: 'stuck' }
      } else return pause
    }
    return { kind: 'limit' }
  }

  /** Reads what the kernel signalled; true when there was anything. */
  poll(): boolean {
    let events = false
    for (const { bdf, stalling, function: fn, requests } of this.#passed) {
      if (fn.msix?.poll()) events = true
      if (!this.#sys.readable(requests.eventfd)) continue
      events = true
      requests.poll(
        bdf,
        request => {
          if (stalling) return this.#smmu.stall(request)
          this.#smmu.pageRequest(request)
          return true
        },
        fault => this.#smmu.refused(bdf, fault),
      )
    }
    return events
  }

  /** Gives everything back, in the order a VMM would: vCPU first, then devices, then containers. */
  close(): void {
    this.#flushConsole()
    this.#vm.close()
    for (const { requests, function: fn, container } of this.#passed) {
      requests.close()
      fn.close()
      container.close()
    }
    this.#sys.munmap(this.#ram.vaddr, this.#ram.bytes.length)
  }

  mmioRead(address: number, size: number): bigint {
    const within = address - ARM64_MAP.SMMU
    if (within >= 0 && within < ARM64_MAP.SMMU_SIZE)
      return this.#smmu.read(within, size as 1 | 2 | 4 | 8)
    const config = this.#config(address)
    if (config) return config.passed.function.config.read(config.offset, size)
    const bar = this.#barAt(address)
    if (bar) return bar.function.readBar(bar.bar, bar.offset, size)
    return (1n << BigInt(8 * size)) - 1n
  }

  mmioWrite(address: number, size: number, value: bigint): void {
    const within = address - ARM64_MAP.SMMU
    if (within >= 0 && within < ARM64_MAP.SMMU_SIZE) {
      this.#smmu.write(within, size as 1 | 2 | 4 | 8, value)
      return
    }
    if (address === ARM64_MAP.CONSOLE) this.#text(Number(value & 0xffn))
    else if (address === ARM64_MAP.EXIT) this.#exit(Number(value & 0xffff_ffffn))
    else {
      const config = this.#config(address)
      if (config) config.passed.function.config.write(config.offset, size, value)
      else {
        const bar = this.#barAt(address)
        bar?.function.writeBar(bar.bar, bar.offset, size, value)
      }
    }
  }

  #pass(n: number, { group, device, stalling }: PassedDevice, options: Arm64VmmOptions): void {
    const { sys, trace, ramBytes } = options
    const bdf = guestBdf(n)
    const container = new TableContainer(sys, group)
    container.map(this.#ram.vaddr, BigInt(ARM64_MAP.RAM), BigInt(ramBytes))
    container.bindMessages(ITS_MESSAGE_PAGE)
    const fd = container.openDevice(device)
    const window = ARM64_MAP.BARS + n * ARM64_MAP.BAR_WINDOW
    const raise = (address: number, data: number) => this.#vm.signalMsi(bdf, address, data)
    const pasidBits = VIRTUAL_SMMU.substreamIdBits!
    const passed: Passed = {
      bdf,
      stalling,
      container,
      function: new Passthrough(sys, fd, window, raise, pasidBits),
      // A stall comes the way of page requests; what it is called is told by the virtual unit.
      requests: new PageRequestChannel(sys, fd, stalling ? new TraceBus() : trace),
      slot: BAR_SLOT + n * BARS_EACH,
      placed: new Map(),
    }
    passed.function.config.onChange = () => this.#functionChanged(passed)
    this.#watch(passed.requests.eventfd)
    this.#passed.push(passed)
    trace.point('vmm.passed').emit({ device, stream: bdf, stalling, ramBytes })
  }

  /** Base addresses, memory decode or MSI-X control changed: slots and eventfds follow. */
  #functionChanged({ function: fn, placed, slot }: Passed): void {
    for (const bar of fn.bars) {
      if (bar.vaddr === undefined) continue
      const at = fn.decoding ? fn.config.bar(bar.index) : undefined
      if (placed.get(bar.index) === at) continue
      this.#vm.setSlot(slot + bar.index, 0, 0, 0n)
      placed.delete(bar.index)
      if (at === undefined || !this.#vm.trySlot(slot + bar.index, at, bar.size, bar.vaddr)) continue
      placed.set(bar.index, at)
    }
    fn.updateInterrupts()
    for (const fd of fn.msix?.eventfds ?? []) this.#watch(fd)
  }

  /** A signal on `fd` takes the vCPU out of KVM_RUN, as a signal handler would. */
  #watch(fd: number): void {
    this.#sys.onReadable(fd, () => this.#vm.kick())
  }

  #config(address: number): { readonly passed: Passed; readonly offset: number } | undefined {
    for (const passed of this.#passed) {
      const offset = address - ARM64_MAP.ECAM - passed.bdf * CONFIG_BYTES
      if (offset >= 0 && offset < CONFIG_BYTES) return { passed, offset }
    }
    return undefined
  }

  #barAt(
    address: number,
  ):
    | { readonly function: Passthrough; readonly bar: GuestBar; readonly offset: number }
    | undefined {
    for (const { function: fn } of this.#passed) {
      if (!fn.decoding) continue
      for (const bar of fn.bars) {
        const offset = address - fn.config.bar(bar.index)
        if (offset >= 0 && offset < bar.size) return { function: fn, bar, offset }
      }
    }
    return undefined
  }

  #text(character: number): void {
    if (character === 10) this.#flushConsole()
    else this.#line += String.fromCharCode(character)
  }

  #exit(code: number): void {
    this.#flushConsole()
    this.#exitCode = code
    this.#exitPoint.emit({ code })
  }

  #flushConsole(): void {
    if (this.#line && this.#console.on) this.#console.emit({ line: this.#line })
    this.#line = ''
  }
}
