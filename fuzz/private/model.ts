// What private memory should do, page by page: attributes, slots, the file, the owner's memory, a device's mappings.
// Written from the rules (D-1 to D-31, F-2), knows nothing of how the product does it.

/** Guest frames that programs touch, pages of the owner's memory, and pages of the file. */
export const GUEST_PAGES = 24
export const USER_PAGES = 16
export const FILE_PAGES = 16
export const SLOTS = 4

/** A page of memory, whoever has it: every byte of it is this. */
export interface Frame {
  value: number
}

export interface ModelSlot {
  readonly first: number
  readonly pages: number
  /** First page of the owner's memory. */
  readonly user: number
  /** First page of the file, or -1. */
  readonly file: number
}

/** How an access of the guest ends. */
export type GuestEnd = Frame | 'fault' | 'EFAULT' | 'MMIO'

/** The whole of it. */
export class PrivateModel {
  readonly isPrivate = new Array<boolean>(GUEST_PAGES).fill(false)
  readonly slots = new Map<number, ModelSlot>()
  /** Undefined where the owner has nothing mapped. */
  readonly user: (Frame | undefined)[] = Array.from({ length: USER_PAGES }, () => ({ value: 0 }))
  readonly file: (Frame | undefined)[] = new Array<Frame | undefined>(FILE_PAGES).fill(undefined)
  /** The frame that a device's page leads to, by the page of the owner's memory it was mapped for. */
  readonly dma = new Map<number, Frame>()
  fileOpen = true

  slotAt(gfn: number): ModelSlot | undefined {
    for (const s of this.slots.values()) if (gfn >= s.first && gfn < s.first + s.pages) return s
    return undefined
  }

  /** What the guest finds at a frame. */
  guest(gfn: number): GuestEnd {
    const slot = this.slotAt(gfn)
    if (this.isPrivate[gfn]) {
      if (slot === undefined || slot.file < 0 || !this.fileOpen) return 'fault'
      const page = slot.file + gfn - slot.first
      this.file[page] ??= { value: 0 }
      return this.file[page]
    }
    if (slot === undefined) return 'MMIO'
    return this.user[slot.user + gfn - slot.first] ?? 'EFAULT'
  }

  /** Whether a page of the owner's memory is the copy of a private page. */
  withdrawn(page: number): boolean {
    for (const s of this.slots.values())
      if (page >= s.user && page < s.user + s.pages && this.isPrivate[s.first + page - s.user])
        return true
    return false
  }

  /** What a device finds at the page it was given for a page of the owner's memory; undefined: refused. */
  device(page: number): Frame | undefined {
    return this.withdrawn(page) ? undefined : this.dma.get(page)
  }

  /** KVM_SET_USER_MEMORY_REGION2 of a slot that is not there. */
  addSlot(id: number, slot: ModelSlot): '' | 'EEXIST' | 'EBADF' {
    const meet = (a: number, b: number, n: number, m: number) => a < b + m && b < a + n
    for (const s of this.slots.values())
      if (meet(slot.first, s.first, slot.pages, s.pages)) return 'EEXIST'
    if (slot.file >= 0 && !this.fileOpen) return 'EBADF'
    for (const s of this.slots.values())
      if (slot.file >= 0 && s.file >= 0 && meet(slot.file, s.file, slot.pages, s.pages))
        return 'EEXIST'
    this.slots.set(id, slot)
    return ''
  }

  /** MAP_DMA of one page. */
  mapDma(page: number): '' | 'EEXIST' | 'EFAULT' {
    if (this.dma.has(page)) return 'EEXIST'
    const frame = this.user[page]
    if (frame === undefined || this.withdrawn(page)) return 'EFAULT'
    this.dma.set(page, frame)
    return ''
  }
}
