// The errno numbers an emulated kernel answers with, and the one exception type that carries them.
// Values are those of asm-generic/errno(-base).h plus ENOTSUPP, which the kernel leaks as 524.

// biome-ignore format: table
export const Errno = {
  EPERM: 1,       ENOENT: 2,      ESRCH: 3,       EINTR: 4,        EIO: 5,         ENXIO: 6,
  E2BIG: 7,       ENOEXEC: 8,     EBADF: 9,       EAGAIN: 11,      ENOMEM: 12,     EACCES: 13,
  EFAULT: 14,
  EBUSY: 16,      EEXIST: 17,     ENODEV: 19,     ENOTDIR: 20,     EINVAL: 22,     ENFILE: 23,
  EMFILE: 24,     ENOTTY: 25,     EFBIG: 27,      ENOSPC: 28,      ESPIPE: 29,     EROFS: 30,
  ERANGE: 34,     ENOSYS: 38,     ENOMSG: 42,     EBADE: 52,       ENODATA: 61,    ETIME: 62,
  EOVERFLOW: 75,  EBADFD: 77,     EMSGSIZE: 90,   EOPNOTSUPP: 95,  EADDRINUSE: 98, ETIMEDOUT: 110,
  ECANCELED: 125, EHWPOISON: 133, ENOTSUPP: 524,
} as const

/** Name of an errno, as `strace` prints it. */
export type ErrnoName = keyof typeof Errno

/** Name of a positive errno value; undefined for a number the emulated kernel never uses. */
export function errnoName(value: number): ErrnoName | undefined {
  return (Object.keys(Errno) as ErrnoName[]).find(name => Errno[name] === value)
}

/** A refused call into the emulated kernel. `code` and `errno` read as Node's own system errors do. */
export class ErrnoError extends Error {
  override readonly name = 'ErrnoError'
  readonly code: ErrnoName
  /** Negative, as in Node's own errors. */
  readonly errno: number
  /** The system call that failed: `ioctl`, `open`, `mmap`, … */
  readonly syscall: string

  constructor(code: ErrnoName, what: string, syscall = 'ioctl', options?: ErrorOptions) {
    super(`${code}: ${what}`, options)
    this.code = code
    this.errno = -Errno[code]
    this.syscall = syscall
  }
}

/** Marks a branch that the types rule out; reaching it is our own mistake. */
export function impossible(value: never, where: string): never {
  throw new Error(`${where}: unexpected ${JSON.stringify(value)}`)
}
