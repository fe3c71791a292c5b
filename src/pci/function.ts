/**
 * An endpoint function: type 0 header, six BARs, its bus master, and the device model behind it.
 * Next: device-model.ts (how models are written), fabric.ts (how functions are found).
 */
import { RegisterFile } from '../base/registers.js'
import { type Bar, type BarSpec, makeBars } from './bar.js'
import type { Bus } from './bus.js'
import { BusMaster } from './bus-master.js'
import { MsiCapability } from './capabilities/msi.js'
import { MsixCapability } from './capabilities/msix.js'
import type { CapabilityFactory } from './capability.js'
import { AtsCapability } from './extended/ats.js'
import { PasidCapability } from './extended/pasid.js'
import { PriCapability } from './extended/pri.js'
import { TYPE0 } from './headers.js'
import { InterruptLine, type InterruptPin } from './intx.js'
import { type Identity, PciNode } from './node.js'
import type { AtsInvalidation, PageGroupResponse } from './request.js'

/** Builds a function at a place; `defineDevice` makes these. */
export interface DeviceModel {
  readonly name: string
  readonly identity: Identity
  build(bus: Bus, devfn: number): PciFunction
}

/** What stands behind a function: called on reset and around save and restore. */
export interface FunctionModel {
  /** Whether `save` leaves nothing out: the device tells its state beside registers, and takes it back. */
  readonly migratable: boolean
  /** Keeps work that falls due from running, until told to let it; registers stay accessible. */
  hold(on: boolean): void
  reset(): void
  save(): unknown
  restore(state: unknown): void
  /** A request that failed as `stalled` is to be made again, or was aborted. */
  resumed?(token: number, retry: boolean): void
}

/** Is told of what a device wrote without a PASID. */
export interface WriteLog {
  /** `length` bytes from the address (two 32-bit halves) on are written. */
  wrote(hi: number, lo: number, length: number): void
}

/** What a function is made of. */
export interface FunctionSpec {
  readonly name: string
  readonly identity: Identity
  readonly bars: readonly BarSpec[]
  readonly capabilities: readonly CapabilityFactory[]
  /** The interrupt pin; undefined: none. */
  readonly pin?: InterruptPin | undefined
  /** Of a virtual function: whose it is. */
  readonly physical?: PciFunction
}

/** One endpoint function. */
export class PciFunction extends PciNode {
  protected override readonly headerLayout = 0
  /** BAR0 to BAR5; those not implemented have kind `none`. */
  readonly bars: readonly Bar[]
  readonly msi: MsiCapability | undefined
  readonly msix: MsixCapability | undefined
  /** The host line of the interrupt pin; undefined without one. */
  readonly line: InterruptLine | undefined
  readonly ats: AtsCapability | undefined
  readonly pri: PriCapability | undefined
  readonly pasid: PasidCapability | undefined
  readonly dma: BusMaster
  /** The physical function, when this is a virtual one; requests with PASID go by its PASID capability. */
  readonly physical: PciFunction | undefined
  /** Set once by the device model. */
  model: FunctionModel | undefined
  /** Told of the device's writes while somebody tracks them. */
  writeLog: WriteLog | undefined
  readonly #header: RegisterFile<typeof TYPE0>
  readonly #pin: number

  constructor(bus: Bus, devfn: number, spec: FunctionSpec) {
    super(spec.name, spec.identity, bus, devfn)
    this.#pin = spec.pin ?? 0
    this.line = spec.pin && new InterruptLine()
    const settle = (index: number) => () => {
      this.#settle(index)
      this.fabric.decodeChanged()
    }
    this.#header = new RegisterFile(TYPE0, {
      onWrite: {
        Command: () => this.refresh(),
        BAR0: settle(0),
        BAR1: settle(1),
        BAR2: settle(2),
        BAR3: settle(3),
        BAR4: settle(4),
        BAR5: settle(5),
      },
    })
    const { regs } = this.#header
    const made = this.assemble(this.#header, regs, spec.capabilities)
    this.bars = makeBars(
      [...spec.bars, ...this.barsOf(made)],
      [regs.BAR0, regs.BAR1, regs.BAR2, regs.BAR3, regs.BAR4, regs.BAR5],
      () => this.memoryEnabled,
    )
    this.fixedRegisters()
    this.msi = made.find(c => c instanceof MsiCapability)
    this.msix = made.find(c => c instanceof MsixCapability)
    this.ats = made.find(c => c instanceof AtsCapability)
    this.pri = made.find(c => c instanceof PriCapability)
    this.pasid = made.find(c => c instanceof PasidCapability)
    this.physical = spec.physical
    this.dma = new BusMaster(this, this.ats, spec.physical ? spec.physical.pasid : this.pasid)
    for (const capability of [this.msi, this.msix]) {
      if (!capability) continue
      capability.send = (hi, lo, data) => this.dma.sendMessage(hi, lo, data)
      capability.changed = () => this.#drive()
    }
  }

  /** Raises a vector of MSI when that is enabled, else of MSI-X. */
  interrupt(vector: number): void {
    if (this.msi?.enabled) this.msi.raise(vector)
    else this.msix?.raise(vector)
  }

  /** Sets whether the interrupt pin is pending (Status, Interrupt Status); nothing without a pin. */
  setIntx(pending: boolean): void {
    if (!this.line) return
    this.#header.regs.Status.Interrupt_Status = pending
    this.#drive()
  }

  override refresh(): void {
    super.refresh()
    this.#drive()
  }

  /** Takes an Invalidate Request; true when its completion came. */
  invalidate(i: AtsInvalidation): boolean {
    return this.ats?.invalidate(i) ?? false
  }

  /** Takes a PRG response. */
  respond(r: PageGroupResponse): void {
    this.pri?.respond(r)
  }

  /** Takes the outcome of a stalled request. */
  resume(token: number, retry: boolean): void {
    this.model?.resumed?.(token, retry)
  }

  protected override fixedRegisters(): void {
    const { subsystemVendorId, subsystemId, vendorId, deviceId } = this.identity
    this.#header.regs.Subsystem_Vendor_ID.ID = subsystemVendorId ?? vendorId
    this.#header.regs.Subsystem_ID.ID = subsystemId ?? deviceId
    this.#header.regs.Interrupt_Pin.PIN = this.#pin
    for (let i = 0; i < 6; i++) this.#settle(i)
  }

  protected override onReset(): void {
    this.model?.reset()
  }

  protected override saveModel(): unknown {
    return this.model?.save()
  }

  protected override restoreModel(state: unknown): void {
    this.model?.restore(state)
  }

  // The pin is not asserted while it is disabled, while messages are enabled, and below D0.
  #drive(): void {
    const { Command, Status } = this.#header.regs
    const closed = Command.Interrupt_Disable || this.msi?.enabled || this.msix?.enabled
    this.line?.drive(Status.Interrupt_Status && !closed && this.powerState === 0)
  }

  // The base class fills read-only registers before there are BARs.
  #settle(index: number): void {
    this.bars?.[index]?.settle()
  }
}
