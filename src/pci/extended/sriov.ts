/**
 * Single Root I/O Virtualization (PCIe 9): virtual functions appear on the physical function's bus when software sets
 * VF Enable, and go when it clears it. They answer configuration requests and issue memory requests; VF BARs, ARI,
 * migration and other buses are left out, so there are at most seven. PASID is the physical function's (9.3.7).
 */
import { bank, bits, flag, r8, r16, r32 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { express } from '../capabilities/express.js'
import { type Capability, type CapabilityFactory, extendedHeader } from '../capability.js'
import { PciFunction } from '../function.js'
import { EXTENDED } from '../ids.js'
import type { PciNode } from '../node.js'

/** The capability structure. */
export const SRIOV = bank(
  'SR-IOV capability',
  {
    Header: extendedHeader(EXTENDED.SRIOV, 1),
    Capabilities: r32(0x04, 'PCIe 9.3.3.2', {
      Migration_Capable: flag(0, 'ro', 'not supported'),
    }),
    Control: r16(0x08, 'PCIe 9.3.3.3', {
      ARI_Capable_Hierarchy: flag(4, 'ro', 'not supported'),
      VF_MSE: flag(3, 'rw', 'memory space of the VFs; they have none'),
      VF_Enable: flag(0, 'rw', 'NumVFs VFs exist'),
    }),
    Status: r16(0x0a, 'PCIe 9.3.3.4', { Migration: flag(0, 'ro', 'not supported') }),
    InitialVFs: r16(0x0c, 'PCIe 9.3.3.5', { COUNT: bits(15, 0, 'ro', 'the same as TotalVFs') }),
    TotalVFs: r16(0x0e, 'PCIe 9.3.3.6', { COUNT: bits(15, 0, 'ro', 'VFs that there can be') }),
    NumVFs: r16(0x10, 'PCIe 9.3.3.7', { COUNT: bits(15, 0, 'rw', 'VFs that VF_Enable makes') }),
    Dependency: r8(0x12, 'PCIe 9.3.3.8', { LINK: bits(7, 0, 'ro', 'this function: none') }),
    First_VF_Offset: r16(0x14, 'PCIe 9.3.3.9', { OFFSET: bits(15, 0, 'ro', 'added to the id') }),
    VF_Stride: r16(0x16, 'PCIe 9.3.3.10', { STRIDE: bits(15, 0, 'ro', 'from VF to VF') }),
    VF_Device_ID: r16(0x1a, 'PCIe 9.3.3.11', { ID: bits(15, 0, 'ro', 'of every VF') }),
    Supported_Pages: r32(0x1c, 'PCIe 9.3.3.12', { SIZES: bits(31, 0, 'ro', 'bit n: 2^(n+12)') }),
    System_Page: r32(0x20, 'PCIe 9.3.3.13', { SIZE: bits(31, 0, 'rw', 'alignment of VF BARs') }),
    VF_Bar0: r32(0x24, 'PCIe 9.3.3.14', { VALUE: bits(31, 0, 'ro', 'not implemented') }),
    Migration_Array: r32(0x3c, 'PCIe 9.3.3.15', { OFFSET: bits(31, 0, 'ro', 'not supported') }),
  },
  0x40,
)

const PAGES_4K = 1
/** What reads back where a VF's vendor and device id would be (PCIe 9.3.4.1.1). */
const NO_ID = 0xffff

/** What a physical function's VFs are. */
export interface SriovOptions {
  /** VFs that there can be, at most 7 less the functions of the device above 0. */
  readonly vfs: number
  readonly deviceId: number
  /** Distance of the first VF's function number from the physical function's; default 1. */
  readonly offset?: number
  /** Capabilities of each VF. PASID and page requests are the physical function's. */
  readonly capabilities?: readonly CapabilityFactory[]
}

/** SR-IOV of one physical function. */
export class SriovCapability implements Capability {
  readonly id = EXTENDED.SRIOV
  readonly extended = true
  readonly file: RegisterFile<typeof SRIOV>
  readonly #options: SriovOptions
  readonly #pf: PciNode
  #made: PciFunction[] = []

  constructor(pf: PciNode, options: SriovOptions) {
    this.#pf = pf
    this.#options = options
    this.file = new RegisterFile(SRIOV, { onWrite: { Control: () => this.restore() } })
    this.reset()
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
    const { vfs, deviceId, offset = 1 } = this.#options
    const r = this.file.regs
    r.InitialVFs.COUNT = vfs
    r.TotalVFs.COUNT = vfs
    r.First_VF_Offset.OFFSET = offset
    r.VF_Stride.STRIDE = 1
    r.VF_Device_ID.ID = deviceId
    r.Supported_Pages.SIZES = PAGES_4K
    r.System_Page.SIZE = PAGES_4K
    this.restore()
  }

  /** Makes VFs exist, or not, as VF_Enable says. */
  restore(): void {
    const { Control, NumVFs, TotalVFs, First_VF_Offset } = this.file.regs
    const { bus, devfn } = this.#pf
    const wanted = Control.VF_Enable ? Math.min(NumVFs.COUNT, TotalVFs.COUNT) : 0
    if (wanted === 0) {
      for (const vf of this.#made) bus.remove(vf)
      this.#made = []
    } else if (this.#made.length === 0) {
      const first = devfn + First_VF_Offset.OFFSET
      for (let i = 0; i < wanted && bus.free(first + i); i++) this.#made.push(this.#make(first + i))
    }
  }

  #make(devfn: number): PciFunction {
    const { capabilities = [] } = this.#options
    const { name, identity, bus } = this.#pf
    const vf = new PciFunction(bus, devfn, {
      name: `${name} VF ${devfn - this.#pf.devfn}`,
      identity: { ...identity, vendorId: NO_ID, deviceId: NO_ID },
      bars: [],
      capabilities: [express(), ...capabilities],
      physical: this.#pf as PciFunction,
    })
    bus.addVirtual(vf)
    return vf
  }
}

/** SR-IOV capability of a physical function. */
export const sriov =
  (options: SriovOptions): CapabilityFactory =>
  pf =>
    new SriovCapability(pf, options)
