// Dirty tracking of a hardware page table: flags that the IOMMU sets in its second-stage entries, read as a bitmap
// that they are added to. uapi linux/iommufd.h, IOMMU_HWPT_SET_DIRTY_TRACKING and GET_DIRTY_BITMAP.
import { hex } from '../../base/addr.js'
import { ErrnoError } from '../../base/errno.js'
import type { UserMemory } from '../../mem/user-memory.js'
import {
  IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
  IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
  iommu_hwpt_get_dirty_bitmap,
  iommu_hwpt_set_dirty_tracking,
} from '../uapi/iommufd.js'
import { command, pointer, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import { HwptPaging } from './hwpt.js'
import { lastPage, spanOf } from './span.js'

const EVERY_PAGE = 2 ** 52

export const setDirtyTracking = command<
  IommufdContext,
  typeof iommu_hwpt_set_dirty_tracking.members
>('IOMMU_HWPT_SET_DIRTY_TRACKING', iommu_hwpt_set_dirty_tracking, 16, (context, { cmd, name }) => {
  const { flags } = cmd
  unsupported(name, {
    flags: flags & ~IOMMU_HWPT_DIRTY_TRACKING_ENABLE,
    __reserved: cmd.__reserved,
  })
  const { table } = context.object(HwptPaging, cmd.hwpt_id, name)
  if (!table.tracksDirty) throw new ErrnoError('EOPNOTSUPP', `${name}: not made for tracking`)
  const on = (flags & IOMMU_HWPT_DIRTY_TRACKING_ENABLE) !== 0
  // A clean start: what was written before does not count.
  if (on) table.readDirty(0, EVERY_PAGE, false, () => {})
  table.setDirtyTracking(on)
})

const GET = iommu_hwpt_get_dirty_bitmap.offsets
export const getDirtyBitmap = command<IommufdContext, typeof iommu_hwpt_get_dirty_bitmap.members>(
  'IOMMU_HWPT_GET_DIRTY_BITMAP',
  iommu_hwpt_get_dirty_bitmap,
  48,
  (context, { cmd, name, caller }) => {
    const { flags, view } = cmd
    unsupported(name, {
      flags: flags & ~IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR,
      __reserved: cmd.__reserved,
    })
    const { ioas, table } = context.object(HwptPaging, cmd.hwpt_id, name)
    if (!table.tracksDirty) throw new ErrnoError('EOPNOTSUPP', `${name}: not made for tracking`)
    const invalid = (what: string) => new ErrnoError('EINVAL', `${name}: ${what}`)
    const size = cmd.page_size
    if (cmd.length === 0n) throw invalid('length 0')
    const u32 = (at: number) => view.getUint32(at, true)
    const span = spanOf(u32(GET.iova + 4), u32(GET.iova), u32(GET.length + 4), u32(GET.length))
    if (span === undefined) throw new ErrnoError('EOVERFLOW', `${name}: the range wraps`)
    if (size < 4096n || size & (size - 1n)) throw invalid(`page size ${size}`)
    if ((cmd.iova | cmd.length) & (size - 1n))
      throw invalid(`the range is no multiple of page size ${size}`)
    if (!table.keepsDirty) throw invalid('tracking is off')
    if (ioas.table.areas.covering(span) === undefined)
      throw invalid('the range is not mapped whole')
    const bits = new BitmapWriter(caller.memory, pointer(cmd.data), Number(size) / 4096, span.page)
    // Looked at first, so that nothing is forgotten that the caller cannot be told.
    table.readDirty(span.page, span.pages, true, (page, pages) =>
      bits.set(Math.max(page, span.page), Math.min(page + pages - 1, lastPage(span))),
    )
    if (!bits.flush()) throw new ErrnoError('EFAULT', `${name}: bitmap at ${hex(cmd.data)}`)
    if (flags & IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR) return
    table.readDirty(span.page, span.pages, false, () => {})
  },
)

/** Adds bits to a bitmap in user memory, a byte at a time; a run of them is written once. */
class BitmapWriter {
  readonly #memory: UserMemory
  readonly #at: number
  readonly #pagesPerBit: number
  readonly #first: number
  readonly #bytes = new Map<number, number>()

  constructor(memory: UserMemory, at: number, pagesPerBit: number, first: number) {
    this.#memory = memory
    this.#at = at
    this.#pagesPerBit = pagesPerBit
    this.#first = first
  }

  /** Sets the bits of pages from `from` to `to`. */
  set(from: number, to: number): void {
    const last = Math.floor((to - this.#first) / this.#pagesPerBit)
    for (let bit = Math.floor((from - this.#first) / this.#pagesPerBit); bit <= last; bit++) {
      const byte = Math.floor(bit / 8)
      this.#bytes.set(byte, (this.#bytes.get(byte) ?? 0) | (1 << (bit % 8)))
    }
  }

  /** False when the bitmap cannot be read and written. */
  flush(): boolean {
    const one = new Uint8Array(1)
    for (const [byte, bits] of this.#bytes) {
      if (!this.#memory.copyIn(this.#at + byte, one)) return false
      one[0]! |= bits
      if (!this.#memory.copyOut(this.#at + byte, one)) return false
    }
    return true
  }
}
