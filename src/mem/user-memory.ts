/**
 * A caller's memory as the kernel sees it: copies that may fault. Addresses are `number` in here: above
 * 2^53 they lose low bits, which is harmless, since such addresses always fault.
 * Next: process-memory.ts, the memory of an in-process caller.
 */

/** Reads and writes the calling process's address space. False means EFAULT. */
export interface UserMemory {
  /** Copies `length` bytes (default: all of `into`) from the caller; false when any byte is not readable. */
  copyIn(addr: number, into: Uint8Array, length?: number): boolean
  /** Copies `length` bytes of `from` (default: all) to the caller; false when any byte is not writable. */
  copyOut(addr: number, from: Uint8Array, length?: number): boolean
  /**
   * Reads a NUL-terminated UTF-8 string of at most `max` bytes, terminator included: `'fault'` when it
   * runs into unreadable memory, `'long'` when no terminator comes in time.
   */
  string(addr: number, max: number): string | 'fault' | 'long'
}
