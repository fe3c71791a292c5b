// MAP_DMA and UNMAP_DMA: the structures, and the order in which they are refused. 64-bit members are read as
// halves and become page numbers once they are known to be page multiples. Dirty bitmaps: dirty.ts.
// uapi linux/vfio.h, vfio_iommu_type1_dma_map and _unmap.
import { hex, join } from '../base/addr.js'
import { ErrnoError, type ErrnoName } from '../base/errno.js'
import type { ProcessMemory } from '../mem/process-memory.js'
import type { Process } from '../sys/process.js'
import { DirtyLogging } from './dirty.js'
import type { DmaMapping, DmaMappings } from './dma.js'
import type { Rules } from './profiles.js'
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_VADDR,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP,
  VFIO_DMA_UNMAP_FLAG_VADDR,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
} from './uapi/vfio.js'

const MAP = 'VFIO_IOMMU_MAP_DMA'
const UNMAP = 'VFIO_IOMMU_UNMAP_DMA'
const MAP_SIZE = vfio_iommu_type1_dma_map.size
const UNMAP_SIZE = vfio_iommu_type1_dma_unmap.size
const { vaddr: VADDR, iova: IOVA, size: SIZE } = vfio_iommu_type1_dma_map.offsets
const { iova: UNMAP_IOVA, size: UNMAP_LENGTH } = vfio_iommu_type1_dma_unmap.offsets
const READ_WRITE = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE
const PAGES_OF_ALL = 2 ** 52

/** What the checks ask the container. */
export interface DmaLimits {
  /** Smallest IOMMU page, bytes; a power of two from 4096 up. */
  readonly granule: number
  /** Whether [page, page + pages) lies in one valid IOVA range. */
  permits(page: number, pages: number): boolean
  /** Whether a device that only software makes uses the mappings: then addresses must stay what they are. */
  readonly emulated: boolean
}

/** Both calls of one container. */
export class DmaCalls {
  readonly mappings: DmaMappings
  readonly dirty: DirtyLogging
  readonly #rules: Rules
  readonly #v2: boolean
  readonly #limits: DmaLimits
  readonly #mapFlags: number
  readonly #unmapFlags: number
  readonly #bytes = new Uint8Array(MAP_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)

  constructor(mappings: DmaMappings, rules: Rules, v2: boolean, limits: DmaLimits) {
    this.mappings = mappings
    this.dirty = new DirtyLogging(mappings, limits)
    this.#rules = rules
    this.#v2 = v2
    this.#limits = limits
    this.#mapFlags = READ_WRITE | (rules.updateVaddr ? VFIO_DMA_MAP_FLAG_VADDR : 0)
    this.#unmapFlags =
      VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP |
      (rules.unmapAll ? VFIO_DMA_UNMAP_FLAG_ALL : 0) |
      (rules.updateVaddr ? VFIO_DMA_UNMAP_FLAG_VADDR : 0)
  }

  /** MAP_DMA at `arg` of the caller. Always 0 when it returns. */
  map(arg: number, caller: Process): number {
    const view = this.#view
    const memory = caller.memory
    if (!memory.copyIn(arg, this.#bytes, MAP_SIZE)) throw unreadable(MAP, arg)
    const argsz = view.getUint32(0, true)
    if (argsz < MAP_SIZE) throw short(MAP, argsz, MAP_SIZE)
    const flags = view.getUint32(4, true)
    if (flags & ~this.#mapFlags) throw refuse('EINVAL', `${MAP}: flags ${hex(flags)}`)
    const vlo = view.getUint32(VADDR, true)
    const vhi = view.getUint32(VADDR + 4, true)
    const ilo = view.getUint32(IOVA, true)
    const ihi = view.getUint32(IOVA + 4, true)
    const slo = view.getUint32(SIZE, true)
    const shi = view.getUint32(SIZE + 4, true)

    if (slo === 0 && shi === 0) throw refuse('EINVAL', `${MAP}: size 0`)
    const wraps = wrap(ihi, ilo, shi, slo) || wrap(vhi, vlo, shi, slo)
    if (wraps && this.#rules.wrapFirst) throw this.#wrapped(MAP)
    const revive = (flags & VFIO_DMA_MAP_FLAG_VADDR) !== 0
    const prot = flags & READ_WRITE
    if (revive ? prot !== 0 : prot === 0)
      throw refuse(
        'EINVAL',
        `${MAP}: flags ${hex(flags)}: ${revive ? 'VADDR excludes' : 'neither'} READ ${revive ? 'and' : 'nor'} WRITE`,
      )
    const granule = this.#limits.granule
    if ((slo | ilo | vlo) & (granule - 1))
      throw unaligned(MAP, granule, { size: [shi, slo], iova: [ihi, ilo], vaddr: [vhi, vlo] })
    if (wraps) throw this.#wrapped(MAP)

    const pages = page(shi, slo)
    const iovaPage = page(ihi, ilo)
    const vaddrPage = page(vhi, vlo)
    if (revive) return this.#revive(iovaPage, vaddrPage, pages, memory)
    const { mappings } = this
    if (mappings.overlaps(iovaPage, pages))
      throw refuse('EEXIST', `${MAP}: iova ${hex(join(ihi, ilo))} overlaps a mapping`)
    if (mappings.available === 0) throw refuse('ENOSPC', `${MAP}: dma_entry_limit reached`)
    if (!this.#limits.permits(iovaPage, pages))
      throw refuse(
        'EINVAL',
        `${MAP}: iova ${hex(join(ihi, ilo))} size ${hex(join(shi, slo))} is not in a valid range`,
      )
    mappings.map(iovaPage, vaddrPage, pages, prot, memory)
    return 0
  }

  /** UNMAP_DMA at `arg` of the caller: 0, and `size` of the structure says what was removed. */
  unmap(arg: number, caller: Process): number {
    const view = this.#view
    const memory = caller.memory
    if (!memory.copyIn(arg, this.#bytes, UNMAP_SIZE)) throw unreadable(UNMAP, arg)
    const argsz = view.getUint32(0, true)
    const flags = view.getUint32(4, true)
    if (argsz < UNMAP_SIZE) throw short(UNMAP, argsz, UNMAP_SIZE)
    if (flags & ~this.#unmapFlags) throw refuse('EINVAL', `${UNMAP}: flags ${hex(flags)}`)
    const bitmap = (flags & VFIO_DMA_UNMAP_FLAG_GET_DIRTY_BITMAP) !== 0
    const all = (flags & VFIO_DMA_UNMAP_FLAG_ALL) !== 0
    const suspend = (flags & VFIO_DMA_UNMAP_FLAG_VADDR) !== 0
    if (bitmap && (all || suspend))
      throw refuse('EINVAL', `${UNMAP}: GET_DIRTY_BITMAP with ALL or VADDR`)
    const ilo = view.getUint32(UNMAP_IOVA, true)
    const ihi = view.getUint32(UNMAP_IOVA + 4, true)
    const slo = view.getUint32(UNMAP_LENGTH, true)
    const shi = view.getUint32(UNMAP_LENGTH + 4, true)
    const granule = this.#limits.granule
    let first = 0
    let pages = PAGES_OF_ALL
    if (all) {
      if ((ilo | ihi | slo | shi) !== 0)
        throw refuse('EINVAL', `${UNMAP}: ALL with an iova or a size`)
    } else {
      if (slo === 0 && shi === 0) throw refuse('EINVAL', `${UNMAP}: size 0`)
      const wraps = wrap(ihi, ilo, shi, slo)
      if (wraps && this.#rules.wrapFirst) throw this.#wrapped(UNMAP)
      if ((slo | ilo) & (granule - 1))
        throw unaligned(UNMAP, granule, { size: [shi, slo], iova: [ihi, ilo] })
      if (wraps) throw this.#wrapped(UNMAP)
      first = page(ihi, ilo)
      pages = page(shi, slo)
    }
    if (suspend && this.#limits.emulated)
      throw refuse('EBUSY', `${UNMAP}: VADDR while a software device uses the container`)
    if (bitmap) this.dirty.checkUnmap(memory, arg, argsz, pages)
    if (this.#v2 && !all) this.#whole(first, pages)
    if (bitmap) this.dirty.report(memory, first, pages)

    const removed = suspend
      ? this.mappings.suspend(first, pages)
      : this.mappings.unmap(
          first,
          pages,
          !this.#v2,
          this.#rules.foreignUnmapStops ? memory : undefined,
        )
    view.setUint32(UNMAP_LENGTH, (removed % 2 ** 20) * 4096, true)
    view.setUint32(UNMAP_LENGTH + 4, Math.floor(removed / 2 ** 20), true)
    if (!memory.copyOut(arg, this.#bytes, UNMAP_SIZE))
      throw refuse('EFAULT', `${UNMAP}: size at ${hex(arg)} is not writable`)
    return 0
  }

  // v2: neither end of the range may fall inside a mapping.
  #whole(first: number, pages: number): void {
    const { mappings } = this
    const begin = mappings.find(first)
    if (begin !== undefined && begin.iovaPage !== first) throw bisects(UNMAP, begin)
    const end = mappings.find(first + pages - 1)
    if (end !== undefined && end.iovaPage + end.pages !== first + pages) throw bisects(UNMAP, end)
  }

  #revive(iovaPage: number, vaddrPage: number, pages: number, memory: ProcessMemory): number {
    const m = this.mappings.find(iovaPage)
    if (m === undefined)
      throw refuse('ENOENT', `${MAP}: VADDR: iova ${hex(iovaPage * 4096)} is not mapped`)
    if (!m.suspended || m.iovaPage !== iovaPage || m.pages !== pages)
      throw refuse('EINVAL', `${MAP}: VADDR: not a mapping whose vaddr was taken, whole`)
    this.mappings.resume(m, vaddrPage, memory)
    return 0
  }

  #wrapped(call: string): ErrnoError {
    return refuse(this.#rules.wrap, `${call}: the range wraps`)
  }
}

/** True when `size` bytes (not 0) from `start` run past 2^64-1. Unsigned halves. */
export function wrap(hi: number, lo: number, shi: number, slo: number): boolean {
  const lastLo = slo === 0 ? 0xffff_ffff : slo - 1
  const lastHi = slo === 0 ? shi - 1 : shi
  const carry = lo + lastLo > 0xffff_ffff ? 1 : 0
  return hi + lastHi + carry > 0xffff_ffff
}

/** Page number of an address or length, from unsigned halves: exact, at most 2^52. */
export const page = (hi: number, lo: number): number => hi * 0x10_0000 + (lo >>> 12)

const refuse = (code: ErrnoName, what: string) => new ErrnoError(code, what)
const unreadable = (call: string, arg: number) =>
  refuse('EFAULT', `${call}: argument at ${hex(arg)} is not readable`)
const short = (call: string, argsz: number, min: number) =>
  refuse('EINVAL', `${call}: argsz ${argsz} < ${min}`)

/** The refusal of a request that would cut a mapping. */
export const bisects = (call: string, m: DmaMapping) =>
  refuse(
    'EINVAL',
    `${call}: the range cuts the mapping of ${hex(m.pages * 4096)} bytes at ${hex(m.iovaPage * 4096)}`,
  )

function unaligned(
  call: string,
  granule: number,
  members: Record<string, readonly [number, number]>,
): ErrnoError {
  const [name, [hi, lo]] = Object.entries(members).find(([, [, low]]) => low & (granule - 1))!
  return refuse('EINVAL', `${call}: ${name} ${hex(join(hi, lo))} is not a multiple of ${granule}`)
}
