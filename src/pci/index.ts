/** The public names of the PCI room, as `vfio-emu/pci` exports them. */
export { TranslationCache } from './atc.js'
export type { Bar, BarKind, BarSpec } from './bar.js'
export { RootPort, type RootPortOptions, type Window } from './bridge.js'
export { BusMaster } from './bus-master.js'
export { express } from './capabilities/express.js'
export { msi } from './capabilities/msi.js'
export { msix } from './capabilities/msix.js'
export { powerManagement } from './capabilities/power-management.js'
export type { Capability, CapabilityFactory, PlacedCapability } from './capability.js'
export { type ConfigFacts, type ConfigImage, decodeConfig } from './config-image.js'
export { ConfigSpace } from './config-space.js'
export {
  configImages,
  type DumpLength,
  describeText,
  dumpText,
  listText,
} from './config-text.js'
export {
  type DefinedDevice,
  type DeviceBehaviour,
  type DeviceDefinition,
  type DevicePort,
  type DmaFailure,
  type DmaPort,
  type DmaResult,
  defineDevice,
  type Halves,
  type PageRequestResult,
  type PageWant,
  type RequestTag,
} from './device-model.js'
export { dmaCopy } from './devices/dma-copy.js'
export { irqTest } from './devices/irq-test.js'
export { nullDevice } from './devices/null.js'
export { svaEngine } from './devices/sva-engine.js'
export type { DmaFailureReason, DmaTag } from './dma.js'
export { ECAM_SIZE, Ecam } from './ecam.js'
export { type EnumerateOptions, enumerate, type FoundBar, type FoundFunction } from './enumerate.js'
export { acs } from './extended/acs.js'
export { aer } from './extended/aer.js'
export { ats } from './extended/ats.js'
export { pasidCapability } from './extended/pasid.js'
export { pri } from './extended/pri.js'
export { type SriovOptions, sriov } from './extended/sriov.js'
export { type AddressRange, HOST_RANGES, RootComplex, type RootComplexOptions } from './fabric.js'
export { type DeviceModel, PciFunction } from './function.js'
export { HostInterrupts, type HostVector } from './host-interrupts.js'
export { InterruptLine, type InterruptPin, type LineHandler } from './intx.js'
export { type Identity, PciNode } from './node.js'
export * from './request.js'
export type { DownstreamPort, MessageSink, UpstreamTranslator } from './upstream.js'
