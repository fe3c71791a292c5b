// The type1 IOMMU driver of a container (types 1, 3 and 6): groups on domains, GET_INFO, and the dispatch of the
// calls that type1-dma.ts, dirty.ts, nesting.ts and pasid-table.ts carry out. uapi linux/vfio.h; attach order: vSVA v7 on 5.9.
import { ErrnoError } from '../base/errno.js'
import type { TraceBus } from '../base/trace.js'
import type { IommuCore } from '../iommu/core.js'
import type { Domain, IommuDriver, IovaRange } from '../iommu/domain.js'
import { IOMMU_NESTING_FEAT_SYSWIDE_PASID } from '../iommu/uapi.js'
import type { Process } from '../sys/process.js'
import { DmaMappings } from './dma.js'
import type { Mdev } from './mdev.js'
import { type NestedGroup, NestingCalls } from './nesting.js'
import type { PasidOwners } from './pasid-owners.js'
import { PasidTableCalls } from './pasid-table.js'
import type { PasidContext, PasidContexts } from './pasids.js'
import type { Rules } from './profiles.js'
import { DmaCalls, type DmaLimits } from './type1-dma.js'
import { type InfoSource, type1Info } from './type1-info.js'
import { vfioIo } from './uapi/common.js'
import {
  VFIO_DMA_CC_IOMMU,
  VFIO_IOMMU_DIRTY_PAGES,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  VFIO_UPDATE_VADDR,
} from './uapi/vfio.js'

/** What a type1 driver needs of the machine. */
export interface Type1Environment {
  readonly core: IommuCore
  readonly contexts: PasidContexts
  /** Who may bind a PASID, when they come from /dev/ioasid. */
  readonly owners: PasidOwners | undefined
  readonly rules: Rules
  readonly trace: TraceBus
  /** Drivers of all containers, for whoever counts what is held. */
  readonly drivers: Set<Type1>
  /** Sampled when a container opens the driver. */
  readonly parameters: { readonly dmaEntryLimit: number; readonly allowUnsafeInterrupts: boolean }
}

/** A group as a container sees it: what can be put on a domain. */
export interface AttachableGroup {
  readonly id: number
  /** Requester ids, in the group's order. */
  readonly devices: readonly number[]
  /** The one device of a mediated group; `devices` is empty then. */
  readonly mdev?: Mdev | undefined
}

/** A group on a domain, and the functions that are on it for the group. */
interface AttachedGroup {
  readonly group: AttachableGroup
  readonly devices: readonly number[]
}

interface Attached {
  readonly driver: IommuDriver
  readonly domain: Domain
  readonly groups: AttachedGroup[]
}

const LAST_PAGE = 2 ** 52 - 1

/** CHECK_EXTENSION as the driver answers it; `driver` is the container's, if it has one. */
export function checkType1Extension(rules: Rules, id: number, driver?: Type1): number {
  switch (id) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
      return 1
    case VFIO_TYPE1_NESTING_IOMMU:
      return Number(rules.nestingType)
    case VFIO_UNMAP_ALL:
      return Number(rules.unmapAll)
    case VFIO_UPDATE_VADDR:
      return Number(
        rules.updateVaddr === 'always' ||
          (rules.updateVaddr !== false && driver !== undefined && !driver.emulated),
      )
    case VFIO_DMA_CC_IOMMU:
      return Number(driver?.coherent ?? false)
    default:
      return 0
  }
}

/** Driver state of one container, from SET_IOMMU until its last group leaves. */
export class Type1 implements DmaLimits, InfoSource {
  readonly rules: Rules
  readonly mappings: DmaMappings
  readonly #env: Type1Environment
  readonly #nesting: boolean
  readonly #v2: boolean
  readonly #dma: DmaCalls
  readonly #stage1: NestingCalls
  readonly #table: PasidTableCalls
  readonly #pasidRequest: number
  readonly #nestingOp: number
  readonly #setPasidTable: number
  readonly #cacheInvalidate: number
  readonly #setMsiBinding: number
  #attached: Attached[] = []
  /** Groups without an IOMMU. */
  readonly #software = new Set<AttachableGroup>()
  #ranges: readonly IovaRange[] = []
  #granule = 4096

  /** EINVAL for an id that is no IOMMU type. */
  constructor(id: number, env: Type1Environment) {
    if (id !== VFIO_TYPE1_IOMMU && id !== VFIO_TYPE1v2_IOMMU && id !== VFIO_TYPE1_NESTING_IOMMU)
      throw new ErrnoError('EINVAL', `VFIO_SET_IOMMU: ${id} is not an IOMMU type`)
    const { rules, trace } = env
    this.rules = rules
    this.#env = env
    this.#nesting = id === VFIO_TYPE1_NESTING_IOMMU
    this.#v2 = id !== VFIO_TYPE1_IOMMU
    this.mappings = new DmaMappings(env.parameters.dmaEntryLimit, trace)
    this.#dma = new DmaCalls(this.mappings, rules, this.#v2, this)
    this.#stage1 = new NestingCalls(rules, trace, env.owners)
    const number = (n: number | undefined) => (n === undefined ? -1 : vfioIo(n))
    this.#pasidRequest = number(rules.calls['pasid-request'])
    this.#nestingOp = number(rules.calls['nesting-op'])
    this.#table = new PasidTableCalls(() => this.#attached)
    this.#setPasidTable = number(rules.calls['set-pasid-table'])
    this.#cacheInvalidate = number(rules.calls['cache-invalidate'])
    this.#setMsiBinding = number(rules.calls['set-msi-binding'])
  }

  get granule(): number {
    return this.#granule
  }

  /** Page sizes that every domain has, smallest first; empty without a domain. */
  get pageSizes(): readonly number[] {
    const [first, ...others] = this.#attached
    if (first === undefined) return []
    return first.domain.pgsizes.filter(s => others.every(o => o.domain.pgsizes.includes(s)))
  }

  /** Whether a device that only software makes uses the mappings. */
  get emulated(): boolean {
    return this.#software.size > 0
  }

  get ranges(): readonly IovaRange[] {
    return this.#ranges
  }

  get nested(): NestedGroup | undefined {
    return this.#stage1.group
  }

  /** Whether a guest's tables can be under the devices, so that faults have somebody to go to. */
  get nests(): boolean {
    return this.#attached.some(a => a.domain.nesting)
  }

  /** Whether DMA of every domain is coherent with the processor's caches. */
  get coherent(): boolean {
    return this.#attached.every(a => a.domain.coherent)
  }

  permits(page: number, pages: number): boolean {
    const ranges = this.#ranges
    for (let i = 0; i < ranges.length; i++)
      if (page >= ranges[i]!.startPage && page + pages - 1 <= ranges[i]!.endPage) return true
    return ranges.length === 0
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    if (cmd === VFIO_IOMMU_MAP_DMA) return this.#dma.map(arg, caller)
    if (cmd === VFIO_IOMMU_UNMAP_DMA) return this.#dma.unmap(arg, caller)
    if (cmd === this.#pasidRequest) return this.#stage1.pasidRequest(arg, caller)
    if (cmd === this.#nestingOp) return this.#stage1.nestingOp(arg, caller)
    if (cmd === this.#setPasidTable) return this.#table.setPasidTable(arg, caller)
    if (cmd === this.#cacheInvalidate) return this.#table.cacheInvalidate(arg, caller)
    if (cmd === this.#setMsiBinding) return this.#table.setMsiBinding(arg, caller)
    if (cmd === VFIO_IOMMU_GET_INFO) return type1Info(this, arg, caller)
    if (cmd === VFIO_IOMMU_DIRTY_PAGES) {
      if (!this.#v2) throw new ErrnoError('EACCES', 'VFIO_IOMMU_DIRTY_PAGES: a type 1 container')
      return this.#dma.dirty.call(arg, caller)
    }
    throw new ErrnoError('ENOTTY', `type1 knows no ioctl 0x${cmd.toString(16)}`)
  }

  /**
   * Puts a group's devices on a domain, the caller's PASIDs behind it when nesting. Refusals leave everything as it
   * was: EINVAL (a second nested group, aperture, reserved ranges), EIO (no IOMMU), ENODEV (cannot nest), ENOENT
   * (nesting without a format), EPERM (interrupts are not isolated), and what pasids or replay refuse.
   */
  attach(group: AttachableGroup, caller: Process): void {
    const { core, rules, parameters } = { ...this.#env, rules: this.rules }
    if (this.#nesting && rules.oneNestedGroup && this.#attached.length + this.#software.size > 0)
      throw new ErrnoError('EINVAL', 'a nesting container takes one group')
    caller.kernel.failures.step('a group on a domain')
    const { mdev } = group
    if (mdev !== undefined && mdev.backing === undefined) {
      mdev.join(this.mappings)
      this.#software.add(group)
      return
    }
    const devices = mdev?.devices ?? group.devices
    const driver = core.deviceDriver(devices[0]!)
    if (driver === undefined) throw new ErrnoError('EIO', `group ${group.id} has no IOMMU`)
    const shared = this.#attached.find(a => a.driver === driver)
    const domain = shared?.domain ?? this.#allocate(devices[0]!)
    const undo: (() => void)[] = [() => shared ?? domain.free()]
    try {
      for (const bdf of devices) {
        join(domain, bdf, mdev)
        undo.push(() => leave(domain, bdf, mdev))
      }
      const nested = this.#nest(domain, group, caller, undo)
      const ranges = intersect(
        this.#attached.length > 0 ? this.#ranges : [{ startPage: 0, endPage: LAST_PAGE }],
        valid(domain),
      )
      for (const m of this.mappings.in(0, 2 ** 52))
        if (!covers(ranges, m.iovaPage, m.pages))
          throw new ErrnoError(
            'EINVAL',
            `group ${group.id}: an existing mapping is outside its IOVA ranges`,
          )
      if (!driver.isolatesInterrupts && !parameters.allowUnsafeInterrupts)
        throw new ErrnoError(
          'EPERM',
          `group ${group.id}: no interrupt remapping, and allow_unsafe_interrupts is off`,
        )
      if (shared === undefined) this.mappings.addDomain(domain)
      if (shared) shared.groups.push({ group, devices })
      else this.#attached.push({ driver, domain, groups: [{ group, devices }] })
      if (nested) this.#stage1.group = nested
      mdev?.join(this.mappings)
      this.#recompute()
    } catch (error) {
      for (const step of undo.reverse()) step()
      throw error
    }
  }

  /** Takes a group off: bindings first, then the domain, then the process's PASIDs. */
  detach(id: number): void {
    for (const group of this.#software) if (group.id === id) this.#dismiss(group)
    const at = this.#attached.findIndex(a => a.groups.some(g => g.group.id === id))
    const attached = this.#attached[at]
    if (attached === undefined) return
    const joined = attached.groups.find(g => g.group.id === id)!
    const nested = this.#stage1.group
    if (nested) this.#stage1.unbindAll(nested)
    joined.group.mdev?.leave()
    for (const bdf of joined.devices) leave(attached.domain, bdf, joined.group.mdev)
    attached.groups.splice(attached.groups.indexOf(joined), 1)
    if (attached.groups.length > 0) return
    this.mappings.removeDomain(attached.domain, this.emulated)
    if (nested?.domain === attached.domain) {
      this.#stage1.group = undefined
      if (nested.context) this.#unown(nested.domain, nested.context)
    }
    attached.domain.free()
    this.#attached.splice(at, 1)
    this.#recompute()
  }

  #dismiss(group: AttachableGroup): void {
    group.mdev!.leave()
    this.#software.delete(group)
  }

  #allocate(bdf: number): Domain {
    const { core } = this.#env
    if (!this.#nesting) return core.domainAlloc(bdf)
    try {
      return core.domainAlloc(bdf, { nesting: true })
    } catch (error) {
      // Before nesting info existed, hardware without a second stage was used with its first, silently.
      const silent =
        error instanceof ErrnoError && error.code === 'ENODEV' && !this.rules.nestingInfo
      if (silent) return core.domainAlloc(bdf)
      throw error
    }
  }

  #nest(
    domain: Domain,
    group: AttachableGroup,
    caller: Process,
    undo: (() => void)[],
  ): NestedGroup | undefined {
    const { rules } = this
    if (!this.#nesting || !rules.nestingInfo) return undefined
    const info = domain.nestingInfo()
    if (info === undefined) return undefined
    if (info.format === 0 && rules.noFormat === 'attach')
      throw new ErrnoError('ENOENT', `group ${group.id}: its IOMMU has no nesting format`)
    if (info.pasidBits > 31 && rules.pasidBitsHonoured)
      throw new ErrnoError('EINVAL', `group ${group.id}: ${info.pasidBits} PASID bits, 31 at most`)
    let context: PasidContext | undefined
    if (info.features & IOMMU_NESTING_FEAT_SYSWIDE_PASID && !rules.pasidFile) {
      const held = this.#env.contexts.get(caller.mm)
      undo.push(() => this.#env.contexts.put(held))
      domain.setIoasidSet(held.set)
      undo.push(() => domain.setIoasidSet(undefined))
      context = held
    }
    return { domain, info, context, members: group.mdev ?? group }
  }

  #unown(domain: Domain, context: PasidContext): void {
    domain.setIoasidSet(undefined)
    this.#env.contexts.put(context)
  }

  #recompute(): void {
    this.#ranges = this.#attached.reduce<readonly IovaRange[]>(
      (ranges, a) => intersect(ranges, valid(a.domain)),
      this.#attached.length > 0 ? [{ startPage: 0, endPage: LAST_PAGE }] : [],
    )
    this.#granule = Math.max(4096, this.pageSizes[0] ?? 4096)
  }
}

/** Puts a function on a domain, or under a PASID of its own when it serves mediated devices. */
function join(domain: Domain, bdf: number, mdev: Mdev | undefined): void {
  if (mdev === undefined) {
    domain.attach(bdf)
    return
  }
  if (domain.attachAux === undefined)
    throw new ErrnoError('EOPNOTSUPP', 'the IOMMU cannot share a function between domains')
  mdev.pasid = domain.attachAux(bdf)
}

function leave(domain: Domain, bdf: number, mdev: Mdev | undefined): void {
  if (mdev === undefined) {
    domain.detach(bdf)
    return
  }
  domain.detachAux!(bdf)
  mdev.pasid = undefined
}

/** The aperture of a domain without its reserved ranges. */
function valid(domain: Domain): IovaRange[] {
  let ranges: IovaRange[] = [{ startPage: 0, endPage: domain.apertureEndPage }]
  for (const hole of domain.reserved()) {
    ranges = ranges.flatMap(({ startPage, endPage }) =>
      [
        { startPage, endPage: Math.min(endPage, hole.startPage - 1) },
        { startPage: Math.max(startPage, hole.endPage + 1), endPage },
      ].filter(r => r.startPage <= r.endPage),
    )
  }
  return ranges
}

function intersect(a: readonly IovaRange[], b: readonly IovaRange[]): IovaRange[] {
  return a.flatMap(x =>
    b
      .map(y => ({
        startPage: Math.max(x.startPage, y.startPage),
        endPage: Math.min(x.endPage, y.endPage),
      }))
      .filter(r => r.startPage <= r.endPage),
  )
}

const covers = (ranges: readonly IovaRange[], page: number, pages: number): boolean =>
  ranges.some(r => page >= r.startPage && page + pages - 1 <= r.endPage)
