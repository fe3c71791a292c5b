// What a device and the IOMMU above it can do, as the IOMMU's own registers say it. uapi linux/iommufd.h,
// IOMMU_GET_HW_INFO.
import { ErrnoError } from '../../base/errno.js'
import type { HardwareRegisters } from '../../iommu/user-tables.js'
import {
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_CAP_PCI_PASID_EXEC,
  IOMMU_HW_CAP_PCI_PASID_PRIV,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_DEFAULT,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  iommu_hw_info,
  iommu_hw_info_arm_smmuv3,
  iommu_hw_info_vtd,
} from '../uapi/iommufd.js'
import { command, pointer, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import { BoundDevice } from './device.js'

const PIECE = 4096

export const getHwInfo = command<IommufdContext, typeof iommu_hw_info.members>(
  'IOMMU_GET_HW_INFO',
  iommu_hw_info,
  32,
  (context, { cmd, name, caller, respond }) => {
    const [r0, r1, r2] = cmd.__reserved as unknown as readonly [number, number, number]
    unsupported(name, { flags: cmd.flags & ~IOMMU_HW_INFO_FLAG_INPUT_TYPE, reserved: r0 | r1 | r2 })
    const asked =
      cmd.flags & IOMMU_HW_INFO_FLAG_INPUT_TYPE
        ? cmd.data_type.in_data_type
        : IOMMU_HW_INFO_TYPE_DEFAULT
    const { info } = context.object(BoundDevice, cmd.dev_id, name)
    const { registers } = info
    const { type } = registers
    if (asked !== IOMMU_HW_INFO_TYPE_DEFAULT && asked !== type)
      throw new ErrnoError('EOPNOTSUPP', `${name}: data type ${asked} of a type ${type} IOMMU`)
    const { bytes } = structureOf(registers)
    const { memory } = caller
    const at = pointer(cmd.data_uptr)
    const room = cmd.data_len
    const known = Math.min(room, bytes.length)
    const zeroes = new Uint8Array(PIECE)
    let ok = known === 0 || memory.copyOut(at, bytes, known)
    for (let done = known; ok && done < room; done += PIECE)
      ok = memory.copyOut(at + done, zeroes, Math.min(PIECE, room - done))
    if (!ok) throw new ErrnoError('EFAULT', `${name}: ${room} bytes are not writable`)
    cmd.data_len = bytes.length
    cmd.data_type.out_data_type = type
    cmd.out_max_pasid_log2 = info.pasidBits
    cmd.out_capabilities = BigInt(
      (info.dirtyTracking ? IOMMU_HW_CAP_DIRTY_TRACKING : 0) |
        (info.pasidExecute ? IOMMU_HW_CAP_PCI_PASID_EXEC : 0) |
        (info.pasidPrivileged ? IOMMU_HW_CAP_PCI_PASID_PRIV : 0) |
        (info.ats ? 0 : IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED),
    )
    respond()
  },
)

function structureOf(registers: HardwareRegisters) {
  if (registers.type === IOMMU_HW_INFO_TYPE_INTEL_VTD)
    return iommu_hw_info_vtd({ cap_reg: registers.cap, ecap_reg: registers.ecap })
  const { idr, iidr, aidr } = registers
  return iommu_hw_info_arm_smmuv3({ idr, iidr, aidr })
}
