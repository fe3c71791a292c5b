// What `vfio-emu/testing` exports: benches, programs, builders and matchers for regressions of PASID handling.
export {
  Bench,
  type BenchHoldings,
  type BenchOptions,
  bench,
  checkBenches,
  type SmmuBenchOptions,
} from './bench.js'
export {
  type BindMembers,
  bindData,
  type InvalidationMembers,
  invalidation,
  LAST_PASID,
  LAST_REQUEST,
  nestingOp,
  type PasidTableMembers,
  pasidRequest,
  pasidTable,
  READ_WRITE,
} from './builders.js'
export { type TestDeviceOptions, testDevice } from './devices.js'
export type { GuestArchitecture } from './kvm/architecture.js'
export { ARM64_GUEST, ARM64_REG, getOneReg, setOneReg, showToEl0 } from './kvm/arm64.js'
export type { ElfSymbol } from './kvm/elf-symbols.js'
export * from './kvm/exceptions.js'
export { type GuestStop, GuestVcpu, GuestVm, type GuestVmOptions } from './kvm/guest-vm.js'
export { GuestAssertionError, UCALL, type Ucall, UnhandledExceptionError } from './kvm/ucall.js'
export { X86_64_GUEST } from './kvm/x86-64.js'
export { type MatcherResult, matchers } from './matchers.js'
export { type BenchFunction, Container, Device, Program } from './program.js'
export { install, type TestRunner } from './setup.js'
export type { DmaFault, DmaOptions, DmaOutcome, Page, Space } from './spaces.js'
export { standIn } from './stand-in.js'

import './vitest-types.js'
