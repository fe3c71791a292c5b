// guest_memfd: a file whose pages only guests can have (KVM_CREATE_GUEST_MEMFD). It cannot be read, written or resized;
// it is mapped only with the later flags. It holds its VM; neither the VM nor a slot bound to it holds the file.

import { PAGE_SIZE } from '../../../base/addr.js'
import { ErrnoError, type ErrnoName } from '../../../base/errno.js'
import { IntervalMap } from '../../../base/interval-map.js'
import type { ConfidentialPages } from '../../../mem/confidential.js'
import type { FrameAllocator } from '../../../mem/frames.js'
import type { MmapBacking } from '../../../mem/vma.js'
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type FileStatus,
  type OpenFile,
} from '../../../sys/open-file.js'
import type { Process } from '../../../sys/process.js'
import { GUEST_MEMFD_FLAG_INIT_SHARED, GUEST_MEMFD_FLAG_MMAP } from '../uapi/memory.js'
import type { Slot } from './slot.js'

/** The VM as its files see it. */
export interface MemfdHost {
  /** Names it in the history of pages. */
  readonly name: string
  /** Unmaps guest pages [first, last] of each slot, lets `change` happen, and allows faults again. */
  invalidate(
    ranges: readonly { readonly first: number; readonly last: number }[],
    change: () => void,
  ): void
  /** The file is closed. */
  put(): void
}

/** What a file is made of. */
export interface GuestMemfdParts {
  readonly host: MemfdHost
  readonly frames: FrameAllocator
  readonly states: ConfidentialPages
  /** Pages, for good. */
  readonly pages: number
  /** GUEST_MEMFD_FLAG_*. */
  readonly flags: number
  readonly inode: number
  /** Pages are allocated 2^order at a time where they fit; 0 is what kernels do so far. */
  readonly order: number
}

/** Contiguous frames of a file. */
export interface Folio {
  /** Page of the file it begins at; a multiple of 2^order. */
  readonly index: number
  /** Number of its first frame. */
  readonly frame: number
  readonly order: number
}

const refuse = (code: ErrnoName, call: string, what: string) =>
  new ErrnoError(code, `${call}: guest_memfd: ${what}`, call)

/** The file behind a guest_memfd descriptor. */
export class GuestMemfd implements OpenFile {
  readonly kind = 'guest-memfd'
  readonly host: MemfdHost
  readonly pages: number
  readonly flags: number
  readonly #parts: GuestMemfdParts
  readonly #folios = new Map<number, Folio>()
  /** Single pages in each block of 2^order: such a block is large no more. */
  readonly #singles = new Map<number, number>()
  /** Pages whose memory has failed. */
  readonly #poisoned = new Set<number>()
  readonly #bindings = new IntervalMap<Slot>()
  /** First frame of all pages, when user space may map them. */
  readonly #run: number

  /** ErrnoError ENOMEM: a file that user space may map has all its pages from the start. */
  constructor(parts: GuestMemfdParts) {
    this.#parts = parts
    this.host = parts.host
    this.pages = parts.pages
    this.flags = parts.flags
    const mappable = GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED
    this.#run =
      (parts.flags & mappable) === mappable ? parts.frames.alloc(parts.pages) / PAGE_SIZE : -1
  }

  /** Pages that have memory. */
  get allocated(): number {
    if (this.#run >= 0) return this.pages
    let n = 0
    for (const { order } of this.#folios.values()) n += 2 ** order
    return n
  }

  // ---- as a file ----

  read(): number {
    throw refuse('EINVAL', 'read', 'private memory cannot be read')
  }

  write(): number {
    throw refuse('EINVAL', 'write', 'private memory cannot be written')
  }

  pread(): number {
    throw refuse('ESPIPE', 'pread', 'private memory cannot be read')
  }

  pwrite(): number {
    throw refuse('ESPIPE', 'pwrite', 'private memory cannot be written')
  }

  truncate(): void {
    throw refuse('EINVAL', 'ftruncate', 'its size is what it was made with')
  }

  stat(): FileStatus {
    const { inode } = this.#parts
    return { size: this.pages * PAGE_SIZE, blockSize: PAGE_SIZE, inode }
  }

  mmap(
    _length: number,
    offset: number,
    _prot: number,
    _caller: Process,
    shared: boolean,
  ): MmapBacking {
    if ((this.flags & GUEST_MEMFD_FLAG_MMAP) === 0)
      throw refuse('ENODEV', 'mmap', 'made without GUEST_MEMFD_FLAG_MMAP')
    if (!shared) throw refuse('EINVAL', 'mmap', 'its pages cannot be copied on write')
    const page = offset / PAGE_SIZE
    const pages = this.#run < 0 ? 0 : Math.max(0, this.pages - page)
    return { frame: this.#run + page, pages }
  }

  fallocate(mode: number, offset: number, length: number): void {
    const known = FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE
    if ((mode & FALLOC_FL_KEEP_SIZE) === 0 || (mode & ~known) !== 0)
      throw refuse('EOPNOTSUPP', 'fallocate', `mode ${mode}`)
    if (offset % PAGE_SIZE !== 0 || length % PAGE_SIZE !== 0)
      throw refuse('EINVAL', 'fallocate', `${length} bytes at ${offset} are not whole pages`)
    const first = offset / PAGE_SIZE
    const end = first + length / PAGE_SIZE
    if ((mode & FALLOC_FL_PUNCH_HOLE) !== 0) this.#punch(first, Math.min(end, this.pages))
    else if (end > this.pages) throw refuse('EINVAL', 'fallocate', 'the range ends past the file')
    else for (let i = first; i < end; i++) this.folio(i)
  }

  release(): void {
    const ranges: { first: number; last: number }[] = []
    for (const { value: slot } of this.#bindings.entries()) {
      slot.memfd = undefined
      ranges.push({ first: slot.first, last: slot.last })
    }
    this.#bindings.clear()
    this.host.invalidate(ranges, () => this.#free(0, this.pages))
    if (this.#run >= 0) this.#parts.frames.free(this.#run * PAGE_SIZE, this.pages)
    this.host.put()
  }

  digest(): Uint8Array {
    const folios = [...this.#folios.values()].flatMap(f => [f.index, f.frame, f.order])
    return new Uint8Array(Float64Array.from(folios).buffer)
  }

  // ---- as a slot's backing ----

  /** Binds [page, page + slot.pages) to a slot; false, and nothing changed, where a slot is bound already. */
  bind(slot: Slot, page: number): boolean {
    if (!this.#bindings.insert(page, page + slot.pages - 1, slot)) return false
    slot.memfd = { file: this, page }
    slot.fileOnly = (this.flags & GUEST_MEMFD_FLAG_MMAP) !== 0
    return true
  }

  /** Takes a slot's binding away. */
  unbind(slot: Slot): void {
    if (slot.memfd === undefined) return
    this.#bindings.remove(slot.memfd.page)
    slot.memfd = undefined
  }

  /**
   * The memory of a page has failed, as a machine check would tell: guest mappings go, and the next fault of the page
   * exits with EHWPOISON, until a hole takes the page away.
   */
  poison(index: number): void {
    const folio = this.folio(index)
    this.host.invalidate(this.#bound(index, index + 1), () => {
      this.#poisoned.add(index)
      if (folio.order === 0) return
      this.#drop(folio)
      for (let i = 0; i < 2 ** folio.order; i++)
        this.#keep({ index: folio.index + i, frame: folio.frame + i, order: 0 })
    })
  }

  /**
   * The frames that hold a page of the file, allocated and zeroed if they are not there. ErrnoError: ENOMEM; EHWPOISON
   * where its memory has failed.
   */
  folio(index: number): Folio {
    if (this.#poisoned.has(index))
      throw new ErrnoError('EHWPOISON', `guest_memfd: the memory of page ${index} has failed`)
    if (this.#run >= 0) return { index, frame: this.#run + index, order: 0 }
    const { order } = this.#parts
    const start = index - (index % 2 ** order)
    return this.#at(index) ?? this.#allocate(start, order) ?? this.#allocate(index, 0)!
  }

  #at(index: number): Folio | undefined {
    const { order } = this.#parts
    const folio = this.#folios.get(index - (index % 2 ** order))
    return folio !== undefined && index < folio.index + 2 ** folio.order
      ? folio
      : this.#folios.get(index)
  }

  // A large folio only where it fits in the file, in memory, and beside what is there.
  #allocate(index: number, order: number): Folio | undefined {
    const { frames, states, host, inode } = this.#parts
    const pages = 2 ** order
    let frame: number
    if (order === 0) frame = frames.alloc() / PAGE_SIZE
    else {
      if (index + pages > this.pages) return undefined
      if (this.#folios.has(index) || (this.#singles.get(index) ?? 0) > 0) return undefined
      try {
        frame = frames.alloc(pages, pages) / PAGE_SIZE
      } catch {
        return undefined
      }
    }
    const folio = { index, frame, order }
    this.#keep(folio)
    if ((this.flags & GUEST_MEMFD_FLAG_INIT_SHARED) === 0) {
      const cause = `${host.name}: allocated for page ${index} of guest_memfd ${inode}`
      states.mark(frame, pages, { kind: 'private' }, cause)
    }
    return folio
  }

  #keep(folio: Folio): void {
    this.#folios.set(folio.index, folio)
    this.#count(folio, 1)
  }

  #drop(folio: Folio): void {
    this.#folios.delete(folio.index)
    this.#count(folio, -1)
  }

  #count({ index, order }: Folio, change: number): void {
    if (order > 0) return
    const block = index - (index % 2 ** this.#parts.order)
    this.#singles.set(block, (this.#singles.get(block) ?? 0) + change)
  }

  // Frees pages [first, end): guest mappings go first.
  #punch(first: number, end: number): void {
    if (first >= end) return
    this.host.invalidate(this.#bound(first, end), () => this.#free(first, end))
  }

  // Guest frames of the slots that pages [first, end) are bound to.
  #bound(first: number, end: number): { first: number; last: number }[] {
    return [...this.#bindings.entries(first, end - 1)].map(({ start, end: last, value }) => ({
      first: value.first + Math.max(first, start) - start,
      last: value.first + Math.min(end - 1, last) - start,
    }))
  }

  #free(first: number, end: number): void {
    const { frames } = this.#parts
    for (const page of this.#poisoned) if (page >= first && page < end) this.#poisoned.delete(page)
    if (this.#run >= 0) {
      frames.bytes((this.#run + first) * PAGE_SIZE, end - first).fill(0)
      return
    }
    for (const folio of [...this.#folios.values()]) {
      const last = folio.index + 2 ** folio.order
      if (last <= first || folio.index >= end) continue
      this.#drop(folio)
      const [from, to] = [Math.max(first, folio.index), Math.min(end, last)]
      for (let i = folio.index; i < last; i++) {
        const frame = folio.frame + i - folio.index
        if (i < from || i >= to) this.#keep({ index: i, frame, order: 0 })
      }
      this.#release(folio.frame + from - folio.index, to - from)
    }
  }

  // Nobody who finds these frames later finds a private byte.
  #release(frame: number, pages: number): void {
    const { frames, states, host, inode } = this.#parts
    frames.bytes(frame * PAGE_SIZE, pages).fill(0)
    states.mark(frame, pages, undefined, `${host.name}: freed by guest_memfd ${inode}`)
    frames.free(frame * PAGE_SIZE, pages)
  }
}
