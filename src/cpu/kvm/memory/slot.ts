// One memory slot: guest-physical pages, the owner's memory that the guest shares, and the file its private pages are in.

import { PAGE_SIZE } from '../../../base/addr.js'
import type { DirtyLog } from '../../../mem/dirty-log.js'
import type { GuestMemfd } from './guest-memfd.js'
import type { MappingLevels } from './mapping-levels.js'

/** Where a slot's private pages are. */
export interface MemfdBinding {
  readonly file: GuestMemfd
  /** Page of the file that the slot's first page is. */
  readonly page: number
}

/** A slot, from its creation to its deletion. A changed or moved slot is a new one. */
export class Slot {
  readonly id: number
  /** Guest-physical address of its first page, and that page's number. */
  readonly base: number
  readonly first: number
  readonly pages: number
  /** Address of the owner's memory. */
  readonly user: number
  /** KVM_MEM_*. */
  readonly flags: number
  /** Dirty pages, while KVM_MEM_LOG_DIRTY_PAGES is set. */
  dirty: DirtyLog | undefined
  /** Undefined without KVM_MEM_GUEST_MEMFD, and once the file is closed. */
  memfd: MemfdBinding | undefined = undefined
  /** Shared pages are the file's too: it is one that user space may map. */
  fileOnly = false
  /** What may be mapped how large; for VMs that have private memory. */
  levels: MappingLevels | undefined = undefined

  constructor(init: {
    readonly id: number
    readonly base: number
    readonly pages: number
    readonly user: number
    readonly flags: number
    readonly dirty: DirtyLog | undefined
  }) {
    this.id = init.id
    this.base = init.base
    this.first = init.base / PAGE_SIZE
    this.pages = init.pages
    this.user = init.user
    this.flags = init.flags
    this.dirty = init.dirty
  }

  /** Number of its last page. */
  get last(): number {
    return this.first + this.pages - 1
  }

  /** Page number of the owner's memory behind a guest page. */
  userPage(gfn: number): number {
    return this.user / PAGE_SIZE + (gfn - this.first)
  }
}
