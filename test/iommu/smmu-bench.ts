// A small machine for tests of the SMMUv3 driver: RAM, root ports with a probe device each, the unit at its register
// page, host interrupts, driver and core. Commands are seen as the unit executes them.
import type { Iova, Pasid } from '../../src/base/addr.js'
import { VirtualClock } from '../../src/base/clock.js'
import { TraceBus } from '../../src/base/trace.js'
import { IommuCore } from '../../src/iommu/core.js'
import type { Domain } from '../../src/iommu/domain.js'
import { PciConfig } from '../../src/iommu/pci-config.js'
import { CD } from '../../src/iommu/smmu/cd.js'
import type { SmmuConfig } from '../../src/iommu/smmu/config.js'
import { SmmuDriver } from '../../src/iommu/smmu/driver.js'
import { SMMU_MMIO_SIZE } from '../../src/iommu/smmu/registers.js'
import { SmmuUnit } from '../../src/iommu/smmu/unit.js'
import {
  type CacheInvalidate,
  iommu_cache_invalidate_info,
  iommu_pasid_table_config,
  type PasidTableConfig,
} from '../../src/iommu/uapi.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { FrameAllocator } from '../../src/mem/frames.js'
import { createRam } from '../../src/mem/ram.js'
import type { DevicePort } from '../../src/pci/device-model.js'
import { enumerate } from '../../src/pci/enumerate.js'
import { HOST_RANGES, RootComplex } from '../../src/pci/fabric.js'
import { HostInterrupts } from '../../src/pci/host-interrupts.js'
import { bdfOf, type DeviceShape, probe } from './driver-bench.js'

export { bdfOf, codeOf } from './driver-bench.js'

export const REGISTERS = 0x0905_0000

export interface SmmuBenchOptions {
  readonly devices?: readonly DeviceShape[]
  readonly smmu?: Partial<SmmuConfig>
  readonly mayStall?: (bdf: number) => boolean
}

export function smmuBench({ devices = [{}], smmu = {}, mayStall }: SmmuBenchOptions = {}) {
  const clock = new VirtualClock()
  const trace = new TraceBus(clock)
  const memory = new AddressSpace()
  const ram = memory.addRam(0, createRam(16 * 2 ** 20))
  const frames = new FrameAllocator(memory, ram, 4096)
  const fabric = new RootComplex({ memory, clock, trace })
  const ports: DevicePort[] = []
  for (const shape of devices) fabric.addRootPort().add(probe(shape, ports))
  enumerate({ memory, ...HOST_RANGES })
  const interrupts = new HostInterrupts()
  const { downstream } = fabric
  const options = { memory, config: smmu, downstream, interrupts, clock, trace }
  let wired: ((which: 'gerror' | 'eventq' | 'priq' | 'sync') => void) | undefined
  const unit = new SmmuUnit({ ...options, wire: which => wired?.(which) })
  memory.addMmio(REGISTERS, SMMU_MMIO_SIZE, unit, 'SMMUv3')
  fabric.translator = unit
  fabric.messages = unit
  const config = new PciConfig(memory, HOST_RANGES.ecamBase)
  const core = new IommuCore({ config, clock })
  const driver = new SmmuDriver({
    memory,
    frames,
    registerBase: REGISTERS,
    interrupts,
    clock,
    trace,
    ...(mayStall ? { mayStall } : {}),
  })
  wired = which => driver.wire(which)
  const empty = { frames: frames.used, vectors: interrupts.used }
  core.add(driver)
  for (let n = 0; n < devices.length; n++) config.write(bdfOf(n), 4, 2, 6)
  const issued: string[] = []
  trace.listen('smmu.command', e => issued.push(e.command))

  return {
    clock,
    trace,
    memory,
    frames,
    fabric,
    interrupts,
    unit,
    config,
    core,
    driver,
    ports,
    /** What was held before the driver came. */
    empty,
    /** Names of commands since the last call, CMD_SYNCs left out. */
    commands: () => issued.splice(0).filter(name => name !== 'SYNC'),
    /** A nesting domain with the devices named. */
    nested(attached: readonly number[] = [0]): Domain {
      const domain = core.domainAlloc(bdfOf(attached[0]!), { nesting: true })
      for (const n of attached) domain.attach(bdfOf(n))
      issued.length = 0
      return domain
    },
    /** Device n reads 4 bytes: what it got, or how it failed. */
    read(n: number, address: bigint, pasid?: number): number | string {
      const into = new Uint8Array(4)
      const tag = pasid === undefined ? {} : { pasid: pasid as Pasid }
      const result = ports[n]!.dma.read(address as Iova, into, tag)
      return result.ok ? new DataView(into.buffer).getUint32(0, true) : result.reason
    },
    write(n: number, address: bigint, value: number, pasid?: number): string {
      const from = new Uint8Array(4)
      new DataView(from.buffer).setUint32(0, value, true)
      const tag = pasid === undefined ? {} : { pasid: pasid as Pasid }
      const result = ports[n]!.dma.write(address as Iova, from, tag)
      return result.ok ? 'ok' : result.reason
    },
    /** A host page that holds `value` in its first word. */
    page(value: number): number {
      const at = frames.alloc()
      memory.writeU32(at, value)
      return at / 4096
    },
  }
}

export type SmmuBench = ReturnType<typeof smmuBench>

/** A whole-table configuration that passes every check, with changes. */
export function tableConfig(
  changes: Parameters<typeof iommu_pasid_table_config>[0] & {
    s1fmt?: number
    s1dss?: number
  } = {},
): PasidTableConfig {
  const { s1fmt = 0, s1dss = 0, ...rest } = changes
  return iommu_pasid_table_config({
    version: 1,
    format: 1,
    config: 1,
    smmuv3: { version: 1, s1fmt, s1dss },
    ...rest,
  })
}

/** An invalidation request; members of the granularity's part by name. */
export function invalidateInfo(
  cache: number,
  granularity: number,
  of: {
    flags?: number
    archid?: number
    pasid?: bigint
    addr?: bigint
    granule_size?: bigint
    nb_granules?: bigint
  } = {},
): CacheInvalidate {
  const info = iommu_cache_invalidate_info({ version: 1, cache, granularity })
  if (granularity === 1) Object.assign(info.granu.pasid_info, of)
  if (granularity === 2) Object.assign(info.granu.addr_info, of)
  return info
}

/** Where a guest's pages come from. */
export type GuestMemory = Pick<SmmuBench, 'frames' | 'memory'>

/** A guest's memory and its stage 1: a linear table of context descriptors, and 4-level tables, in guest pages. */
export class Guest {
  readonly contexts: number
  readonly #b: GuestMemory
  readonly #domain: Domain
  readonly #frames: number[] = []
  readonly #roots = new Map<number, number>()
  #next: number

  /** Pages come from `firstPage` on, each mapped to a host page of its own; `pasidBits` sizes the CD table. */
  constructor(b: GuestMemory, domain: Domain, firstPage = 0x1000, pasidBits = 0) {
    this.#b = b
    this.#domain = domain
    this.#next = firstPage
    this.contexts = this.page(Math.max(1, (64 * 2 ** pasidBits) / 4096)) * 4096
  }

  /** Contiguous guest pages, mapped; answers the first. */
  page(count = 1): number {
    const first = this.#next
    for (let i = 0; i < count; i++) {
      const frame = this.#b.frames.alloc()
      this.#frames.push(frame)
      this.#domain.map(first + i, frame / 4096, 1, 3)
    }
    this.#next += count
    return first
  }

  /** Host address of a guest physical one. */
  host(gpa: number): number {
    return this.#domain.iovaToPhys(Math.floor(gpa / 4096)) * 4096 + (gpa % 4096)
  }

  /** A guest page with `value` in its first word. */
  data(value: number): number {
    const page = this.page()
    this.#b.memory.writeU32(this.host(page * 4096), value)
    return page
  }

  /** Writes the context descriptor of a PASID with a fresh table, ASID = 100 + PASID. */
  open(pasid: number, changes: Partial<ReturnType<typeof CD.create>> = {}): void {
    const root = this.page() * 4096
    this.#roots.set(pasid, root)
    const cd = CD.create({
      V: true,
      AA64: true,
      T0SZ: 16,
      EPD1: true,
      IPS: 5,
      TTB0: root,
      ASID: 100 + pasid,
      ASET: true,
      R: true,
      A: true,
      ...changes,
    })
    this.#b.memory.write(this.host(this.contexts + 64 * pasid), cd.bytes)
  }

  /** Takes the context descriptor of a PASID away. */
  close(pasid: number): void {
    this.#b.memory.write(this.host(this.contexts + 64 * pasid), new Uint8Array(64))
  }

  /** Maps the page of a guest virtual address. */
  map(pasid: number, gva: bigint, gpaPage: number, writable = true): void {
    let table = this.#roots.get(pasid)!
    for (let shift = 39n; shift > 12n; shift -= 9n) {
      const at = this.host(table + Number((gva >> shift) & 511n) * 8)
      const entry = this.#b.memory.load(at, 8)
      if (entry & 1n) table = Number(entry & 0xffff_ffff_f000n)
      else {
        table = this.page() * 4096
        this.#b.memory.store(at, 8, BigInt(table) | 3n)
      }
    }
    // Valid page, EL0 access, accessed, not global.
    const bits = writable ? 0xc43n : 0xcc3n
    this.#b.memory.store(this.#leaf(pasid, gva), 8, BigInt(gpaPage * 4096) | bits)
  }

  unmap(pasid: number, gva: bigint): void {
    this.#b.memory.store(this.#leaf(pasid, gva), 8, 0n)
  }

  /** Gives the host pages back; nothing may use the guest any more. */
  free(): void {
    for (const frame of this.#frames.splice(0)) this.#b.frames.free(frame)
  }

  #leaf(pasid: number, gva: bigint): number {
    let table = this.#roots.get(pasid)!
    for (let shift = 39n; shift > 12n; shift -= 9n) {
      const at = this.host(table + Number((gva >> shift) & 511n) * 8)
      table = Number(this.#b.memory.load(at, 8) & 0xffff_ffff_f000n)
    }
    return this.host(table + Number((gva >> 12n) & 511n) * 8)
  }
}
