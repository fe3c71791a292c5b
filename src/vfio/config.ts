// Configuration space as a user of vfio-pci sees it: each bit is the hardware's or a virtual copy, and writable or
// not. Physical accesses go through the configuration window. Facts: drivers/vfio/pci config permissions, 5.9;
// the PASID capability: vSVA v7 patch 13. VPD is left out: no model has it.
import type { PciConfig } from '../iommu/pci-config.js'
import type { Bar } from '../pci/bar.js'
import type { PciFunction } from '../pci/function.js'
import {
  CAPABILITY,
  CONFIG_SIZE,
  EXTENDED,
  EXTENDED_START,
  PCI_BASE_ADDRESS_0,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MEMORY,
} from '../pci/ids.js'

/** Offset in the structure, bytes, bits kept virtually, bits the user may write. */
type Row = readonly [offset: number, bytes: 1 | 2 | 4, virtual: number, writable: number]

const NONE = 0
const ALL = 0xffff_ffff

// biome-ignore format: table
const HEADER: readonly Row[] = [
  [PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE, ALL],   // memory and bus master enables reach the device
  [0x0c, 1, NONE, ALL],                          // cache line size
  [0x0d, 1, NONE, ALL],                          // latency timer
  [0x0f, 1, NONE, ALL],                          // BIST
  [0x10, 4, ALL, ALL], [0x14, 4, ALL, ALL], [0x18, 4, ALL, ALL],   // BARs: the user sizes and moves copies,
  [0x1c, 4, ALL, ALL], [0x20, 4, ALL, ALL], [0x24, 4, ALL, ALL],   // the device stays where firmware put it
  [0x30, 4, ALL, NONE],                          // expansion ROM: none
  [0x34, 1, ALL, NONE],                          // capabilities pointer
  [0x3c, 1, ALL, ALL],                           // interrupt line: scratch
  [0x3d, 1, ALL, NONE],                          // interrupt pin
]

/** What a virtual function lacks: ids and a memory enable of its own. */
// biome-ignore format: table
const VIRTUAL_FUNCTION: readonly Row[] = [
  [0x00, 4, ALL, NONE],
  [PCI_COMMAND, 2, PCI_COMMAND_INTX_DISABLE | PCI_COMMAND_MEMORY, ALL],
]
const VF_DEVICE_ID = 0x1a

const FLR = 1 << 15
const READ_REQUEST_SIZE = 0x7000
const MSI_VECTORS = 0x0070
// Rows not named are read-only: MSI-X, ATS, PRI, ACS, and PASID where it is shown.
// biome-ignore format: table
const STANDARD_ROWS: Readonly<Record<number, readonly Row[]>> = {
  [CAPABILITY.POWER_MANAGEMENT]: [[0x04, 2, NONE, 0x0003]],            // PowerState
  [CAPABILITY.MSI]: [
    [0x02, 2, MSI_VECTORS, MSI_VECTORS],                               // vectors enabled: a copy; the enable is the kernel's
    [0x04, 4, ALL, ALL], [0x08, 4, ALL, ALL], [0x0c, 2, ALL, ALL],     // address and data: copies
    [0x10, 4, NONE, ALL],                                              // masks
  ],
  [CAPABILITY.PCI_EXPRESS]: [
    [0x08, 2, FLR | READ_REQUEST_SIZE, ALL],                           // Device Control
    [0x28, 2, NONE, 0xffdf],                                           // Device Control 2, without ARI forwarding
  ],
}
// biome-ignore format: table
const EXTENDED_ROWS: Readonly<Record<number, readonly Row[]>> = {
  [EXTENDED.AER]: [
    [0x04, 4, NONE, ALL], [0x08, 4, NONE, ALL], [0x0c, 4, NONE, ALL],  // uncorrectable status, mask, severity
    [0x10, 4, NONE, ALL], [0x14, 4, NONE, ALL],                        // correctable status, mask
    [0x18, 4, NONE, 0x0140],                                           // ECRC generation and check enables
  ],
}

const DEVICE_CONTROL = 0x08

/** What the view needs besides the function. */
export interface VirtualConfigOptions {
  readonly config: PciConfig
  /** The PASID capability is visible, read-only; otherwise it is taken out of the chain. */
  readonly showPasid: boolean
  /** The user set Initiate FLR. */
  reset(): void
  /** The user wrote Command: whether Interrupt Disable is set. */
  disableIntx(on: boolean): void
}

/** One user's configuration space. */
export class VirtualConfig {
  readonly size = CONFIG_SIZE
  readonly #fn: PciFunction
  readonly #config: PciConfig
  readonly #reset: () => void
  readonly #disableIntx: (on: boolean) => void
  readonly #values = new Uint8Array(CONFIG_SIZE)
  readonly #virtual = new Uint8Array(CONFIG_SIZE)
  // Bytes outside header and capabilities are the device's own business: raw.
  readonly #writable = new Uint8Array(CONFIG_SIZE).fill(0xff)
  readonly #flrAt: number

  constructor(fn: PciFunction, options: VirtualConfigOptions) {
    this.#fn = fn
    this.#config = options.config
    this.#reset = options.reset
    this.#disableIntx = options.disableIntx
    this.#writable.fill(0, 0, 0x40)
    this.#apply(0, HEADER)
    for (const { offset, capability } of fn.capabilities()) {
      if (capability.extended && capability.id === EXTENDED.PASID && !options.showPasid) continue
      this.#writable.fill(0, offset, offset + capability.file.size)
      const rows = (capability.extended ? EXTENDED_ROWS : STANDARD_ROWS)[capability.id] ?? []
      this.#apply(
        offset,
        rows.filter(([at]) => at < capability.file.size),
      )
    }
    if (fn.physical) this.#apply(0, VIRTUAL_FUNCTION)
    for (let at = 0; at < CONFIG_SIZE; at++)
      if (this.#virtual[at]) this.#values[at] = this.#config.read(fn.bdf, at, 1)
    this.#flrAt =
      (fn.capabilityOffset(CAPABILITY.PCI_EXPRESS, false) ?? -DEVICE_CONTROL) + DEVICE_CONTROL
    if (fn.physical) this.#identify(fn.physical)
    if (!options.showPasid) this.#hidePasid()
  }

  /** Reads into `into`; the caller has checked the range. */
  read(offset: number, into: Uint8Array): void {
    for (let i = 0; i < into.length; i++) {
      const at = offset + i
      const mask = this.#virtual[at]!
      const real = mask === 0xff ? 0 : this.#config.read(this.#fn.bdf, at, 1)
      into[i] = (real & ~mask) | (this.#values[at]! & mask)
    }
  }

  /** Writes what may be written; the rest is ignored. The caller has checked the range. */
  write(offset: number, from: Uint8Array): void {
    const end = offset + from.length
    let flr = false
    for (let at = offset; at < end; ) {
      const stop = Math.min(end, (at & ~3) + 4)
      flr = this.#writeDword(at, from.subarray(at - offset, stop - offset)) || flr
      at = stop
    }
    this.#settleBars()
    this.#settleMsi()
    if (offset < PCI_COMMAND + 2 && end > PCI_COMMAND)
      this.#disableIntx((this.#values[PCI_COMMAND + 1]! & (PCI_COMMAND_INTX_DISABLE >> 8)) !== 0)
    if (flr) this.#reset()
  }

  // Ids of a virtual function: the physical one's vendor, and the device that its capability names.
  #identify(physical: PciFunction): void {
    const sriov = physical.capabilityOffset(EXTENDED.SRIOV, true)!
    for (const [at, from] of [
      [0, 0],
      [2, sriov + VF_DEVICE_ID],
    ] as const)
      for (let i = 0; i < 2; i++)
        this.#values[at + i] = this.#config.read(physical.bdf, from + i, 1)
  }

  // Bytes of one dword: the virtual bits are stored, runs of bytes with physical ones written at once.
  #writeDword(offset: number, from: Uint8Array): boolean {
    let flr = false
    let run = 0
    let length = 0
    for (let i = 0; i <= from.length; i++) {
      const at = offset + i
      const writable = i < from.length ? this.#writable[at]! : 0
      const virtual = this.#virtual[at] ?? 0
      const kept = writable & virtual
      if (kept !== 0) this.#values[at] = (this.#values[at]! & ~kept) | (from[i]! & kept)
      if (at === this.#flrAt + 1 && writable & 0x80 && from[i]! & 0x80) {
        this.#values[at]! &= 0x7f
        flr = true
      }
      const physical = writable & ~virtual
      if (physical !== 0) {
        const real = physical === 0xff ? 0 : this.#config.read(this.#fn.bdf, at, 1)
        const byte = (real & ~physical) | (from[i]! & physical)
        run = (run | (byte << (8 * length))) >>> 0
        length++
      }
      if (length > 0 && (physical === 0 || i === from.length)) {
        this.#writePhysical(at - length, length, run)
        run = 0
        length = 0
      }
    }
    return flr
  }

  #writePhysical(at: number, length: number, value: number): void {
    const { bdf } = this.#fn
    if (length === 4) this.#config.write(bdf, at, 4, value)
    else if (length === 2 && at % 2 === 0) this.#config.write(bdf, at, 2, value)
    else
      for (let i = 0; i < length; i++)
        this.#config.write(bdf, at + i, 1, (value >>> (8 * i)) & 0xff)
  }

  // A BAR copy reads back as the device's would: size bits stay clear, type bits as they are.
  #settleBars(): void {
    const view = new DataView(this.#values.buffer)
    for (const bar of this.#fn.bars) {
      const at = PCI_BASE_ADDRESS_0 + 4 * bar.index
      const mask = addressBits(bar, this.#fn.bars)
      const real = this.#config.read(this.#fn.bdf, at, 4)
      const type = bar.kind === 'memory32' || bar.kind === 'memory64' ? real & 0xf : 0
      view.setUint32(at, ((view.getUint32(at, true) & mask) | type) >>> 0, true)
    }
  }

  // No more vectors enabled than the capability has.
  #settleMsi(): void {
    const { msi } = this.#fn
    if (msi === undefined) return
    const at = this.#fn.capabilityOffset(CAPABILITY.MSI, false)! + 2
    const asked = (this.#values[at]! & MSI_VECTORS) >> 4
    const most = Math.log2(msi.vectors)
    if (asked > most) this.#values[at] = (this.#values[at]! & ~MSI_VECTORS) | (most << 4)
  }

  #apply(base: number, rows: readonly Row[]): void {
    for (const [offset, bytes, virtual, writable] of rows)
      for (let i = 0; i < bytes; i++) {
        this.#virtual[base + offset + i] = (virtual >>> (8 * i)) & 0xff
        this.#writable[base + offset + i] = (writable >>> (8 * i)) & 0xff
      }
  }

  // Its predecessor points past it; as the first of the chain it stays as a capability of id 0.
  #hidePasid(): void {
    const { bdf } = this.#fn
    const at = this.#fn.capabilityOffset(EXTENDED.PASID, true)
    if (at === undefined) return
    const next = this.#config.read(bdf, at, 4) >>> 20
    let header = next * 2 ** 20
    let place = EXTENDED_START
    if (at !== EXTENDED_START) {
      for (const { offset, capability } of this.#fn.capabilities())
        if (capability.extended && this.#config.read(bdf, offset, 4) >>> 20 === at) place = offset
      header += this.#config.read(bdf, place, 4) & 0xf_ffff
    }
    new DataView(this.#values.buffer).setUint32(place, header >>> 0, true)
    this.#virtual.fill(0xff, place, place + 4)
    this.#writable.fill(0, place, place + 4)
  }
}

function addressBits(bar: Bar, bars: readonly Bar[]): number {
  if (bar.kind === 'none') return 0
  const size = bar.kind === 'upper' ? bars[bar.index - 1]!.size : bar.size
  if (bar.kind === 'upper') return size > 2 ** 32 ? -(size / 2 ** 32) >>> 0 : ALL
  return size >= 2 ** 32 ? 0 : -size >>> 0
}
