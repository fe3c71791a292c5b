/**
 * What an open file can do: the kernel side of a descriptor. A driver implements it; the call that
 * a file does not have answers with the errno the kernel's file layer would give.
 * Next: fd-table.ts (descriptors), sys.ts (the calls).
 */
import type { MmapBacking } from '../mem/vma.js'
import type { Process } from './process.js'

/** Flags of open(2) and eventfd(2) that the file layer looks at. */
export const O_RDONLY = 0
export const O_WRONLY = 1
export const O_RDWR = 2
export const O_ACCMODE = 3
export const O_NONBLOCK = 0o4000
export const O_CLOEXEC = 0o2000000

/** Modes of fallocate(2). */
export const FALLOC_FL_KEEP_SIZE = 1
export const FALLOC_FL_PUNCH_HOLE = 2

/** What fstat(2) tells, as far as anybody asks. */
export interface FileStatus {
  /** Bytes. */
  readonly size: number
  /** Preferred block size, bytes. */
  readonly blockSize: number
  /** Number of the file behind the descriptor: equal for descriptors of one file. */
  readonly inode: number
}

/**
 * A file as its driver sees it. `caller` is the process that makes the call, which need not be the one
 * that opened the file. Calls refuse with `ErrnoError`. Byte arrays lent by a caller are not kept.
 */
export interface OpenFile {
  /** What it is, for messages and traces: `eventfd`, `vfio-container`, … */
  readonly kind: string
  /** `cmd` is unsigned, `arg` a number or a pointer into `caller.memory`. Without it: ENOTTY. */
  ioctl?(cmd: number, arg: number, caller: Process): number
  /** Reads at a position; returns the bytes read. Without it: ESPIPE where `read` exists, else EINVAL. */
  pread?(into: Uint8Array, offset: number, caller: Process): number
  /** Writes at a position; returns the bytes written. */
  pwrite?(from: Uint8Array, offset: number, caller: Process): number
  /** Reads from a stream; a file with `pread` alone is read at the descriptor's position. */
  read?(into: Uint8Array, caller: Process, flags: number): number
  /** Writes to a stream. */
  write?(from: Uint8Array, caller: Process, flags: number): number
  /** Says what a mapping of `length` bytes (whole pages) at `offset` shows; `shared` is MAP_SHARED. Without it: ENODEV. */
  mmap?(length: number, offset: number, prot: number, caller: Process, shared: boolean): MmapBacking
  /** Allocates or frees a range, by `FALLOC_FL_*`; the range is not empty nor past 2^63. Without it: ENODEV. */
  fallocate?(mode: number, offset: number, length: number): void
  /** What fstat tells of a regular file. Without it: an anonymous file of no size. */
  stat?(): FileStatus
  /** Changes the file's size. Without it: EINVAL. */
  truncate?(length: number): void
  /** Whether a read would not block (POLLIN). Without it: always. */
  readable?(): boolean
  /** Calls `listener` when it may have become readable. Returns what ends it. Without it: EPERM, as epoll answers. */
  onReadable?(listener: () => void): () => void
  /** State that neither RAM nor an answer shows (a vCPU's registers), for the digest of a machine's state. */
  digest?(): Uint8Array
  /** Last descriptor and last mapping are gone. */
  release?(): void
}
