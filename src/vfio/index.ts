// VFIO, as `vfio-emu/vfio` exports it. Structures and numbers are `vfio-emu/uapi`.

export type { Iommufd, IommufdHoldings } from './iommufd/service.js'
export { Mdev, type MdevModel, type MdevOptions, type MdevRegion } from './mdev.js'
export {
  type ProfileName,
  type ProfileName as VfioProfile,
  profileNames,
  type Rules,
  rulesOf,
} from './profiles.js'
export {
  registerVfio,
  Vfio,
  type VfioHoldings,
  type VfioOptions,
  type VfioParameters,
} from './vfio.js'
