/**
 * Guest tables bound to PASIDs: bind, unbind, invalidation on behalf of the guest, and teardown when an id
 * is freed while bound. Checks come in the order of the documented rows; numbers in comments are those
 * rows. Entries and descriptors: driver-tables.ts, driver-invalidate.ts.
 */
import { ErrnoError } from '../../base/errno.js'
import { INVALID_IOASID, type IoasidAllocator } from '../ioasid.js'
import { IOASID_EVENT, type IoasidEvent, type IoasidNotifier } from '../ioasid-notify.js'
import type { IoasidSet } from '../ioasid-set.js'
import {
  type CacheInvalidate,
  type GpasidBind,
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INV_TYPE_PASID,
  IOMMU_INV_ADDR_FLAGS_LEAF,
  IOMMU_INV_ADDR_FLAGS_PASID,
  IOMMU_INV_GRANU_ADDR,
  IOMMU_INV_GRANU_PASID,
  IOMMU_INV_PASID_FLAGS_PASID,
  IOMMU_PASID_FORMAT_INTEL_VTD,
  IOMMU_SVA_GPASID_VAL,
  IOMMU_SVA_VTD_GPASID_EAFE,
  IOMMU_SVA_VTD_GPASID_LAST,
  IOMMU_SVA_VTD_GPASID_SRE,
  iommu_gpasid_bind_data,
} from '../uapi.js'
import type { VtdTable } from './driver-attach.js'
import type { VtdDevice } from './driver-device.js'
import type { VtdDomain } from './driver-domain.js'
import { type VtdInvalidator, WHOLE_ORDER } from './driver-invalidate.js'
import { PASID_ENTRY, PGTT } from './tables.js'

/** PASIDs are 20 bits; the interface's fields are 64. */
const PASID_LIMIT = 0x10_0000n
/** Row 18: attributes that the first stage of these units does not have. */
const NO_MEMORY_TYPES = IOMMU_SVA_VTD_GPASID_LAST - 1 - 3
const VTD_BIND_SIZE = iommu_gpasid_bind_data.size

interface User {
  readonly device: VtdDevice
  /** The domain below the guest's table: the device's own, or one of those that share it by PASID. */
  readonly domain: VtdDomain
  readonly spid: boolean
}

/** The private data of a bound id: which devices use it, on whatever unit. */
export class BoundPasid {
  readonly id: number
  readonly set: IoasidSet
  /** In the order of binding; seldom more than one. */
  readonly users: User[] = []

  constructor(id: number, set: IoasidSet) {
    this.id = id
    this.set = set
  }

  user(bdf: number): User | undefined {
    for (let i = 0; i < this.users.length; i++)
      if (this.users[i]!.device.bdf === bdf) return this.users[i]
    return undefined
  }
}

/** What binding needs of its unit. */
export interface BindUnit {
  readonly ioasid: IoasidAllocator
  readonly invalidator: VtdInvalidator
  /** What every entry of the unit has: table walks snoop, accesses snoop. */
  readonly walkSnoop: boolean
  readonly coherent: boolean
  readonly canNest: boolean
  readonly fiveLevel: boolean
  readonly supervisor: boolean
  readonly extendedAccess: boolean
  /** The function as attached to a domain of this unit. */
  device(bdf: number): VtdDevice | undefined
  /** Whether a function answers configuration requests, and its Max PASID Width. */
  isPci(bdf: number): boolean
  pasidBits(bdf: number): number
  /** Takes what is in the page request queue and answers INVALID to what waits of the PASID. */
  drainPageRequests(device: VtdDevice, pasid: number): void
  trace(what: 'bind' | 'unbind' | 'not-done', bdf: number, pasid: number): void
}

/** Bindings of one unit. */
export class VtdBindings implements IoasidNotifier {
  readonly priority = 'iommu'
  readonly #unit: BindUnit
  /** Rewritten by every bind. NXE: a guest's tables may use XD. */
  readonly #entry = PASID_ENTRY.create({ PGTT: PGTT.NESTED, NXE: true, P: true })
  /** Sets whose events are heard, with the number of domains that use them. */
  readonly #sets = new Map<IoasidSet, { domains: number; readonly end: () => void }>()

  constructor(unit: BindUnit) {
    this.#unit = unit
  }

  /** A domain takes ids from this set: hear when they are freed. */
  useSet(set: IoasidSet): void {
    const known = this.#sets.get(set)
    if (known) known.domains++
    else this.#sets.set(set, { domains: 1, end: this.#unit.ioasid.subscribe(this, set) })
  }

  leaveSet(set: IoasidSet): void {
    const known = this.#sets.get(set)
    if (known === undefined || --known.domains > 0) return
    known.end()
    this.#sets.delete(set)
  }

  /** An id is being freed: its teardown is queued, because handlers must not wait. */
  notify(event: IoasidEvent, _id: number, _spid: number, _set: IoasidSet, data: unknown): void {
    if (event !== IOASID_EVENT.FREE || !(data instanceof BoundPasid)) return
    this.#unit.ioasid.queueWork(() => {
      for (const { device } of [...data.users])
        if (this.#unit.device(device.bdf) === device) this.#release(data, device)
    })
  }

  bind(domain: VtdDomain, bdf: number, data: GpasidBind): void {
    const u = this.#unit
    const { vtd } = data.vendor
    const flags = Number(vtd.flags)
    if (data.format !== IOMMU_PASID_FORMAT_INTEL_VTD)
      throw refuse('EINVAL', `format ${data.format}`) // 6
    if (data.argsz < VTD_BIND_SIZE) throw refuse('EINVAL', 'no VT-d part')
    if (flags >= IOMMU_SVA_VTD_GPASID_LAST)
      throw refuse('EINVAL', `VT-d flags 0x${vtd.flags.toString(16)}`)
    if (!u.isPci(bdf)) throw refuse('ENOTSUPP', 'not a PCI device') // 7
    if (u.pasidBits(bdf) !== 20) throw refuse('EINVAL', 'the device has no 20-bit PASIDs') // 8
    const pasid = pasidOf(data.hpasid) // 9
    const set = domain.pasidSet
    const bound = this.#find(set, pasid) // 10, 11
    if (bound?.user(bdf)) throw refuse('EBUSY', `PASID ${pasid} is bound on the device`) // 12
    const device = u.device(bdf)
    if (device !== undefined && !device.pasidOn)
      throw refuse('EINVAL', 'PASID prefixes of the device do not reach the unit') // 13
    if (!u.canNest || !domain.nesting || device?.isOn(domain) !== true)
      throw refuse('EINVAL', 'the domain does not nest') // 14
    if (device.pasids.present(pasid)) throw refuse('EBUSY', `PASID ${pasid} has an entry`) // 15
    const five = data.addr_width === 57
    if (data.addr_width !== 48 && !(five && u.fiveLevel))
      throw refuse('EINVAL', `address width ${data.addr_width}`) // 16
    const gpgd = Number(data.gpgd)
    if (gpgd >= 2 ** domain.addrWidth) throw refuse('EINVAL', 'gpgd beyond the domain') // 17
    if (flags & IOMMU_SVA_VTD_GPASID_SRE && !u.supervisor) throw refuse('EINVAL', 'no SRE') // 18
    if (flags & IOMMU_SVA_VTD_GPASID_EAFE && !u.extendedAccess) throw refuse('EINVAL', 'no EAFE')
    if (flags & NO_MEMORY_TYPES) throw refuse('EINVAL', 'no memory types')

    const at = device.pasids.make(pasid)
    const withSpid = (Number(data.flags) & IOMMU_SVA_GPASID_VAL) !== 0
    this.#use(bound, set, pasid, device, domain, withSpid ? spidOf(data.gpasid) : INVALID_IOASID)
    const entry = this.#entry
    entry.FSPTPTR = gpgd
    entry.FSPM = five ? 1 : 0
    entry.SRE = (flags & IOMMU_SVA_VTD_GPASID_SRE) !== 0
    entry.EAFE = (flags & IOMMU_SVA_VTD_GPASID_EAFE) !== 0
    entry.PWSNP = u.walkSnoop
    entry.PGSNP = u.coherent
    entry.DID = domain.id
    entry.SSPTPTR = domain.root
    entry.AW = domain.aw
    device.pasids.set(at, entry)
    domain.bound++
    u.trace('bind', bdf, pasid)
  }

  unbind(domain: VtdDomain, bdf: number, hpasid: bigint): void {
    const bound = this.#find(domain.pasidSet, pasidOf(hpasid))
    const user = bound?.user(bdf)
    if (bound !== undefined && user?.domain === domain) this.#release(bound, user.device)
  }

  /** The device leaves a table: what is bound over it goes, ids being freed included. */
  unbindAll(device: VtdDevice, table: VtdTable): void {
    for (const bound of [...device.bound.values()])
      if (bound.user(device.bdf)?.domain === table) this.#release(bound, device)
  }

  invalidate(domain: VtdDomain, bdf: number, info: CacheInvalidate): void {
    if (!domain.nesting) throw invalid('EINVAL', 'the domain does not nest')
    const device = this.#unit.device(bdf)
    if (!device?.isOn(domain)) throw invalid('EINVAL', 'the device is not in the domain')
    const { cache, granularity } = info
    for (let type = 1; type <= IOMMU_CACHE_INV_TYPE_PASID; type <<= 1) {
      if (!(cache & type)) continue
      if (!DOES[type]!.includes(granularity)) {
        this.#unit.trace('not-done', bdf, 0)
        return
      }
      this.#invalidateOne(device, domain, type, info)
    }
  }

  #invalidateOne(device: VtdDevice, domain: VtdDomain, type: number, info: CacheInvalidate): void {
    const inv = this.#unit.invalidator
    const whole = info.granularity === IOMMU_INV_GRANU_PASID
    const pasid = this.#boundPasid(domain, device, named(info))
    const { addr, granule_size, nb_granules, flags } = info.granu.addr_info
    const order = whole ? WHOLE_ORDER : orderOf(granule_size * nb_granules)
    if (type === IOMMU_CACHE_INV_TYPE_IOTLB) {
      const leaf = !whole && (flags & IOMMU_INV_ADDR_FLAGS_LEAF) !== 0
      inv.pasidIotlb(domain.id, pasid, addr, order, leaf)
      if (device.atsOn) inv.fence()
    }
    if (device.atsOn) inv.pasidDeviceTlb(device, pasid, addr, order)
    else if (type === IOMMU_CACHE_INV_TYPE_DEV_IOTLB)
      this.#unit.trace('not-done', device.bdf, pasid)
    inv.complete()
  }

  /** The PASID of an invalidation: ours, and bound on the device. */
  #boundPasid(domain: VtdDomain, device: VtdDevice, hpasid: bigint): number {
    if (hpasid >= PASID_LIMIT) throw invalid('EINVAL', `PASID ${hpasid}`)
    const pasid = Number(hpasid)
    const bound = this.#find(domain.pasidSet, pasid)
    if (!bound?.user(device.bdf)) throw invalid('EINVAL', `PASID ${pasid} is not bound`)
    return pasid
  }

  #find(set: IoasidSet, pasid: number): BoundPasid | undefined {
    const data = this.#unit.ioasid.find(set, pasid)
    return data instanceof BoundPasid ? data : undefined
  }

  /** Takes the references of a new user, or none of them. */
  #use(
    known: BoundPasid | undefined,
    set: IoasidSet,
    pasid: number,
    device: VtdDevice,
    domain: VtdDomain,
    spid: number,
  ): void {
    const { ioasid } = this.#unit
    const bound = known ?? new BoundPasid(pasid, set)
    if (known === undefined) ioasid.get(set, pasid)
    const withSpid = spid !== INVALID_IOASID
    try {
      if (known === undefined) ioasid.attachData(pasid, bound)
      if (withSpid) ioasid.attachSpid(pasid, spid)
    } catch (error) {
      if (known === undefined) {
        ioasid.detachData(pasid)
        ioasid.put(set, pasid)
      }
      throw error
    }
    bound.users.push({ device, domain, spid: withSpid })
    device.bound.set(pasid, bound)
  }

  /** Undoes one device's binding; the last one lets the id go: set-private id, data, reference, in that order. */
  #release(bound: BoundPasid, device: VtdDevice): void {
    const u = this.#unit
    const { id: pasid } = bound
    const user = bound.user(device.bdf)
    if (user?.device !== device) return
    if (user.spid) u.ioasid.detachSpid(pasid)
    device.pasids.clear(pasid)
    const { domain } = user
    u.invalidator.pasidGone(device, domain.id, pasid)
    u.drainPageRequests(device, pasid)
    bound.users.splice(bound.users.indexOf(user), 1)
    device.bound.delete(pasid)
    domain.bound--
    u.trace('unbind', device.bdf, pasid)
    if (bound.users.length > 0) return
    u.ioasid.detachData(pasid)
    u.ioasid.put(bound.set, pasid)
  }
}

/** Granularities that this driver carries out, by cache type. The others are logged and end the call. */
const DOES: Readonly<Record<number, readonly number[]>> = {
  [IOMMU_CACHE_INV_TYPE_IOTLB]: [IOMMU_INV_GRANU_PASID, IOMMU_INV_GRANU_ADDR],
  [IOMMU_CACHE_INV_TYPE_DEV_IOTLB]: [IOMMU_INV_GRANU_ADDR],
  [IOMMU_CACHE_INV_TYPE_PASID]: [],
}

/** The PASID that an invalidation names; 0 when its flags name none. */
function named(info: CacheInvalidate): bigint {
  const { pasid_info, addr_info } = info.granu
  if (info.granularity === IOMMU_INV_GRANU_PASID)
    return pasid_info.flags & IOMMU_INV_PASID_FLAGS_PASID ? pasid_info.pasid : 0n
  return addr_info.flags & IOMMU_INV_ADDR_FLAGS_PASID ? addr_info.pasid : 0n
}

/** log2, rounded up, of the pages in that many bytes (a 64-bit product that wraps, as the kernel's does). */
function orderOf(bytes: bigint): number {
  const pages = BigInt.asUintN(64, bytes) >> 12n
  return pages <= 1n ? 0 : (pages - 1n).toString(2).length
}

function pasidOf(hpasid: bigint): number {
  if (hpasid === 0n || hpasid >= PASID_LIMIT) throw refuse('EINVAL', `PASID ${hpasid}`)
  return Number(hpasid)
}

function spidOf(gpasid: bigint): number {
  if (gpasid >= PASID_LIMIT) throw refuse('EINVAL', `guest PASID ${gpasid}`)
  return Number(gpasid)
}

const refuse = (code: 'EINVAL' | 'EBUSY' | 'ENOTSUPP', what: string) =>
  new ErrnoError(code, `bind guest PASID: ${what}`)
const invalid = (code: 'EINVAL', what: string) => new ErrnoError(code, `cache invalidate: ${what}`)
