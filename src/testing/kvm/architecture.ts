// What hosts of guest tests know of an architecture.

import type { Machine } from '../../machine.js'
import type { ElfTarget } from '../../vmm/elf.js'
import type { GuestVcpu, GuestVm } from './guest-vm.js'

/** One architecture's side of guest-vm.ts. */
export interface GuestArchitecture {
  readonly target: ElfTarget
  /** Exception vectors, and classes that a vector is divided into. */
  readonly vectors: number
  readonly classes: number
  /** Whether a vector's exceptions have classes. */
  isSynchronous(vector: number): boolean
  machine(): Machine
  /** Page tables and guest globals, after the image is loaded. */
  prepare(vm: GuestVm): void
  /** What entering the library's vectors needs in memory beside the handlers. */
  prepareVectors?(vm: GuestVm): void
  /** Puts a vCPU at a function of the guest with up to eight arguments. */
  start(vcpu: GuestVcpu, at: bigint, args: readonly bigint[]): void
  /** Points a vCPU's exceptions at the guest library's entries. */
  enterVectors(vcpu: GuestVcpu): void
  /** Address of the report that the guest has just left with, or undefined for any other exit. */
  reportAt(vcpu: GuestVcpu): bigint | undefined
}
