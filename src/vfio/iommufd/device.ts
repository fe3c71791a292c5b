// Devices bound to an iommufd and what they are attached to: by function and by PASID, a group at a time, replaced
// in place. Where page requests of a device go. uapi linux/vfio.h, VFIO_DEVICE_BIND_IOMMUFD and following.
import { ErrnoError } from '../../base/errno.js'
import type { IommuGroup } from '../../iommu/groups.js'
import { IOMMU_FAULT_PAGE_REQ, type IommuFault } from '../../iommu/uapi.js'
import type { HardwareInfo, UserTables } from '../../iommu/user-tables.js'
import { NO_PASID } from '../../pci/request.js'
import type { IommufdContext } from './context.js'
import { FaultGroups } from './fault-groups.js'
import { type Hwpt, HwptNested, HwptPaging } from './hwpt.js'
import { Ioas } from './ioas.js'
import type { IommufdObject } from './objects.js'

/** What a group has at one PASID, or without. */
interface Attachment {
  hwpt: Hwpt
  readonly devices: Set<BoundDevice>
}

/** A group with devices bound to an iommufd: its DMA belongs to that one. */
export class BoundGroup {
  readonly context: IommufdContext
  readonly group: IommuGroup
  readonly attachments = new Map<number, Attachment>()
  readonly devices = new Set<BoundDevice>()

  constructor(context: IommufdContext, group: IommuGroup) {
    this.context = context
    this.group = group
  }
}

/** Groups whose DMA an iommufd owns, on one machine. */
export class BoundGroups {
  readonly #byId = new Map<number, BoundGroup>()

  /** The iommufd that owns a group. */
  owner(id: number): IommufdContext | undefined {
    return this.#byId.get(id)?.context
  }

  /** Claims a group. EPERM when another iommufd, or a driver, has it. */
  claim(context: IommufdContext, group: IommuGroup): BoundGroup {
    const known = this.#byId.get(group.id)
    if ((known !== undefined && known.context !== context) || !context.env.viable(group.id))
      throw new ErrnoError('EPERM', `group ${group.id}: its DMA belongs to another`)
    if (known !== undefined) return known
    const made = new BoundGroup(context, group)
    this.#byId.set(group.id, made)
    return made
  }

  release(group: BoundGroup): void {
    if (group.devices.size === 0) this.#byId.delete(group.group.id)
  }
}

/** One function bound to an iommufd. */
export class BoundDevice implements IommufdObject {
  readonly kind = 'device'
  id = 0
  /** The file that bound it. */
  users = 1
  readonly bdf: number
  readonly unit: UserTables
  readonly info: HardwareInfo
  readonly context: IommufdContext
  /** What a guest calls it. */
  vdevice: IommufdObject | undefined = undefined
  readonly #groups: BoundGroups
  readonly #group: BoundGroup
  readonly #faults = new FaultGroups()

  /**
   * Binds and claims the group; the iommufd lives as long. EINVAL the IOMMU is not coherent or missing, EPERM
   * interrupts are not isolated, or the group belongs to another.
   */
  constructor(context: IommufdContext, bdf: number, groups: BoundGroups) {
    const { core, allowUnsafeInterrupts } = context.env
    const driver = core.deviceDriver(bdf)
    const unit = driver?.userTables
    const info = unit?.info(bdf)
    if (unit === undefined || info === undefined || !info.coherent)
      throw new ErrnoError('EINVAL', 'bind: no IOMMU keeps the device coherent')
    if (!driver!.isolatesInterrupts && !allowUnsafeInterrupts)
      throw new ErrnoError(
        'EPERM',
        'bind: no interrupt remapping, and allow_unsafe_interrupts is off',
      )
    this.#group = groups.claim(context, core.groups.of(bdf)!)
    this.#groups = groups
    this.context = context
    this.bdf = bdf
    this.unit = unit
    this.info = info
    this.#group.devices.add(this)
    try {
      context.objects.add(this)
    } catch (error) {
      this.destroy()
      throw error
    }
    context.get()
    core.onFault(bdf, fault => this.#take(fault))
  }

  /** Whether requests under PASIDs reach the unit from any device of the kind. */
  get unitHasPasids(): boolean {
    return this.info.unitPasids
  }

  get group(): number {
    return this.#group.group.id
  }

  /** What it is attached to. */
  attached(pasid: number): Hwpt | undefined {
    const at = this.#group.attachments.get(pasid)
    return at?.devices.has(this) ? at.hwpt : undefined
  }

  /** PASIDs it is attached at, and `NO_PASID`. */
  pasids(): number[] {
    return [...this.#group.attachments].flatMap(([pasid, a]) =>
      a.devices.has(this) ? [pasid] : [],
    )
  }

  /**
   * Attaches the function or a PASID to a table or to an address space, in place of what it was attached to, and
   * answers the table's id. ENOENT, EINVAL, EADDRINUSE, and what making or entering a table refuses.
   */
  attach(ptId: number, pasid = NO_PASID): number {
    const target = this.context.objects.find(ptId)
    if (target === undefined) throw new ErrnoError('ENOENT', `attach: no object ${ptId}`)
    if (target instanceof HwptPaging || target instanceof HwptNested) this.#put(target, pasid)
    else if (target instanceof Ioas) return this.#attachIoas(target, pasid)
    else throw new ErrnoError('EINVAL', `attach: object ${ptId} is a ${target.kind}`)
    return ptId
  }

  /** Detaches; harmless when it is not attached. */
  detach(pasid = NO_PASID): void {
    const at = this.#group.attachments.get(pasid)
    if (at === undefined || !at.devices.delete(this)) return
    const { hwpt } = at
    if (at.devices.size === 0) {
      for (const bdf of this.#members(pasid)) hwpt.table.detach(bdf, toTable(pasid))
      this.#answer(hwpt, pasid)
      this.#group.attachments.delete(pasid)
    }
    if (pasid === NO_PASID) hwpt.paging.ioas.table.unreserve(this)
    this.#letGo(hwpt)
  }

  /** Undoes the binding: everything is detached, the group is free again. */
  unbind(): void {
    for (const pasid of this.pasids()) this.detach(pasid)
    if (this.vdevice) this.context.objects.remove(this.vdevice)
    this.users--
    this.context.objects.remove(this)
    this.context.put()
  }

  destroy(): void {
    this.context.env.core.onFault(this.bdf, undefined)
    this.#group.devices.delete(this)
    this.#groups.release(this.#group)
  }

  #attachIoas(ioas: Ioas, pasid: number): number {
    for (const hwpt of ioas.hwpts) {
      if (!hwpt.auto) continue
      try {
        this.#put(hwpt, pasid)
        return hwpt.id
      } catch (error) {
        if (!(error instanceof ErrnoError) || error.code !== 'EINVAL') throw error
      }
    }
    const made = new HwptPaging(ioas, this, { flags: 0, auto: true })
    try {
      this.context.objects.add(made)
    } catch (error) {
      made.destroy()
      throw error
    }
    try {
      this.#put(made, pasid)
    } catch (error) {
      this.context.objects.remove(made)
      throw error
    }
    return made.id
  }

  #put(hwpt: Hwpt, pasid: number): void {
    const at = this.#group.attachments.get(pasid)
    if (at?.devices.has(this)) this.#replace(at, hwpt, pasid)
    else this.#enter(at, hwpt, pasid)
  }

  #enter(at: Attachment | undefined, hwpt: Hwpt, pasid: number): void {
    if (at !== undefined && at.hwpt !== hwpt)
      throw new ErrnoError('EINVAL', 'attach: another device of the group is on another table')
    this.#reserve(hwpt, pasid, [this])
    try {
      if (at === undefined) {
        this.#compatible(hwpt, pasid)
        this.#enterMembers(hwpt, pasid)
        at = { hwpt, devices: new Set() }
        this.#group.attachments.set(pasid, at)
      }
    } catch (error) {
      hwpt.paging.ioas.table.unreserve(this)
      throw error
    }
    at.devices.add(this)
    hwpt.users++
  }

  #replace(at: Attachment, hwpt: Hwpt, pasid: number): void {
    const old = at.hwpt
    if (old === hwpt) return
    const moves = old.paging.ioas !== hwpt.paging.ioas
    if (moves) this.#reserve(hwpt, pasid, at.devices)
    try {
      this.#compatible(hwpt, pasid)
      this.#replaceMembers(old, hwpt, pasid)
    } catch (error) {
      if (moves) for (const device of at.devices) hwpt.paging.ioas.table.unreserve(device)
      throw error
    }
    at.hwpt = hwpt
    if (moves && pasid === NO_PASID)
      for (const device of at.devices) old.paging.ioas.table.unreserve(device)
    hwpt.users += at.devices.size
    for (let n = at.devices.size; n > 0; n--) this.#letGo(old)
  }

  #enterMembers(hwpt: Hwpt, pasid: number): void {
    const done: number[] = []
    try {
      for (const bdf of this.#members(pasid)) {
        hwpt.table.attach(bdf, toTable(pasid))
        done.push(bdf)
      }
    } catch (error) {
      for (const bdf of done) hwpt.table.detach(bdf, toTable(pasid))
      throw error
    }
  }

  #replaceMembers(old: Hwpt, hwpt: Hwpt, pasid: number): void {
    const done: number[] = []
    try {
      for (const bdf of this.#members(pasid)) {
        hwpt.table.replace(bdf, toTable(pasid))
        done.push(bdf)
      }
    } catch (error) {
      for (const bdf of done) old.table.replace(bdf, toTable(pasid))
      throw error
    }
    this.#answer(old, pasid)
  }

  /** The functions that follow an attachment: all of the group, or those that have PASIDs. */
  #members(pasid: number): readonly number[] {
    const { endpoints } = this.#group.group
    if (pasid === NO_PASID) return endpoints
    return endpoints.filter(bdf => this.unit.info(bdf).pasidBits > 0)
  }

  /** EINVAL, EOPNOTSUPP, ENODEV: what a table must be to be entered. */
  #compatible(hwpt: Hwpt, pasid: number): void {
    const refuse = (code: 'EINVAL' | 'EOPNOTSUPP' | 'ENODEV', what: string) =>
      new ErrnoError(code, `attach: ${what}`)
    const { attachments } = this.#group
    if (pasid === NO_PASID) {
      const others = [...attachments.keys()].some(p => p !== NO_PASID)
      if (!hwpt.withPasids && others) throw refuse('EINVAL', 'PASIDs of the group are attached')
    } else {
      const rid = attachments.get(NO_PASID)?.hwpt
      if (!hwpt.withPasids) throw refuse('EINVAL', 'the table was not made for PASIDs')
      if (rid && !rid.withPasids) throw refuse('EINVAL', 'the device is on a table without PASIDs')
    }
    if (hwpt.unit !== this.unit) throw refuse('EINVAL', 'the table is of another IOMMU')
    if (hwpt.fault && !this.info.pageRequests) throw refuse('ENODEV', 'no page requests')
    if (pasid === NO_PASID) return
    const widths = this.#group.group.endpoints
      .map(bdf => this.unit.info(bdf).pasidBits)
      .filter(bits => bits > 0)
    if (widths.length === 0) throw refuse('EOPNOTSUPP', 'no device of the group has PASIDs')
    if (pasid === 0 || widths.some(bits => pasid >= 2 ** bits))
      throw refuse('EINVAL', `PASID ${pasid}`)
  }

  #reserve(hwpt: Hwpt, pasid: number, devices: Iterable<BoundDevice>): void {
    if (pasid !== NO_PASID) return
    const { paging } = hwpt
    const done: BoundDevice[] = []
    try {
      for (const device of devices) {
        paging.ioas.table.reserve(device, paging.table.reserved())
        done.push(device)
      }
    } catch (error) {
      for (const device of done) paging.ioas.table.unreserve(device)
      throw error
    }
  }

  #letGo(hwpt: Hwpt): void {
    hwpt.users--
    if (hwpt instanceof HwptPaging && hwpt.auto && hwpt.users === 0)
      this.context.objects.remove(hwpt)
  }

  /** Answers INVALID to page requests of what leaves a table. */
  #answer(hwpt: Hwpt, pasid: number): void {
    // A guest's own PASID table answers for every PASID.
    const of = hwpt.ownsPasids ? undefined : pasid
    for (const device of this.#group.devices) {
      device.#faults.forget(of)
      hwpt.fault?.cancel(device, of)
    }
  }

  /** What a request under a PASID goes by: its own table, or the guest's that has them all. */
  #tableOf(pasid: number): Hwpt | undefined {
    const { attachments } = this.#group
    const own = attachments.get(pasid)?.hwpt
    const whole = attachments.get(NO_PASID)?.hwpt
    return own ?? (whole?.ownsPasids ? whole : undefined)
  }

  /** A page request of the device: false when nobody takes it. */
  #take(fault: IommuFault): boolean {
    if (fault.type !== IOMMU_FAULT_PAGE_REQ) return false
    const group = this.#faults.add(fault)
    const queue = this.#tableOf(group.pasid)?.fault
    if (queue === undefined) {
      this.#faults.forget(group.pasid)
      return false
    }
    if (group.complete) queue.push({ device: this, pasid: group.pasid, faults: group.faults })
    return true
  }
}

const toTable = (pasid: number): number | undefined => (pasid === NO_PASID ? undefined : pasid)
