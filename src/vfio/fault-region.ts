// Faults out and page responses in, by two ring regions and an interrupt: the interface of the neighbour series
// "SMMUv3 Nested Stage Setup (VFIO part)" v13. Under V7R it is an extension, because vSVA v7 delivers no faults;
// its SET_PASID_TABLE is not offered, whose number is PASID_REQUEST's. Mapping the rings is left out.
import { ErrnoError, type ErrnoName } from '../base/errno.js'
import type { TraceBus, TraceEvents, TracePoint } from '../base/trace.js'
import type { IommuCore } from '../iommu/core.js'
import { type IommuFault, iommu_fault, iommu_page_response } from '../iommu/uapi.js'
import type { CapabilityChain } from './capability-chain.js'
import type { Region } from './regions.js'
import {
  VFIO_REGION_INFO_CAP_DMA_FAULT,
  VFIO_REGION_INFO_CAP_DMA_FAULT_RESPONSE,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT,
  VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT_RESPONSE,
  VFIO_REGION_TYPE_NESTED,
  vfio_region_dma_fault,
  vfio_region_dma_fault_response,
  vfio_region_info_cap_fault,
  vfio_region_info_cap_type,
} from './uapi/vfio.js'

declare module '../base/trace.js' {
  interface TraceEvents {
    /** A user's page response was taken from the ring; `errno` when nothing waited for it. */
    'vfio.page-response': { bdf: number; grpid: number; code: number; errno: ErrnoName | undefined }
  }
}

/** Records in each ring. */
export const RING_ENTRIES = 512
const PAGE = 4096

const page = (bytes: number) => Math.ceil(bytes / PAGE) * PAGE

/** A header page with the user's index at 0, then a ring of records. */
abstract class RingRegion implements Region {
  readonly flags = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE
  readonly size: number
  readonly bytes: Uint8Array
  protected readonly entrySize: number
  readonly #subtype: number
  readonly #capability: number

  constructor(entrySize: number, subtype: number, capability: number) {
    this.entrySize = entrySize
    this.#subtype = subtype
    this.#capability = capability
    this.size = PAGE + page(entrySize * RING_ENTRIES)
    this.bytes = new Uint8Array(this.size)
  }

  describe(chain: CapabilityChain): void {
    const type = { type: VFIO_REGION_TYPE_NESTED, subtype: this.#subtype }
    chain.add(vfio_region_info_cap_type(type), VFIO_REGION_INFO_CAP_TYPE)
    chain.add(vfio_region_info_cap_fault({ version: 1 }), this.#capability)
  }

  read(into: Uint8Array, offset: number): number {
    const length = this.#clip(into.length, offset, 'pread')
    into.set(this.bytes.subarray(offset, offset + length))
    return length
  }

  write(from: Uint8Array, offset: number): number {
    const length = this.#clip(from.length, offset, 'pwrite')
    if (offset >= PAGE && this.recordsWritable) {
      this.bytes.set(from.subarray(0, length), offset)
      return length
    }
    const index =
      length === 4 ? new DataView(from.buffer, from.byteOffset, 4).getUint32(0, true) : -1
    if (offset !== 0 || index < 0 || index >= RING_ENTRIES)
      throw new ErrnoError(
        'EINVAL',
        `pwrite: a fault region takes an index below ${RING_ENTRIES} at 0`,
        'pwrite',
      )
    this.indexWritten(index)
    return length
  }

  protected record(index: number): Uint8Array {
    const at = PAGE + index * this.entrySize
    return this.bytes.subarray(at, at + this.entrySize)
  }

  protected abstract readonly recordsWritable: boolean
  protected abstract indexWritten(index: number): void

  #clip(length: number, offset: number, syscall: string): number {
    if (offset >= this.size) throw new ErrnoError('EINVAL', `${syscall}: past the end`, syscall)
    return Math.min(length, this.size - offset)
  }
}

/** Faults of one device: the kernel fills at `head`, the user consumes at `tail`. */
export class FaultRegion extends RingRegion {
  protected override readonly recordsWritable = false
  readonly #header = vfio_region_dma_fault.at(this.bytes)

  constructor() {
    super(iommu_fault.size, VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT, VFIO_REGION_INFO_CAP_DMA_FAULT)
    this.#header.entry_size = iommu_fault.size
    this.#header.nb_entries = RING_ENTRIES
    this.#header.offset = PAGE
  }

  /** Queues a record; false when the ring is full. */
  push(fault: IommuFault): boolean {
    const { head, tail } = this.#header
    const next = (head + 1) % RING_ENTRIES
    if (next === tail) return false
    this.record(head).set(fault.bytes)
    this.#header.head = next
    return true
  }

  protected override indexWritten(index: number): void {
    this.#header.tail = index
  }
}

/** Answers to page requests: the user fills at `head`, each update of which is consumed at once. */
export class ResponseRegion extends RingRegion {
  protected override readonly recordsWritable = true
  readonly #header = vfio_region_dma_fault_response.at(this.bytes)
  readonly #bdf: number
  readonly #core: IommuCore
  readonly #trace: TracePoint<TraceEvents['vfio.page-response']>

  constructor(bdf: number, core: IommuCore, trace: TraceBus) {
    super(
      iommu_page_response.size,
      VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT_RESPONSE,
      VFIO_REGION_INFO_CAP_DMA_FAULT_RESPONSE,
    )
    this.#bdf = bdf
    this.#core = core
    this.#trace = trace.point('vfio.page-response')
    this.#header.entry_size = iommu_page_response.size
    this.#header.nb_entries = RING_ENTRIES
    this.#header.offset = PAGE
  }

  protected override indexWritten(index: number): void {
    this.#header.head = index
    let tail = this.#header.tail
    while (tail !== index) {
      // A copy: the record is the user's to change.
      this.#answer(iommu_page_response.at(this.record(tail).slice()))
      tail = (tail + 1) % RING_ENTRIES
    }
    this.#header.tail = tail
  }

  #answer(response: ReturnType<typeof iommu_page_response>): void {
    let errno: ErrnoName | undefined
    try {
      this.#core.pageResponse(this.#bdf, response)
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error
      errno = error.code
    }
    const { grpid, code } = response
    if (this.#trace.on) this.#trace.emit({ bdf: this.#bdf, grpid, code, errno })
  }
}
