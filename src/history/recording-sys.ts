// The system calls of a machine that is recorded: each is kept with its arguments and its answer.
// Listeners of `onReadable` are wrapped, so that what a caller does in them is kept where it happened.

import type { ErrnoError } from '../base/errno.js'
import { Mapping } from '../mem/vma.js'
import type { EventFd } from '../sys/eventfd.js'
import type { FileStatus } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import { type FileMapping, type IoctlArgument, Sys, type UserBuffer } from '../sys/sys.js'
import type { Called } from './log.js'
import type { Recorder } from './recorder.js'
import { fingerprint } from './values.js'

/** An answer as the history keeps it: what was returned, and the bytes that arguments held after the call. */
export function answerOf(answer: unknown, args: readonly unknown[]): string {
  const parts = ['ok']
  if (answer instanceof Uint8Array) parts.push(`${answer.length}:${fingerprint(answer)}`)
  else if (answer instanceof Sys) parts.push(`pid ${answer.process.pid}`)
  else if (answer instanceof Mapping) parts.push(`0x${answer.vaddr.toString(16)}`)
  else if (['number', 'boolean', 'bigint', 'string'].includes(typeof answer))
    parts.push(String(answer))
  for (const arg of args) if (arg instanceof Uint8Array) parts.push(fingerprint(arg))
  return parts.join(' ')
}

/** How a refusal is kept: the errno's name. */
export const refusalOf = (error: unknown): string =>
  (error as ErrnoError).code ?? `error ${(error as Error).message}`

/** A mapping whose loads and stores of registers are kept. */
class RecordedMapping extends Mapping {
  readonly #recorder: Recorder
  readonly #pid: number

  constructor(of: Mapping, recorder: Recorder, pid: number) {
    super(of.vma, of.length)
    this.#recorder = recorder
    this.#pid = pid
  }

  override load(offset: number, size: 1 | 2 | 4 | 8): bigint {
    if (this.vma.device === undefined) return super.load(offset, size)
    return this.#keep('load', [this.vaddr, offset, size], () => super.load(offset, size))
  }

  override store(offset: number, size: 1 | 2 | 4 | 8, value: bigint): void {
    if (this.vma.device === undefined) super.store(offset, size, value)
    else
      this.#keep('store', [this.vaddr, offset, size, value], () => super.store(offset, size, value))
  }

  #keep<T>(name: string, args: readonly unknown[], run: () => T): T {
    return keep(this.#recorder, this.#pid, name, args, run)
  }
}

/** Runs a call and keeps it with its answer. */
function keep<T>(
  recorder: Recorder,
  pid: number,
  name: string,
  args: readonly unknown[],
  run: () => T,
): T {
  const given = args.map(arg => (arg instanceof Uint8Array ? arg.slice() : arg))
  const call: Called = { op: 'call', pid, name, args: given, answer: '' }
  return recorder.during(call, () => {
    try {
      const answer = run()
      call.answer = answerOf(answer, args)
      return answer
    } catch (error) {
      call.answer = refusalOf(error)
      throw error
    }
  })
}

/** `Sys` of a recorded machine. */
export class RecordingSys extends Sys {
  readonly #recorder: Recorder

  constructor(process: Process, recorder: Recorder) {
    super(process)
    this.#recorder = recorder
    recorder.processes.set(process.pid, this)
    process.onExit(() => recorder.exited(process.pid))
  }

  override open(path: string, flags?: number): number {
    return this.#keep('open', flags === undefined ? [path] : [path, flags], () =>
      super.open(path, flags),
    )
  }

  override close(fd: number): void {
    this.#keep('close', [fd], () => super.close(fd))
  }

  override dup(fd: number): number {
    return this.#keep('dup', [fd], () => super.dup(fd))
  }

  override ioctl(fd: number, cmd: number, arg: IoctlArgument = 0): number {
    const plain = typeof arg === 'object' && !(arg instanceof Uint8Array) ? arg.bytes : arg
    return this.#keep('ioctl', [fd, cmd, plain], () => super.ioctl(fd, cmd, plain))
  }

  override pread(fd: number, length: number, offset: bigint | number): Uint8Array
  override pread(fd: number, into: Uint8Array | UserBuffer, offset: bigint | number): number
  override pread(
    fd: number,
    what: number | Uint8Array | UserBuffer,
    offset: bigint | number,
  ): Uint8Array | number {
    return this.#keep('pread', [fd, plain(what), offset], () =>
      super.pread(fd, what as Uint8Array, offset),
    )
  }

  override pwrite(fd: number, from: Uint8Array | UserBuffer, offset: bigint | number): number {
    return this.#keep('pwrite', [fd, plain(from), offset], () => super.pwrite(fd, from, offset))
  }

  override read(fd: number, length: number): Uint8Array
  override read(fd: number, into: Uint8Array | UserBuffer): number
  override read(fd: number, what: number | Uint8Array | UserBuffer): Uint8Array | number {
    return this.#keep('read', [fd, plain(what)], () => super.read(fd, what as Uint8Array))
  }

  override write(fd: number, from: Uint8Array | UserBuffer): number {
    return this.#keep('write', [fd, plain(from)], () => super.write(fd, from))
  }

  override mmap(what: number | FileMapping): Mapping {
    const mapping = this.#keep('mmap', [what], () => super.mmap(what))
    const { bytes } = mapping.vma
    if (bytes !== undefined) this.#recorder.mapped(this.process.pid, Number(mapping.vaddr), bytes)
    return new RecordedMapping(mapping, this.#recorder, this.process.pid)
  }

  override munmap(vaddr: bigint, length: number): void {
    this.#keep('munmap', [vaddr, length], () => super.munmap(vaddr, length))
    this.#recorder.unmapped(this.process.pid, Number(vaddr), length)
  }

  override fallocate(
    fd: number,
    mode: number,
    offset: bigint | number,
    length: bigint | number,
  ): void {
    const args = [fd, mode, offset, length]
    this.#keep('fallocate', args, () => super.fallocate(fd, mode, offset, length))
  }

  override fstat(fd: number): FileStatus {
    return super.fstat(fd)
  }

  override ftruncate(fd: number, length: bigint | number): void {
    this.#keep('ftruncate', [fd, length], () => super.ftruncate(fd, length))
  }

  override eventfd(initial = 0, flags = 0): number {
    return this.#keep('eventfd', [initial, flags], () => super.eventfd(initial, flags))
  }

  /** Awaiting an eventfd's events changes nothing; a call made from such a listener cannot be recorded. */
  override eventfdOf(fd: number): EventFd {
    return super.eventfdOf(fd)
  }

  override readable(fd: number): boolean {
    return super.readable(fd)
  }

  override onReadable(fd: number, listener: () => void): () => void {
    const { watch, call } = this.#recorder.watch(listener)
    const stop = this.#keep('onReadable', [fd, watch], () => super.onReadable(fd, call))
    let watching = true
    return () => {
      if (watching) this.#recorder.add({ op: 'unwatch', watch })
      watching = false
      stop()
    }
  }

  override fork(): Sys {
    return this.#keep('fork', [], () => {
      const child = this.process.fork()
      try {
        return new RecordingSys(child, this.#recorder)
      } catch (error) {
        child.exit()
        throw error
      }
    })
  }

  override exit(): void {
    this.#keep('exit', [], () => super.exit())
  }

  #keep<T>(name: string, args: readonly unknown[], run: () => T): T {
    return keep(this.#recorder, this.process.pid, name, args, run)
  }
}

/** A buffer by address, without what a mapping has besides. */
function plain(what: number | Uint8Array | UserBuffer): unknown {
  if (typeof what === 'number' || what instanceof Uint8Array) return what
  return { vaddr: what.vaddr, length: what.length }
}
