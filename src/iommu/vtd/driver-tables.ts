/**
 * Root, context and PASID tables in host memory, as the driver writes them for a unit in scalable mode.
 * An entry's present bit is written last and cleared first. Layouts: tables.ts; who invalidates: driver.ts.
 */
import type { FrameAllocator } from '../../mem/frames.js'
import {
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  PASIDS_PER_TABLE,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from './tables.js'

const CONTEXTS_PER_TABLE = 128

/** Stores an entry of any size so that its first word, which holds the present bit, comes last. */
function store({ ram }: FrameAllocator, at: number, words: Uint32Array): void {
  const first = (at - ram.base) >>> 2
  for (let i = words.length - 1; i >= 0; i--) ram.words[first + i] = words[i]!
  if (ram.dirty !== undefined) ram.wrote(at - ram.base, 4 * words.length, 'driver')
}

/** Zeroes an entry, present bit first. */
function clear({ ram }: FrameAllocator, at: number, bytes: number): void {
  const first = (at - ram.base) >>> 2
  for (let i = 0; i < bytes >> 2; i++) ram.words[first + i] = 0
  if (ram.dirty !== undefined) ram.wrote(at - ram.base, bytes, 'driver')
}

/** The root table of a unit and the context tables it leads to. */
export class ContextTables {
  /** Address for RTADDR_REG. */
  readonly root: number
  readonly #frames: FrameAllocator
  /** Context tables by bus and half, with the number of entries in use. */
  readonly #tables = new Map<number, { readonly at: number; used: number }>()

  constructor(frames: FrameAllocator) {
    this.#frames = frames
    this.root = frames.alloc()
  }

  /** Makes a function's entry present. ENOMEM when a context table is needed and there is no frame. */
  set(bdf: number, entry: { readonly words: Uint32Array }): void {
    const half = bdf >> 7
    let table = this.#tables.get(half)
    if (table === undefined) {
      table = { at: this.#frames.alloc(), used: 0 }
      this.#tables.set(half, table)
      this.#link(half, table.at)
    }
    table.used++
    store(this.#frames, this.#at(bdf, table.at), entry.words)
  }

  /** Takes a function's entry away. */
  clear(bdf: number): void {
    const table = this.#tables.get(bdf >> 7)
    if (table === undefined) return
    clear(this.#frames, this.#at(bdf, table.at), SM_CONTEXT_ENTRY.size)
    table.used--
  }

  /** Frees context tables that hold nothing, once the unit has dropped what it cached. */
  trim(): void {
    for (const [half, table] of this.#tables) {
      if (table.used > 0) continue
      this.#link(half, 0)
      this.#frames.free(table.at)
      this.#tables.delete(half)
    }
  }

  #at(bdf: number, table: number): number {
    return table + (bdf % CONTEXTS_PER_TABLE) * SM_CONTEXT_ENTRY.size
  }

  #link(half: number, table: number): void {
    const at = this.root + (half >> 1) * SM_ROOT_ENTRY.size
    const entry = SM_ROOT_ENTRY.create()
    this.#frames.space.read(at, entry.bytes)
    if (half & 1) Object.assign(entry, { UCTP: table, UP: table !== 0 })
    else Object.assign(entry, { LCTP: table, LP: table !== 0 })
    store(this.#frames, at, entry.words)
  }
}

/** PASID directory and tables of one function. */
export class PasidTable {
  /** Address for PASIDDIRPTR. */
  readonly directory: number
  /** For PDTS: the directory has 2^(pdts+7) entries. */
  readonly pdts: number
  readonly #frames: FrameAllocator
  readonly #pages: number
  readonly #tables = new Map<number, number>()

  /** A directory for PASIDs of `bits` bits. ENOMEM. */
  constructor(frames: FrameAllocator, bits: number) {
    this.#frames = frames
    this.pdts = Math.max(0, bits - 13)
    this.#pages = Math.ceil((2 ** (this.pdts + 7) * PASID_DIRECTORY_ENTRY.size) / 4096)
    this.directory = frames.alloc(this.#pages)
  }

  /** Address of a PASID's entry; 0 while there is no table for it. */
  find(pasid: number): number {
    const table = this.#tables.get(Math.floor(pasid / PASIDS_PER_TABLE))
    return table === undefined ? 0 : table + (pasid % PASIDS_PER_TABLE) * PASID_ENTRY.size
  }

  /** Address of a PASID's entry, its table made when missing. ENOMEM. */
  make(pasid: number): number {
    const index = Math.floor(pasid / PASIDS_PER_TABLE)
    if (!this.#tables.has(index)) {
      const table = this.#frames.alloc()
      this.#tables.set(index, table)
      const entry = PASID_DIRECTORY_ENTRY.create({ SMPTBLPTR: table, P: true })
      store(this.#frames, this.directory + index * PASID_DIRECTORY_ENTRY.size, entry.words)
    }
    return this.find(pasid)
  }

  /** Whether a PASID's entry is present. */
  present(pasid: number): boolean {
    const at = this.find(pasid)
    return at !== 0 && (this.#frames.space.readU32(at) & 1) !== 0
  }

  set(at: number, entry: { readonly words: Uint32Array }): void {
    store(this.#frames, at, entry.words)
  }

  clear(pasid: number): void {
    const at = this.find(pasid)
    if (at !== 0) clear(this.#frames, at, PASID_ENTRY.size)
  }

  /** Gives everything back; the unit must not know the directory any more. */
  free(): void {
    for (const table of this.#tables.values()) this.#frames.free(table)
    this.#frames.free(this.directory, this.#pages)
  }
}
