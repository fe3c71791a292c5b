// What iommufd says on the trace bus: every call, after it ended.
import type { ErrnoName } from '../../base/errno.js'

declare module '../../base/trace.js' {
  interface TraceEvents {
    /** One ioctl on an iommufd. */
    'iommufd.ioctl': {
      name: string
      pid: number
      result: number | undefined
      errno: ErrnoName | undefined
    }
  }
}
