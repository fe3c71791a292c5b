/**
 * A process's address space: mmap, munmap, mprotect, fork, the kernel's copies in and out, pinning and
 * the locked-memory account. Anonymous memory is contiguous frames of host RAM, one run a mapping, so
 * that a program can hold it as one Uint8Array; that view obeys no protection, the kernel's copies and
 * pins do. Pages are present from the start: there is no demand paging and no swap.
 * Next: vma.ts; the rules of accounting are those of uapi VFIO_IOMMU_MAP_DMA (linux/vfio.h).
 */
import { hex, PAGE_SIZE } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { IntervalMap } from '../base/interval-map.js'
import type { AddressSpace } from './address-space.js'
import type { FrameAllocator } from './frames.js'
import { copy } from './ram.js'
import type { UserMemory } from './user-memory.js'
import {
  type FrameBacking,
  Mapping,
  type MmapBacking,
  PROT_NONE,
  PROT_READ,
  PROT_WRITE,
  Vma,
  type VmaOwner,
} from './vma.js'
import { Withdrawals } from './withdrawals.js'

/** What `mmap` may be told besides a length. */
export interface MmapOptions {
  /** Protection bits; readable and writable by default. */
  readonly prot?: number | undefined
  /** Page-aligned address, which must be free (MAP_FIXED_NOREPLACE); otherwise the process chooses. */
  readonly at?: bigint | undefined
  /** What it shows; anonymous memory by default. */
  readonly backing?: MmapBacking | undefined
  /** Anonymous memory that fork shares (MAP_SHARED). */
  readonly shared?: boolean | undefined
  /** Kept alive as long as any part stays mapped. */
  readonly owner?: VmaOwner | undefined
}

/** How a process memory is made. */
export interface ProcessMemoryOptions {
  /** RLIMIT_MEMLOCK in pages; `Infinity` for no limit. */
  readonly memlockLimitPages?: number
  /** Whether the owner may lock without limit; asked each time. */
  readonly capIpcLock?: () => boolean
}

/** Hears that a range stops being what it was: before it does, and when it has. */
interface InvalidationListener {
  readonly before: (firstPage: number, pages: number) => void
  readonly after: ((firstPage: number, pages: number) => void) | undefined
}

/** A stretch of pages with one protection, and one run of frames or one device behind it. */
export interface Extent {
  /** First and last page number. */
  readonly first: number
  readonly last: number
  /** Number of the first frame; -1 where it shows no frames of host RAM. */
  readonly frame: number
  readonly readable: boolean
  readonly writable: boolean
}

/** A run of pages that `pinRun` found. */
export interface PinRun {
  /** First frame's page number (host physical address / 4096). */
  hpaPage: number
  /** Pages of the run; 0 means the very first page faults (EFAULT). */
  pages: number
  /** A device window: not pinned, not to be accounted or unpinned. */
  reserved: boolean
}

/** Page number after the last one user space may have, x86-64 4-level. */
const TOP_PAGE = 0x7_ffff_ffff
/** Anonymous mappings grow down from here. */
const MMAP_TOP_PAGE = 0x7_f7ff_f000
/** Since Linux 5.16. */
const DEFAULT_MEMLOCK_PAGES = 2048
/** A stretch that holds no address: what the lookup cache starts with. */
const NOTHING = new Vma({ first: 0, last: -1, prot: PROT_NONE, shared: false })

/** The memory of one process (an mm). The object itself is the address space's identity. */
export class ProcessMemory implements UserMemory {
  /** RLIMIT_MEMLOCK in pages. */
  memlockLimitPages: number
  readonly frames: FrameAllocator
  /** Pages that are not for devices now. */
  readonly withdrawals = new Withdrawals()
  readonly #capIpcLock: () => boolean
  readonly #vmas = new IntervalMap<Vma>()
  readonly #cursor = this.#vmas.cursor()
  readonly #run: PinRun = { hpaPage: -1, pages: 0, reserved: false }
  readonly #listeners = new Set<InvalidationListener>()
  #recent: Vma = NOTHING
  #before: Vma = NOTHING
  #next = MMAP_TOP_PAGE
  #locked = 0
  #pinned = 0
  #released = false

  constructor(frames: FrameAllocator, options: ProcessMemoryOptions = {}) {
    this.frames = frames
    this.memlockLimitPages = options.memlockLimitPages ?? DEFAULT_MEMLOCK_PAGES
    this.#capIpcLock = options.capIpcLock ?? (() => false)
  }

  /** Pages accounted as locked (the mm's locked_vm). */
  get lockedPages(): number {
    return this.#locked
  }

  /** Pins this process's memory holds now, also after the process is gone. */
  get pinnedPages(): number {
    return this.#pinned
  }

  /** Whether the owner has CAP_IPC_LOCK now. */
  get capIpcLock(): boolean {
    return this.#capIpcLock()
  }

  /** Mapped pages. */
  get mappedPages(): number {
    let pages = 0
    for (const { value } of this.#vmas.entries()) pages += value.pages
    return pages
  }

  /**
   * Maps `length` bytes, rounded up to pages. ErrnoError: EINVAL (length 0, unaligned address), EEXIST
   * (`at` is taken), ENOMEM (outside user space, or no run of frames), ESRCH (the process is gone).
   */
  mmap(length: number, options: MmapOptions = {}): Mapping {
    if (this.#released) throw new ErrnoError('ESRCH', 'mmap: the process has exited', 'mmap')
    const pages = Math.ceil(length / PAGE_SIZE)
    if (!(length > 0)) throw new ErrnoError('EINVAL', 'mmap: length 0', 'mmap')
    const first = this.#place(pages, options.at)
    const backing = options.backing
    const prot = options.prot ?? PROT_READ | PROT_WRITE
    const common = { first, last: first + pages - 1, prot, owner: options.owner }
    let vma: Vma
    if (backing === undefined) {
      const hpa = this.frames.alloc(pages, 1, 'mmap')
      vma = new Vma({
        ...common,
        shared: options.shared ?? false,
        frame: hpa / PAGE_SIZE,
        bytes: this.frames.bytes(hpa, pages),
      })
    } else if ('frame' in backing) {
      return this.#mmapFrames(first, pages, length, backing, common)
    } else if ('bytes' in backing) {
      if (backing.bytes.length < pages * PAGE_SIZE) {
        throw new Error(`a mapping of ${pages} pages shows only ${backing.bytes.length} bytes`)
      }
      vma = new Vma({
        ...common,
        shared: true,
        bytes: backing.bytes.subarray(0, pages * PAGE_SIZE),
      })
    } else {
      vma = new Vma({ ...common, shared: true, device: backing })
    }
    this.#vmas.insert(vma.first, vma.last, vma)
    vma.owner?.get()
    return new Mapping(vma, length)
  }

  // Frames of a file, and behind their end, or where there are none, pages that nobody can touch.
  #mmapFrames(
    first: number,
    pages: number,
    length: number,
    backing: FrameBacking,
    common: { readonly prot: number; readonly owner: VmaOwner | undefined },
  ): Mapping {
    const { frame, pages: there } = backing
    const present = Math.min(pages, there)
    const parts: Vma[] = []
    const shared = true
    if (present > 0) {
      const hpa = frame * PAGE_SIZE
      this.frames.get(hpa, present)
      const bytes = this.frames.bytes(hpa, present)
      parts.push(new Vma({ ...common, first, last: first + present - 1, shared, frame, bytes }))
    }
    if (present < pages) {
      const last = first + pages - 1
      parts.push(new Vma({ ...common, first: first + present, last, shared, absent: true }))
    }
    for (const vma of parts) {
      this.#vmas.insert(vma.first, vma.last, vma)
      vma.owner?.get()
    }
    return new Mapping(parts[0]!, Math.min(length, parts[0]!.size))
  }

  /** Unmaps whole pages; holes are skipped. ErrnoError EINVAL for an unaligned or empty range. */
  munmap(vaddr: bigint | number, length: number): void {
    const first = this.#page(vaddr, 'munmap')
    const pages = Math.ceil(length / PAGE_SIZE)
    if (!(pages > 0)) throw new ErrnoError('EINVAL', 'munmap: length 0', 'munmap')
    this.#unmap(first, first + pages - 1)
  }

  /** Changes protection. ErrnoError: EINVAL (unaligned), ENOMEM (a page is not mapped; nothing changed). */
  mprotect(vaddr: bigint | number, length: number, prot: number): void {
    const first = this.#page(vaddr, 'mprotect')
    if (!(length > 0)) return
    const last = first + Math.ceil(length / PAGE_SIZE) - 1
    const found = [...this.#vmas.entries(first, last)].map(entry => entry.value)
    let next = first
    for (const vma of found) {
      if (vma.first > next) break
      next = vma.last + 1
    }
    if (next <= last) {
      throw new ErrnoError('ENOMEM', `mprotect: ${hex(next * PAGE_SIZE)} is not mapped`, 'mprotect')
    }
    this.#invalidate(first, last)
    for (const vma of found) {
      this.#replace(vma, Math.max(first, vma.first), Math.min(last, vma.last), prot)
    }
    this.#invalidated(first, last)
  }

  /** A copy for a forked child: private memory copied, shared mappings shared, nothing pinned or locked. */
  fork(options: ProcessMemoryOptions = {}): ProcessMemory {
    const child = new ProcessMemory(this.frames, {
      memlockLimitPages: this.memlockLimitPages,
      ...options,
    })
    child.#next = this.#next
    try {
      for (const { value: vma } of this.#vmas.entries()) child.#inherit(vma)
    } catch (error) {
      child.release()
      throw error
    }
    return child
  }

  /** Unmaps everything, as the end of the process does. Pinned frames live until they are unpinned. */
  release(): void {
    this.#released = true
    this.#unmap(0, TOP_PAGE)
  }

  /**
   * Calls `before` before a range stops being what it was (munmap, mprotect, exit), and `after` when it has, as
   * an MMU notifier would be. Returns what ends it.
   */
  onInvalidate(
    before: (firstPage: number, pages: number) => void,
    after?: (firstPage: number, pages: number) => void,
  ): () => void {
    const listener = { before, after }
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** The stretches that share a page with [first, last], ascending. The map must not change on the way. */
  *extents(first: number, last: number): Generator<Extent> {
    for (const { value } of this.#vmas.entries(first, last)) yield value
  }

  /** The stretch of one protection and one backing that holds an address; undefined where nothing is mapped. */
  extentAt(vaddr: number): Extent | undefined {
    return this.#at(vaddr)
  }

  copyIn(addr: number, into: Uint8Array, length = into.length): boolean {
    let done = 0
    do {
      const vma = this.#at(addr + done)
      if (vma === undefined || !vma.readable) return length === 0
      const offset = addr + done - vma.start
      const piece = Math.min(length - done, vma.size - offset)
      if (vma.bytes !== undefined) copy(vma.bytes, offset, into, done, piece)
      else vma.device!.space.read(vma.device!.hpa + offset, into, done, piece)
      done += piece
    } while (done < length)
    return true
  }

  copyOut(addr: number, from: Uint8Array, length = from.length): boolean {
    let done = 0
    do {
      const vma = this.#at(addr + done)
      if (vma === undefined || !vma.writable) return length === 0
      const offset = addr + done - vma.start
      const piece = Math.min(length - done, vma.size - offset)
      if (vma.bytes !== undefined) copy(from, done, vma.bytes, offset, piece)
      else vma.device!.space.write(vma.device!.hpa + offset, from, done, piece)
      done += piece
    } while (done < length)
    return true
  }

  string(addr: number, max: number): string | 'fault' | 'long' {
    const bytes: number[] = []
    const one = new Uint8Array(1)
    while (bytes.length < max) {
      if (!this.copyIn(addr + bytes.length, one)) return 'fault'
      if (one[0] === 0) return new TextDecoder().decode(Uint8Array.from(bytes))
      bytes.push(one[0]!)
    }
    return 'long'
  }

  /** Pins the frame of one page and returns its page number; -1 (EFAULT) where a pin is not possible. */
  pin(vaddrPage: number, write: boolean): number {
    const vma = this.#at(vaddrPage * PAGE_SIZE)
    if (vma === undefined || vma.frame < 0 || !(write ? vma.writable : vma.readable)) return -1
    if (this.withdrawals.has(vaddrPage)) return -1
    const frame = vma.frame + (vaddrPage - vma.first)
    this.frames.pin(frame)
    this.#pinned++
    return frame
  }

  /**
   * Pins up to `maxPages` pages from `vaddrPage` on, as far as their frames are contiguous; a device
   * window is found but not pinned (`reserved`). The answer is the same object each time.
   */
  pinRun(vaddrPage: number, maxPages: number, write: boolean): Readonly<PinRun> {
    const run = this.#run
    run.pages = 0
    run.hpaPage = -1
    run.reserved = false
    const vma = this.#at(vaddrPage * PAGE_SIZE)
    if (vma === undefined || !(write ? vma.writable : vma.readable)) return run
    const skipped = vaddrPage - vma.first
    const pages = this.withdrawals.run(vaddrPage, Math.min(maxPages, vma.pages - skipped))
    if (pages === 0) return run
    if (vma.frame >= 0) {
      run.hpaPage = vma.frame + skipped
      run.pages = pages
      for (let i = 0; i < pages; i++) this.frames.pin(run.hpaPage + i)
      this.#pinned += pages
    } else if (vma.device !== undefined) {
      run.hpaPage = vma.device.hpa / PAGE_SIZE + skipped
      run.pages = pages
      run.reserved = true
    }
    return run
  }

  /** Takes `pages` pins back, from frame `hpaPage` on. */
  unpin(hpaPage: number, pages = 1): void {
    for (let i = 0; i < pages; i++) this.frames.unpin(hpaPage + i)
    this.#pinned -= pages
  }

  /** Whether `pages` more could be locked; `unlimited` (CAP_IPC_LOCK) always may. */
  mayLock(pages: number, unlimited = this.capIpcLock): boolean {
    return unlimited || this.#locked + pages <= this.memlockLimitPages
  }

  /** Accounts `pages` as locked; false (ENOMEM), and nothing accounted, when that passes the limit. */
  lock(pages: number, unlimited = this.capIpcLock): boolean {
    if (!this.mayLock(pages, unlimited)) return false
    this.#locked += pages
    return true
  }

  /** Takes `pages` off the account. */
  unlock(pages: number): void {
    if (pages > this.#locked) throw new Error(`${pages} pages unlocked of ${this.#locked}`)
    this.#locked -= pages
  }

  /** Host physical address behind a virtual address, without pinning; -1 where there is none. */
  hpaAt(vaddr: bigint | number): number {
    const addr = Number(vaddr)
    const vma = this.#at(addr)
    if (vma === undefined) return -1
    if (vma.device !== undefined) return vma.device.hpa + (addr - vma.start)
    return vma.frame < 0 ? -1 : vma.frame * PAGE_SIZE + (addr - vma.start)
  }

  /** The device window at a virtual address: where it leads, and the bytes left of it. */
  deviceAt(
    vaddr: bigint | number,
  ): { readonly space: AddressSpace; readonly hpa: number; readonly length: number } | undefined {
    const addr = Number(vaddr)
    const vma = this.#at(addr)
    if (vma?.device === undefined) return undefined
    const skipped = addr - vma.start
    return { space: vma.device.space, hpa: vma.device.hpa + skipped, length: vma.size - skipped }
  }

  /** The bytes at a virtual address when all `length` of them are plain memory of one mapping. */
  bytesAt(vaddr: bigint | number, length: number): Uint8Array | undefined {
    const addr = Number(vaddr)
    const vma = this.#at(addr)
    if (vma?.bytes === undefined || addr + length > vma.start + vma.size) return undefined
    return vma.bytes.subarray(addr - vma.start, addr - vma.start + length)
  }

  // The stretch that holds an address; the last two found are tried first.
  #at(addr: number): Vma | undefined {
    const recent = this.#recent
    const offset = addr - recent.start
    if (offset >= 0 && offset < recent.size) return recent
    const before = this.#before
    if (addr >= before.start && addr < before.start + before.size) {
      this.#before = recent
      this.#recent = before
      return before
    }
    const vma = this.#vmas.find(Math.floor(addr / PAGE_SIZE))
    if (vma === undefined) return undefined
    this.#before = recent
    this.#recent = vma
    return vma
  }

  #page(vaddr: bigint | number, syscall: string): number {
    const addr = Number(vaddr)
    if (addr % PAGE_SIZE !== 0 || addr < 0) {
      throw new ErrnoError('EINVAL', `${syscall}: ${hex(vaddr)} is not page aligned`, syscall)
    }
    return addr / PAGE_SIZE
  }

  #place(pages: number, at: bigint | undefined): number {
    if (at === undefined) {
      // One page stays unmapped between neighbours, so that running off an end faults.
      const cursor = this.#cursor
      let first = this.#next - pages
      while (first > 0 && cursor.seek(first) && cursor.start < first + pages) {
        first = cursor.start - pages
      }
      if (!(first > 0)) throw new ErrnoError('ENOMEM', 'mmap: no room in the address space', 'mmap')
      this.#next = first - 1
      return first
    }
    const first = this.#page(at, 'mmap')
    if (!(first + pages <= TOP_PAGE)) {
      throw new ErrnoError('ENOMEM', `mmap: ${hex(at)} is outside user space`, 'mmap')
    }
    if (this.#vmas.overlaps(first, first + pages - 1)) {
      throw new ErrnoError('EEXIST', `mmap: ${hex(at)} is mapped already`, 'mmap')
    }
    return first
  }

  #unmap(first: number, last: number): void {
    const cursor = this.#cursor
    if (!cursor.seek(first) || cursor.start > last) return
    this.#invalidate(first, last)
    while (cursor.seek(first) && cursor.start <= last) {
      const vma = cursor.value
      this.#replace(vma, Math.max(first, vma.first), Math.min(last, vma.last), undefined)
    }
    this.#invalidated(first, last)
  }

  // Splits a stretch around [first, last] and drops that part (`prot` undefined) or reprotects it.
  #replace(vma: Vma, first: number, last: number, prot: number | undefined): void {
    this.#recent = NOTHING
    this.#before = NOTHING
    this.#vmas.remove(vma.first)
    const add = (part: Vma) => {
      this.#vmas.insert(part.first, part.last, part)
      part.owner?.get()
    }
    if (vma.first < first) add(vma.part(vma.first, first - 1))
    if (last < vma.last) add(vma.part(last + 1, vma.last))
    if (prot !== undefined) add(vma.part(first, last, prot))
    else if (vma.frame >= 0) {
      this.frames.free((vma.frame + first - vma.first) * PAGE_SIZE, last - first + 1)
    }
    vma.owner?.put()
  }

  #inherit(vma: Vma): void {
    let copied = vma
    if (vma.frame >= 0 && vma.shared) this.frames.get(vma.frame * PAGE_SIZE, vma.pages)
    else if (vma.frame >= 0) {
      const hpa = this.frames.alloc(vma.pages, 1, 'fork')
      const bytes = this.frames.bytes(hpa, vma.pages)
      bytes.set(vma.bytes!)
      const { first, last, prot, owner } = vma
      copied = new Vma({ first, last, prot, shared: false, frame: hpa / PAGE_SIZE, bytes, owner })
    }
    this.#vmas.insert(copied.first, copied.last, copied)
    copied.owner?.get()
  }

  #invalidate(first: number, last: number): void {
    for (const { before } of [...this.#listeners]) before(first, last - first + 1)
  }

  #invalidated(first: number, last: number): void {
    for (const { after } of [...this.#listeners]) after?.(first, last - first + 1)
  }
}
