/**
 * ioctl request numbers as asm-generic/ioctl.h builds them: direction, argument size, type character
 * and number. VFIO uses `_IO` throughout, so its sizes travel in `argsz`; KVM encodes them.
 */

/** Direction, seen from the program: does the kernel read its argument (WRITE), write it (READ), both. */
export const IOC_NONE = 0
export const IOC_WRITE = 1
export const IOC_READ = 2

type Sized = number | { readonly size: number }
type TypeCode = number | string

const ioc = (direction: number, type: TypeCode, nr: number, argument: Sized): number => {
  const code = typeof type === 'string' ? type.charCodeAt(0) : type
  const size = typeof argument === 'number' ? argument : argument.size
  if (code > 0xff || nr > 0xff || size > 0x3fff) throw new Error(`ioctl ${type} ${nr} of ${size}`)
  return ((direction << 30) | (size << 16) | (code << 8) | nr) >>> 0
}

/** A request without an encoded argument. `type` is a character or its code. */
export const _IO = (type: TypeCode, nr: number): number => ioc(IOC_NONE, type, nr, 0)
/** A request whose argument the kernel writes. `argument` is a struct or its size in bytes. */
export const _IOR = (type: TypeCode, nr: number, argument: Sized): number =>
  ioc(IOC_READ, type, nr, argument)
/** A request whose argument the kernel reads. */
export const _IOW = (type: TypeCode, nr: number, argument: Sized): number =>
  ioc(IOC_WRITE, type, nr, argument)
/** A request whose argument the kernel reads and writes. */
export const _IOWR = (type: TypeCode, nr: number, argument: Sized): number =>
  ioc(IOC_READ | IOC_WRITE, type, nr, argument)

/** The parts of a request number. */
export interface IoctlRequest {
  /** `IOC_NONE`, `IOC_WRITE`, `IOC_READ` or both. */
  readonly direction: number
  readonly size: number
  /** The type character, such as `;` for VFIO. */
  readonly type: string
  readonly nr: number
}

/** Takes a request number apart. */
export const decodeIoctl = (cmd: number): IoctlRequest => ({
  direction: cmd >>> 30,
  size: (cmd >>> 16) & 0x3fff,
  type: String.fromCharCode((cmd >>> 8) & 0xff),
  nr: cmd & 0xff,
})
