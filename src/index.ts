// What `vfio-emu` exports: build a machine, hold its system calls, watch it.

export * from './base/addr.js'
export { VirtualClock } from './base/clock.js'
export { Errno, ErrnoError, type ErrnoName } from './base/errno.js'
export { TraceBus, type TraceEvents, type TraceName } from './base/trace.js'
export { le16, le32, le64 } from './bytes.js'
export { describeConfidentialDma } from './confidential-dma.js'
export type { GuestMemfdOptions } from './cpu/kvm/memory/private-memory.js'
export {
  type Explainable,
  type ExplainedNode,
  type Explanation,
  explain,
  explanation,
  type WalkRequest,
  type WalkTree,
  walkTree,
  walkTreeText,
} from './explain/index.js'
export {
  Diverged,
  formatHistory,
  HistoryError,
  type Progress,
  parseHistory,
  type Snapshot,
} from './history/index.js'
export type { StaleUse, TableChange } from './iommu/stale-use.js'
export {
  createMachine,
  type DevicePlace,
  type Holdings,
  type IommuUnit,
  type Machine,
  type MachineDescription,
  type SmmuMachineDescription,
} from './machine.js'
export type { ConfidentialDma } from './mem/confidential.js'
export { dmaCopy } from './pci/devices/dma-copy.js'
export { svaEngine } from './pci/devices/sva-engine.js'
export { Sys, s32 } from './sys/sys.js'
export { VERSION } from './version.js'
export { type GuestEnd, Vmm, type VmmOptions } from './vmm/vmm.js'
