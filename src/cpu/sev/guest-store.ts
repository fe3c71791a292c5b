// The guests a firmware keeps, their keys, and memory under them: which host frames hold whose ciphertext, and what the
// confidential-DMA checker is told of them. Next: firmware.ts, whose commands work on this.

import type { AddressSpace } from '../../mem/address-space.js'
import type { ConfidentialPages } from '../../mem/confidential.js'
import { SEV_STATUS, type SevStatus } from './codes.js'
import type { CryptoProvider } from './crypto.js'
import type { GuestContext } from './guest-context.js'
import { BLOCK, MemoryKey } from './memory-key.js'

const S = SEV_STATUS
const PAGE = 4096

/** Guests by handle, and host memory. */
export class GuestStore {
  readonly crypto: CryptoProvider
  /** Where encrypted pages are marked. */
  readonly pages: ConfidentialPages
  protected readonly memory: AddressSpace
  protected readonly guests = new Map<number, GuestContext>()
  readonly #keys = new Map<number, MemoryKey>()
  /** Frames of each guest that hold its ciphertext. */
  readonly #frames = new Map<number, Set<number>>()

  constructor(memory: AddressSpace, pages: ConfidentialPages, crypto: CryptoProvider) {
    this.memory = memory
    this.pages = pages
    this.crypto = crypto
  }

  /** A guest's context; undefined: no such handle. */
  guest(handle: number): GuestContext | undefined {
    return this.guests.get(handle)
  }

  /** A guest's key, as the memory controller has it once the guest is activated; undefined: it is not. */
  keyOf(handle: number): MemoryKey | undefined {
    return this.guests.get(handle)?.asid === undefined ? undefined : this.#keys.get(handle)
  }

  /** Pages with a guest's ciphertext in them, ascending. */
  framesOf(handle: number): readonly number[] {
    return [...(this.#frames.get(handle) ?? [])].sort((a, b) => a - b)
  }

  /** Plaintext of whole blocks. */
  load(g: GuestContext, address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    this.memory.read(address, bytes)
    this.#keys.get(g.handle)!.decrypt(bytes, address)
    return bytes
  }

  /** Encrypts whole blocks, in place in `bytes` too, and puts them in memory. */
  store(g: GuestContext, address: number, bytes: Uint8Array, command: string): void {
    this.#keys.get(g.handle)!.encrypt(bytes, address)
    this.memory.write(address, bytes)
    const last = Math.floor((address + bytes.length - 1) / PAGE)
    for (let frame = Math.floor(address / PAGE); frame <= last; frame++)
      this.encrypted(g, frame, command)
  }

  /** A page has bytes under the guest's key in it now; `how` is for people. */
  encrypted(g: GuestContext, frame: number, how: string): void {
    const frames = this.#frames.get(g.handle)!
    const known = this.pages.state(frame)
    const asid = g.asid ?? 0
    if (frames.has(frame) && known?.kind === 'encrypted' && known.asid === asid) return
    frames.add(frame)
    this.pages.mark(frame, 1, { kind: 'encrypted', asid }, `SEV guest ${g.handle}: ${how}`)
  }

  /** A page of the guest is plain memory again. */
  decrypted(g: GuestContext, frame: number, how: string): void {
    if (!this.#frames.get(g.handle)!.delete(frame)) return
    if (this.pages.state(frame)?.kind !== 'encrypted') return
    this.pages.mark(frame, 1, undefined, `SEV guest ${g.handle}: ${how}`)
  }

  /** What a range of memory is refused for: it is no whole blocks, or not RAM. */
  range(address: number, length: number): SevStatus {
    if (!(length > 0) || length % BLOCK !== 0) return S.INVALID_LENGTH
    if (address % BLOCK !== 0) return S.INVALID_ADDRESS
    const ram = this.memory.ramAt(address)
    const there = ram !== undefined && address + length <= ram.base + ram.size
    return there ? S.SUCCESS : S.INVALID_ADDRESS
  }

  /** Takes a guest in. */
  protected keep(g: GuestContext): void {
    this.guests.set(g.handle, g)
    this.#keys.set(g.handle, new MemoryKey(this.crypto, g.key))
    this.#frames.set(g.handle, new Set())
  }

  /** Forgets a guest, keys and all; its pages are nobody's ciphertext then. */
  protected forget(g: GuestContext, how: string): void {
    for (const frame of this.framesOf(g.handle)) this.decrypted(g, frame, how)
    this.guests.delete(g.handle)
    this.#keys.delete(g.handle)
    this.#frames.delete(g.handle)
  }
}
