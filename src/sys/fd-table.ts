/**
 * Descriptors of a process, and the open file descriptions behind them: dup and fork share a
 * description, the last reference (descriptor or mapping) releases the file.
 */
import { ErrnoError } from '../base/errno.js'
import type { Failures } from '../base/failures.js'
import { IdAllocator } from '../base/ids.js'
import { O_RDWR, type OpenFile } from './open-file.js'

/** An open file description: what descriptors share across dup and fork. */
export class FileDescription {
  readonly file: OpenFile
  /** Flags of open(2): access mode and O_NONBLOCK. */
  readonly flags: number
  /** File position of `read` and `write`. */
  position = 0
  #references = 0

  constructor(file: OpenFile, flags: number) {
    this.file = file
    this.flags = flags
  }

  /** Descriptors and mappings that hold it. */
  get references(): number {
    return this.#references
  }

  get(): void {
    this.#references++
  }

  put(): void {
    if (--this.#references === 0) this.file.release?.()
  }
}

/** RLIMIT_NOFILE's usual soft limit. */
const DEFAULT_LIMIT = 1024
/** The highest limit (fs.nr_open). */
const MAX_LIMIT = 2 ** 20

/** The descriptor table of a process. */
export class FdTable {
  /** Descriptors are below this (RLIMIT_NOFILE); at most 2^20. */
  limit: number
  readonly #failures: Failures | undefined
  readonly #ids = new IdAllocator(0, MAX_LIMIT - 1)
  readonly #open: (FileDescription | undefined)[] = []

  constructor(limit = DEFAULT_LIMIT, failures?: Failures) {
    this.limit = limit
    this.#failures = failures
  }

  /** Open descriptors. */
  get count(): number {
    return this.#ids.count
  }

  /** Opens `file` at the lowest free descriptor, not below `min`. ErrnoError EMFILE at the limit. */
  install(file: OpenFile, flags = O_RDWR, syscall = 'ioctl'): number {
    return this.#place(new FileDescription(file, flags), 0, syscall)
  }

  /** Throws EMFILE when no descriptor is free, for drivers that must know before they have effects. */
  reserve(syscall = 'ioctl'): void {
    if (this.#failures?.armed) this.#failures.step('a descriptor', 'EMFILE', syscall)
    const fd = this.#ids.nextFree(0)
    if (fd < 0 || fd >= this.limit) throw this.#full(syscall)
  }

  /** The file behind a descriptor; undefined when it is not open. */
  get(fd: number): OpenFile | undefined {
    return this.#open[fd]?.file
  }

  /** The description behind a descriptor; ErrnoError EBADF when it is not open. */
  description(fd: number, syscall: string): FileDescription {
    const open = this.#open[fd]
    if (open === undefined) {
      throw new ErrnoError('EBADF', `${syscall}: ${fd} is not an open file descriptor`, syscall)
    }
    return open
  }

  /** Another descriptor for the same description, the lowest free one not below `min`. */
  dup(fd: number, min = 0): number {
    return this.#place(this.description(fd, 'dup'), min, 'dup')
  }

  /** Closes a descriptor; ErrnoError EBADF when it is not open. */
  close(fd: number): void {
    const description = this.description(fd, 'close')
    this.#open[fd] = undefined
    this.#ids.free(fd)
    description.put()
  }

  /** Closes everything, lowest first. */
  closeAll(): void {
    for (const fd of this.#ids.held()) this.close(fd)
  }

  /** Open descriptors, ascending. */
  *entries(): Generator<{ fd: number; file: OpenFile }> {
    for (const fd of this.#ids.held()) yield { fd, file: this.#open[fd]!.file }
  }

  /** A forked child's table: the same numbers, the same descriptions. */
  fork(): FdTable {
    const child = new FdTable(this.limit, this.#failures)
    for (const fd of this.#ids.held()) {
      const description = this.#open[fd]!
      child.#ids.take(fd)
      child.#open[fd] = description
      description.get()
    }
    return child
  }

  #place(description: FileDescription, min: number, syscall: string): number {
    if (min >= this.limit)
      throw new ErrnoError('EINVAL', `${syscall}: ${min} is no descriptor`, syscall)
    const fd = this.#ids.alloc(min, Math.min(this.limit, MAX_LIMIT) - 1)
    if (fd < 0) throw this.#full(syscall)
    this.#open[fd] = description
    description.get()
    return fd
  }

  #full(syscall: string): ErrnoError {
    return new ErrnoError('EMFILE', `${syscall}: ${this.limit} descriptors are open`, syscall)
  }
}
