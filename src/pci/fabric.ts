/**
 * The root complex: the tree of functions, who answers a configuration or memory address, and the way
 * up to the translator and the interrupt sink. One segment; no peer-to-peer below the root: a
 * request to another function's BAR goes up, is translated, and comes down through host memory.
 * Next: bridge.ts, function.ts, bus-master.ts, ecam.ts.
 */
import type { VirtualClock } from '../base/clock.js'
import type { TraceBus } from '../base/trace.js'
import type { AddressSpace, MmioTarget } from '../mem/address-space.js'
import type { Bar } from './bar.js'
import { RootPort, type RootPortOptions, type Window } from './bridge.js'
import { Bus } from './bus.js'
import { type ConfigRouter, ECAM_SIZE, Ecam } from './ecam.js'
import { type DeviceModel, PciFunction } from './function.js'
import type { Fabric, PciNode } from './node.js'
import { RamCopy } from './ram-copy.js'
import type { AtsInvalidation, PageGroupResponse } from './request.js'
import type { Doorbell, DownstreamPort, MessageSink, UpstreamTranslator } from './upstream.js'

/** A range of host physical addresses. */
export interface AddressRange {
  readonly base: number
  readonly size: number
}

/** Where the root complex answers in host memory. */
export interface RootComplexOptions {
  readonly memory: AddressSpace
  readonly clock: VirtualClock
  readonly trace: TraceBus
  /** Base of the memory-mapped configuration space, 256 MiB. */
  readonly ecamBase?: number
  /** Ranges decoded for BARs: below 4 GiB, and above for 64-bit prefetchable ones. */
  readonly window32?: AddressRange
  readonly window64?: AddressRange
}

/** The ranges a root complex decodes unless told otherwise. */
export const HOST_RANGES = {
  ecamBase: 0xe000_0000,
  window32: { base: 0xc000_0000, size: 0x2000_0000 },
  window64: { base: 0x40_0000_0000, size: 0x40_0000_0000 },
} as const

interface Decode {
  readonly base: number
  readonly end: number
  readonly target: MmioTarget
}

const all = (size: number) => (1n << BigInt(size * 8)) - 1n

/** A host's PCI Express hierarchy. */
export class RootComplex implements Fabric, ConfigRouter {
  readonly memory: AddressSpace
  readonly clock: VirtualClock
  readonly trace: TraceBus
  /** Translates the requests of all functions; undefined: addresses are physical. */
  translator: UpstreamTranslator | undefined
  /** Takes interrupt messages. */
  messages: MessageSink = { message() {} }
  /** Where writes become interrupts after translation; undefined: nowhere. */
  doorbell: Doorbell | undefined
  readonly root: Bus
  readonly ecamBase: number
  readonly window32: AddressRange
  readonly window64: AddressRange
  /** What an IOMMU sends to functions. */
  readonly downstream: DownstreamPort = {
    invalidate: (i: AtsInvalidation) => this.function(i.requester)?.invalidate(i) ?? false,
    respond: (r: PageGroupResponse) => this.function(r.requester)?.respond(r),
    resume: (requester: number, token: number, retry: boolean) =>
      this.function(requester)?.resume(token, retry),
  }
  epoch = 0
  readonly copies = new RamCopy()
  #decodes: Decode[] | undefined
  #last: Decode | undefined
  /** The function found last, and the epoch at which it was. */
  #found: PciFunction | undefined
  #foundAs = -1
  #foundAt = -1

  constructor(options: RootComplexOptions) {
    this.memory = options.memory
    this.clock = options.clock
    this.trace = options.trace
    this.ecamBase = options.ecamBase ?? HOST_RANGES.ecamBase
    this.window32 = options.window32 ?? HOST_RANGES.window32
    this.window64 = options.window64 ?? HOST_RANGES.window64
    this.root = new Bus(this)
    this.memory.addMmio(this.ecamBase, ECAM_SIZE, new Ecam(this), 'PCI configuration')
    for (const w of [this.window32, this.window64])
      this.memory.addMmio(w.base, w.size, this.#window(w.base), 'PCI memory')
  }

  /** Adds a root port on bus 0, at the next free device unless one is named. */
  addRootPort(options: RootPortOptions & { readonly device?: number } = {}): RootPort {
    const device = options.device ?? this.#freeDevice()
    return this.root.add(new RootPort(this.root, device << 3, options))
  }

  /** Adds a function on bus 0 itself: an integrated endpoint. */
  add(model: DeviceModel, at: { device: number; function?: number }): PciFunction {
    const devfn = (at.device << 3) | (at.function ?? 0)
    return this.root.add(model.build(this.root, devfn))
  }

  /** Every node, bridges included, in order of the tree: a port, then what is below it. */
  nodes(): PciNode[] {
    const below = (bus: Bus): PciNode[] =>
      bus.nodes().flatMap(n => (n instanceof RootPort ? [n, ...below(n.secondary)] : [n]))
    return below(this.root)
  }

  /** The endpoint functions, in order of the tree. */
  functions(): PciFunction[] {
    return this.nodes().filter(n => n instanceof PciFunction)
  }

  /** The root ports. */
  ports(): RootPort[] {
    return this.nodes().filter(n => n instanceof RootPort)
  }

  /** The node that configuration requests for this id reach now. */
  node(bdf: number): PciNode | undefined {
    const number = (bdf >> 8) & 0xff
    if (number === this.root.number) return this.root.node(bdf & 0xff)
    for (const port of this.root.nodes())
      if (port instanceof RootPort && number === port.secondaryBus && number <= port.subordinateBus)
        return port.secondary.node(bdf & 0xff)
    return undefined
  }

  /** The endpoint function with this requester id. */
  function(bdf: number): PciFunction | undefined {
    if (bdf === this.#foundAs && this.epoch === this.#foundAt) return this.#found
    const node = this.node(bdf)
    this.#found = node instanceof PciFunction ? node : undefined
    this.#foundAs = bdf
    this.#foundAt = this.epoch
    return this.#found
  }

  configRead(bdf: number, offset: number, size: number): number {
    return this.node(bdf)?.config.read(offset, size) ?? 2 ** (8 * size) - 1
  }

  configWrite(bdf: number, offset: number, size: number, value: number): void {
    this.node(bdf)?.config.write(offset, size, value)
  }

  configChanged(): void {
    this.epoch++
  }

  decodeChanged(): void {
    this.#decodes = undefined
    this.#last = undefined
    this.#foundAs = -1
  }

  #freeDevice(): number {
    for (let device = 1; device < 32; device++) if (!this.root.node(device << 3)) return device
    throw new RangeError('bus 0 has no free device number')
  }

  /** What decodes an address: BARs of functions with memory enabled, inside the windows above them. */
  #find(address: number): Decode | undefined {
    const last = this.#last
    if (last && address >= last.base && address < last.end) return last
    this.#decodes ??= this.#collect()
    return (this.#last = this.#decodes.find(d => address >= d.base && address < d.end))
  }

  #collect(): Decode[] {
    const out: Decode[] = []
    for (const fn of this.functions())
      for (const bar of fn.bars) {
        const { target } = bar
        if (!bar.enabled || !target) continue
        const base = bar.address()
        const end = base + bar.size
        if (forwarded(bar, base, end, fn.bus.bridge)) out.push({ base, end, target })
      }
    return out
  }

  #window(base: number): MmioTarget {
    return {
      read: (offset, size) => {
        const d = this.#find(base + offset)
        if (!d || base + offset + size > d.end) return all(size)
        return d.target.read(base + offset - d.base, size)
      },
      write: (offset, size, value) => {
        const d = this.#find(base + offset)
        if (d && base + offset + size <= d.end) d.target.write(base + offset - d.base, size, value)
      },
      write64: (offset, bytes, deferrable) => {
        const d = this.#find(base + offset)
        if (!d) return false
        if (d.target.write64) return d.target.write64(base + offset - d.base, bytes, deferrable)
        // A completer without deferrable writes answers UR, which the processor sees as retry.
        if (deferrable) return false
        const view = new DataView(bytes.buffer, bytes.byteOffset, 64)
        for (let i = 0; i < 64; i += 8)
          d.target.write(base + offset - d.base + i, 8, view.getBigUint64(i, true))
        return true
      },
    }
  }
}

/** Whether the bridge above lets the whole BAR through, in either window. */
function forwarded(bar: Bar, base: number, end: number, bridge: RootPort | undefined): boolean {
  if (!bridge) return true
  const inside = (w: Window) => base >= w.first && end - 1 <= w.last
  const [memory, prefetchable] = bridge.windows()
  return inside(memory) || (bar.kind === 'memory64' && inside(prefetchable))
}
