// Virtual IOMMUs and what hangs on them. VT-d needs none, nested tables serve it, and no other IOMMU of this kernel
// has them: the calls are checked and refused in the order of the interface. uapi linux/iommufd.h, IOMMU_VIOMMU_ALLOC.
import { ErrnoError } from '../../base/errno.js'
import {
  IOMMU_HW_QUEUE_TYPE_DEFAULT,
  IOMMU_VEVENTQ_TYPE_DEFAULT,
  IOMMU_VIOMMU_TYPE_DEFAULT,
  iommu_hw_queue_alloc,
  iommu_vdevice_alloc,
  iommu_veventq_alloc,
  iommu_viommu_alloc,
} from '../uapi/iommufd.js'
import { command, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import { BoundDevice } from './device.js'

const DEEPEST = 2 ** 19

const noType = (name: string) => new ErrnoError('EOPNOTSUPP', `${name}: type 0`)
const missing = (name: string, id: number) => new ErrnoError('ENOENT', `${name}: no vIOMMU ${id}`)

export const viommuAlloc = command<IommufdContext, typeof iommu_viommu_alloc.members>(
  'IOMMU_VIOMMU_ALLOC',
  iommu_viommu_alloc,
  24,
  (context, { cmd, name }) => {
    unsupported(name, { flags: cmd.flags, __reserved: cmd.__reserved })
    if (cmd.type === IOMMU_VIOMMU_TYPE_DEFAULT) throw noType(name)
    context.object(BoundDevice, cmd.dev_id, name)
    throw new ErrnoError('EOPNOTSUPP', `${name}: the IOMMU has no virtual ones`)
  },
)

export const vdeviceAlloc = command<IommufdContext, typeof iommu_vdevice_alloc.members>(
  'IOMMU_VDEVICE_ALLOC',
  iommu_vdevice_alloc,
  24,
  (_, { cmd, name }) => {
    throw missing(name, cmd.viommu_id)
  },
)

export const veventqAlloc = command<IommufdContext, typeof iommu_veventq_alloc.members>(
  'IOMMU_VEVENTQ_ALLOC',
  iommu_veventq_alloc,
  28,
  (_, { cmd, name }) => {
    unsupported(name, { flags: cmd.flags, __reserved: cmd.__reserved })
    if (cmd.type === IOMMU_VEVENTQ_TYPE_DEFAULT) throw noType(name)
    if (cmd.veventq_depth === 0 || cmd.veventq_depth > DEEPEST)
      throw new ErrnoError('EINVAL', `${name}: depth ${cmd.veventq_depth}`)
    throw missing(name, cmd.viommu_id)
  },
)

export const hwQueueAlloc = command<IommufdContext, typeof iommu_hw_queue_alloc.members>(
  'IOMMU_HW_QUEUE_ALLOC',
  iommu_hw_queue_alloc,
  40,
  (_, { cmd, name }) => {
    unsupported(name, { flags: cmd.flags })
    if (cmd.type === IOMMU_HW_QUEUE_TYPE_DEFAULT) throw noType(name)
    if (cmd.length === 0n) throw new ErrnoError('EINVAL', `${name}: length 0`)
    if (cmd.nesting_parent_iova + cmd.length - 1n >= 2n ** 64n)
      throw new ErrnoError('EOVERFLOW', `${name}: the range wraps`)
    throw missing(name, cmd.viommu_id)
  },
)
