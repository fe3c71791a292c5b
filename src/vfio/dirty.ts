// Dirty page tracking of a type1 container. No IOMMU modelled here keeps dirty bits, so the rule of the kernel
// for that case holds: every pinned and mapped page is dirty, at every report. uapi linux/vfio.h,
// VFIO_IOMMU_DIRTY_PAGES and UNMAP_DMA with GET_DIRTY_BITMAP.
import { hex, join } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { UserMemory } from '../mem/user-memory.js'
import type { Process } from '../sys/process.js'
import type { DmaMappings } from './dma.js'
import { bisects, type DmaLimits, page, wrap } from './type1-dma.js'
import {
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START,
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP,
  vfio_bitmap,
  vfio_iommu_type1_dirty_bitmap_get,
} from './uapi/vfio.js'

/** Largest bitmap taken, bytes: 2^31 pages. */
export const MAX_DIRTY_BITMAP = 256 * 1024 * 1024

const CALL = 'VFIO_IOMMU_DIRTY_PAGES'
const HEADER = 8
const UNMAP_HEADER = 24
const KNOWN =
  VFIO_IOMMU_DIRTY_PAGES_FLAG_START |
  VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP |
  VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP

const invalid = (what: string) => new ErrnoError('EINVAL', what)

/** Dirty logging of one container. */
export class DirtyLogging {
  /** Between START and STOP. */
  enabled = false
  readonly #mappings: DmaMappings
  readonly #limits: DmaLimits
  // The bitmap that the checks accepted last.
  #data = 0
  #pageSize = 0

  constructor(mappings: DmaMappings, limits: DmaLimits) {
    this.#mappings = mappings
    this.#limits = limits
  }

  /** DIRTY_PAGES at `arg` of the caller. */
  call(arg: number, caller: Process): number {
    const memory = caller.memory
    const header = new Uint8Array(HEADER)
    if (!memory.copyIn(arg, header)) throw new ErrnoError('EFAULT', `${CALL}: unreadable`)
    const view = new DataView(header.buffer)
    const argsz = view.getUint32(0, true)
    const flags = view.getUint32(4, true)
    if (argsz < HEADER) throw invalid(`${CALL}: argsz ${argsz} < ${HEADER}`)
    if (flags & ~KNOWN || flags === 0 || flags & (flags - 1))
      throw invalid(`${CALL}: flags ${hex(flags)}`)
    if (flags === VFIO_IOMMU_DIRTY_PAGES_FLAG_START) this.#start(caller)
    else if (flags === VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP) this.enabled = false
    else this.#get(memory, arg + HEADER, argsz - HEADER)
    return 0
  }

  #start({ kernel }: Process): void {
    if (!this.enabled) kernel.failures.step('dirty bitmaps')
    this.enabled = true
  }

  /** The checks of UNMAP_DMA with GET_DIRTY_BITMAP on a range of `pages`. */
  checkUnmap(memory: UserMemory, arg: number, argsz: number, pages: number): void {
    const needed = UNMAP_HEADER + vfio_bitmap.size
    if (argsz < needed) throw invalid(`VFIO_IOMMU_UNMAP_DMA: argsz ${argsz} < ${needed}`)
    const bitmap = vfio_bitmap()
    if (!memory.copyIn(arg + UNMAP_HEADER, bitmap.bytes))
      throw new ErrnoError('EFAULT', 'VFIO_IOMMU_UNMAP_DMA: bitmap unreadable')
    this.#check('VFIO_IOMMU_UNMAP_DMA', bitmap, pages)
  }

  /** Sets the bits of what is mapped in the range, in the bitmap checked last. EFAULT when it is not writable. */
  report(memory: UserMemory, first: number, pages: number): void {
    const each = this.#pageSize / 4096
    for (const m of this.#mappings.in(first, pages)) {
      const from = Math.max(m.iovaPage, first)
      const to = Math.min(m.iovaPage + m.pages, first + pages)
      this.#set(memory, (from - first) / each, (to - first) / each)
    }
  }

  #get(memory: UserMemory, at: number, room: number): void {
    const range = vfio_iommu_type1_dirty_bitmap_get()
    if (room < range.bytes.length) throw invalid(`${CALL}: argsz ${room + HEADER}`)
    if (!memory.copyIn(at, range.bytes)) throw new ErrnoError('EFAULT', `${CALL}: range unreadable`)
    const { view } = range
    const [ilo, ihi, slo, shi] = [0, 4, 8, 12].map(o => view.getUint32(o, true)) as [
      number,
      number,
      number,
      number,
    ]
    const { granule } = this.#limits
    if ((slo | shi) === 0) throw invalid(`${CALL}: size 0`)
    if ((ilo | slo) & (granule - 1))
      throw invalid(
        `${CALL}: iova ${hex(join(ihi, ilo))} size ${hex(join(shi, slo))} is not a multiple of ${granule}`,
      )
    if (wrap(ihi, ilo, shi, slo)) throw invalid(`${CALL}: the range wraps`)
    const first = page(ihi, ilo)
    const pages = page(shi, slo)
    this.#check(CALL, range.bitmap, pages)
    const begin = this.#mappings.find(first)
    if (begin !== undefined && begin.iovaPage !== first) throw bisects(CALL, begin)
    const end = this.#mappings.find(first + pages - 1)
    if (end !== undefined && end.iovaPage + end.pages !== first + pages) throw bisects(CALL, end)
    this.report(memory, first, pages)
  }

  #check(call: string, bitmap: ReturnType<typeof vfio_bitmap>, pages: number): void {
    const { granule } = this.#limits
    if (!this.enabled) throw invalid(`${call}: dirty logging is off`)
    if (bitmap.pgsize !== BigInt(granule)) throw invalid(`${call}: pgsize ${bitmap.pgsize}`)
    const needed = Math.ceil(pages / (granule / 4096) / 64) * 8
    if (
      needed > MAX_DIRTY_BITMAP ||
      bitmap.size > BigInt(MAX_DIRTY_BITMAP) ||
      bitmap.size < BigInt(needed)
    )
      throw invalid(`${call}: a bitmap of ${bitmap.size} bytes where ${needed} are needed`)
    this.#data = Number(bitmap.data)
    this.#pageSize = granule
  }

  // Sets bits [from, to); whole bytes are written, the two at the edges merged.
  #set(memory: UserMemory, from: number, to: number): void {
    const start = Math.floor(from / 8)
    const bytes = new Uint8Array(Math.ceil(to / 8) - start)
    const at = this.#data + start
    if (!memory.copyIn(at, bytes)) throw new ErrnoError('EFAULT', `${CALL}: bitmap at ${hex(at)}`)
    for (let bit = from; bit < to; bit++) {
      const i = Math.floor(bit / 8) - start
      if (bit % 8 === 0 && bit + 8 <= to) {
        bytes[i] = 0xff
        bit += 7
      } else bytes[i]! |= 1 << (bit % 8)
    }
    if (!memory.copyOut(at, bytes)) throw new ErrnoError('EFAULT', `${CALL}: bitmap at ${hex(at)}`)
  }
}
