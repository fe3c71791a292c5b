// DMA_LOGGING_START, STOP and REPORT: which pages of chosen IOVA ranges a device wrote. Counts what its model writes
// without a PASID; interrupt messages and the IOMMU's own writes are not device writes. Always by pages of 4 KiB.
// uapi linux/vfio.h, vfio_device_feature_dma_logging_control.
import { ErrnoError } from '../base/errno.js'
import type { UserMemory } from '../mem/user-memory.js'
import type { PciFunction } from '../pci/function.js'
import {
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from './uapi/vfio.js'

/** Most ranges of one START: what a page holds of them. */
export const MAX_LOGGED_RANGES = 256

const PAGE = 4096
const END = 1n << 64n
const START = 'VFIO_DEVICE_FEATURE_DMA_LOGGING_START'
const STOP = 'VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP'
const REPORT = 'VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT'

const invalid = (call: string, what: string) => new ErrnoError('EINVAL', `${call}: ${what}`)
const powerOf2 = (n: bigint) => n > 0n && (n & (n - 1n)) === 0n

/** 4 KiB page numbers, both included. */
interface PageRange {
  readonly first: number
  readonly last: number
}

/** The write log of one device. */
export class DmaLogging {
  readonly #fn: PciFunction
  #written: Set<number> | undefined

  constructor(fn: PciFunction) {
    this.#fn = fn
  }

  /** START with its payload at `arg`. Nothing is tracked when it refuses. */
  start(memory: UserMemory, arg: number): void {
    const control = vfio_device_feature_dma_logging_control()
    if (!memory.copyIn(arg, control.bytes)) throw new ErrnoError('EFAULT', `${START}: unreadable`)
    const { num_ranges, page_size } = control
    if (num_ranges === 0) throw invalid(START, 'no ranges')
    if (num_ranges > MAX_LOGGED_RANGES)
      throw new ErrnoError('E2BIG', `${START}: ${num_ranges} ranges`)
    if (!powerOf2(page_size)) throw invalid(START, `pages of ${page_size} bytes`)
    const ranges = readRanges(memory, Number(control.ranges), num_ranges, page_size)
    if (this.#written !== undefined) throw new ErrnoError('EBUSY', `${START}: tracked already`)
    control.page_size = BigInt(PAGE)
    if (!memory.copyOut(arg, control.bytes))
      throw new ErrnoError('EFAULT', `${START}: not writable`)
    const written = new Set<number>()
    this.#written = written
    this.#fn.writeLog = {
      wrote(hi, lo, length) {
        if (length === 0) return
        const first = (hi >>> 0) * 2 ** 20 + (lo >>> 12)
        const last = first + Math.floor(((lo & (PAGE - 1)) + length - 1) / PAGE)
        for (const range of ranges) {
          const to = Math.min(last, range.last)
          for (let page = Math.max(first, range.first); page <= to; page++) written.add(page)
        }
      },
    }
  }

  /** STOP: forgets everything. EINVAL when nothing is tracked. */
  stop(): void {
    if (this.#written === undefined) throw invalid(STOP, 'nothing is tracked')
    this.end()
  }

  /** Nobody has the device open any more. */
  end(): void {
    this.#written = undefined
    this.#fn.writeLog = undefined
  }

  /** REPORT with its payload at `arg`: adds the bits of written pages to a bitmap, and forgets those pages. */
  report(memory: UserMemory, arg: number): void {
    const asked = vfio_device_feature_dma_logging_report()
    if (!memory.copyIn(arg, asked.bytes)) throw new ErrnoError('EFAULT', `${REPORT}: unreadable`)
    const { iova, length, page_size } = asked
    if (page_size < BigInt(PAGE) || !powerOf2(page_size))
      throw invalid(REPORT, `pages of ${page_size} bytes`)
    if (iova + length >= END) throw new ErrnoError('EOVERFLOW', `${REPORT}: the range wraps`)
    if (length === 0n) throw invalid(REPORT, 'length 0')
    if (this.#written === undefined) throw invalid(REPORT, 'nothing is tracked')
    const bytes = new Map<bigint, number>()
    const told: number[] = []
    const page = BigInt(PAGE)
    for (const number of this.#written) {
      const at = BigInt(number) * page
      if (at + page <= iova || at >= iova + length) continue
      told.push(number)
      // A page may lie across two of the bitmap's, when the range asked for is not aligned to them.
      const first = at > iova ? (at - iova) / page_size : 0n
      const end = at + page < iova + length ? at + page : iova + length
      for (let bit = first; bit <= (end - 1n - iova) / page_size; bit++)
        bytes.set(bit >> 3n, (bytes.get(bit >> 3n) ?? 0) | (1 << Number(bit & 7n)))
    }
    merge(memory, asked.bitmap, bytes)
    for (const number of told) this.#written.delete(number)
  }
}

function readRanges(memory: UserMemory, at: number, count: number, page: bigint): PageRange[] {
  const ranges: PageRange[] = []
  const { size } = vfio_device_feature_dma_logging_range
  for (let i = 0; i < count; i++) {
    const { iova, length } = readRange(memory, at + i * size)
    if (length === 0n || ((iova | length) & (page - 1n)) !== 0n)
      throw invalid(START, `range ${i} is not a multiple of ${page}`)
    if (iova + length >= END) throw new ErrnoError('EOVERFLOW', `${START}: range ${i} wraps`)
    const first = Number(iova >> 12n)
    const last = Number((iova + length - 1n) >> 12n)
    if (ranges.some(r => first <= r.last && last >= r.first))
      throw invalid(START, `range ${i} overlaps another`)
    ranges.push({ first, last })
  }
  return ranges
}

function readRange(memory: UserMemory, at: number) {
  const range = vfio_device_feature_dma_logging_range()
  if (!memory.copyIn(at, range.bytes)) throw new ErrnoError('EFAULT', `${START}: ranges unreadable`)
  return range
}

// Sets bits of the caller's bitmap; those it has stay.
function merge(memory: UserMemory, bitmap: bigint, bytes: ReadonlyMap<bigint, number>): void {
  const cell = new Uint8Array(1)
  for (const [index, bits] of bytes) {
    const at = Number(bitmap + index)
    if (!memory.copyIn(at, cell)) throw new ErrnoError('EFAULT', `${REPORT}: bitmap unreadable`)
    cell[0]! |= bits
    if (!memory.copyOut(at, cell)) throw new ErrnoError('EFAULT', `${REPORT}: bitmap not writable`)
  }
}
