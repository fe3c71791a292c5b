// IOEVENTFD: an eventfd whose every signal writes a fixed value into a BAR, so that a doorbell needs no exit to the
// user's program. uapi linux/vfio.h, vfio_device_ioeventfd; order of refusals: drivers/vfio/pci of 5.9.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { EventFd } from '../sys/eventfd.js'
import type { Process } from '../sys/process.js'
import { BarRegion, type Region, regionIndex } from './regions.js'
import { VFIO_DEVICE_IOEVENTFD_SIZE_MASK, vfio_device_ioeventfd } from './uapi/vfio.js'

const CALL = 'VFIO_DEVICE_IOEVENTFD'
const MINIMUM = vfio_device_ioeventfd.offsets.reserved
const LIMIT = 1000
const invalid = (what: string) => new ErrnoError('EINVAL', `${CALL}: ${what}`)

interface Doorbell {
  readonly offset: bigint
  readonly data: bigint
  readonly bytes: number
  readonly stop: () => void
}

/** The doorbells of one device. */
export class IoEventFds {
  #doorbells: Doorbell[] = []

  /** IOEVENTFD at `arg` of the caller: adds one, or removes it with fd -1. */
  call(
    regions: readonly (Region | undefined)[],
    arg: number,
    { memory, fds, kernel }: Process,
  ): number {
    const request = vfio_device_ioeventfd({ argsz: 0 })
    if (!memory.copyIn(arg, request.bytes, MINIMUM))
      throw new ErrnoError('EFAULT', `${CALL}: unreadable`)
    const { argsz, flags, offset, data, fd } = request
    if (argsz < MINIMUM) throw invalid(`argsz ${argsz} < ${MINIMUM}`)
    // Each size flag is the size itself.
    const bytes = flags & VFIO_DEVICE_IOEVENTFD_SIZE_MASK
    if (flags !== bytes || bytes === 0 || bytes & (bytes - 1) || fd < -1)
      throw invalid(`flags ${hex(flags)}, fd ${fd}`)
    const region = offset < 2n ** 53n ? regions[regionIndex(Number(offset))] : undefined
    const at = Number(offset % 2n ** 40n)
    if (!(region instanceof BarRegion) || !region.holds(at, bytes))
      throw invalid(`${bytes} bytes at ${hex(offset)} are in no BAR, or in the MSI-X table`)
    const value = BigInt.asUintN(8 * bytes, data)
    const known = this.#doorbells.find(
      d => d.offset === offset && d.bytes === bytes && d.data === value,
    )
    if (known !== undefined) {
      if (fd >= 0) throw new ErrnoError('EEXIST', `${CALL}: this write has an eventfd`)
      known.stop()
      this.#doorbells = this.#doorbells.filter(d => d !== known)
      return 0
    }
    if (fd < 0) throw new ErrnoError('ENODEV', `${CALL}: no such write`)
    if (this.#doorbells.length >= LIMIT) throw new ErrnoError('ENOSPC', `${CALL}: ${LIMIT} already`)
    const file = fds.get(fd)
    if (file === undefined) throw new ErrnoError('EBADF', `${CALL}: fd ${fd} is not open`)
    if (!(file instanceof EventFd)) throw invalid(`fd ${fd} is a ${file.kind}`)
    kernel.failures.step('a doorbell')
    const write = new Uint8Array(8)
    new DataView(write.buffer).setBigUint64(0, value, true)
    const stop = file.onSignal(() => {
      file.take()
      region.ring(write.subarray(0, bytes), at)
    })
    this.#doorbells.push({ offset, data: value, bytes, stop })
    return 0
  }

  /** Lets go of every eventfd: the device is closed. */
  release(): void {
    for (const { stop } of this.#doorbells.splice(0)) stop()
  }
}
