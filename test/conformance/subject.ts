// What the conformance suite needs of a machine with an IOMMU and its driver, whatever the architecture; and the two
// that there are. A guest's address space is opened, filled and closed in that architecture's own tables and calls.
import type { Iova, Pasid } from '../../src/base/addr.js'
import type { IommuCore } from '../../src/iommu/core.js'
import type { Domain } from '../../src/iommu/domain.js'
import { IOASID_SET_TYPE } from '../../src/iommu/ioasid-set.js'
import { PciConfig } from '../../src/iommu/pci-config.js'
import type { SmmuConfig } from '../../src/iommu/smmu/config.js'
import { type IommuFault, iommu_page_response } from '../../src/iommu/uapi.js'
import type { VtdConfig } from '../../src/iommu/vtd/config.js'
import { createMachine, type IommuUnit, type Machine } from '../../src/machine.js'
import type { DevicePort } from '../../src/pci/device-model.js'
import { HOST_RANGES } from '../../src/pci/fabric.js'
import type { DeviceModel } from '../../src/pci/function.js'
import {
  bdfOf,
  bindData,
  type DeviceShape,
  GuestTable,
  invalidateInfo as invalidateVtd,
  probe,
} from '../iommu/driver-bench.js'
import { Guest, invalidateInfo as invalidateSmmu, tableConfig } from '../iommu/smmu-bench.js'

export { bdfOf } from '../iommu/driver-bench.js'

/** One address space of a guest, under a PASID of one or more functions. */
export interface Space {
  readonly pasid: number
  /** Maps the page of an address to a guest physical page. */
  map(gva: bigint, gpaPage: number, writable?: boolean): void
  /** Takes the page's entry away; caches may still have it. */
  unmap(gva: bigint): void
  /** Tells the IOMMU that a page's entry changed, or all of them. */
  invalidate(gva?: bigint): void
  /** Takes the space away; its PASID may be opened again. */
  close(): void
}

/** A guest on a domain that nests. */
export interface NestedGuest {
  readonly domain: Domain
  /** A guest physical page with `value` in its first word. */
  page(value: number): number
  open(pasid: number): Space
  /** Detaches what is attached and gives everything back. */
  end(): void
}

/** What a subject is asked to have. */
export interface SubjectOptions {
  readonly devices?: readonly DeviceShape[]
  /** Models in place of probes. */
  readonly models?: readonly DeviceModel[]
  readonly acs?: boolean
}

/** A machine with one IOMMU. Devices are numbered from 0; each is alone below a root port unless it shares one. */
export interface Subject {
  readonly core: IommuCore
  readonly machine: Machine<IommuUnit>
  readonly config: PciConfig
  readonly ports: readonly DevicePort[]
  /** A guest whose functions are these devices. */
  guest(devices: readonly number[]): NestedGuest
  /** A host page with `value` in its first word. */
  page(value: number): number
  word(page: number): number
  /** A device's read of a word: what it got, or how it failed. */
  read(device: number, address: bigint, pasid?: number): number | string
  write(device: number, address: bigint, value: number, pasid?: number): string
  /** Faults that reach a device's handler from now on. */
  listen(device: number): IommuFault[]
  /** A device's page request; answers come into the list. */
  request(device: number, address: bigint, pasid: number): number[]
  respond(device: number, fault: IommuFault, code: number): void
  /** Frames, vectors and PASIDs held. */
  held(): unknown
}

type GuestOf = (s: Subject, devices: readonly number[]) => NestedGuest

function subject(
  create: (
    devices: readonly { at: string; model: DeviceModel }[],
    acs: boolean,
  ) => Machine<IommuUnit>,
  guestOf: GuestOf,
  { devices = [{}, {}], models, acs = true }: SubjectOptions,
): Subject {
  const ports: DevicePort[] = []
  const all = models ?? devices.map(shape => probe(shape, ports))
  const machine = create(
    all.map((model, n) => ({ at: `0000:0${n + 1}:00.0`, model })),
    acs,
  )
  const { memory, kernel, iommu: core, interrupts, ioasid, clock } = machine
  const { frames } = kernel
  const config = new PciConfig(memory, HOST_RANGES.ecamBase)
  for (let n = 0; n < all.length; n++) config.write(bdfOf(n), 4, 2, 6)
  const self: Subject = {
    core,
    machine,
    config,
    ports,
    guest: on => guestOf(self, on),
    page(value) {
      const at = frames.alloc()
      memory.writeU32(at, value)
      return at / 4096
    },
    word: page => memory.readU32(page * 4096),
    read(device, address, pasid) {
      const into = new Uint8Array(4)
      const tag = pasid === undefined ? {} : { pasid: pasid as Pasid }
      const result = ports[device]!.dma.read(address as Iova, into, tag)
      return result.ok ? new DataView(into.buffer).getUint32(0, true) : result.reason
    },
    write(device, address, value, pasid) {
      const from = new Uint8Array(4)
      new DataView(from.buffer).setUint32(0, value, true)
      const tag = pasid === undefined ? {} : { pasid: pasid as Pasid }
      const result = ports[device]!.dma.write(address as Iova, from, tag)
      return result.ok ? 'ok' : result.reason
    },
    listen(device) {
      const seen: IommuFault[] = []
      core.onFault(bdfOf(device), f => seen.push(f) > 0)
      return seen
    },
    request(device, address, pasid) {
      const answers: number[] = []
      const tag = { pasid: pasid as Pasid }
      ports[device]!.dma.pageRequest(address as Iova, {}, tag, code => answers.push(code))
      clock.settle()
      return answers
    },
    respond(device, fault, code) {
      const { grpid, pasid } = fault.event.prm
      const response = iommu_page_response({ version: 1, flags: 1, grpid, pasid, code })
      core.pageResponse(bdfOf(device), response)
      clock.settle()
    },
    held: () => ({ frames: frames.used, vectors: interrupts.used, pasids: ioasid.held }),
  }
  return self
}

const RAM = 8 * 2 ** 20
const NO_GUEST: GuestOf = () => {
  throw new Error('this subject does not nest')
}

/** VT-d in scalable mode: guests bind tables by PASID. */
export const vtd = (options: SubjectOptions = {}, changes: Partial<VtdConfig> = {}): Subject =>
  subject(
    (devices, acs) => createMachine({ ramBytes: RAM, devices, acs, vtd: changes }),
    vtdGuest,
    options,
  )

/** SMMUv3 with two stages: guests hand over their table of context descriptors. */
export const smmu = (options: SubjectOptions = {}, changes: Partial<SmmuConfig> = {}): Subject =>
  subject(
    (devices, acs) =>
      createMachine({ iommu: 'smmuv3', ramBytes: RAM, devices, acs, smmu: changes }),
    changes.stage2 === false ? NO_GUEST : smmuGuest,
    options,
  )

function vtdGuest(s: Subject, devices: readonly number[]): NestedGuest {
  const { core, machine } = s
  const { ioasid } = machine
  const { frames } = machine.kernel
  const set = ioasid.allocSet(IOASID_SET_TYPE.MM, {}, 100)
  const domain = core.domainAlloc(bdfOf(devices[0]!), { nesting: true })
  domain.setIoasidSet(set)
  for (const n of devices) domain.attach(bdfOf(n))
  const parts = { frames, memory: machine.memory }
  const pages: number[] = []
  const tables: GuestTable[] = []
  let next = 0x1000
  return {
    domain,
    page(value) {
      const host = s.page(value)
      pages.push(host)
      domain.map(next, host, 1, 3)
      return next++
    },
    open(pasid) {
      const id = ioasid.alloc(set, pasid, pasid)
      const table = new GuestTable(parts, domain, (next += 0x100))
      next += 0x100
      tables.push(table)
      const data = bindData({ gpgd: BigInt(table.root), hpasid: BigInt(id) })
      for (const n of devices) domain.bindGpasid(bdfOf(n), data)
      return {
        pasid,
        map: (gva, gpaPage, writable = true) => table.map(gva, gpaPage, writable ? 7n : 5n),
        unmap: gva => table.unmap(gva),
        invalidate(gva) {
          const info =
            gva === undefined
              ? invalidateVtd(1, 1, { flags: 1, pasid: BigInt(id) })
              : invalidateVtd(3, 2, {
                  pasid: BigInt(id),
                  addr: gva,
                  granule_size: 4096n,
                  nb_granules: 1n,
                })
          for (const n of devices) domain.cacheInvalidate(bdfOf(n), info)
        },
        close() {
          for (const n of devices) domain.unbindGpasid(bdfOf(n), BigInt(id))
          ioasid.free(set, id)
          machine.settle()
        },
      }
    },
    end() {
      for (const n of devices) domain.detach(bdfOf(n))
      for (const t of tables) t.free()
      for (const p of pages) frames.free(p * 4096)
      domain.setIoasidSet(undefined)
      domain.free()
      ioasid.putSet(set)
      machine.settle()
    },
  }
}

function smmuGuest(s: Subject, devices: readonly number[]): NestedGuest {
  const { core, machine } = s
  const domain = core.domainAlloc(bdfOf(devices[0]!), { nesting: true })
  for (const n of devices) domain.attach(bdfOf(n))
  const guest = new Guest(
    { frames: machine.kernel.frames, memory: machine.memory },
    domain,
    0x1000,
    8,
  )
  // Requests without PASID stay the domain's.
  domain.guestTables!.setPasidTable(
    tableConfig({ base_ptr: BigInt(guest.contexts), pasid_bits: 8, s1dss: 1 }),
  )
  const tell = (cache: number, granularity: number, of: object) => {
    const info = invalidateSmmu(cache, granularity, of)
    for (const n of devices) domain.cacheInvalidate(bdfOf(n), info)
  }
  return {
    domain,
    page: value => guest.data(value),
    open(pasid) {
      const ids = { flags: 3, pasid: BigInt(pasid), archid: 100 + pasid }
      guest.open(pasid)
      tell(4, 1, ids)
      return {
        pasid,
        map: (gva, gpaPage, writable) => guest.map(pasid, gva, gpaPage, writable),
        unmap: gva => guest.unmap(pasid, gva),
        invalidate(gva) {
          if (gva === undefined) tell(3, 1, ids)
          else tell(3, 2, { ...ids, addr: gva, granule_size: 4096n, nb_granules: 1n })
        },
        close() {
          guest.close(pasid)
          tell(7, 1, ids)
          machine.settle()
        },
      }
    },
    end() {
      for (const n of devices) domain.detach(bdfOf(n))
      guest.free()
      domain.free()
      machine.settle()
    },
  }
}
