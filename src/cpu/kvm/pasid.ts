// Guest PASID to host PASID, one table a VM, as the processor looks it up for ENQCMD and ENQCMDS: two directories
// chosen by PASID bit 19, 512 entries each (bits 18:10), tables of 1024 words (bits 9:0; bit 31 valid, bits 19:0 the host's).
// Filled from bind, unbind and free events of whoever hands out PASIDs; never by guessing that the two are equal.

const VALID = 0x8000_0000 | 0
const ENTRIES = 1024
const PASIDS = 1 << 20

/** What happens to the PASIDs of one address space (mm). */
export interface PasidHandler {
  /** A guest page table was bound: the guest's `guest` is the host's `host`. */
  bind(guest: number, host: number): void
  unbind(guest: number, host: number): void
  /** The host's PASID is gone; whatever translated to it translates no more. */
  free(host: number): void
}

/** Whoever knows about PASIDs tells here. Returns what ends the subscription. */
export interface PasidSource {
  subscribe(mm: object, handler: PasidHandler): () => void
}

/** A VM's PASID translation. */
export class PasidTranslation implements PasidHandler {
  readonly #directories: [(Int32Array | undefined)[], (Int32Array | undefined)[]] = [[], []]
  readonly #guestOf = new Map<number, Set<number>>()

  /** The host PASID that a device must see, or -1: no submission. */
  translate(guest: number): number {
    const entry = this.#tableOf(guest)?.[guest & (ENTRIES - 1)] ?? 0
    return (entry & VALID) === 0 ? -1 : entry & (PASIDS - 1)
  }

  /** Guest PASIDs that translate. */
  get count(): number {
    let n = 0
    for (const guests of this.#guestOf.values()) n += guests.size
    return n
  }

  bind(guest: number, host: number): void {
    if (!isPasid(guest) || !isPasid(host)) return
    this.#clear(guest)
    const directory = this.#directories[(guest >>> 19) as 0 | 1]
    const table = (directory[(guest >>> 10) & 511] ??= new Int32Array(ENTRIES))
    table[guest & (ENTRIES - 1)] = VALID | host
    const guests = this.#guestOf.get(host)
    if (guests === undefined) this.#guestOf.set(host, new Set([guest]))
    else guests.add(guest)
  }

  unbind(guest: number, host: number): void {
    if (isPasid(guest) && this.translate(guest) === host) this.#clear(guest)
  }

  free(host: number): void {
    for (const guest of [...(this.#guestOf.get(host) ?? [])]) this.#clear(guest)
  }

  #tableOf(guest: number): Int32Array | undefined {
    return isPasid(guest)
      ? this.#directories[(guest >>> 19) as 0 | 1][(guest >>> 10) & 511]
      : undefined
  }

  #clear(guest: number): void {
    const host = this.translate(guest)
    if (host < 0) return
    this.#tableOf(guest)![guest & (ENTRIES - 1)] = 0
    const guests = this.#guestOf.get(host)!
    guests.delete(guest)
    if (guests.size === 0) this.#guestOf.delete(host)
  }
}

const isPasid = (v: number): boolean => Number.isInteger(v) && v >= 0 && v < PASIDS
