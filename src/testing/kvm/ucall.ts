// Reports of guest tests to their host, the other side of guests/lib/guest.h: a struct of a kind and eight values in
// guest memory, whose address leaves the guest.

import { hex } from '../../base/addr.js'

/** Kinds of reports, as guests/lib/guest.h numbers them. */
export const UCALL = { NONE: 0, SYNC: 1, ABORT: 2, DONE: 3, UNHANDLED: 4 } as const

/** Bytes of `struct ucall`. */
export const UCALL_BYTES = 8 + 8 * 8

/** A report, read from guest memory. */
export interface Ucall {
  readonly cmd: number
  readonly args: readonly bigint[]
}

/** Reads `struct ucall`. */
export function readUcall(bytes: Uint8Array): Ucall {
  const view = new DataView(bytes.buffer, bytes.byteOffset, UCALL_BYTES)
  const args = Array.from({ length: 8 }, (_, i) => view.getBigUint64(8 + 8 * i, true))
  return { cmd: Number(view.getBigUint64(0, true)), args }
}

/** A GUEST_ASSERT or GUEST_ASSERT_EQ that failed in the guest. */
export class GuestAssertionError extends Error {
  override readonly name = 'GuestAssertionError'
}

/** An exception in the guest that nobody handled. */
export class UnhandledExceptionError extends Error {
  override readonly name = 'UnhandledExceptionError'
  readonly vector: number
  /** Exception class; undefined where there is none (interrupts, vectors that were not decoded). */
  readonly ec: number | undefined

  constructor(vector: number, ec: number | undefined) {
    const known = ec === undefined ? '' : `, ec ${hex(ec)}`
    super(`unexpected exception in the guest: vector ${hex(vector)}${known}`)
    this.vector = vector
    this.ec = ec
  }
}

/** The failed assertion of an UCALL_ABORT; `textAt` reads a string of the guest. */
export function assertionOf({ args }: Ucall, textAt: (at: bigint) => string): GuestAssertionError {
  const [text, file, line, count, a, b] = args
  const values = count === 2n ? `: ${hex(a!)} != ${hex(b!)}` : ''
  return new GuestAssertionError(`${textAt(text!)} at ${textAt(file!)}:${line}${values}`)
}
