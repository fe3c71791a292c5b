// Virtual SVA calls of a container: PASID_REQUEST and NESTING_OP, and the nested group they work on.
// vSVA v7 patches 3, 7, 10 and 11 with the review's corrections; differences of revisions are rules.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { TraceBus, TraceEvents, TracePoint } from '../base/trace.js'
import type { Domain, NestingInfo } from '../iommu/domain.js'
import {
  type CacheInvalidate,
  IOMMU_INV_GRANU_ADDR,
  IOMMU_INV_GRANU_PASID,
  IOMMU_NESTING_FEAT_BIND_PGTBL,
  IOMMU_NESTING_FEAT_CACHE_INVLD,
  iommu_cache_invalidate_info,
  iommu_gpasid_bind_data,
  readCacheInvalidate,
  readGpasidBind,
} from '../iommu/uapi.js'
import type { UserMemory } from '../mem/user-memory.js'
import type { Process } from '../sys/process.js'
import { NO_BACKING } from './mdev.js'
import type { PasidOwners } from './pasid-owners.js'
import type { PasidContext } from './pasids.js'
import type { Rules } from './profiles.js'
import {
  VFIO_IOMMU_FLAG_ALLOC_PASID,
  VFIO_IOMMU_FLAG_FREE_PASID,
  VFIO_IOMMU_NESTING_OP_BIND_PGTBL,
  VFIO_IOMMU_NESTING_OP_CACHE_INVLD,
  VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL,
  VFIO_NESTING_OP_MASK,
  VFIO_PASID_REQUEST_MASK,
  vfio_iommu_type1_nesting_op,
  vfio_iommu_type1_pasid_request,
} from './uapi/vsva.js'
import './trace.js'

const REQUEST = 'VFIO_IOMMU_PASID_REQUEST'
const OP = 'VFIO_IOMMU_NESTING_OP'
const REQUEST_SIZE = vfio_iommu_type1_pasid_request.size
const OP_SIZE = vfio_iommu_type1_nesting_op.size
/** The result of the ioctl is an int, so PASIDs have 31 bits at most. */
const UNBIND = { unbind: true }
const RESULT_LIMIT = 0x8000_0000

/** The one group of a nesting container, on its domain. */
export interface NestedGroup {
  readonly domain: Domain
  readonly info: NestingInfo
  /** Undefined when the IOMMU does not ask for system-wide PASIDs. */
  readonly context: PasidContext | undefined
  /** Requester ids in the group's order, looked at for each call; NO_BACKING for a member that lost its function. */
  readonly members: { readonly devices: readonly number[] }
}

/** A member's requester id; EINVAL for a mediated device that lost its backing function. */
function backed(bdf: number): number {
  if (bdf === NO_BACKING) throw new ErrnoError('EINVAL', `${OP}: a member has no backing function`)
  return bdf
}

/** Runs `work` and returns its refusal, for results that the interface hides. */
function refusalOf(work: () => void): ErrnoError | undefined {
  try {
    work()
    return undefined
  } catch (error) {
    if (error instanceof ErrnoError) return error
    throw error
  }
}

/** The vSVA calls of one container. */
export class NestingCalls {
  /** Set while a nesting domain with info is attached. */
  group: NestedGroup | undefined = undefined
  readonly #rules: Rules
  readonly #owners: PasidOwners | undefined
  readonly #limit: number
  readonly #bytes = new Uint8Array(REQUEST_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)
  /** What the last call passed; nothing keeps it beyond the call. */
  readonly #data = iommu_gpasid_bind_data()
  readonly #info = iommu_cache_invalidate_info()
  readonly #pasidTrace: TracePoint<TraceEvents['vfio.pasid']>
  readonly #bindTrace: TracePoint<TraceEvents['vfio.bind']>

  constructor(rules: Rules, trace: TraceBus, owners?: PasidOwners) {
    this.#rules = rules
    this.#owners = owners
    this.#limit = rules.pasidLimitIncluded ? RESULT_LIMIT : RESULT_LIMIT - 1
    this.#pasidTrace = trace.point('vfio.pasid')
    this.#bindTrace = trace.point('vfio.bind')
  }

  /** PASID_REQUEST: the PASID for ALLOC, 0 for FREE. */
  pasidRequest(arg: number, caller: Process): number {
    const view = this.#view
    if (!caller.memory.copyIn(arg, this.#bytes, REQUEST_SIZE))
      throw new ErrnoError('EFAULT', `${REQUEST}: argument at ${hex(arg)} is not readable`)
    const argsz = view.getUint32(0, true)
    const flags = view.getUint32(4, true)
    const min = view.getUint32(8, true)
    const max = view.getUint32(12, true)
    if (argsz < REQUEST_SIZE)
      throw new ErrnoError('EINVAL', `${REQUEST}: argsz ${argsz} < ${REQUEST_SIZE}`)
    if (flags & ~VFIO_PASID_REQUEST_MASK)
      throw new ErrnoError('EINVAL', `${REQUEST}: flags ${hex(flags)}`)
    if (min > max) throw new ErrnoError('EINVAL', `${REQUEST}: min ${min} > max ${max}`)
    if (max > this.#limit)
      throw new ErrnoError('EINVAL', `${REQUEST}: max ${hex(max)} is beyond 31 bits`)
    const group = this.group
    const context = group?.context
    if (group === undefined || context === undefined)
      throw new ErrnoError('EOPNOTSUPP', `${REQUEST}: the container holds no PASID context`)
    if (flags === VFIO_IOMMU_FLAG_ALLOC_PASID) {
      const last = 2 ** group.info.pasidBits - 1
      const pasid = context.alloc(min, this.#rules.pasidBitsHonoured && max > last ? last : max)
      if (this.#pasidTrace.on) this.#pasidTrace.emit({ what: 'alloc', min, max, pasid })
      return pasid
    }
    if (flags === VFIO_IOMMU_FLAG_FREE_PASID) {
      context.free(min, max)
      if (this.#pasidTrace.on) this.#pasidTrace.emit({ what: 'free', min, max, pasid: undefined })
      return 0
    }
    throw new ErrnoError('EINVAL', `${REQUEST}: flags ${flags}: one of ALLOC and FREE`)
  }

  /** NESTING_OP. Only a failed BIND is told; UNBIND and CACHE_INVLD answer 0 whatever came of them. */
  nestingOp(arg: number, caller: Process): number {
    const view = this.#view
    const memory = caller.memory
    if (!memory.copyIn(arg, this.#bytes, OP_SIZE))
      throw new ErrnoError('EFAULT', `${OP}: argument at ${hex(arg)} is not readable`)
    const argsz = view.getUint32(0, true)
    const flags = view.getUint32(4, true)
    if (argsz < OP_SIZE) throw new ErrnoError('EINVAL', `${OP}: argsz ${argsz} < ${OP_SIZE}`)
    const op = flags & VFIO_NESTING_OP_MASK
    if (flags & ~VFIO_NESTING_OP_MASK || op > VFIO_IOMMU_NESTING_OP_CACHE_INVLD)
      throw new ErrnoError('EINVAL', `${OP}: flags ${hex(flags)}`)
    const data = arg + OP_SIZE
    switch (op) {
      case VFIO_IOMMU_NESTING_OP_BIND_PGTBL:
        this.#bind(this.#bindable(), caller, data)
        break
      case VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL:
        this.#unbind(this.#bindable(), memory, data)
        break
      default:
        this.#invalidate(this.#nested(IOMMU_NESTING_FEAT_CACHE_INVLD), memory, data)
    }
    return 0
  }

  /** Unbinds every PASID of the process from every device: what leaving the container does first. */
  unbindAll(group: NestedGroup): void {
    group.context?.forEach(pasid => {
      for (const bdf of group.members.devices) this.#unbindFrom(group.domain, bdf, BigInt(pasid))
    })
  }

  #nested(feature: number): NestedGroup {
    const group = this.group
    if (group === undefined || (group.info.features & feature) === 0)
      throw new ErrnoError('EOPNOTSUPP', `${OP}: the container does not offer it`)
    return group
  }

  #bindable(): NestedGroup {
    const group = this.#nested(IOMMU_NESTING_FEAT_BIND_PGTBL)
    if (group.context === undefined && this.#owners === undefined)
      throw new ErrnoError('EINVAL', `${OP}: no PASID context`)
    return group
  }

  #bind({ domain, members: { devices } }: NestedGroup, caller: Process, at: number): void {
    // One reading serves every device, so that they cannot be told different things (E158).
    const data = readGpasidBind(caller.memory, at, {}, this.#data)
    this.#owners?.claim(domain, caller.mm, data.hpasid)
    for (let i = 0; i < devices.length; i++) {
      const refusal = refusalOf(() => domain.bindGpasid(backed(devices[i]!), data))
      this.#tell('bind', devices[i]!, data.hpasid, refusal)
      if (refusal === undefined) continue
      const undo = this.#rules.bindRollback === 'own' ? devices.slice(0, i) : devices
      for (const bdf of undo) this.#unbindFrom(domain, bdf, data.hpasid)
      throw refusal
    }
  }

  #unbind({ domain, members: { devices } }: NestedGroup, memory: UserMemory, at: number): void {
    let pasid = 0n
    const unreadable = refusalOf(() => {
      const { hpasid } = readGpasidBind(memory, at, UNBIND, this.#data)
      pasid = this.#rules.pasidNarrowed ? BigInt.asUintN(32, hpasid) : hpasid
    })
    for (const bdf of devices) {
      if (unreadable === undefined) this.#unbindFrom(domain, bdf, pasid)
      else this.#tell('unbind', bdf, undefined, unreadable)
    }
  }

  #unbindFrom(domain: Domain, bdf: number, pasid: bigint): void {
    this.#tell(
      'unbind',
      bdf,
      pasid,
      refusalOf(() => domain.unbindGpasid(backed(bdf), pasid)),
    )
  }

  #invalidate({ domain, members: { devices } }: NestedGroup, memory: UserMemory, at: number): void {
    let info: CacheInvalidate | undefined
    const unreadable = refusalOf(() => {
      info = readCacheInvalidate(memory, at, this.#info)
    })
    if (info !== undefined && this.#rules.pasidNarrowed) narrow(info)
    const pasid = info && pasidOf(info)?.pasid
    for (const bdf of devices) {
      const known = info
      const refusal = known
        ? refusalOf(() => domain.cacheInvalidate(backed(bdf), known))
        : unreadable
      this.#tell('invalidate', bdf, pasid, refusal)
    }
  }

  #tell(
    what: 'bind' | 'unbind' | 'invalidate',
    bdf: number,
    pasid: bigint | undefined,
    refusal: ErrnoError | undefined,
  ): void {
    if (this.#bindTrace.on) this.#bindTrace.emit({ what, bdf, pasid, errno: refusal?.code })
  }
}

function pasidOf(info: CacheInvalidate): { pasid: bigint } | undefined {
  if (info.granularity === IOMMU_INV_GRANU_PASID) return info.granu.pasid_info
  if (info.granularity === IOMMU_INV_GRANU_ADDR) return info.granu.addr_info
  return undefined
}

function narrow(info: CacheInvalidate): void {
  const part = pasidOf(info)
  if (part !== undefined) part.pasid = BigInt.asUintN(32, part.pasid)
}
