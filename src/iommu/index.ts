/** The public names of the IOMMU room: what `vfio-emu/iommu` offers. */
export { type FaultHandler, IommuCore, type IommuCoreOptions } from './core.js'
export {
  type DeviceVector,
  type Domain,
  type FaultSink,
  type GuestTables,
  IOMMU_READ,
  IOMMU_WRITE,
  type IommuDriver,
  type IovaRange,
  type NestingInfo,
} from './domain.js'
export { type IommuGroup, IommuGroups } from './groups.js'
export {
  INVALID_IOASID,
  IOASID_DEFAULT_CAPACITY,
  IoasidAllocator,
  type IoasidOptions,
  type IoasidState,
} from './ioasid.js'
export type { IoasidAllocatorOps } from './ioasid-custom.js'
export {
  IOASID_EVENT,
  type IoasidEvent,
  type IoasidNotifier,
  type IoasidPriority,
} from './ioasid-notify.js'
export { IOASID_SET_TYPE, type IoasidSet } from './ioasid-set.js'
export { PciConfig } from './pci-config.js'
export { CD, L1CD } from './smmu/cd.js'
export { SMMU_DEFAULTS, type SmmuConfig, smmuConfig } from './smmu/config.js'
export { SmmuDriver, type SmmuDriverOptions } from './smmu/driver.js'
export { EVENTS, type EventName, eventName } from './smmu/events.js'
export type { SmmuFault } from './smmu/faults.js'
export type { SmmuHooks } from './smmu/hooks.js'
export { SMMU, SMMU_MMIO_SIZE } from './smmu/registers.js'
export { L1STD, STE } from './smmu/ste.js'
export { SmmuUnit, type SmmuUnitOptions } from './smmu/unit.js'
export * from './uapi.js'
export { VTD_DEFAULTS, type VtdConfig, vtdConfig } from './vtd/config.js'
export { VtdDriver, type VtdDriverOptions } from './vtd/driver.js'
export { FAULT_REASONS, type FaultName, type FaultReason, faultName } from './vtd/fault-reasons.js'
export type { VtdFault } from './vtd/faults.js'
export type { VtdHooks } from './vtd/hooks.js'
export { VTD, VTD_MMIO_SIZE, type VtdEdition } from './vtd/registers.js'
export {
  IRTE,
  PASID_DIRECTORY_ENTRY,
  PASID_ENTRY,
  POSTED_DESCRIPTOR,
  POSTED_IRTE,
  SM_CONTEXT_ENTRY,
  SM_ROOT_ENTRY,
} from './vtd/tables.js'
export { VtdUnit, type VtdUnitOptions } from './vtd/unit.js'
