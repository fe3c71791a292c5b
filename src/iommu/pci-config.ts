/**
 * Configuration space as an operating system reaches it: through the enhanced configuration window in
 * physical memory, walking buses by what bridges say. Nothing here knows the fabric's objects.
 */
import type { AddressSpace } from '../mem/address-space.js'
import { CAPABILITY, EXTENDED, EXTENDED_START } from '../pci/ids.js'

const HEADER_TYPE = 0x0e
const SECONDARY_BUS = 0x19
const CAPABILITIES_POINTER = 0x34
const STATUS = 0x06
const STATUS_CAPABILITIES = 1 << 4
const MULTI_FUNCTION = 0x80
const LAYOUT = 0x7f
const NO_DEVICE = 0xffff
const CLASS_REVISION = 0x08
const NO_CLASS = 0xffff_ffff
const VF_CONTROL = 0x08
const VF_ENABLE = 1 << 0
const NUM_VFS = 0x10
const FIRST_VF_OFFSET = 0x14
const VF_STRIDE = 0x16
/** More capabilities than a chain can have: ends a chain that loops. */
const CHAIN_LIMIT = 1024

/** A function found on a bus. */
export interface FoundFunction {
  readonly bdf: number
  readonly multiFunction: boolean
  /** The bridge whose secondary bus it is on; undefined on the root bus. */
  readonly parent: FoundFunction | undefined
  /** A bridge's bus below; undefined for an endpoint. */
  readonly secondaryBus: number | undefined
}

/** Reads and writes configuration space through the window at `ecam` (4 KiB a function, PCIe 7.2.2). */
export class PciConfig {
  /** Functions that use a function's PASID capability: it and its virtual ones. Kept by pci-services.ts. */
  readonly pasidUsers = new Map<number, number>()
  readonly #memory: AddressSpace
  readonly #ecam: number

  constructor(memory: AddressSpace, ecam: number) {
    this.#memory = memory
    this.#ecam = ecam
  }

  /** A value of 1, 2 or 4 bytes; all-ones where no function is. */
  read(bdf: number, offset: number, size: 1 | 2 | 4): number {
    return Number(this.#memory.load(this.#at(bdf, offset), size))
  }

  write(bdf: number, offset: number, size: 1 | 2 | 4, value: number): void {
    this.#memory.store(this.#at(bdf, offset), size, BigInt(value >>> 0))
  }

  /** Whether a function answers. Virtual ones have no ids, but a class. */
  present(bdf: number): boolean {
    return this.read(bdf, 0, 2) !== NO_DEVICE || this.read(bdf, CLASS_REVISION, 4) !== NO_CLASS
  }

  /** The physical function of a virtual one; any other function itself. */
  physicalFunction(bdf: number): number {
    if (this.read(bdf, 0, 2) !== NO_DEVICE) return bdf
    for (let fn = 0; fn < 8; fn++) {
      const pf = (bdf & ~7) | fn
      if (pf !== bdf && this.virtualFunctions(pf).includes(bdf)) return pf
    }
    return bdf
  }

  /** Requester ids of the virtual functions that a physical one has now. */
  virtualFunctions(bdf: number): number[] {
    const at = this.extended(bdf, EXTENDED.SRIOV)
    if (at === 0 || !(this.read(bdf, at + VF_CONTROL, 2) & VF_ENABLE)) return []
    const first = bdf + this.read(bdf, at + FIRST_VF_OFFSET, 2)
    const stride = this.read(bdf, at + VF_STRIDE, 2)
    const count = this.read(bdf, at + NUM_VFS, 2)
    return Array.from({ length: count }, (_, i) => first + i * stride).filter(vf =>
      this.present(vf),
    )
  }

  /** Offset of a capability of the first 256 bytes; 0 when there is none. */
  capability(bdf: number, id: number): number {
    if (!this.present(bdf) || !(this.read(bdf, STATUS, 2) & STATUS_CAPABILITIES)) return 0
    let at = this.read(bdf, CAPABILITIES_POINTER, 1) & ~3
    for (let n = 0; at >= 0x40 && n < CHAIN_LIMIT; n++) {
      if (this.read(bdf, at, 1) === id) return at
      at = this.read(bdf, at + 1, 1) & ~3
    }
    return 0
  }

  /** Offset of an extended capability; 0 when there is none. */
  extended(bdf: number, id: number): number {
    if (!this.present(bdf)) return 0
    let at = EXTENDED_START
    for (let n = 0; at >= EXTENDED_START && n < CHAIN_LIMIT; n++) {
      const header = this.read(bdf, at, 4)
      if (header === 0 || header === 0xffff_ffff) return 0
      if ((header & 0xffff) === id) return at
      at = (header >>> 20) & ~3
    }
    return 0
  }

  /** Every function, by ascending requester id; buses below a bridge once firmware has numbered them. */
  scan(): FoundFunction[] {
    const found: FoundFunction[] = []
    const seen = new Set<number>()
    const bus = (number: number, parent: FoundFunction | undefined) => {
      if (seen.has(number)) return
      seen.add(number)
      for (let device = 0; device < 32; device++) {
        for (let fn = 0; fn < 8; fn++) {
          const bdf = (number << 8) | (device << 3) | fn
          if (!this.present(bdf)) {
            if (fn === 0) break
            continue
          }
          const type = this.read(bdf, HEADER_TYPE, 1)
          const bridge = (type & LAYOUT) === 1
          const secondaryBus = bridge ? this.read(bdf, SECONDARY_BUS, 1) : undefined
          const multiFunction = (type & MULTI_FUNCTION) !== 0
          const f = { bdf, multiFunction, parent, secondaryBus }
          found.push(f)
          if (!bridge)
            for (const vf of this.virtualFunctions(bdf))
              found.push({ bdf: vf, multiFunction: false, parent, secondaryBus: undefined })
          if (fn === 0 && !multiFunction) break
        }
      }
      for (const f of found.filter(f => f.bdf >> 8 === number))
        if (f.secondaryBus !== undefined && f.secondaryBus > number) bus(f.secondaryBus, f)
    }
    bus(0, undefined)
    return found.sort((a, b) => a.bdf - b.bdf)
  }

  #at(bdf: number, offset: number): number {
    return this.#ecam + bdf * 4096 + offset
  }
}

const EXPRESS_TYPE = 0x02
const EXPRESS_CAPABILITIES_2 = 0x24
const END_END_PREFIX = 1 << 21

/** PCI Express Device/Port Type; undefined for a conventional function. */
export function portType(config: PciConfig, bdf: number): number | undefined {
  const express = config.capability(bdf, CAPABILITY.PCI_EXPRESS)
  return express === 0 ? undefined : (config.read(bdf, express + EXPRESS_TYPE, 2) >> 4) & 15
}

/** Whether PASID prefixes of this function reach the root: it and every bridge above take them. */
export function prefixesReachRoot(config: PciConfig, f: FoundFunction | undefined): boolean {
  if (f === undefined) return false
  for (let node: FoundFunction | undefined = f; node; node = node.parent) {
    const express = config.capability(node.bdf, CAPABILITY.PCI_EXPRESS)
    if (express === 0) return false
    if (!(config.read(node.bdf, express + EXPRESS_CAPABILITIES_2, 4) & END_END_PREFIX)) return false
  }
  return true
}

const ACS_CAPABILITY = 0x04
const ACS_CONTROL = 0x06

/** ACS controls that isolation needs: source validation, request and completion redirect, upstream forwarding. */
export const ACS_ISOLATION = 0b1_1101

/** Turns on what a function has of the controls that isolation needs. */
export function enableAcs(config: PciConfig, bdf: number): void {
  const acs = config.extended(bdf, EXTENDED.ACS)
  if (acs === 0) return
  const supported = config.read(bdf, acs + ACS_CAPABILITY, 2) & ACS_ISOLATION
  const control = config.read(bdf, acs + ACS_CONTROL, 2)
  config.write(bdf, acs + ACS_CONTROL, 2, control | supported)
}

/** Whether the controls are on; one that the function does not have counts as built in. */
export function acsEnabled(config: PciConfig, bdf: number): boolean {
  const acs = config.extended(bdf, EXTENDED.ACS)
  if (acs === 0) return false
  const wanted = config.read(bdf, acs + ACS_CAPABILITY, 2) & ACS_ISOLATION
  return (config.read(bdf, acs + ACS_CONTROL, 2) & wanted) === wanted
}
