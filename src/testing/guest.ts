// A guest of a bench: its memory, a nesting container for each group, tables in its processors' format. What it
// does to put a table under a PASID is its stage 1's: stage1.ts.
import type { Mapping } from '../mem/vma.js'
import { TableBuilder, type TableMemory } from '../paging/builder.js'
import type { PageTableFormat } from '../paging/format.js'
import { PERM_ALL, PERM_USER_WRITE, PERM_WRITE } from '../paging/walk.js'
import type { Container, Program } from './program.js'
import type { Page, Space } from './spaces.js'

/** Bytes of guest memory, and where the guest sees them. */
const GUEST_BYTES = 4 * 2 ** 20
const GUEST_BASE = 2 ** 32

export const utf8 = { encode: new TextEncoder(), decode: new TextDecoder() }

/** Bytes up to the first zero, as text. */
export function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return utf8.decode.decode(end < 0 ? bytes : bytes.subarray(0, end))
}

/** What a space is to the IOMMU. */
export type SpaceCalls = Pick<Space, 'bind' | 'unbind' | 'invalidate' | 'free'>

/** How guests of one IOMMU make address spaces. */
export interface Stage1 {
  readonly format: PageTableFormat
  /** Takes the PASID for a table at guest physical `root`, and answers how it is bound. */
  space(guest: Guest, container: Container, pasid: number, root: number): SpaceCalls
}

/** A guest: one process, and what it maps for devices. */
export class Guest implements TableMemory {
  readonly #program: Program
  readonly #stage1: Stage1
  readonly #memory: Mapping
  readonly #view: DataView
  readonly #containers = new Map<number, Container>()
  readonly #tables: TableBuilder
  #next = 0

  constructor(program: Program, stage1: Stage1) {
    this.#program = program
    this.#stage1 = stage1
    this.#memory = program.memory(GUEST_BYTES)
    const { buffer, byteOffset } = this.#memory.bytes
    this.#view = new DataView(buffer, byteOffset, GUEST_BYTES)
    this.#tables = new TableBuilder(stage1.format, this, { allocTable: () => this.take() })
  }

  readEntry(at: number, into: { entryLo: number; entryHi: number }): boolean {
    into.entryLo = this.#view.getInt32(at - GUEST_BASE, true)
    into.entryHi = this.#view.getInt32(at - GUEST_BASE + 4, true)
    return true
  }

  writeU32(at: number, value: number): boolean {
    this.#view.setInt32(at - GUEST_BASE, value, true)
    return true
  }

  /** Live bytes of guest memory at a guest physical address. */
  bytes(at: number, length: number): Uint8Array {
    return this.#memory.bytes.subarray(at - GUEST_BASE, at - GUEST_BASE + length)
  }

  page(content: string | Uint8Array): Page {
    const at = this.take()
    const bytes = this.bytes(at, 4096)
    bytes.set(typeof content === 'string' ? utf8.encode.encode(content) : content)
    return {
      gpa: BigInt(at),
      bytes,
      get text() {
        return textOf(bytes)
      },
    }
  }

  /** A space of a function's group, not bound yet. */
  space(pasid: number, device: number): Space {
    const container = this.#container(device)
    const tables = this.#tables
    const root = this.take()
    return {
      ...this.#stage1.space(this, container, pasid, root),
      pasid,
      root: BigInt(root),
      map: (iova, page, { writable = true } = {}) => {
        const permissions = writable ? PERM_ALL : PERM_ALL & ~(PERM_WRITE | PERM_USER_WRITE)
        tables.map(root, Number(iova >> 12n), Number(page.gpa >> 12n), 1, permissions)
      },
      unmap: iova => void tables.unmap(root, Number(iova >> 12n), 1),
    }
  }

  /** Zeroed pages of guest memory, a power of two of them, aligned to their size. */
  take(pages = 1): number {
    const bytes = pages * 4096
    const at = Math.ceil(this.#next / bytes) * bytes
    if (at + bytes > GUEST_BYTES)
      throw new Error(`the guest of a bench has ${GUEST_BYTES / 4096} pages, and all are used`)
    this.#next = at + bytes
    return GUEST_BASE + at
  }

  /** Lets everything happen that is due. */
  settle(): void {
    this.#program.sys.process.kernel.clock.settle()
  }

  /** The nesting container of a function's group, with guest memory mapped. */
  #container(device: number): Container {
    let container = this.#containers.get(device)
    if (container === undefined) {
      container = this.#program.nesting(device)
      container.map(BigInt(GUEST_BASE), this.#memory.vaddr, GUEST_BYTES)
      this.#containers.set(device, container)
    }
    return container
  }
}
