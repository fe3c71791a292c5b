// The cores and the KVM interface in front of them.
export type { Core, Exit } from './core.js'
export type { PasidHandler, PasidSource } from './kvm/pasid.js'
export {
  type A64Options,
  type CpuArchitecture,
  type Kvm,
  type KvmParts,
  registerKvm,
} from './kvm/system.js'
export { type CryptoProvider, nobleCrypto } from './sev/crypto.js'
export { createSevPlatform, type SevOptions, type SevPlatform } from './sev/platform.js'
