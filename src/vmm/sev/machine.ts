// The VMM of an encrypted guest: RAM and BIOS behind hooks, a launch by either interface, one passed-through function
// whose DMA reaches all of the guest's memory, and a monitor. A reset builds the VM anew, reloads the boot image and
// measures it again (C.4 rows 21, 22). Next: launch.ts, guest-ram.ts, monitor.ts.

import type { TraceBus, TraceEvents, TracePoint } from '../../base/trace.js'
import {
  KVM_MEMORY_ENCRYPT_REG_REGION,
  KVM_X86_SEV_VM,
  kvm_enc_region,
} from '../../cpu/kvm/uapi/sev.js'
import type { SevEdition } from '../../cpu/kvm/uapi/sev-codes.js'
import type { kvm_cpuid2 } from '../../cpu/kvm/uapi.js'
import type { Mapping } from '../../mem/vma.js'
import type { Sys } from '../../sys/sys.js'
import { NestingContainer } from '../container.js'
import { Passthrough } from '../passthrough.js'
import { type GuestDevices, Vm } from '../vm.js'
import { GUEST_BDF, GUEST_MAP, type GuestEnd } from '../vmm.js'
import { BIOS, type BootImage, encryptedBoot } from './boot.js'
import { GuestRam, sevHooks } from './guest-ram.js'
import { SevLaunch } from './launch.js'
import type { LaunchConfig } from './launch-config.js'
import { querySev, type SevInfo } from './monitor.js'
import './trace.js'

/** Port where the guest asks for the host's view of a page: its number. */
const LOOK_PORT = 0xea
const SLOT = { RAM: 0, BIOS: 1, BARS: 2 } as const
const LEAF = { SEV: 0x8000_001f, WIDTHS: 0x8000_0008 } as const

/** What the VMM of an encrypted guest is given. */
export interface SevVmmOptions {
  readonly sys: Sys
  readonly trace: TraceBus
  /** Bytes of guest RAM, a multiple of 2 MiB. */
  readonly ramBytes: number
  /** A static x86-64 ELF image. */
  readonly image: Uint8Array
  /** VFIO group file, and the device in it. */
  readonly group: string
  readonly device: string
  /** Which interface launches the guest. */
  readonly edition: SevEdition
  readonly config: LaunchConfig
}

/** One encrypted guest with one assigned function. */
export class SevVmm implements GuestDevices {
  readonly #options: SevVmmOptions
  readonly #sys: Sys
  readonly #mappings: { readonly ram: Mapping; readonly bios: Mapping }
  readonly #container: NestingContainer
  readonly #deviceFd: number
  readonly #steps: TracePoint<TraceEvents['vmm.sev']>
  readonly #looks: TracePoint<TraceEvents['vmm.look']>
  readonly #console: TracePoint<TraceEvents['guest.console']>
  readonly #exitPoint: TracePoint<TraceEvents['guest.exit']>
  #parts: Built
  #line = ''
  #exitCode: number | undefined

  /** Builds and launches the guest. Throws the kernel's ErrnoError, a SevLaunchError or an ImageError. */
  constructor(options: SevVmmOptions) {
    const { sys, trace, ramBytes } = options
    this.#options = options
    this.#sys = sys
    this.#steps = trace.point('vmm.sev')
    this.#looks = trace.point('vmm.look')
    this.#console = trace.point('guest.console')
    this.#exitPoint = trace.point('guest.exit')
    this.#mappings = { ram: sys.mmap(ramBytes), bios: sys.mmap(BIOS.SIZE) }
    this.#container = new NestingContainer(sys, options.group)
    this.#container.map(this.#mappings.ram.vaddr, 0n, BigInt(ramBytes))
    this.#deviceFd = this.#container.openDevice(options.device)
    this.#parts = this.#build()
  }

  /** The guest's memory as the VMM reaches it: PC RAM, and BIOS. */
  get regions(): readonly GuestRam[] {
    return this.#parts.regions
  }

  get launch(): SevLaunch {
    return this.#parts.launch
  }

  /** What `query-sev` answers. */
  query(): SevInfo {
    return querySev(this.#parts.launch)
  }

  /** Reads guest memory; marked for debugging it is what the guest would read, where the policy allows. */
  read(gpa: number, length: number, attributes: { readonly debug?: boolean } = {}): Uint8Array {
    const into = new Uint8Array(length)
    const region = this.regions.find(r => r.holds(gpa, length))
    if (region === undefined) return into.fill(0xff)
    region.read(gpa, into, attributes)
    return into
  }

  /** Resets the machine: a new VM, the boot image loaded and measured again. */
  reset(): void {
    const { vm, launch, passthrough } = this.#parts
    vm.close()
    launch.close()
    this.#say('reset', 'reset: the VM is made anew, its boot image reloaded and measured again')
    for (const { bytes } of Object.values(this.#mappings)) bytes.fill(0)
    passthrough.config.onChange = () => {}
    this.#exitCode = undefined
    this.#parts = this.#build(passthrough)
  }

  /** Runs the guest to its end, at most `pauses` returns from KVM_RUN. */
  run(pauses = 10_000_000): GuestEnd {
    for (let n = 0; n < pauses; n++) {
      const pause = this.#parts.vm.runOnce(this)
      if (this.#exitCode !== undefined) return { kind: 'exit', code: this.#exitCode }
      if (pause.kind === 'halted') return { kind: 'stuck' }
      if (pause.kind !== 'again') return pause
    }
    return { kind: 'limit' }
  }

  /** Gives everything back: vCPU, device, container, memory. */
  close(): void {
    this.#flushConsole()
    const { vm, launch, passthrough } = this.#parts
    vm.close()
    launch.close()
    passthrough.close()
    this.#container.close()
    for (const { vaddr, bytes } of Object.values(this.#mappings))
      this.#sys.munmap(vaddr, bytes.length)
  }

  // ---- what the guest reaches ----

  portWrite(port: number, _size: number, value: number): void {
    if (port === GUEST_MAP.CONSOLE_PORT) {
      const character = String.fromCharCode(value & 0xff)
      if (character === '\n') this.#flushConsole()
      else this.#line += character
    } else if (port === LOOK_PORT) this.#look(value * 4096)
    else if (port === GUEST_MAP.EXIT_PORT) {
      this.#flushConsole()
      this.#exitCode = value
      this.#exitPoint.emit({ code: value })
    }
  }

  portRead(_port: number, size: number): number {
    return 2 ** (8 * size) - 1
  }

  mmioRead(address: number, size: number): bigint {
    const { passthrough } = this.#parts
    const config = configOffset(address)
    if (config !== undefined) return passthrough.config.read(config, size)
    const bar = this.#barAt(address)
    if (bar) return passthrough.readBar(bar, address - passthrough.config.bar(bar.index), size)
    return (1n << BigInt(8 * size)) - 1n
  }

  mmioWrite(address: number, size: number, value: bigint): void {
    const { passthrough } = this.#parts
    const config = configOffset(address)
    if (config !== undefined) passthrough.config.write(config, size, value)
    else {
      const bar = this.#barAt(address)
      if (bar) passthrough.writeBar(bar, address - passthrough.config.bar(bar.index), size, value)
    }
  }

  // ---- building ----

  #build(kept?: Passthrough): Built {
    const { sys, edition, config, ramBytes, image } = this.#options
    const { ram, bios } = this.#mappings
    let launch: SevLaunch | undefined
    let cBit = 0
    const vm = new Vm(sys, {
      type: edition === '2016' ? 0 : KVM_X86_SEV_VM,
      prepare: fd => {
        launch = new SevLaunch(sys, fd, edition, config)
        launch.init()
        if (edition === 'current') this.#say('init', 'KVM_SEV_INIT2: the VM has an ASID')
      },
      cpuid: leaves => {
        cBit = shrinkAddresses(leaves)
      },
    })
    const made = launch!
    const regions = [new GuestRam('pc.ram', 0, ram), new GuestRam('pc.bios', BIOS.ADDRESS, bios)]
    vm.setSlot(SLOT.RAM, 0, ramBytes, ram.vaddr)
    vm.setSlot(SLOT.BIOS, BIOS.ADDRESS, BIOS.SIZE, bios.vaddr)
    for (const region of regions) region.hooks = sevHooks(made)
    const raise = (address: number, data: number) => this.#parts.vm.signalMsi(address, data)
    const passthrough = kept ?? new Passthrough(sys, this.#deviceFd, GUEST_MAP.BARS, raise)
    const parts: Built = { vm, launch: made, regions, passthrough, placed: new Map() }
    const info = { ramBytes, ecamBase: GUEST_MAP.ECAM, iommuBase: 0 }
    this.#launchImage(parts, encryptedBoot(image, info, cBit))
    passthrough.config.onChange = () => this.#functionChanged()
    return parts
  }

  // Everything is written while launching, and nothing afterwards.
  #launchImage({ vm, launch, regions }: Built, boot: BootImage): void {
    const { edition } = this.#options
    launch.start()
    this.#say(
      'start',
      `LAUNCH_START: guest ${launch.handle}, policy 0x${launch.config.policy.toString(16)}`,
    )
    if (edition === 'current')
      for (const { vaddr, size } of regions) {
        const region = kvm_enc_region({ addr: vaddr, size: BigInt(size) })
        this.#sys.ioctl(vm.fd, KVM_MEMORY_ENCRYPT_REG_REGION, region)
      }
    vm.setEntry(boot.entry)
    for (const { gpa, bytes } of boot.ranges) {
      const region = regions.find(r => r.holds(gpa, bytes.length))!
      region.write(gpa, bytes)
      this.#say(
        'update',
        `LAUNCH_UPDATE: ${bytes.length} bytes of ${region.name} at 0x${gpa.toString(16)}`,
      )
    }
    const measurement = launch.finish()
    const hex = hexOf(measurement)
    this.#say('finish', `LAUNCH_FINISH: measured to ${hex.slice(0, 64)}`, hex)
  }

  #say(step: TraceEvents['vmm.sev']['step'], text: string, measurement?: string): void {
    if (this.#steps.on)
      this.#steps.emit({ step, text, ...(measurement !== undefined && { measurement }) })
  }

  #look(address: number): void {
    const raw = hexOf(this.read(address, 16))
    const debug = hexOf(this.read(address, 16, { debug: true }))
    this.#looks.emit({ address, raw, debug })
  }

  // Base addresses or memory decode changed: slots follow.
  #functionChanged(): void {
    const { vm, passthrough, placed } = this.#parts
    for (const bar of passthrough.bars) {
      if (bar.vaddr === undefined) continue
      const at = passthrough.decoding ? passthrough.config.bar(bar.index) : undefined
      if (placed.get(bar.index) === at) continue
      vm.setSlot(SLOT.BARS + bar.index, 0, 0, 0n)
      placed.delete(bar.index)
      if (at !== undefined && vm.trySlot(SLOT.BARS + bar.index, at, bar.size, bar.vaddr))
        placed.set(bar.index, at)
    }
    passthrough.updateInterrupts()
  }

  #barAt(address: number) {
    const { passthrough } = this.#parts
    if (!passthrough.decoding) return undefined
    return passthrough.bars.find(bar => {
      const base = passthrough.config.bar(bar.index)
      return address >= base && address < base + bar.size
    })
  }

  #flushConsole(): void {
    if (this.#line && this.#console.on) this.#console.emit({ line: this.#line })
    this.#line = ''
  }
}

/** What a reset makes anew. */
interface Built {
  readonly vm: Vm
  readonly launch: SevLaunch
  readonly regions: readonly GuestRam[]
  readonly passthrough: Passthrough
  /** Where each mapped BAR is, by index. */
  readonly placed: Map<number, number>
}

const hexOf = (bytes: Uint8Array) =>
  Array.from(bytes, b => b.toString(16).padStart(2, '0')).join('')

function configOffset(address: number): number | undefined {
  const at = address - GUEST_MAP.ECAM - GUEST_BDF * 4096
  return at >= 0 && at < 4096 ? at : undefined
}

/** Takes the bits that the C-bit costs off the guest's address width; the C-bit (C.4 row 17). */
function shrinkAddresses(leaves: ReturnType<typeof kvm_cpuid2>): number {
  const entries = [...leaves.entries]
  const sev = entries.find(e => e.function === LEAF.SEV)
  if (sev === undefined) return 0
  const widths = entries.find(e => e.function === LEAF.WIDTHS)
  if (widths) widths.eax -= (sev.ebx >>> 6) & 63
  return sev.ebx & 63
}
