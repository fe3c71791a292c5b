// Pages of a user that a mediated device's software holds (vfio_pin_pages): pinned one by one through the container's
// mappings, on the user's locked-memory account while no IOMMU has pinned them, and let go of before an unmap.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { IOMMU_WRITE } from '../iommu/domain.js'
import type { ProcessMemory } from '../mem/process-memory.js'
import type { DmaMappings, UnmapListener } from './dma.js'

interface Pin {
  readonly memory: ProcessMemory
  readonly hpaPage: number
  readonly accounted: boolean
  users: number
}

/** What one mediated device pinned in one container. */
export class MdevPins implements UnmapListener {
  readonly #mappings: DmaMappings
  readonly #notify: (iova: bigint, size: bigint) => void
  readonly #pins = new Map<number, Pin>()

  /** `notify` is told of an unmap ahead of it, to unpin; what it leaves is unpinned all the same. */
  constructor(mappings: DmaMappings, notify: (iova: bigint, size: bigint) => void) {
    this.#mappings = mappings
    this.#notify = notify
    mappings.listeners.add(this)
  }

  /** Pages held. */
  get size(): number {
    return this.#pins.size
  }

  /** Host page behind an IOVA page, held until `unpin`. EINVAL not mapped so; EFAULT no memory; ENOMEM the limit. */
  pin(iovaPage: number, write: boolean): number {
    const refuse = (code: 'EINVAL' | 'EFAULT' | 'ENOMEM') =>
      new ErrnoError(code, `vfio_pin_pages: iova ${hex(iovaPage * 4096)}`, 'pin')
    const known = this.#pins.get(iovaPage)
    const m = this.#mappings.find(iovaPage)
    if (m === undefined || m.suspended || (write && !(m.prot & IOMMU_WRITE))) throw refuse('EINVAL')
    if (known !== undefined) {
      known.users++
      return known.hpaPage
    }
    const { memory } = m
    const accounted = !this.#mappings.translated
    if (accounted && !memory.lock(1, m.unlimited)) throw refuse('ENOMEM')
    const hpaPage = memory.pin(m.vaddrPage + iovaPage - m.iovaPage, write)
    if (hpaPage < 0) {
      if (accounted) memory.unlock(1)
      throw refuse('EFAULT')
    }
    this.#pins.set(iovaPage, { memory, hpaPage, accounted, users: 1 })
    return hpaPage
  }

  /** Gives one pin of a page back; harmless when there is none. */
  unpin(iovaPage: number): void {
    const pin = this.#pins.get(iovaPage)
    if (pin === undefined || --pin.users > 0) return
    this.#drop(iovaPage, pin)
  }

  unmapping(iovaPage: number, pages: number): void {
    const inside = () =>
      [...this.#pins].filter(([page]) => page >= iovaPage && page < iovaPage + pages)
    if (inside().length === 0) return
    this.#notify(BigInt(iovaPage) << 12n, BigInt(pages) << 12n)
    for (const [page, pin] of inside()) this.#drop(page, pin)
  }

  /** The device leaves the container. */
  close(): void {
    this.#mappings.listeners.delete(this)
    for (const [page, pin] of [...this.#pins]) this.#drop(page, pin)
  }

  #drop(iovaPage: number, { memory, hpaPage, accounted }: Pin): void {
    memory.unpin(hpaPage)
    if (accounted) memory.unlock(1)
    this.#pins.delete(iovaPage)
  }
}
