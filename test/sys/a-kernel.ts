import { VirtualClock } from '../../src/base/clock.js'
import { ErrnoError } from '../../src/base/errno.js'
import { TraceBus } from '../../src/base/trace.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { FrameAllocator } from '../../src/mem/frames.js'
import { Kernel } from '../../src/sys/kernel.js'

/** A kernel with 64 page frames and no device nodes. */
export function aKernel(): Kernel {
  const clock = new VirtualClock()
  const memory = new AddressSpace()
  const frames = new FrameAllocator(memory, memory.addRam(0, new Uint8Array(64 * 4096)))
  return new Kernel({ clock, trace: new TraceBus(clock), memory, frames })
}

/** `ioctl EINVAL` of a refused call; what it returned of one that went well. */
export function outcome(call: () => unknown): unknown {
  try {
    return call()
  } catch (error) {
    if (error instanceof ErrnoError) return `${error.syscall} ${error.code}`
    throw error
  }
}
