// Address spaces of a guest as a test sees them, and a device's requests in them. How the guest makes them, in
// its memory and by ioctls: guest.ts; what differs by IOMMU: stage1.ts.
import { halves, split } from '../base/addr.js'
import type { PciFunction } from '../pci/function.js'
import { Guest, textOf, utf8 } from './guest.js'
import type { Program, ProgramMachine } from './program.js'
import { stage1Of } from './stage1.js'

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
   * Why: the IOMMU's own name of the reason it recorded, such as `pasidEntryNotPresent` or `C_BAD_CD`. Where it records none
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
  /** Tells the IOMMU of one page, or of the whole space: CACHE_INVLD; on SMMUv3 CACHE_INVALIDATE. */
  invalidate(iova?: bigint): void
  /** Again, after `unbind`: BIND_PGTBL; on SMMUv3 the guest writes its context descriptor. */
  bind(): void
  /** UNBIND_PGTBL, the PASID stays allocated; on SMMUv3 the descriptor goes. */
  unbind(): void
  /** Frees the PASID and lets its teardown happen; on SMMUv3 as `unbind`: PASIDs are the guest's own. */
  free(): void
}

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
    const space = this.#guestOf().space(pasid, device)
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
    this.#guest ??= new Guest(this.#start(), stage1Of(this.#on.machine))
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
