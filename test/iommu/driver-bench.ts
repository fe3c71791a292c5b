/** A host with a VT-d unit, its driver and devices that issue what a test tells them: for tests of the driver half. */
import type { Iova, Pasid } from '../../src/base/addr.js'
import { VirtualClock } from '../../src/base/clock.js'
import { bank, bits, r32 } from '../../src/base/fields.js'
import { TraceBus } from '../../src/base/trace.js'
import { IommuCore } from '../../src/iommu/core.js'
import type { Domain } from '../../src/iommu/domain.js'
import { IoasidAllocator } from '../../src/iommu/ioasid.js'
import { IOASID_SET_TYPE, type IoasidSet } from '../../src/iommu/ioasid-set.js'
import { PciConfig } from '../../src/iommu/pci-config.js'
import {
  type CacheInvalidate,
  type GpasidBind,
  iommu_cache_invalidate_info,
  iommu_gpasid_bind_data,
} from '../../src/iommu/uapi.js'
import type { VtdConfig } from '../../src/iommu/vtd/config.js'
import { VtdDriver } from '../../src/iommu/vtd/driver.js'
import type { InvalidationEvent } from '../../src/iommu/vtd/invalidate.js'
import { VTD_MMIO_SIZE } from '../../src/iommu/vtd/registers.js'
import { VtdUnit } from '../../src/iommu/vtd/unit.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { FrameAllocator } from '../../src/mem/frames.js'
import { createRam } from '../../src/mem/ram.js'
import {
  ats,
  type DevicePort,
  defineDevice,
  msix,
  pasidCapability,
  pri,
} from '../../src/pci/device-model.js'
import { enumerate } from '../../src/pci/enumerate.js'
import { HOST_RANGES, RootComplex } from '../../src/pci/fabric.js'
import { HostInterrupts } from '../../src/pci/host-interrupts.js'

const RAM_BYTES = 16 * 2 ** 20
export const REGISTERS = 0xfed9_0000

/** What the device at 01:00.0 (02:00.0, …) has. */
export interface DeviceShape {
  readonly ats?: boolean
  readonly pri?: boolean
  readonly pasidWidth?: number
  readonly endEndPrefix?: boolean
}

const plain = bank('probe', { SCRATCH: r32(0, 'test', { V: bits(31, 0, 'rw') }) }, 0x1000)

export function probe(shape: DeviceShape, ports: DevicePort[]) {
  const { pasidWidth = 20 } = shape
  return defineDevice({
    name: 'probe',
    identity: { vendorId: 0x1234, deviceId: 0x0bad, classCode: 0x088000 },
    capabilities: [
      msix({ vectors: 1, bar: 2 }),
      ...(shape.ats === true ? [ats()] : []),
      ...(shape.pri === true ? [pri()] : []),
      ...(pasidWidth > 0 ? [pasidCapability({ width: pasidWidth })] : []),
    ],
    express: { endEndPrefix: shape.endEndPrefix ?? true },
    bar0: plain,
    create(port) {
      ports.push(port)
      return {}
    },
  })
}

export interface BenchOptions {
  readonly devices?: readonly DeviceShape[]
  readonly vtd?: Partial<VtdConfig>
  readonly pageResponseTimeoutNs?: number
  readonly ramBytes?: number
}

/** Requester id of the nth device. */
export const bdfOf = (n: number): number => (n + 1) << 8

export function bench(options: BenchOptions = {}) {
  const { devices = [{}], vtd = {}, pageResponseTimeoutNs = 0, ramBytes = RAM_BYTES } = options
  const clock = new VirtualClock()
  const trace = new TraceBus(clock)
  const memory = new AddressSpace()
  const ram = memory.addRam(0, createRam(ramBytes))
  const frames = new FrameAllocator(memory, ram, 4096)
  const fabric = new RootComplex({ memory, clock, trace })
  const ports: DevicePort[] = []
  for (const shape of devices) fabric.addRootPort().add(probe(shape, ports))
  enumerate({ memory, ...HOST_RANGES })
  const interrupts = new HostInterrupts()
  const { downstream } = fabric
  const unit = new VtdUnit({ memory, config: vtd, downstream, interrupts, clock, trace })
  memory.addMmio(REGISTERS, VTD_MMIO_SIZE, unit, 'VT-d')
  fabric.translator = unit
  fabric.messages = unit
  const ioasid = new IoasidAllocator({ clock, trace })
  const config = new PciConfig(memory, HOST_RANGES.ecamBase)
  const core = new IommuCore({ config, clock, pageResponseTimeoutNs })
  const driver = new VtdDriver({
    memory,
    frames,
    registerBase: REGISTERS,
    interrupts,
    clock,
    trace,
    ioasid,
  })
  core.add(driver)
  for (let n = 0; n < devices.length; n++) config.write(bdfOf(n), 4, 2, 6)

  const issued: InvalidationEvent[] = []
  trace.listen('vtd.invalidate', e => issued.push(e))

  const newSet = (quota = 100): IoasidSet => ioasid.allocSet(IOASID_SET_TYPE.MM, {}, quota)
  return {
    clock,
    trace,
    memory,
    frames,
    fabric,
    interrupts,
    unit,
    ioasid,
    config,
    core,
    driver,
    ports,
    issued,
    /** Invalidations since the last call, waits left out, as `what scope …`. */
    invalidations(): string[] {
      return issued
        .splice(0)
        .filter(e => e.what !== 'wait')
        .map(say)
    },
    newSet,
    /** A nesting domain with a set, and the devices named attached. */
    nested(attached: readonly number[] = [0], set = newSet()): Domain & { set: IoasidSet } {
      const domain = core.domainAlloc(bdfOf(attached[0]!), { nesting: true })
      domain.setIoasidSet(set)
      for (const n of attached) domain.attach(bdfOf(n))
      issued.length = 0
      return Object.assign(domain, { set })
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

export type Bench = ReturnType<typeof bench>

/** An invalidation in words. */
function say(e: InvalidationEvent): string {
  const words = [e.what as string, e.scope]
  if (e.did !== undefined) words.push(`did ${e.did}`)
  if (e.requester !== undefined) words.push(`of ${e.requester.toString(16)}`)
  if (e.pasid !== undefined) words.push(`pasid ${e.pasid}`)
  if (e.address !== undefined) words.push(`at ${e.address.toString(16)}/${e.pageBits}`)
  return words.join(' ')
}

/** Bind data that passes every check, with changes. */
export function bindData(changes: Partial<GpasidBind> & { vtdFlags?: bigint } = {}): GpasidBind {
  const { vtdFlags, ...rest } = changes
  const data = iommu_gpasid_bind_data({ version: 1, format: 1, addr_width: 48, ...rest })
  if (vtdFlags !== undefined) data.vendor.vtd.flags = vtdFlags
  return data
}

/** An invalidation request. */
export function invalidateInfo(
  cache: number,
  granularity: number,
  of: {
    flags?: number
    pasid?: bigint
    addr?: bigint
    granule_size?: bigint
    nb_granules?: bigint
  } = {},
): CacheInvalidate {
  const info = iommu_cache_invalidate_info({ version: 1, cache, granularity })
  if (granularity === 1)
    Object.assign(info.granu.pasid_info, { flags: of.flags ?? 1, pasid: of.pasid ?? 0n })
  if (granularity === 2) Object.assign(info.granu.addr_info, { flags: 1, ...of })
  return info
}

/** The errno name of a refusal; `ok` when there is none. */
export function codeOf(run: () => unknown): string {
  try {
    run()
    return 'ok'
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

/** A guest's 4-level first-stage table in guest physical pages: maps one page. */
export class GuestTable {
  readonly root: number
  readonly #frames: number[] = []
  readonly #b: Pick<Bench, 'frames' | 'memory'>
  readonly #domain: Domain
  #next: number

  /** Tables go into guest pages from `firstPage` on, each mapped to a host page of its own. */
  constructor(b: Pick<Bench, 'frames' | 'memory'>, domain: Domain, firstPage: number) {
    this.#b = b
    this.#domain = domain
    this.#next = firstPage
    this.root = this.#page()
  }

  /** Maps the page of a guest virtual address to a guest physical page. */
  map(gva: bigint, gpaPage: number, flags = 7n): void {
    let table = this.root
    for (let shift = 39n; shift > 12n; shift -= 9n) {
      const at = this.#entry(table, (gva >> shift) & 511n)
      const entry = this.#b.memory.load(at, 8)
      if (entry & 1n) table = Number(entry & ~0xfffn)
      else {
        table = this.#page()
        this.#b.memory.store(at, 8, BigInt(table) | 7n)
      }
    }
    this.#b.memory.store(this.#entry(table, (gva >> 12n) & 511n), 8, BigInt(gpaPage * 4096) | flags)
  }

  unmap(gva: bigint): void {
    let table = this.root
    for (let shift = 39n; shift > 12n; shift -= 9n)
      table = Number(this.#b.memory.load(this.#entry(table, (gva >> shift) & 511n), 8) & ~0xfffn)
    this.#b.memory.store(this.#entry(table, (gva >> 12n) & 511n), 8, 0n)
  }

  #entry(table: number, index: bigint): number {
    return this.#domain.iovaToPhys(table / 4096) * 4096 + Number(index) * 8
  }

  #page(): number {
    const page = this.#next++
    const frame = this.#b.frames.alloc()
    this.#frames.push(frame)
    this.#domain.map(page, frame / 4096, 1, 3)
    return page * 4096
  }

  /** Gives the host pages back; nothing may walk the table any more. */
  free(): void {
    for (const frame of this.#frames.splice(0)) this.#b.frames.free(frame)
  }
}
