// Virtual IOMMUs: an SMMUv3 of a guest's over a parent table, and the names that the guest has for its functions.
// VT-d needs none, nested tables serve it. Hardware queues of them are not there: the call is checked and refused in
// the order of the interface. Next: vevent.ts (events). uapi linux/iommufd.h, IOMMU_VIOMMU_ALLOC.
import { ErrnoError } from '../../base/errno.js'
import type { UserTables, VirtualIommu } from '../../iommu/user-tables.js'
import {
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
  IOMMU_HW_QUEUE_TYPE_DEFAULT,
  IOMMU_VEVENTQ_TYPE_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_ARM_SMMUV3,
  IOMMU_VIOMMU_TYPE_DEFAULT,
  iommu_hw_queue_alloc,
  iommu_vdevice_alloc,
  iommu_viommu_alloc,
} from '../uapi/iommufd.js'
import { command, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import { BoundDevice } from './device.js'
import { HwptPaging } from './hwpt.js'
import type { IommufdObject } from './objects.js'
import type { VeventQueue } from './vevent.js'

/** A guest's IOMMU over a parent table. */
export class Viommu implements IommufdObject {
  readonly kind = 'viommu'
  id = 0
  users = 0
  readonly paging: HwptPaging
  readonly virtual: VirtualIommu
  /** Event queues by type. */
  readonly queues = new Map<number, VeventQueue>()
  readonly #devices = new Map<bigint, Vdevice>()

  constructor(parent: HwptPaging, virtual: VirtualIommu) {
    this.paging = parent
    this.virtual = virtual
    virtual.onEvent = record => this.queues.get(IOMMU_VEVENTQ_TYPE_ARM_SMMUV3)?.push(record)
    parent.users++
  }

  get unit(): UserTables {
    return this.paging.unit
  }

  /** EEXIST: the guest has the id for another function. */
  link(device: Vdevice): void {
    if (this.#devices.has(device.virtualId))
      throw new ErrnoError('EEXIST', `vIOMMU ${this.id}: id ${device.virtualId} is taken`)
    this.#devices.set(device.virtualId, device)
    this.virtual.link(device.virtualId, device.device.bdf)
    this.users++
  }

  unlink({ virtualId }: Vdevice): void {
    this.#devices.delete(virtualId)
    this.virtual.unlink(virtualId)
    this.users--
  }

  destroy(): void {
    this.paging.users--
  }
}

/** What a guest calls a function of its own. */
export class Vdevice implements IommufdObject {
  readonly kind = 'vdevice'
  id = 0
  users = 0
  readonly device: BoundDevice
  readonly virtualId: bigint
  readonly #viommu: Viommu

  constructor(viommu: Viommu, device: BoundDevice, virtualId: bigint) {
    this.device = device
    this.virtualId = virtualId
    this.#viommu = viommu
    viommu.link(this)
    device.vdevice = this
  }

  destroy(): void {
    this.#viommu.unlink(this)
    this.device.vdevice = undefined
  }
}

const noType = (name: string) => new ErrnoError('EOPNOTSUPP', `${name}: type 0`)

export const viommuAlloc = command<IommufdContext, typeof iommu_viommu_alloc.members>(
  'IOMMU_VIOMMU_ALLOC',
  iommu_viommu_alloc,
  24,
  (context, call) => {
    const { cmd, name } = call
    unsupported(name, { flags: cmd.flags, __reserved: cmd.__reserved })
    if (cmd.type === IOMMU_VIOMMU_TYPE_DEFAULT) throw noType(name)
    const device = context.object(BoundDevice, cmd.dev_id, name)
    const { info } = device
    if (
      info.registers.type !== IOMMU_HW_INFO_TYPE_ARM_SMMUV3 ||
      !info.nesting ||
      cmd.type !== IOMMU_VIOMMU_TYPE_ARM_SMMUV3
    )
      throw new ErrnoError(
        'EOPNOTSUPP',
        `${name}: the IOMMU has no virtual ones of type ${cmd.type}`,
      )
    const parent = context.object(HwptPaging, cmd.hwpt_id, name)
    if (!parent.nestParent || parent.unit !== device.unit)
      throw new ErrnoError('EINVAL', `${name}: HWPT ${parent.id} cannot be a parent of this`)
    const viommu = new Viommu(parent, parent.table.virtual!())
    context.publish(viommu, call, () => {
      cmd.out_viommu_id = viommu.id
    })
  },
)

export const vdeviceAlloc = command<IommufdContext, typeof iommu_vdevice_alloc.members>(
  'IOMMU_VDEVICE_ALLOC',
  iommu_vdevice_alloc,
  24,
  (context, call) => {
    const { cmd, name } = call
    const viommu = context.object(Viommu, cmd.viommu_id, name)
    const device = context.object(BoundDevice, cmd.dev_id, name)
    if (viommu.unit !== device.unit)
      throw new ErrnoError('EINVAL', `${name}: device ${device.id} is below another IOMMU`)
    if (device.vdevice) throw new ErrnoError('EEXIST', `${name}: device ${device.id} has one`)
    const vdevice = new Vdevice(viommu, device, cmd.virt_id)
    context.publish(vdevice, call, () => {
      cmd.out_vdevice_id = vdevice.id
    })
  },
)

export const hwQueueAlloc = command<IommufdContext, typeof iommu_hw_queue_alloc.members>(
  'IOMMU_HW_QUEUE_ALLOC',
  iommu_hw_queue_alloc,
  40,
  (context, { cmd, name }) => {
    unsupported(name, { flags: cmd.flags })
    if (cmd.type === IOMMU_HW_QUEUE_TYPE_DEFAULT) throw noType(name)
    if (cmd.length === 0n) throw new ErrnoError('EINVAL', `${name}: length 0`)
    if (cmd.nesting_parent_iova + cmd.length - 1n >= 2n ** 64n)
      throw new ErrnoError('EOVERFLOW', `${name}: the range wraps`)
    context.object(Viommu, cmd.viommu_id, name)
    throw new ErrnoError('EOPNOTSUPP', `${name}: the vIOMMU has none`)
  },
)
