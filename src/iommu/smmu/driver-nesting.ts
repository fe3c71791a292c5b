/**
 * A guest's stage 1 on top of a domain: its whole table of context descriptors, read through stage 2; bindings
 * of interrupt messages to guest addresses; invalidation on behalf of the guest. Interface of "SMMUv3 Nested
 * Stage Setup" v13, which has one context descriptor; tables of substreams, PASID cache and device cache
 * invalidation follow the same structures. Next: driver-domain.ts, driver.ts (STEs).
 */
import { ErrnoError } from '../../base/errno.js'
import type { GuestTables } from '../domain.js'
import { IOMMU_WRITE } from '../domain.js'
import {
  type CacheInvalidate,
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INV_TYPE_PASID,
  IOMMU_INV_ADDR_FLAGS_ARCHID,
  IOMMU_INV_ADDR_FLAGS_LEAF,
  IOMMU_INV_ADDR_FLAGS_PASID,
  IOMMU_INV_GRANU_DOMAIN,
  IOMMU_INV_GRANU_PASID,
  IOMMU_PASID_CONFIG_ABORT,
  IOMMU_PASID_CONFIG_BYPASS,
  IOMMU_PASID_CONFIG_TRANSLATE,
  type PasidTableConfig,
} from '../uapi.js'
import type { SmmuCapabilities } from './driver-capabilities.js'
import { type SmmuCommands, WHOLE_SIZE } from './driver-commands.js'
import type { SmmuDevice } from './driver-device.js'
import type { MessageAddress, SmmuDomain } from './driver-domain.js'
import { S1DSS, S1FMT } from './ste.js'

const PAGE_BITS = 12n
/** log2 of the granules that range commands know. */
const GRANULES: readonly number[] = [12, 14, 16]
/** What one range command covers: 32 x 2^31 pages. */
const MOST_BYTES = 1n << 48n

/** A guest's table as an STE names it. */
export interface GuestStage1 {
  /** S1ContextPtr: a guest physical address. */
  readonly pointer: number
  readonly format: number
  /** S1CDMax: log2 of the descriptors. */
  readonly contextBits: number
  readonly dss: number
  /** The guest wants no stalls, and no device cache; only a guest's own STE says so. */
  readonly stallDisabled?: boolean
  readonly deviceTlb?: boolean
}

/** What the guest's stage is: absent, aborting everything, or a table. */
export type GuestStage = 'bypass' | 'abort' | GuestStage1

/** What nesting needs of its unit. */
export interface NestingUnit {
  readonly capabilities: SmmuCapabilities
  readonly commands: SmmuCommands
  /** Writes the STE of a device anew. */
  install(device: SmmuDevice): void
  /** Takes what is in the PRI queue and answers INVALID to what waits of the device. */
  drainPageRequests(device: SmmuDevice): void
  trace(what: 'set-table' | 'unset-table' | 'not-done', bdf: number): void
}

interface MessageBinding {
  readonly iova: bigint
  readonly gpaPage: number
  /** Doorbell page that the guest's page leads to; -1 while no vector uses it. */
  hpaPage: number
  users: number
}

/** The guest's stage of one domain. */
export class SmmuGuestTables implements GuestTables {
  readonly #unit: NestingUnit
  readonly #domain: SmmuDomain
  readonly #messages = new Map<bigint, MessageBinding>()
  #stage: GuestStage = 'bypass'

  constructor(unit: NestingUnit, domain: SmmuDomain) {
    this.#unit = unit
    this.#domain = domain
  }

  /** What is in front of the domain. */
  get stage(): GuestStage {
    return this.#stage
  }

  /** Whether a guest's table translates. */
  get translates(): boolean {
    return typeof this.#stage === 'object'
  }

  setPasidTable(config: PasidTableConfig): void {
    if (!this.#domain.nesting) throw refuse('the domain does not nest')
    this.#change(this.#stageOf(config))
    for (const { bdf } of this.#domain.devices) this.#unit.trace('set-table', bdf)
  }

  unsetPasidTable(): void {
    if (this.#stage === 'bypass') return
    this.#change('bypass')
    for (const { bdf } of this.#domain.devices) this.#unit.trace('unset-table', bdf)
  }

  bindMsi(iova: bigint, gpa: bigint, size: bigint): void {
    if (!this.#domain.nesting) throw unbound('the domain does not nest')
    if (size < 4096n || (size & (size - 1n)) !== 0n) throw unbound(`size 0x${size.toString(16)}`)
    const gpaPage = Number((gpa & -size) >> PAGE_BITS)
    if (gpaPage > this.#domain.apertureEndPage) throw unbound('gpa beyond the domain')
    const at = iova & -size
    if (this.#messages.has(at)) return
    this.#messages.set(at, { iova: at, gpaPage, hpaPage: -1, users: 0 })
  }

  unbindMsi(iova: bigint): void {
    for (const binding of this.#messages.values())
      if (binding.iova === iova) {
        this.#messages.delete(iova)
        this.#unmap(binding)
      }
  }

  /** A message address in a bound page; undefined when there is none: the domain's own is used. */
  messageAddress(hpa: number): MessageAddress | undefined {
    const page = Math.floor(hpa / 4096)
    const bound = [...this.#messages.values()]
    const binding =
      bound.find(b => b.hpaPage === page) ?? bound.find(b => b.users === 0 && b.hpaPage < 0)
    if (binding === undefined) return undefined
    if (binding.users === 0) this.#domain.map(binding.gpaPage, page, 1, IOMMU_WRITE)
    binding.hpaPage = page
    binding.users++
    return {
      address: Number(binding.iova) + (hpa % 4096),
      free: () => {
        if (--binding.users === 0) this.#unmap(binding)
      },
    }
  }

  /**
   * Carries out a checked invalidation for one device. EINVAL: not nesting, not our device, an id that is too
   * wide or missing; ENOENT: translations are not cached by PASID.
   */
  invalidate(bdf: number, info: CacheInvalidate): void {
    if (!this.#domain.nesting) throw invalid('EINVAL', 'the domain does not nest')
    const device = this.#domain.device(bdf)
    if (device === undefined) throw invalid('EINVAL', 'the device is not in the domain')
    const { cache } = info
    const scope = this.#scope(info)
    const { commands } = this.#unit
    if (cache & IOMMU_CACHE_INV_TYPE_PASID) {
      if (scope.granularity === IOMMU_INV_GRANU_DOMAIN) commands.contexts(bdf)
      else commands.context(bdf, scope.pasid!)
    }
    if (cache & IOMMU_CACHE_INV_TYPE_IOTLB) this.#invalidateTlb(scope)
    if (device.atsOn) {
      commands.fence()
      // Which PASIDs an ASID has, only the guest knows.
      if (!(cache & IOMMU_CACHE_INV_TYPE_DEV_IOTLB)) commands.deviceTlbAll(device)
      else commands.deviceTlb(device, scope.pasid, scope.addr, scope.size)
    } else if (cache & IOMMU_CACHE_INV_TYPE_DEV_IOTLB) this.#unit.trace('not-done', bdf)
    commands.complete()
  }

  #invalidateTlb({ granularity, asid, addr, count, granuleBits, leaf }: Scope): void {
    const { commands } = this.#unit
    const { id } = this.#domain
    if (granularity === IOMMU_INV_GRANU_DOMAIN) commands.stage1(id)
    else if (granularity === IOMMU_INV_GRANU_PASID) commands.asid(id, asid!)
    else commands.va(id, asid, Number(addr >> PAGE_BITS), count, granuleBits, leaf)
  }

  /** What an invalidation covers, checked before anything is done. */
  #scope({ cache, granularity, granu }: CacheInvalidate): Scope {
    const whole = {
      granularity,
      addr: 0n,
      count: 0,
      granuleBits: 12,
      size: WHOLE_SIZE,
      leaf: false,
    }
    if (granularity === IOMMU_INV_GRANU_DOMAIN)
      return { ...whole, asid: undefined, pasid: undefined }
    const isPasid = granularity === IOMMU_INV_GRANU_PASID
    const named = isPasid ? granu.pasid_info : granu.addr_info
    // The flags of both granularities have the same values.
    const byAsid = (named.flags & IOMMU_INV_ADDR_FLAGS_ARCHID) !== 0
    const byPasid = (named.flags & IOMMU_INV_ADDR_FLAGS_PASID) !== 0
    const { asids, substreamBits } = this.#unit.capabilities
    if (cache & IOMMU_CACHE_INV_TYPE_IOTLB) {
      if (byPasid && cache === IOMMU_CACHE_INV_TYPE_IOTLB)
        throw invalid('ENOENT', 'translations are cached by ASID, not by PASID')
      if (isPasid && !byAsid) throw invalid('EINVAL', 'no ASID')
      if (byAsid && named.archid >= asids) throw invalid('EINVAL', `ASID ${named.archid}`)
    }
    if (cache & IOMMU_CACHE_INV_TYPE_PASID && !byPasid) throw invalid('EINVAL', 'no PASID')
    if (byPasid && named.pasid >= BigInt(2 ** substreamBits))
      throw invalid('EINVAL', `PASID ${named.pasid}`)
    const ids = {
      asid: byAsid ? named.archid : undefined,
      pasid: byPasid ? Number(named.pasid) : undefined,
    }
    if (isPasid) return { ...whole, ...ids }
    const { addr, granule_size, nb_granules, flags } = granu.addr_info
    if (granule_size === 0n || (granule_size & (granule_size - 1n)) !== 0n)
      throw invalid('EINVAL', `granule of 0x${granule_size.toString(16)} bytes`)
    const bytes = granule_size * nb_granules
    if (bytes === 0n) throw invalid('EINVAL', 'no granules')
    const granuleBits = granule_size.toString(2).length - 1
    const end = addr + bytes - 1n
    // A range that a command cannot say is everything of its ASID, or of all.
    if (!GRANULES.includes(granuleBits) || bytes > MOST_BYTES || end >> 64n)
      return {
        ...whole,
        ...ids,
        granularity: byAsid ? IOMMU_INV_GRANU_PASID : IOMMU_INV_GRANU_DOMAIN,
      }
    const shift = BigInt(granuleBits)
    const differing = (addr ^ end) >> PAGE_BITS
    return {
      granularity,
      ...ids,
      addr,
      count: Number((end >> shift) - (addr >> shift)) + 1,
      granuleBits,
      size: differing === 0n ? 0 : differing.toString(2).length,
      leaf: (flags & IOMMU_INV_ADDR_FLAGS_LEAF) !== 0,
    }
  }

  #stageOf({ config, base_ptr, pasid_bits, smmuv3 }: PasidTableConfig): GuestStage {
    if (config === IOMMU_PASID_CONFIG_BYPASS) return 'bypass'
    if (config === IOMMU_PASID_CONFIG_ABORT) return 'abort'
    if (config !== IOMMU_PASID_CONFIG_TRANSLATE) throw refuse(`config ${config}`)
    if (this.translates) throw refuse('there is a table; unset it first')
    const { substreamBits, twoLevelContexts } = this.#unit.capabilities
    if (base_ptr & 63n || base_ptr >> BigInt(this.#domain.addrWidth))
      throw refuse(`base_ptr 0x${base_ptr.toString(16)}`)
    const pointer = Number(base_ptr)
    // Without substreams there is one descriptor; format and S1DSS say nothing.
    if (pasid_bits === 0)
      return { pointer, format: S1FMT.LINEAR, contextBits: 0, dss: S1DSS.TERMINATE }
    const { s1fmt, s1dss } = smmuv3
    if (pasid_bits > substreamBits) throw refuse(`${pasid_bits} PASID bits of ${substreamBits}`)
    if (s1fmt > S1FMT.TWO_LEVEL_64K || (s1fmt !== S1FMT.LINEAR && !twoLevelContexts))
      throw refuse(`s1fmt ${s1fmt}`)
    if (s1dss > S1DSS.SUBSTREAM_0) throw refuse(`s1dss ${s1dss}`)
    return { pointer, format: s1fmt, contextBits: pasid_bits, dss: s1dss }
  }

  /** Another stage in front: nothing of the old one may stay cached, and nobody waits for it. */
  #change(stage: GuestStage): void {
    const { commands } = this.#unit
    this.#stage = stage
    for (const device of this.#domain.devices) this.#unit.install(device)
    commands.stage1(this.#domain.id)
    commands.fence()
    for (const device of this.#domain.devices) if (device.atsOn) commands.deviceTlbAll(device)
    commands.complete()
    for (const device of this.#domain.devices) this.#unit.drainPageRequests(device)
  }

  #unmap(binding: MessageBinding): void {
    if (binding.hpaPage < 0) return
    binding.hpaPage = -1
    this.#domain.unmap(binding.gpaPage, 1)
    this.#domain.flush()
  }
}

/** What an invalidation covers. */
interface Scope {
  readonly granularity: number
  readonly asid: number | undefined
  readonly pasid: number | undefined
  readonly addr: bigint
  /** Granules, and log2 of their bytes. */
  readonly count: number
  readonly granuleBits: number
  /** log2 of the 4 KiB pages of an aligned block that holds the range. */
  readonly size: number
  readonly leaf: boolean
}

const refuse = (what: string) => new ErrnoError('EINVAL', `set PASID table: ${what}`)
const unbound = (what: string) => new ErrnoError('EINVAL', `bind MSI: ${what}`)
const invalid = (code: 'EINVAL' | 'ENOENT', what: string) =>
  new ErrnoError(code, `cache invalidate: ${what}`)
