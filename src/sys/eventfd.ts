/**
 * eventfd(2): a 64-bit counter behind a descriptor. Drivers signal it and listen to it by plain calls;
 * a program outside the model may await it through `events`. A blocking read lets virtual time pass
 * until somebody signals; when nothing is left that could, it answers EINTR.
 */
import { ErrnoError } from '../base/errno.js'
import { type Emitter, emitter } from '../base/events.js'
import { O_CLOEXEC, O_NONBLOCK, type OpenFile } from './open-file.js'
import type { Process } from './process.js'

export const EFD_SEMAPHORE = 1
export const EFD_NONBLOCK = O_NONBLOCK
export const EFD_CLOEXEC = O_CLOEXEC

/** A read or write leaves the counter at most here; signals from the kernel may reach one more. */
const FULL = 0xffff_ffff_ffff_ffffn
/** Steps of the clock a blocking call waits: far beyond any model's work, short of a hang. */
const PATIENCE = 1e6

/** Events of an eventfd for the program that awaits it. */
export type EventFdEvents = {
  /** The counter grew. */
  signal: () => void
}

/** The file behind an eventfd. */
export class EventFd implements OpenFile {
  readonly kind = 'eventfd'
  readonly semaphore: boolean
  #count: bigint
  readonly #listeners = new Set<() => void>()
  readonly #closers = new Set<() => void>()
  #events: Emitter<EventFdEvents> | undefined = undefined

  constructor(initial = 0, semaphore = false) {
    this.#count = BigInt(initial)
    this.semaphore = semaphore
  }

  /** The counter. */
  get count(): bigint {
    return this.#count
  }

  /** Node's emitter idioms for a program: `once(eventfd.events, 'signal')`. */
  get events(): Emitter<EventFdEvents> {
    this.#events ??= emitter<EventFdEvents>()
    return this.#events
  }

  /** Adds to the counter as a driver does: never blocks, stays at 2^64-1. */
  signal(n = 1): void {
    const sum = this.#count + BigInt(n)
    this.#count = sum > FULL ? FULL : sum
    this.#tell()
  }

  digest(): Uint8Array {
    return new Uint8Array(BigUint64Array.of(this.#count).buffer)
  }

  /** Calls `listener` at each signal and write, at once. Returns what ends it. */
  onSignal(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Calls `listener` when the last descriptor is closed (an irqfd then lets go). Returns what ends it. */
  onRelease(listener: () => void): () => void {
    this.#closers.add(listener)
    return () => this.#closers.delete(listener)
  }

  /** Takes what a read would: the counter, or 1 of a semaphore; 0 when there is nothing. */
  take(): bigint {
    const taken = this.semaphore && this.#count > 0n ? 1n : this.#count
    this.#count -= taken
    return taken
  }

  read(into: Uint8Array, caller: Process, flags: number): number {
    if (into.length < 8) throw new ErrnoError('EINVAL', 'read of an eventfd takes 8 bytes', 'read')
    this.#wait(() => this.#count > 0n, caller, flags, 'read')
    new DataView(into.buffer, into.byteOffset, 8).setBigUint64(0, this.take(), true)
    return 8
  }

  write(from: Uint8Array, caller: Process, flags: number): number {
    if (from.length < 8)
      throw new ErrnoError('EINVAL', 'write of an eventfd takes 8 bytes', 'write')
    const add = new DataView(from.buffer, from.byteOffset, 8).getBigUint64(0, true)
    if (add === FULL)
      throw new ErrnoError('EINVAL', 'write: an eventfd cannot take 2^64-1', 'write')
    this.#wait(() => this.#count + add < FULL, caller, flags, 'write')
    this.#count += add
    this.#tell()
    return 8
  }

  readable(): boolean {
    return this.#count > 0n
  }

  onReadable(listener: () => void): () => void {
    return this.onSignal(listener)
  }

  release(): void {
    for (const listener of [...this.#closers]) listener()
  }

  #tell(): void {
    for (const listener of this.#listeners) listener()
    this.#events?.emit('signal')
  }

  #wait(ready: () => boolean, caller: Process, flags: number, syscall: string): void {
    if (ready()) return
    if ((flags & O_NONBLOCK) !== 0) {
      throw new ErrnoError('EAGAIN', `${syscall}: the eventfd would block`, syscall)
    }
    for (let steps = 0; steps < PATIENCE && caller.kernel.clock.step(); steps++) {
      if (ready()) return
    }
    throw new ErrnoError('EINTR', `${syscall}: nothing is left that could end the wait`, syscall)
  }
}
