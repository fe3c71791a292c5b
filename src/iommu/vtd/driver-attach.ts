/**
 * Which tables the functions below a unit are on, and each of their PASIDs: the function is opened (context entry,
 * PASID table, services) with the first table it is put on and closed with the last. Replacing rewrites an
 * entry in place. Tables: driver-domain.ts, driver-nested.ts; guest bindings beside them: driver-bind.ts.
 */
import { ErrnoError } from '../../base/errno.js'
import type { FrameAllocator } from '../../mem/frames.js'
import { NO_PASID } from '../../pci/request.js'
import { type FoundFunction, type PciConfig, prefixesReachRoot } from '../pci-config.js'
import { pasidBits } from '../pci-services.js'
import type { VtdBindings } from './driver-bind.js'
import type { Capabilities } from './driver-capabilities.js'
import { VtdDevice } from './driver-device.js'
import type { VtdInvalidator } from './driver-invalidate.js'
import { type ContextTables, PasidTable } from './driver-tables.js'
import { SM_CONTEXT_ENTRY } from './tables.js'

/** The PASID entry that requests without PASID use. */
export const RID_PASID = 0

/** What an entry of a PASID table can lead to. */
export interface VtdTable {
  /** DID of its entries. */
  readonly id: number
  /** Whether it is walked in two stages. */
  readonly nested: boolean
  readonly takesFaults: boolean
  /** The entry that leads to it. EINVAL: the unit cannot walk it. */
  entry(): { readonly words: Uint32Array }
  /** A function or PASID was put on it, or taken off. */
  joined(device: VtdDevice, pasid: number): void
  left(device: VtdDevice, pasid: number): void
}

/** What attaching needs of its unit. */
export interface AttachUnit {
  readonly capabilities: Capabilities
  readonly contexts: ContextTables
  readonly invalidator: VtdInvalidator
  readonly bindings: VtdBindings
  /** Requester ids below the unit that are no PCI functions. */
  readonly namespaceDevices: ReadonlySet<number>
  covers(bdf: number): boolean
  /** Takes what is in the page request queue. */
  takePageRequests(): void
  /** Answers INVALID to what waits of a function, or of one PASID (or none) of it. */
  cancelPageRequests(bdf: number, pasid?: number): void
  trace(what: 'attach' | 'detach', bdf: number, pasid: number): void
}

/** The functions of one unit that are on tables. */
export class VtdAttachments {
  readonly devices = new Map<number, VtdDevice>()
  readonly #unit: AttachUnit
  readonly #config: PciConfig
  readonly #frames: FrameAllocator
  #functions: readonly FoundFunction[] = []

  constructor(unit: AttachUnit, config: PciConfig, frames: FrameAllocator) {
    this.#unit = unit
    this.#config = config
    this.#frames = frames
  }

  /** See `IoTable.attach`. ENODEV no function of this unit; ENOMEM. Nothing changes when it is refused. */
  attach(table: VtdTable, bdf: number, pasid: number): void {
    const unit = this.#unit
    if (!unit.covers(bdf) || !(unit.namespaceDevices.has(bdf) || this.#config.present(bdf)))
      throw new ErrnoError('ENODEV', 'no device of this unit')
    const known = this.devices.get(bdf)
    if (known?.tables.has(pasid)) throw new ErrnoError('EBUSY', 'the device has a domain')
    const { words } = table.entry()
    const device = known ?? this.#open(bdf)
    try {
      if (pasid !== NO_PASID) this.#check(device, pasid)
      const slot = slotOf(pasid)
      device.pasids.set(device.pasids.make(slot), { words })
    } catch (error) {
      if (known === undefined) this.#close(device, table.id)
      throw error
    }
    device.tables.set(pasid, table)
    table.joined(device, pasid)
    this.#unit.trace('attach', bdf, slotOf(pasid))
  }

  /** See `IoTable.replace`. */
  replace(table: VtdTable, bdf: number, pasid: number): void {
    const device = this.devices.get(bdf)
    const old = device?.tables.get(pasid)
    if (device === undefined || old === undefined) {
      this.attach(table, bdf, pasid)
      return
    }
    const slot = slotOf(pasid)
    device.pasids.set(device.pasids.make(slot), table.entry())
    this.#unit.invalidator.entryGone(device, old.id, slot, pasid !== NO_PASID, old.nested)
    this.#answer(device, pasid)
    old.left(device, pasid)
    device.tables.set(pasid, table)
    table.joined(device, pasid)
  }

  /** Takes a function or PASID off, with what is bound beside it when it is the function itself. */
  detach(table: VtdTable, bdf: number, pasid: number): void {
    const device = this.devices.get(bdf)
    if (device === undefined || device.tables.get(pasid) !== table) return
    if (pasid === NO_PASID) this.#unit.bindings.unbindAll(device, table)
    const slot = slotOf(pasid)
    device.pasids.clear(slot)
    const last = device.tables.size === 1
    // Closing drops what requests without PASID left behind.
    if (!last || pasid !== NO_PASID)
      this.#unit.invalidator.entryGone(device, table.id, slot, pasid !== NO_PASID, table.nested)
    this.#answer(device, pasid)
    if (last) this.#close(device, table.id)
    device.tables.delete(pasid)
    table.left(device, pasid)
    this.#unit.trace('detach', bdf, slot)
  }

  /** The entry of a table changed: every place that leads to it is written again and dropped from caches. */
  rewrite(table: VtdTable, device: VtdDevice, pasid: number): void {
    const slot = slotOf(pasid)
    device.pasids.set(device.pasids.make(slot), table.entry())
    this.#unit.invalidator.entryGone(device, table.id, slot, pasid !== NO_PASID, table.nested)
  }

  /** Puts services back after a reset. */
  restore(bdf: number): void {
    this.devices.get(bdf)?.enable(this.#unit.capabilities, this.#place(bdf))
  }

  /** Whether requests under PASIDs of a function reach the unit; how wide they are then. */
  pasidBits(bdf: number): number {
    const { capabilities } = this.#unit
    const reach = capabilities.pasid && prefixesReachRoot(this.#config, this.#place(bdf))
    return reach ? Math.min(pasidBits(this.#config, bdf), capabilities.pasidBits) : 0
  }

  /** Whether a page request has somebody who wants it. */
  wantsFaults(bdf: number, pasid: number): boolean {
    const device = this.devices.get(bdf)
    return (
      device !== undefined &&
      (device.tables.get(pasid)?.takesFaults === true || device.bound.has(pasid))
    )
  }

  /** Whether an answer to a page request has somewhere to go. */
  has(bdf: number, pasid: number): boolean {
    const device = this.devices.get(bdf)
    return device !== undefined && (device.tables.has(pasid) || device.bound.has(pasid))
  }

  #check(device: VtdDevice, pasid: number): void {
    if (!device.pasidOn)
      throw new ErrnoError('EOPNOTSUPP', 'PASIDs of the device do not reach the unit')
    if (!(pasid > 0 && pasid < 2 ** Math.min(device.pasidBits, this.#unit.capabilities.pasidBits)))
      throw new ErrnoError('EINVAL', `PASID ${pasid} is wider than the device's`)
    if (device.pasids.present(pasid)) throw new ErrnoError('EBUSY', `PASID ${pasid} has an entry`)
  }

  #answer(device: VtdDevice, pasid: number): void {
    if (!device.priOn) return
    this.#unit.takePageRequests()
    this.#unit.cancelPageRequests(device.bdf, pasid)
  }

  #open(bdf: number): VtdDevice {
    const { capabilities, contexts } = this.#unit
    const bits = capabilities.pasid
      ? Math.min(pasidBits(this.#config, bdf), capabilities.pasidBits)
      : 0
    const table = new PasidTable(this.#frames, bits)
    const device = new VtdDevice(this.#config, bdf, table)
    try {
      table.make(RID_PASID)
      device.enable(capabilities, this.#place(bdf))
      contexts.set(bdf, contextEntry(device))
    } catch (error) {
      device.disable()
      table.free()
      throw error
    }
    this.devices.set(bdf, device)
    return device
  }

  #close(device: VtdDevice, did: number): void {
    const { contexts, invalidator } = this.#unit
    const { bdf } = device
    contexts.clear(bdf)
    invalidator.deviceGone(device, did)
    this.#unit.takePageRequests()
    this.#unit.cancelPageRequests(bdf)
    device.disable()
    this.devices.delete(bdf)
    contexts.trim()
    device.pasids.free()
  }

  #place(bdf: number): FoundFunction | undefined {
    let found = this.#functions.find(f => f.bdf === bdf)
    if (found === undefined) {
      this.#functions = this.#config.scan()
      found = this.#functions.find(f => f.bdf === bdf)
    }
    return found
  }
}

const slotOf = (pasid: number): number => (pasid === NO_PASID ? RID_PASID : pasid)

const contextEntry = (device: VtdDevice) =>
  SM_CONTEXT_ENTRY.create({
    PASIDDIRPTR: device.pasids.directory,
    PDTS: device.pasids.pdts,
    RID_PASID,
    PRE: device.priOn,
    PASIDE: device.pasidOn,
    DTE: device.atsOn,
    P: true,
  })
