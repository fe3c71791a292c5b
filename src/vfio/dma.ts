// The DMA mappings of one container: pinned runs of processes' pages, present in every domain of the
// container, kept by IOVA page. Knows nothing of ioctl structures: type1-dma.ts checks those.
// Rules of pinning and of the locked-memory account: uapi linux/vfio.h, VFIO_IOMMU_MAP_DMA.
import { hex, PAGE_SIZE } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { IntervalMap } from '../base/interval-map.js'
import type { TraceBus, TraceEvents, TracePoint } from '../base/trace.js'
import type { Domain } from '../iommu/domain.js'
import { IOMMU_WRITE } from '../iommu/domain.js'
import type { ProcessMemory } from '../mem/process-memory.js'
import './trace.js'
import { WithdrawnMappings } from './withdrawn.js'

/** One mapping. Objects are reused once unmapped, so that a map and unmap pair makes no garbage. */
export class DmaMapping {
  iovaPage = 0
  pages = 0
  vaddrPage = 0
  /** IOMMU_READ and IOMMU_WRITE, which are also the flags of MAP_DMA. */
  prot = 0
  /** Whose virtual addresses they are, and whose account the pages are on. */
  memory: ProcessMemory
  /** Who pinned: another process than `memory` once the address space was handed over. */
  pinner: ProcessMemory
  /** CAP_IPC_LOCK when it was mapped. */
  unlimited = false
  /** Pages on the locked account. */
  accounted = 0
  /** Without virtual addresses, after UNMAP_DMA with VADDR. */
  suspended = false
  /** First run of frames; `runPages` is 0 while nothing is pinned (no IOMMU domain). */
  hpaPage = 0
  runPages = 0
  reserved = false
  /** Further runs, three numbers each: frame, pages, reserved. */
  more: number[] | undefined = undefined
  next: DmaMapping | undefined = undefined

  constructor(memory: ProcessMemory) {
    this.memory = memory
    this.pinner = memory
  }
}

/** Hears of a mapping that is about to go. */
export interface UnmapListener {
  unmapping(iovaPage: number, pages: number): void
}

/** The mappings of one container. */
export class DmaMappings {
  /** Mappings that may still be made (dma_entry_limit). */
  available: number
  readonly #entries = new IntervalMap<DmaMapping>()
  readonly #cursor = this.#entries.cursor()
  readonly #domains: Domain[] = []
  readonly #mapTrace: TracePoint<TraceEvents['vfio.map']>
  readonly #unmapTrace: TracePoint<TraceEvents['vfio.unmap']>
  readonly #withdrawn: WithdrawnMappings
  /** Software that holds pages of the mappings. */
  readonly listeners = new Set<UnmapListener>()
  #spare: DmaMapping | undefined = undefined
  #suspended = 0

  constructor(limit: number, trace: TraceBus) {
    this.available = limit
    this.#mapTrace = trace.point('vfio.map')
    this.#unmapTrace = trace.point('vfio.unmap')
    const all = () => this.in(0, 2 ** 52)
    this.#withdrawn = new WithdrawnMappings({ domains: this.#domains, all, trace })
  }

  get size(): number {
    return this.#entries.size
  }

  /** Whether an IOMMU has the mappings, which are pinned then. */
  get translated(): boolean {
    return this.#domains.length > 0
  }

  /** Mappings without virtual addresses. */
  get suspended(): number {
    return this.#suspended
  }

  overlaps(page: number, pages: number): boolean {
    return this.#entries.overlaps(page, page + pages - 1)
  }

  /** The mapping that holds this IOVA page. */
  find(page: number): DmaMapping | undefined {
    return this.#entries.find(page)
  }

  /** The mappings that share a page with the range, ascending. */
  *in(page: number, pages: number): Generator<DmaMapping> {
    for (const { value } of this.#entries.entries(page, page + pages - 1)) yield value
  }

  /**
   * Pins and maps. EFAULT: a page of the process is missing or forbids the access; ENOMEM: beyond
   * RLIMIT_MEMLOCK; else the IOMMU driver's errno. Nothing is left behind by a refusal.
   */
  map(
    iovaPage: number,
    vaddrPage: number,
    pages: number,
    prot: number,
    memory: ProcessMemory,
  ): void {
    const { failures } = memory.frames
    if (failures.armed) failures.step('a mapping')
    const m = this.#spare ?? new DmaMapping(memory)
    this.#spare = m.next
    m.next = undefined
    m.iovaPage = iovaPage
    m.vaddrPage = vaddrPage
    m.pages = pages
    m.prot = prot
    m.memory = memory
    m.unlimited = memory.capIpcLock
    m.suspended = false
    if (this.#domains.length > 0) {
      try {
        this.#pin(m)
        this.#mapInto(m, 0)
      } catch (error) {
        this.#recycle(m)
        throw error
      }
    }
    this.#entries.insert(iovaPage, iovaPage + pages - 1, m)
    this.available--
    if (this.#mapTrace.on) this.#mapTrace.emit(describe(m))
  }

  /**
   * Removes every mapping that shares a page with the range, whole, and answers how many pages that was.
   * Stops at a mapping that begins before the range when `keepFirst`, and at one of another process
   * when `only` is given.
   */
  unmap(page: number, pages: number, keepFirst: boolean, only: ProcessMemory | undefined): number {
    const last = page + pages - 1
    const cursor = this.#cursor
    let removed: DmaMapping | undefined
    let total = 0
    while (cursor.seek(page) && cursor.start <= last) {
      const m = cursor.value
      if (keepFirst && m.iovaPage < page) break
      if (only !== undefined && m.memory !== only) break
      if (this.listeners.size > 0) this.#announce(m)
      this.#entries.remove(m.iovaPage)
      this.#unmapFrom(m)
      total += m.pages
      m.next = removed
      removed = m
    }
    if (removed === undefined) return 0
    for (let i = 0; i < this.#domains.length; i++) this.#domains[i]!.flush()
    while (removed !== undefined) {
      const following: DmaMapping | undefined = removed.next
      if (this.#unmapTrace.on) this.#unmapTrace.emit(extent(removed))
      if (removed.suspended) this.#suspended--
      this.available++
      this.#recycle(removed)
      removed = following
    }
    return total
  }

  /** Adds a domain and maps everything into it; EFAULT, ENOMEM or the driver's errno leave it as it was. */
  addDomain(domain: Domain): void {
    const first = this.#domains.length === 0
    this.#domains.push(domain)
    const done: DmaMapping[] = []
    try {
      for (const m of this.in(0, 2 ** 52)) {
        done.push(m)
        if (first) this.#pin(m)
        this.#mapInto(m, this.#domains.length - 1)
      }
    } catch (error) {
      this.#domains.pop()
      for (const m of done) {
        domain.unmap(m.iovaPage, m.pages)
        if (first) this.#unpin(m)
      }
      domain.flush()
      throw error
    }
  }

  /** Takes a domain away. With the last one every mapping goes, or when `keep` its pins alone. */
  removeDomain(domain: Domain, keep: boolean): void {
    const at = this.#domains.indexOf(domain)
    if (at < 0) return
    const last = this.#domains.length === 1
    if (last && !keep) this.unmap(0, 2 ** 52, false, undefined)
    else {
      for (const m of this.in(0, 2 ** 52)) domain.unmap(m.iovaPage, m.pages)
      domain.flush()
      if (last) for (const m of this.in(0, 2 ** 52)) this.#unpin(m)
    }
    this.#domains.splice(at, 1)
    if (last) this.#withdrawn.stop()
  }

  /** Takes virtual addresses away from every mapping in the range; EINVAL, and nothing done, if one has none. */
  suspend(page: number, pages: number): number {
    const found = [...this.in(page, pages)]
    if (found.some(m => m.suspended))
      throw new ErrnoError('EINVAL', 'VFIO_IOMMU_UNMAP_DMA: VADDR of a mapping taken already')
    for (const m of found) m.suspended = true
    this.#suspended += found.length
    return found.reduce((sum, m) => sum + m.pages, 0)
  }

  /** Gives a suspended mapping new virtual addresses, in another process maybe: ENOMEM beyond its limit. */
  resume(m: DmaMapping, vaddrPage: number, memory: ProcessMemory): void {
    if (memory !== m.memory) {
      const unlimited = memory.capIpcLock
      if (!memory.lock(m.accounted, unlimited)) throw overLimit(m.accounted, memory)
      m.memory.unlock(m.accounted)
      m.memory = memory
      m.unlimited = unlimited
    }
    m.vaddrPage = vaddrPage
    m.suspended = false
    this.#suspended--
  }

  #pin(m: DmaMapping): void {
    const { memory, pages, vaddrPage } = m
    const write = (m.prot & IOMMU_WRITE) !== 0
    m.pinner = memory
    this.#withdrawn.watch(memory)
    let done = 0
    while (done < pages) {
      if (memory.frames.failures.armed) pinning(memory)
      const run = memory.pinRun(vaddrPage + done, pages - done, write)
      const n = run.pages
      if (n === 0) {
        this.#unpin(m)
        throw new ErrnoError(
          'EFAULT',
          `VFIO_IOMMU_MAP_DMA: vaddr ${hex((vaddrPage + done) * PAGE_SIZE)} is not ${write ? 'writable' : 'readable'} memory`,
        )
      }
      if (done === 0) {
        m.hpaPage = run.hpaPage
        m.runPages = n
        m.reserved = run.reserved
      } else {
        m.more ??= []
        m.more.push(run.hpaPage, n, run.reserved ? 1 : 0)
      }
      if (!run.reserved) {
        if (!memory.lock(n, m.unlimited)) {
          this.#unpin(m)
          throw overLimit(n, memory)
        }
        m.accounted += n
      }
      done += n
    }
  }

  #unpin(m: DmaMapping): void {
    if (m.runPages > 0 && !m.reserved) m.pinner.unpin(m.hpaPage, m.runPages)
    const { more } = m
    if (more !== undefined) {
      for (let i = 0; i < more.length; i += 3)
        if (more[i + 2] === 0) m.pinner.unpin(more[i]!, more[i + 1]!)
      m.more = undefined
    }
    if (m.accounted > 0) m.memory.unlock(m.accounted)
    m.runPages = 0
    m.accounted = 0
  }

  // Maps into the domains from number `from` on, or into none.
  #mapInto(m: DmaMapping, from: number): void {
    for (let i = from; i < this.#domains.length; i++) {
      try {
        const domain = this.#domains[i]!
        domain.map(m.iovaPage, m.hpaPage, m.runPages, m.prot)
        if (m.more !== undefined) this.#mapMore(m, domain, m.more)
        if (m.memory.withdrawals.any) this.#withdrawn.cut(m, domain)
      } catch (error) {
        for (let j = from; j <= i; j++) {
          this.#domains[j]!.unmap(m.iovaPage, m.pages)
          this.#domains[j]!.flush()
        }
        throw error
      }
    }
  }

  #mapMore(m: DmaMapping, domain: Domain, more: readonly number[]): void {
    let at = m.iovaPage + m.runPages
    for (let i = 0; i < more.length; i += 3) {
      domain.map(at, more[i]!, more[i + 1]!, m.prot)
      at += more[i + 1]!
    }
  }

  #announce(m: DmaMapping): void {
    for (const listener of this.listeners) listener.unmapping(m.iovaPage, m.pages)
  }

  #unmapFrom(m: DmaMapping): void {
    for (let i = 0; i < this.#domains.length; i++) this.#domains[i]!.unmap(m.iovaPage, m.pages)
  }

  #recycle(m: DmaMapping): void {
    this.#unpin(m)
    m.next = this.#spare
    this.#spare = m
  }
}

/** Pages that cannot be pinned now. */
function pinning(memory: ProcessMemory): void {
  memory.frames.failures.step('pages of a process')
}

const overLimit = (pages: number, memory: ProcessMemory) =>
  new ErrnoError(
    'ENOMEM',
    `VFIO_IOMMU_MAP_DMA: ${pages} more pages on ${memory.lockedPages} locked pass RLIMIT_MEMLOCK of ${memory.memlockLimitPages}`,
  )

const bytesOf = (pages: number) => BigInt(pages) * BigInt(PAGE_SIZE)
const extent = (m: DmaMapping) => ({ iova: bytesOf(m.iovaPage), size: bytesOf(m.pages) })
const describe = (m: DmaMapping) => ({
  ...extent(m),
  vaddr: bytesOf(m.vaddrPage),
  read: (m.prot & 1) !== 0,
  write: (m.prot & IOMMU_WRITE) !== 0,
})
