// What VFIO says on the trace bus: every ioctl, and the four changes that matter to DMA. Building an event is
// left to the moment somebody listens.
import type { ErrnoName } from '../base/errno.js'

declare module '../base/trace.js' {
  interface TraceEvents {
    /** One ioctl on a VFIO descriptor, after it ended. `args` is the structure as the caller passed it. */
    'vfio.ioctl': {
      fd: 'container' | 'group' | 'device'
      name: string
      pid: number
      args: Readonly<Record<string, unknown>> | undefined
      result: number | undefined
      errno: ErrnoName | undefined
    }
    /** A range was mapped for DMA. */
    'vfio.map': { iova: bigint; vaddr: bigint; size: bigint; read: boolean; write: boolean }
    /** Part of a mapping left the IOMMU because its guest made the pages private, or came back. */
    'vfio.withdraw': {
      iova: bigint
      size: bigint
      /** Host physical address of its first page; -1 when nothing is pinned for it. */
      hpa: number
      withdrawn: boolean
    }
    /** A mapping was removed, whole. */
    'vfio.unmap': { iova: bigint; size: bigint }
    /** A PASID was handed out, or a range given back. */
    'vfio.pasid': { what: 'alloc' | 'free'; min: number; max: number; pasid: number | undefined }
    /** A stage-1 operation on one device; `errno` also where the call itself hides it. */
    'vfio.bind': {
      what: 'bind' | 'unbind' | 'invalidate'
      bdf: number
      pasid: bigint | undefined
      errno: ErrnoName | undefined
    }
  }
}
