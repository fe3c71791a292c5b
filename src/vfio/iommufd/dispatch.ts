// The file behind /dev/iommu: its command table, and VFIO's calls below it. uapi linux/iommufd.h.
import { hex } from '../../base/addr.js'
import { ErrnoError } from '../../base/errno.js'
import type { OpenFile } from '../../sys/open-file.js'
import type { Process } from '../../sys/process.js'
import * as uapi from '../uapi/iommufd.js'
import type { Command } from './commands.js'
import { compatIoctl } from './compat.js'
import { IommufdContext, type IommufdEnvironment } from './context.js'
import { getDirtyBitmap, setDirtyTracking } from './dirty.js'
import { faultQueueAlloc } from './fault.js'
import { getHwInfo } from './hw-info.js'
import { hwptAlloc } from './hwpt.js'
import { hwptInvalidate } from './invalidate.js'
import * as ioas from './ioas.js'
import { option, vfioIoas } from './options.js'
import { veventqAlloc } from './vevent.js'
import { hwQueueAlloc, vdeviceAlloc, viommuAlloc } from './viommu.js'

// biome-ignore format: table
const commands = new Map<number, Command<IommufdContext>>([
  [uapi.IOMMU_DESTROY,                 ioas.destroy],
  [uapi.IOMMU_IOAS_ALLOC,              ioas.ioasAlloc],
  [uapi.IOMMU_IOAS_ALLOW_IOVAS,        ioas.ioasAllowIovas],
  [uapi.IOMMU_IOAS_COPY,               ioas.ioasCopy],
  [uapi.IOMMU_IOAS_IOVA_RANGES,        ioas.ioasIovaRanges],
  [uapi.IOMMU_IOAS_MAP,                ioas.ioasMap],
  [uapi.IOMMU_IOAS_UNMAP,              ioas.ioasUnmap],
  [uapi.IOMMU_OPTION,                  option],
  [uapi.IOMMU_VFIO_IOAS,               vfioIoas],
  [uapi.IOMMU_HWPT_ALLOC,              hwptAlloc],
  [uapi.IOMMU_GET_HW_INFO,             getHwInfo],
  [uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, setDirtyTracking],
  [uapi.IOMMU_HWPT_GET_DIRTY_BITMAP,   getDirtyBitmap],
  [uapi.IOMMU_HWPT_INVALIDATE,         hwptInvalidate],
  [uapi.IOMMU_FAULT_QUEUE_ALLOC,       faultQueueAlloc],
  [uapi.IOMMU_IOAS_MAP_FILE,           ioas.ioasMapFile],
  [uapi.IOMMU_VIOMMU_ALLOC,            viommuAlloc],
  [uapi.IOMMU_VDEVICE_ALLOC,           vdeviceAlloc],
  [uapi.IOMMU_IOAS_CHANGE_PROCESS,     ioas.ioasChangeProcess],
  [uapi.IOMMU_VEVENTQ_ALLOC,           veventqAlloc],
  [uapi.IOMMU_HW_QUEUE_ALLOC,          hwQueueAlloc],
])

/** An open /dev/iommu. */
export class IommufdFile implements OpenFile {
  readonly kind = 'iommufd'
  readonly context: IommufdContext

  constructor(env: IommufdEnvironment) {
    this.context = new IommufdContext(env)
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    const { ioctls } = this.context.env
    if (!ioctls.on) return this.#call(cmd, arg, caller)
    const name = commands.get(cmd)?.name ?? hex(cmd)
    const { pid } = caller
    try {
      const result = this.#call(cmd, arg, caller)
      ioctls.emit({ name, pid, result, errno: undefined })
      return result
    } catch (error) {
      const errno = error instanceof ErrnoError ? error.code : undefined
      ioctls.emit({ name, pid, result: undefined, errno })
      throw error
    }
  }

  release(): void {
    this.context.put()
  }

  #call(cmd: number, arg: number, caller: Process): number {
    const number = cmd & 0xff
    if (number < uapi.IOMMUFD_CMD_BASE) return compatIoctl(this.context, cmd, arg, caller)
    const known = commands.get(cmd)
    if (known === undefined) throw new ErrnoError('ENOTTY', `an iommufd knows no ioctl ${hex(cmd)}`)
    return known.run(this.context, arg, caller)
  }
}
