/**
 * The system calls, as one process makes them: what a program holds. Reads like the C it stands for;
 * refusals are `ErrnoError`. A struct, cell or string given to ioctl is placed in the process's memory
 * for the call and read back after it, also when the call is refused.
 */
import { hex, PAGE_SIZE } from '../base/addr.js'
import { ErrnoError, type ErrnoName } from '../base/errno.js'
import { type Mapping, PROT_READ, PROT_WRITE } from '../mem/vma.js'
import { EFD_CLOEXEC, EFD_NONBLOCK, EFD_SEMAPHORE, EventFd } from './eventfd.js'
import type { FileDescription } from './fd-table.js'
import {
  FALLOC_FL_KEEP_SIZE,
  FALLOC_FL_PUNCH_HOLE,
  type FileStatus,
  O_ACCMODE,
  O_RDONLY,
  O_RDWR,
  O_WRONLY,
} from './open-file.js'
import type { Process } from './process.js'
import { Scratch } from './scratch.js'

/** A 32-bit signed integer that a pointer argument points at: C's `int x; ioctl(fd, cmd, &x)`. */
export class S32Cell {
  readonly bytes = new Uint8Array(4)
  readonly #view = new Int32Array(this.bytes.buffer)

  constructor(value: number) {
    this.#view[0] = value
  }

  get value(): number {
    return this.#view[0]!
  }

  set value(value: number) {
    this.#view[0] = value
  }
}

/** A pointer to a 32-bit integer, such as a descriptor. The kernel's answer is in `.value` after the call. */
export const s32 = (value: number): S32Cell => new S32Cell(value)

/**
 * An ioctl argument: a number or bigint is passed as it is; a struct value, a cell, a byte array or a
 * string (NUL-terminated) is pointed at.
 */
export type IoctlArgument = number | bigint | string | Uint8Array | { readonly bytes: Uint8Array }

/** A buffer in the process's memory, given by address; a `Mapping` is one. */
export interface UserBuffer {
  readonly vaddr: bigint
  readonly length: number
}

/** A mapping of a file. */
export interface FileMapping {
  readonly fd: number
  /** Page-aligned. */
  readonly offset: bigint | number
  readonly length: number
  /** Readable and writable by default. */
  readonly prot?: number
  readonly at?: bigint
  /** MAP_PRIVATE instead of MAP_SHARED. */
  readonly copyOnWrite?: boolean
}

/** Modes of fallocate beside KEEP_SIZE: whether it must, or must not, come with it. One at a time. */
const FALLOC_MODES = new Map<number, 'keep' | 'grow' | 'any'>([
  [0, 'any'],
  [FALLOC_FL_PUNCH_HOLE, 'keep'],
  [8, 'grow'], // COLLAPSE_RANGE
  [16, 'any'], // ZERO_RANGE
  [32, 'grow'], // INSERT_RANGE
  [64, 'any'], // UNSHARE_RANGE
])

/** Largest transfer of one read or write (MAX_RW_COUNT). */
const MAX_TRANSFER = 0x7fff_f000
const text = new TextEncoder()

/** The system calls of one process. */
export class Sys {
  readonly process: Process
  readonly #scratch: Scratch

  constructor(process: Process) {
    this.process = process
    this.#scratch = new Scratch(process.memory)
  }

  /** Opens a device node, for reading and writing by default. */
  open(path: string, flags = O_RDWR): number {
    const { fds, kernel } = this.process
    this.#alive('open')
    fds.reserve('open')
    return fds.install(kernel.nodes.open(this.process, path, flags), flags, 'open')
  }

  close(fd: number): void {
    this.process.fds.close(fd)
  }

  dup(fd: number): number {
    return this.process.fds.dup(fd)
  }

  /** Makes a request of a file and returns its answer. */
  ioctl(fd: number, cmd: number, arg: IoctlArgument = 0): number {
    const { file } = this.process.fds.description(fd, 'ioctl')
    if (file.ioctl === undefined) {
      throw new ErrnoError('ENOTTY', `${file.kind} knows no ioctl ${hex(cmd >>> 0)}`, 'ioctl')
    }
    if (typeof arg === 'number') {
      return file.ioctl(cmd >>> 0, arg < 0 ? arg + 2 ** 64 : arg, this.process)
    }
    if (typeof arg === 'bigint') {
      return file.ioctl(cmd >>> 0, Number(BigInt.asUintN(64, arg)), this.process)
    }
    if (typeof arg === 'string') arg = text.encode(`${arg}\0`)
    const bytes = arg instanceof Uint8Array ? arg : arg.bytes
    const scratch = this.#scratch
    const slot = scratch.enter(bytes)
    try {
      return file.ioctl(cmd >>> 0, slot.address, this.process)
    } finally {
      scratch.leave(slot, bytes)
    }
  }

  /** Reads at an offset: into `into` (returns the count), or `length` bytes (returns them, fewer at the end). */
  pread(fd: number, length: number, offset: bigint | number): Uint8Array
  pread(fd: number, into: Uint8Array | UserBuffer, offset: bigint | number): number
  pread(
    fd: number,
    what: number | Uint8Array | UserBuffer,
    offset: bigint | number,
  ): Uint8Array | number {
    const at = position(offset, 'pread')
    const description = this.#readable(fd, 'pread')
    const { file } = description
    if (file.pread === undefined) throw noPosition(file.read !== undefined, file.kind, 'pread')
    const call = file.pread.bind(file)
    return this.#in(what, 'pread', into => call(into, at, this.process))
  }

  /** Writes at an offset; returns the bytes written. */
  pwrite(fd: number, from: Uint8Array | UserBuffer, offset: bigint | number): number {
    const at = position(offset, 'pwrite')
    const { file } = this.#writable(fd, 'pwrite')
    if (file.pwrite === undefined) throw noPosition(file.write !== undefined, file.kind, 'pwrite')
    return file.pwrite(this.#out(from, 'pwrite'), at, this.process)
  }

  /** Reads from the current position or stream. */
  read(fd: number, length: number): Uint8Array
  read(fd: number, into: Uint8Array | UserBuffer): number
  read(fd: number, what: number | Uint8Array | UserBuffer): Uint8Array | number {
    const description = this.#readable(fd, 'read')
    const { file, flags } = description
    return this.#in(what, 'read', into => {
      if (file.read !== undefined) return file.read(into, this.process, flags)
      if (file.pread === undefined) throw noPosition(false, file.kind, 'read')
      const count = file.pread(into, description.position, this.process)
      description.position += count
      return count
    })
  }

  /** Writes to the current position or stream; returns the bytes written. */
  write(fd: number, from: Uint8Array | UserBuffer): number {
    const description = this.#writable(fd, 'write')
    const { file, flags } = description
    const bytes = this.#out(from, 'write')
    if (file.write !== undefined) return file.write(bytes, this.process, flags)
    if (file.pwrite === undefined) throw noPosition(false, file.kind, 'write')
    const count = file.pwrite(bytes, description.position, this.process)
    description.position += count
    return count
  }

  /** Maps anonymous memory of that many bytes, or a part of a file. */
  mmap(what: number | FileMapping): Mapping {
    if (typeof what === 'number') return this.process.memory.mmap(what)
    const description = this.process.fds.description(what.fd, 'mmap')
    const prot = what.prot ?? PROT_READ | PROT_WRITE
    const { file } = description
    const mode = description.flags & O_ACCMODE
    if (!(what.length > 0)) throw new ErrnoError('EINVAL', 'mmap: length 0', 'mmap')
    const offset = position(what.offset, 'mmap')
    if (offset % PAGE_SIZE !== 0) {
      throw new ErrnoError('EINVAL', `mmap: offset ${hex(what.offset)} is not page aligned`, 'mmap')
    }
    if (mode === O_WRONLY || ((prot & PROT_WRITE) !== 0 && mode === O_RDONLY)) {
      throw new ErrnoError('EACCES', 'mmap: the file is not open for that', 'mmap')
    }
    if (file.mmap === undefined) {
      throw new ErrnoError('ENODEV', `mmap: ${file.kind} cannot be mapped`, 'mmap')
    }
    const length = Math.ceil(what.length / PAGE_SIZE) * PAGE_SIZE
    const backing = file.mmap(length, offset, prot, this.process, what.copyOnWrite !== true)
    return this.process.memory.mmap(length, { prot, backing, at: what.at, owner: description })
  }

  munmap(vaddr: bigint, length: number): void {
    this.process.memory.munmap(vaddr, length)
  }

  /**
   * fallocate(2): allocates a range of a file, or with FALLOC_FL_PUNCH_HOLE frees it. ErrnoError: EINVAL (negative
   * offset, length not positive), EOPNOTSUPP (mode), EBADF (not open for writing), ENODEV (no regular file).
   */
  fallocate(fd: number, mode: number, offset: bigint | number, length: bigint | number): void {
    const { file, flags } = this.process.fds.description(fd, 'fallocate')
    const [at, bytes] = [Number(offset), Number(length)]
    const refuse = (code: ErrnoName, what: string) =>
      new ErrnoError(code, `fallocate: ${what}`, 'fallocate')
    if (at < 0 || !(bytes > 0)) throw refuse('EINVAL', `${length} bytes at ${offset}`)
    const keeps = (mode & FALLOC_FL_KEEP_SIZE) !== 0
    const kind = mode & ~FALLOC_FL_KEEP_SIZE
    const exclusive = FALLOC_MODES.get(kind)
    if (
      exclusive === undefined ||
      (exclusive === 'keep' && !keeps) ||
      (exclusive === 'grow' && keeps)
    )
      throw refuse('EOPNOTSUPP', `mode ${mode}`)
    if ((flags & O_ACCMODE) === O_RDONLY) throw refuse('EBADF', `${fd} is not open for writing`)
    if (file.fallocate === undefined) throw refuse('ENODEV', `${file.kind} is no regular file`)
    if (at + bytes >= 2 ** 63) throw refuse('EFBIG', `${length} bytes at ${offset}`)
    file.fallocate(mode, at, bytes)
  }

  /** fstat(2), as far as it is modelled. */
  fstat(fd: number): FileStatus {
    const { file } = this.process.fds.description(fd, 'fstat')
    return file.stat?.() ?? { size: 0, blockSize: PAGE_SIZE, inode: 0 }
  }

  /** ftruncate(2). ErrnoError EINVAL: negative, or a file whose size is what it is. */
  ftruncate(fd: number, length: bigint | number): void {
    const { file } = this.process.fds.description(fd, 'ftruncate')
    if (Number(length) < 0 || file.truncate === undefined)
      throw new ErrnoError('EINVAL', `ftruncate: ${file.kind} to ${length} bytes`, 'ftruncate')
    file.truncate(Number(length))
  }

  /** eventfd(2). ErrnoError EINVAL for unknown flags. */
  eventfd(initial = 0, flags = 0): number {
    if ((flags & ~(EFD_SEMAPHORE | EFD_NONBLOCK | EFD_CLOEXEC)) !== 0) {
      throw new ErrnoError('EINVAL', `eventfd: flags ${hex(flags)}`, 'eventfd')
    }
    this.#alive('eventfd')
    const file = new EventFd(initial >>> 0, (flags & EFD_SEMAPHORE) !== 0)
    return this.process.fds.install(file, O_RDWR | (flags & EFD_NONBLOCK), 'eventfd')
  }

  /** The eventfd behind a descriptor, to await its `events`. ErrnoError EBADF, or EINVAL for another file. */
  eventfdOf(fd: number): EventFd {
    const { file } = this.process.fds.description(fd, 'eventfd')
    if (file instanceof EventFd) return file
    throw new ErrnoError('EINVAL', `${fd} is a ${file.kind}, not an eventfd`, 'eventfd')
  }

  /** Whether a read of the file would not block, as poll(2) tells. */
  readable(fd: number): boolean {
    return this.process.fds.description(fd, 'poll').file.readable?.() ?? true
  }

  /** Calls `listener` whenever the file may have become readable, as SIGIO would. Returns what ends it. */
  onReadable(fd: number, listener: () => void): () => void {
    const { file } = this.process.fds.description(fd, 'poll')
    if (file.onReadable === undefined) {
      throw new ErrnoError('EPERM', `poll: ${file.kind} is always readable`, 'poll')
    }
    return file.onReadable(listener)
  }

  /** Forks; returns the child's system calls. */
  fork(): Sys {
    const child = this.process.fork()
    try {
      return new Sys(child)
    } catch (error) {
      child.exit()
      throw error
    }
  }

  exit(): void {
    this.process.exit()
  }

  #alive(syscall: string): void {
    if (!this.process.exited) return
    throw new ErrnoError('ESRCH', `${syscall}: process ${this.process.pid} has exited`, syscall)
  }

  #readable(fd: number, syscall: string): FileDescription {
    const description = this.process.fds.description(fd, syscall)
    if ((description.flags & O_ACCMODE) === O_WRONLY) {
      throw new ErrnoError('EBADF', `${syscall}: ${fd} is not open for reading`, syscall)
    }
    return description
  }

  #writable(fd: number, syscall: string): FileDescription {
    const description = this.process.fds.description(fd, syscall)
    if ((description.flags & O_ACCMODE) === O_RDONLY) {
      throw new ErrnoError('EBADF', `${syscall}: ${fd} is not open for writing`, syscall)
    }
    return description
  }

  // Lends a file the bytes to read into, and delivers them.
  #in(
    what: number | Uint8Array | UserBuffer,
    syscall: string,
    call: (into: Uint8Array) => number,
  ): Uint8Array | number {
    if (what instanceof Uint8Array) return call(what)
    if (typeof what === 'number') {
      const into = new Uint8Array(transfer(what, syscall))
      const count = call(into)
      return count === into.length ? into : into.subarray(0, count)
    }
    const into = new Uint8Array(transfer(what.length, syscall))
    const count = call(into)
    if (!this.process.memory.copyOut(Number(what.vaddr), into, count)) throw fault(what, syscall)
    return count
  }

  #out(from: Uint8Array | UserBuffer, syscall: string): Uint8Array {
    if (from instanceof Uint8Array) return from
    const bytes = new Uint8Array(transfer(from.length, syscall))
    if (!this.process.memory.copyIn(Number(from.vaddr), bytes)) throw fault(from, syscall)
    return bytes
  }
}

function transfer(length: number, syscall: string): number {
  if (!(length >= 0)) throw new ErrnoError('EINVAL', `${syscall}: length ${length}`, syscall)
  return Math.min(Math.trunc(length), MAX_TRANSFER)
}

function position(offset: bigint | number, syscall: string): number {
  if (!(offset >= 0 && offset < 2 ** 63)) {
    throw new ErrnoError('EINVAL', `${syscall}: offset ${offset}`, syscall)
  }
  return Math.trunc(Number(offset))
}

const noPosition = (stream: boolean, kind: string, syscall: string): ErrnoError =>
  stream
    ? new ErrnoError('ESPIPE', `${syscall}: ${kind} is a stream`, syscall)
    : new ErrnoError('EINVAL', `${syscall}: ${kind} cannot be read or written`, syscall)

const fault = (buffer: UserBuffer, syscall: string): ErrnoError =>
  new ErrnoError('EFAULT', `${syscall}: buffer ${hex(buffer.vaddr)} is a bad address`, syscall)
