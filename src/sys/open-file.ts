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
  /** Says what a mapping of `length` bytes (whole pages) at `offset` shows. Without it: ENODEV. */
  mmap?(length: number, offset: number, prot: number, caller: Process): MmapBacking
  /** Whether a read would not block (POLLIN). Without it: always. */
  readable?(): boolean
  /** Calls `listener` when it may have become readable. Returns what ends it. Without it: EPERM, as epoll answers. */
  onReadable?(listener: () => void): () => void
  /** Last descriptor and last mapping are gone. */
  release?(): void
}
