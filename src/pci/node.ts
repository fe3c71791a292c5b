/**
 * What endpoints and bridges have in common: a place in the tree, configuration space with a header and
 * capabilities, enables that other code asks for on every request, and reset.
 * Next: function.ts and bridge.ts (the two kinds), fabric.ts (the tree).
 */
import type { VirtualClock } from '../base/clock.js'
import type { LiveRegisters } from '../base/registers.js'
import type { TraceBus } from '../base/trace.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { BarSpec } from './bar.js'
import type { Bus } from './bus.js'
import {
  type Capability,
  type CapabilityFactory,
  type PlacedCapability,
  placeCapabilities,
  relink,
} from './capability.js'
import { type ConfigPart, ConfigSpace } from './config-space.js'
import type { TYPE0, TYPE1 } from './headers.js'
import type { RamCopy } from './ram-copy.js'
import type { Doorbell, MessageSink, UpstreamTranslator } from './upstream.js'

/** What a function says it is, PCIe 7.5.1.1. */
export interface Identity {
  readonly vendorId: number
  readonly deviceId: number
  /** Base class, sub-class and programming interface: 24 bits. */
  readonly classCode: number
  readonly revision?: number
  readonly subsystemVendorId?: number
  readonly subsystemId?: number
}

/** What the tree offers its nodes; the root complex is one. */
export interface Fabric {
  readonly memory: AddressSpace
  readonly clock: VirtualClock
  readonly trace: TraceBus
  readonly copies: RamCopy
  readonly translator: UpstreamTranslator | undefined
  readonly messages: MessageSink
  readonly doorbell: Doorbell | undefined
  /** Moves on whenever any configuration register may have changed. */
  readonly epoch: number
  /** Some configuration register may have changed. */
  configChanged(): void
  /** Something changed which addresses which function answers. */
  decodeChanged(): void
}

/** The registers both header types share. */
export type CommonHeader = Pick<
  LiveRegisters<typeof TYPE0> & LiveRegisters<typeof TYPE1>,
  | 'Vendor_ID'
  | 'Device_ID'
  | 'Command'
  | 'Revision_ID'
  | 'Programming_Interface'
  | 'Sub_Class'
  | 'Base_Class'
  | 'Header_Type'
  | 'Capabilities_Pointer'
>

/** Header and capabilities of a node as plain data; see `PciNode.save`. */
export interface NodeState {
  readonly header: Uint8Array
  readonly capabilities: readonly { readonly bytes: Uint8Array; readonly state: unknown }[]
  readonly model: unknown
}

/** One function of the tree, endpoint or bridge. */
export abstract class PciNode {
  readonly name: string
  readonly identity: Identity
  readonly bus: Bus
  /** Device number 7:3 and function number 2:0. */
  readonly devfn: number
  readonly config: ConfigSpace
  /** Bus Master Enable, and the function is in D0; kept current for the request path. */
  masterEnabled = false
  /** Memory Space Enable, and the function is in D0. */
  memoryEnabled = false
  /** Device power state; the power management capability keeps it. */
  powerState = 0
  #header: ConfigPart | undefined
  #common: CommonHeader | undefined
  #capabilities: PlacedCapability[] = []

  constructor(name: string, identity: Identity, bus: Bus, devfn: number) {
    this.name = name
    this.identity = identity
    this.bus = bus
    this.devfn = devfn
    this.config = new ConfigSpace(() => bus.fabric.configChanged())
  }

  /** Requester id, from the bus number that software programmed into the bridge above. */
  get bdf(): number {
    return (this.bus.number << 8) | this.devfn
  }

  get fabric(): Fabric {
    return this.bus.fabric
  }

  /** The capabilities, in chain order, first those of the first 256 bytes. */
  capabilities(): readonly PlacedCapability[] {
    return this.#capabilities
  }

  /** Offset of a capability by id, or undefined. */
  capabilityOffset(id: number, extended: boolean): number | undefined {
    return this.#capabilities.find(
      p => p.capability.id === id && p.capability.extended === extended,
    )?.offset
  }

  /** Recomputes the enables after Command, the power state or saved registers changed. */
  refresh(): void {
    const { Bus_Master_Enable, Memory_Space_Enable } = this.#common!.Command
    this.masterEnabled = Bus_Master_Enable && this.powerState === 0
    const memory = Memory_Space_Enable && this.powerState === 0
    if (memory !== this.memoryEnabled) {
      this.memoryEnabled = memory
      this.fabric.decodeChanged()
    }
  }

  /**
   * Function reset: registers back to their defaults, pending work and cached translations dropped.
   * What software programmed (BARs, Command, capabilities) is gone, as after FLR (PCIe 6.6.2).
   */
  reset(): void {
    this.#header!.reset()
    this.powerState = 0
    for (const { capability } of this.#capabilities) capability.reset()
    this.#fixed()
    this.onReset()
    this.refresh()
    this.fabric.configChanged()
    this.fabric.decodeChanged()
  }

  /** Registers and capability state as plain data. */
  save(): NodeState {
    return {
      header: this.#header!.bytes.slice(),
      capabilities: this.#capabilities.map(({ capability }) => ({
        bytes: capability.file.bytes.slice(),
        state: capability.save?.(),
      })),
      model: this.saveModel(),
    }
  }

  /** Takes back what `save` gave, on a node made the same way. */
  restore(saved: NodeState): void {
    if (saved.capabilities.length !== this.#capabilities.length)
      throw new Error(`${this.name}: state of another device`)
    this.#header!.restore(saved.header)
    this.#capabilities.forEach(({ capability }, i) => {
      const from = saved.capabilities[i]!
      capability.file.restore(from.bytes)
      capability.restore?.(from.state)
    })
    this.restoreModel(saved.model)
    this.refresh()
    this.fabric.configChanged()
    this.fabric.decodeChanged()
  }

  /** For subclasses: places header and capabilities, once, from the constructor. */
  protected assemble(
    header: ConfigPart,
    common: CommonHeader,
    factories: readonly CapabilityFactory[],
  ): readonly Capability[] {
    this.#header = header
    this.#common = common
    this.config.place(0, header)
    const capabilities = factories.map(make => make(this))
    this.#capabilities = placeCapabilities(this.config, capabilities)
    this.#fixed()
    return capabilities
  }

  /** For subclasses: what a capability brings besides registers. */
  protected barsOf(capabilities: readonly Capability[]): BarSpec[] {
    return capabilities.flatMap(c => c.bar ?? [])
  }

  /** Says whether functions 1 to 7 may exist beside function 0. */
  markMultiFunction(): void {
    this.#common!.Header_Type.Multi_Function = true
  }

  /** For subclasses: what else a reset does. */
  protected abstract onReset(): void
  protected abstract saveModel(): unknown
  protected abstract restoreModel(state: unknown): void
  /** For subclasses: the header layout, and read-only values beyond the common ones. */
  protected abstract readonly headerLayout: 0 | 1
  protected fixedRegisters(): void {}

  #fixed(): void {
    const h = this.#common!
    const { vendorId, deviceId, classCode, revision = 0 } = this.identity
    h.Vendor_ID.ID = vendorId
    h.Device_ID.ID = deviceId
    h.Revision_ID.ID = revision
    h.Programming_Interface.CODE = classCode & 0xff
    h.Sub_Class.CODE = (classCode >> 8) & 0xff
    h.Base_Class.CODE = (classCode >> 16) & 0xff
    h.Header_Type.Layout = this.headerLayout
    h.Header_Type.Multi_Function = this.bus.isMultiFunction(this.devfn >> 3)
    const first = this.#capabilities[0]
    h.Capabilities_Pointer.OFFSET = first && !first.capability.extended ? first.offset : 0
    relink(this.#capabilities)
    this.fixedRegisters()
  }
}
