// What every VFIO uapi module starts from: the ioctl number space and the capability chain header.
// Values: uapi linux/vfio.h. Next: vfio.ts (stock header), vsva.ts (out-of-tree additions).
import { struct } from '../../base/struct.js'

/** The ioctl type of VFIO, `';'`. */
export const VFIO_TYPE = 0x3b
/** First command number. */
export const VFIO_BASE = 100
/** `_IO(VFIO_TYPE, VFIO_BASE + n)`: VFIO numbers carry neither direction nor size. */
export const vfioIo = (n: number): number => (VFIO_TYPE << 8) | (VFIO_BASE + n)

/** Starts each capability of an info chain; `next` is measured from the start of the info structure. */
export const vfio_info_cap_header = struct('struct vfio_info_cap_header', {
  id: 'u16',
  version: 'u16', // of this capability id
  next: 'u32', // bytes from the start of the info structure, 0 for the last
})
