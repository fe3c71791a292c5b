/**
 * Root ports: bridges from bus 0 to one link. They forward configuration by bus number, memory by
 * window, and requests from below when their Bus Master Enable, prefix and ACS controls allow it.
 * Switches, hot-plug and I/O windows are not modelled.
 */
import { RegisterFile } from '../base/registers.js'
import { type Bar, makeBars } from './bar.js'
import { Bus } from './bus.js'
import { ExpressCapability, expressPort } from './capabilities/express.js'
import { powerManagement } from './capabilities/power-management.js'
import { AcsCapability, acs } from './extended/acs.js'
import { AerCapability, aer, UNCORRECTABLE } from './extended/aer.js'
import type { DeviceModel, PciFunction } from './function.js'
import { TYPE1 } from './headers.js'
import { CLASS_CODE } from './ids.js'
import { type Identity, PciNode } from './node.js'

/** A window of addresses: first byte and last byte. Empty when `last < first`. */
export interface Window {
  readonly first: number
  readonly last: number
}

const EMPTY: Window = { first: 1, last: 0 }
const MIB = 0x10_0000

/** What a root port is, unless told otherwise. */
export interface RootPortOptions {
  readonly name?: string
  readonly identity?: Identity
  /** Whether the port has Access Control Services; without it what is below is not isolated. */
  readonly acs?: boolean
  /** Whether the port forwards requests with a PASID prefix (Device Capabilities 2 bit 21). */
  readonly endEndPrefix?: boolean
}

const IDENTITY: Identity = { vendorId: 0x1234, deviceId: 0x0001, classCode: CLASS_CODE.PCI_BRIDGE }

/** A root port and the bus below it. */
export class RootPort extends PciNode {
  protected override readonly headerLayout = 1
  readonly secondary: Bus
  readonly express: ExpressCapability
  readonly acs: AcsCapability | undefined
  readonly aer: AerCapability
  readonly #header: RegisterFile<typeof TYPE1>
  readonly #bars: Bar[]

  constructor(bus: Bus, devfn: number, options: RootPortOptions = {}) {
    super(options.name ?? `root port ${devfn >> 3}`, options.identity ?? IDENTITY, bus, devfn)
    this.secondary = new Bus(bus.fabric, this)
    const decode = () => this.fabric.decodeChanged()
    this.#header = new RegisterFile(TYPE1, {
      onWrite: {
        Command: () => this.refresh(),
        BAR0: () => this.#bars[0]!.settle(),
        BAR1: () => this.#bars[1]!.settle(),
        Secondary_Bus: ({ NUMBER }) => {
          this.secondary.number = NUMBER
        },
        Memory_Base: decode,
        Memory_Limit: decode,
        Prefetchable_Memory_Base: decode,
        Prefetchable_Memory_Limit: decode,
        Prefetchable_Base_Upper: decode,
        Prefetchable_Limit_Upper: decode,
        Bridge_Control: ({ Secondary_Bus_Reset }) => {
          if (Secondary_Bus_Reset) this.resetBelow()
        },
      },
    })
    const { regs } = this.#header
    this.#bars = makeBars([], [regs.BAR0, regs.BAR1], () => false)
    const made = this.assemble(this.#header, regs, [
      expressPort({ portNumber: devfn >> 3, endEndPrefix: options.endEndPrefix ?? true }),
      powerManagement(),
      aer(),
      ...(options.acs === false ? [] : [acs({ port: true })]),
    ])
    this.express = made.find(c => c instanceof ExpressCapability)!
    this.aer = made.find(c => c instanceof AerCapability)!
    this.acs = made.find(c => c instanceof AcsCapability)
  }

  /** Lowest bus number below, as software programmed it. */
  get secondaryBus(): number {
    return this.#header.regs.Secondary_Bus.NUMBER
  }

  /** Highest bus number below. */
  get subordinateBus(): number {
    return this.#header.regs.Subordinate_Bus.NUMBER
  }

  /** Adds a device's function to the link below. */
  add(model: DeviceModel, fn = 0): PciFunction {
    return this.secondary.add(model.build(this.secondary, fn))
  }

  /** The two memory windows it forwards downwards; empty while Memory Space Enable is clear. */
  windows(): readonly [memory: Window, prefetchable: Window] {
    if (!this.memoryEnabled) return [EMPTY, EMPTY]
    const r = this.#header.regs
    const high = 2 ** 32
    return [
      { first: r.Memory_Base.BASE * MIB, last: (r.Memory_Limit.LIMIT + 1) * MIB - 1 },
      {
        first: r.Prefetchable_Base_Upper.BASE * high + r.Prefetchable_Memory_Base.BASE * MIB,
        last:
          r.Prefetchable_Limit_Upper.LIMIT * high +
          (r.Prefetchable_Memory_Limit.LIMIT + 1) * MIB -
          1,
      },
    ]
  }

  /**
   * Whether a request from below passes. A refusal is logged in the port's AER capability: TLP Prefix
   * Blocked (PCIe 2.2.10.2), ACS Violation for Translation Blocking (PCIe 6.12.1.1).
   */
  forwards(prefixed: boolean, translated: boolean): boolean {
    if (!this.masterEnabled) return false
    if (prefixed && this.express.blocksPrefixes) {
      this.aer.log(UNCORRECTABLE.TLP_PREFIX_BLOCKED)
      return false
    }
    if (translated && this.acs?.blocksTranslated) {
      this.aer.log(UNCORRECTABLE.ACS_VIOLATION)
      return false
    }
    return true
  }

  /** Hot reset of every function below. */
  resetBelow(): void {
    for (const node of this.secondary.nodes()) node.reset()
  }

  protected override onReset(): void {
    this.secondary.number = 0
    this.resetBelow()
  }

  protected override saveModel(): unknown {
    return this.secondary.number
  }

  protected override restoreModel(state: unknown): void {
    this.secondary.number = Number(state)
  }
}
