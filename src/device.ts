/** What a device author imports, as `vfio-emu/device` exports it: the table language, `defineDevice` and its port. */
export { type Iova, iova, type Pasid, pasid } from './base/addr.js'
export { bank, bits, flag, oneOf, page, r8, r16, r32, r64, u64 } from './base/fields.js'
export {
  acs,
  aer,
  ats,
  type DefinedDevice,
  type DeviceBehaviour,
  type DeviceDefinition,
  type DevicePort,
  type DmaFailure,
  type DmaPort,
  type DmaResult,
  defineDevice,
  type Halves,
  msi,
  msix,
  type PageRequestResult,
  type PageWant,
  pasidCapability,
  pri,
  type RequestTag,
  sriov,
} from './pci/device-model.js'
export type { Identity } from './pci/node.js'
export {
  COMPLETION,
  type CompletionStatus,
  PRG_RESPONSE,
  type PrgResponseCode,
} from './pci/request.js'
