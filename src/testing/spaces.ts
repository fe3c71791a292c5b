// Address spaces of a guest and a device's requests in them: guest memory behind a nesting container, tables
// as the guest writes them, PASIDs bound through the ioctls, DMA of the machine's functions. What differs by
// IOMMU is in `Guest`: VT-d under the vSVA profiles.
import { halves, split } from '../base/addr.js'
import type { Mapping } from '../mem/vma.js'
import { TableBuilder, type TableMemory } from '../paging/builder.js'
import { X86_4LEVEL } from '../paging/formats-x86.js'
import { PERM_ALL, PERM_USER_WRITE, PERM_WRITE } from '../paging/walk.js'
import type { PciFunction } from '../pci/function.js'
import type { Container, Program, ProgramMachine } from './program.js'

/** A page of guest memory. */
export interface Page {
  /** Guest physical address. */
  readonly gpa: bigint
  /** The page itself, live. */
  readonly bytes: Uint8Array
  /** Its bytes up to the first zero, as text. */
  readonly text: string
}

/** How a request is made. */
export interface DmaOptions {
  /** Without it the request carries no PASID. */
  readonly pasid?: number
  readonly execute?: boolean
  readonly privileged?: boolean
  /** Which function asks, by its place in the list. Default the first. */
  readonly device?: number
  /** Bytes to read. Default: to the end of the page. */
  readonly length?: number
}

/** A request that was refused. */
export interface DmaFault {
  readonly pasid: number | undefined
  /**
   * Why: the IOMMU's own name of the reason it recorded, such as `pasidEntryNotPresent`. Where it records none
   * (a refused ATS request) or never saw the request, what the function knows, such as `not-present`.
   */
  readonly fault: string
  /** Address of the first byte that was not moved. */
  readonly at: bigint
}

/** What became of a request: the text read up to the first zero or as written, or the fault. */
export type DmaOutcome = { readonly text: string } | DmaFault

/** A guest's address space under one PASID. */
export interface Space {
  readonly pasid: number
  /** Guest physical address of the table. */
  readonly root: bigint
  /** Maps a page in the guest's table, for user reads, writes and execution unless told otherwise. */
  map(iova: bigint, page: Page, options?: { readonly writable?: boolean }): void
  /** Takes a page out of the guest's table, and tells nobody: `invalidate` does. */
  unmap(iova: bigint): void
  /** CACHE_INVLD of one page, or of the whole space. */
  invalidate(iova?: bigint): void
  /** BIND_PGTBL again, after `unbind`. */
  bind(): void
  /** UNBIND_PGTBL; the PASID stays allocated. */
  unbind(): void
  /** Frees the PASID and lets its teardown happen. */
  free(): void
}

/** Bytes of guest memory, and where the guest sees them. */
const GUEST_BYTES = 4 * 2 ** 20
const GUEST_BASE = 2 ** 32
const utf8 = { encode: new TextEncoder(), decode: new TextDecoder() }

/** Address spaces of one bench. Nothing is made before it is asked for. */
export class Spaces {
  readonly #on: ProgramMachine
  readonly #start: () => Program
  #guest: Guest | undefined

  constructor(on: ProgramMachine, start: () => Program) {
    this.#on = on
    this.#start = start
  }

  page(content: string | Uint8Array): Page {
    return this.#guestOf().page(content)
  }

  bind(pasid: number, device: number): Space {
    const guest = this.#guestOf()
    const container = guest.container(device)
    container.alloc(pasid, pasid)
    const space = guest.space(pasid, container)
    space.bind()
    return space
  }

  read(iova: bigint, options: DmaOptions): DmaOutcome {
    const bytes = new Uint8Array(options.length ?? 4096 - Number(iova & 4095n))
    return this.#request(iova, options, bytes, false) ?? { text: textOf(bytes) }
  }

  write(iova: bigint, content: string | Uint8Array, options: DmaOptions): DmaOutcome {
    const bytes = typeof content === 'string' ? utf8.encode.encode(content) : content
    return this.#request(iova, options, bytes, true) ?? { text: textOf(bytes) }
  }

  #guestOf(): Guest {
    this.#guest ??= new Guest(this.#start())
    return this.#guest
  }

  #request(
    iova: bigint,
    { pasid, execute, privileged, device = 0 }: DmaOptions,
    bytes: Uint8Array,
    write: boolean,
  ): DmaFault | undefined {
    const { machine } = this.#on
    const fn = machine.fabric.function(this.#on.functions[device]!.bdf) as PciFunction
    const { dma } = fn
    // Nobody may have opened the device; a driver would have turned it on.
    if (!fn.masterEnabled) fn.config.write(0x04, 2, 0x0006)
    const before = machine.unit.lastFault
    split(iova)
    const [lo, hi] = halves as unknown as [number, number]
    const tag = { pasid, execute, privileged }
    if (write ? dma.write(hi, lo, bytes, tag) : dma.read(hi, lo, bytes, tag)) return undefined
    const { lastFault } = machine.unit
    return {
      pasid,
      fault: lastFault !== undefined && lastFault !== before ? lastFault.name : dma.failedReason,
      at: (BigInt(dma.failedHi >>> 0) << 32n) | BigInt(dma.failedLo >>> 0),
    }
  }
}

/** A guest: memory, a nesting container for each group, and tables in x86's format. */
class Guest implements TableMemory {
  readonly #program: Program
  readonly #memory: Mapping
  readonly #view: DataView
  readonly #containers = new Map<number, Container>()
  readonly #tables: TableBuilder
  #next = 0

  constructor(program: Program) {
    this.#program = program
    this.#memory = program.memory(GUEST_BYTES)
    const { buffer, byteOffset } = this.#memory.bytes
    this.#view = new DataView(buffer, byteOffset, GUEST_BYTES)
    this.#tables = new TableBuilder(X86_4LEVEL, this, { allocTable: () => this.#take() })
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

  page(content: string | Uint8Array): Page {
    const at = this.#take()
    const start = at - GUEST_BASE
    const bytes = this.#memory.bytes.subarray(start, start + 4096)
    bytes.set(typeof content === 'string' ? utf8.encode.encode(content) : content)
    return {
      gpa: BigInt(at),
      bytes,
      get text() {
        return textOf(bytes)
      },
    }
  }

  /** The nesting container of a function's group, with guest memory mapped. */
  container(device: number): Container {
    let container = this.#containers.get(device)
    if (container === undefined) {
      container = this.#program.nesting(device)
      container.map(BigInt(GUEST_BASE), this.#memory.vaddr, GUEST_BYTES)
      this.#containers.set(device, container)
    }
    return container
  }

  space(pasid: number, container: Container): Space {
    const tables = this.#tables
    const root = this.#take()
    const gpgd = BigInt(root)
    return {
      pasid,
      root: gpgd,
      map: (iova, page, { writable = true } = {}) => {
        const permissions = writable ? PERM_ALL : PERM_ALL & ~(PERM_WRITE | PERM_USER_WRITE)
        tables.map(root, Number(iova >> 12n), Number(page.gpa >> 12n), 1, permissions)
      },
      unmap: iova => void tables.unmap(root, Number(iova >> 12n), 1),
      invalidate: iova =>
        void container.invalidate(iova === undefined ? pasid : { pasid, addr: iova }),
      bind: () => void container.bind({ hpasid: pasid, gpgd }),
      unbind: () => void container.unbind(pasid),
      free: () => {
        container.free(pasid)
        this.#program.sys.process.kernel.clock.settle()
      },
    }
  }

  /** A zeroed page of guest memory. */
  #take(): number {
    if (this.#next === GUEST_BYTES)
      throw new Error(`the guest of a bench has ${GUEST_BYTES / 4096} pages, and all are used`)
    const at = GUEST_BASE + this.#next
    this.#next += 4096
    return at
  }
}

function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return utf8.decode.decode(end < 0 ? bytes : bytes.subarray(0, end))
}
