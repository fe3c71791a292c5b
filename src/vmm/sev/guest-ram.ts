// Guest RAM as the VMM itself uses it: through hooks that an encrypted guest puts in (C.4 rows 01 to 04, 08, 10, 11,
// 14, 15, 19). Accesses carry attributes; one marked for debugging sees what the guest would, where policy allows.

import { GUEST_STATE } from '../../cpu/kvm/uapi/sev-codes.js'
import type { Mapping } from '../../mem/vma.js'
import type { SevLaunch } from './launch.js'

/** What an access of the VMM says of itself. */
export interface AccessAttributes {
  /** It is a debugger's or the monitor's. */
  readonly debug?: boolean
}

/** What may stand between the VMM and a region's bytes. Addresses are process addresses inside the region. */
export interface RamHooks {
  read(vaddr: bigint, bytes: Uint8Array, into: Uint8Array, attributes: AccessAttributes): void
  write(vaddr: bigint, bytes: Uint8Array, from: Uint8Array, attributes: AccessAttributes): void
}

const PLAIN: RamHooks = {
  read: (_vaddr, bytes, into) => into.set(bytes),
  write: (_vaddr, bytes, from) => bytes.set(from),
}

/** One region of guest memory, as PC RAM or BIOS. */
export class GuestRam {
  readonly name: string
  /** Guest-physical address of its first byte. */
  readonly base: number
  readonly #mapping: Mapping
  /** Every access of the VMM goes through these. */
  hooks: RamHooks = PLAIN

  constructor(name: string, base: number, mapping: Mapping) {
    this.name = name
    this.base = base
    this.#mapping = mapping
  }

  get size(): number {
    return this.#mapping.bytes.length
  }

  /** Process address of its first byte. */
  get vaddr(): bigint {
    return this.#mapping.vaddr
  }

  /** Its bytes as they lie in memory. */
  get bytes(): Uint8Array {
    return this.#mapping.bytes
  }

  /** Whether it holds all of a guest-physical range. */
  holds(gpa: number, length: number): boolean {
    return gpa >= this.base && gpa + length <= this.base + this.size
  }

  read(gpa: number, into: Uint8Array, attributes: AccessAttributes = {}): void {
    const { vaddr, bytes } = this.#part(gpa, into.length)
    this.hooks.read(vaddr, bytes, into, attributes)
  }

  write(gpa: number, from: Uint8Array, attributes: AccessAttributes = {}): void {
    const { vaddr, bytes } = this.#part(gpa, from.length)
    this.hooks.write(vaddr, bytes, from, attributes)
  }

  #part(gpa: number, length: number) {
    if (!this.holds(gpa, length))
      throw new RangeError(`${length} bytes at ${gpa} are not in ${this.name}`)
    const offset = gpa - this.base
    return {
      vaddr: this.#mapping.vaddr + BigInt(offset),
      bytes: this.#mapping.bytes.subarray(offset, offset + length),
    }
  }
}

/**
 * The hooks of an encrypted guest. While it is launched, what the VMM writes is copied and then encrypted in place.
 * Later a plain access meets the bytes as they are; one for debugging goes through the firmware, and where the policy
 * forbids that, reads give ciphertext and writes are dropped.
 */
export function sevHooks(launch: SevLaunch): RamHooks {
  return {
    read(vaddr, bytes, into, { debug }) {
      if (!debug || launch.state === GUEST_STATE.UNINIT || !launch.debugRead(vaddr, into))
        into.set(bytes)
    },
    write(vaddr, bytes, from, { debug }) {
      if (launch.state === GUEST_STATE.LAUNCHING) {
        bytes.set(from)
        launch.update(vaddr, from.length)
      } else if (debug && launch.state !== GUEST_STATE.UNINIT) launch.debugWrite(vaddr, from)
      else bytes.set(from)
    },
  }
}
