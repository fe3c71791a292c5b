// What a test program does with VFIO, in the fewest words: processes, containers, devices. Every method is
// one ioctl or the documented sequence of a few; refusals are the ErrnoErrors of the calls.
import type { IommuUnit, Machine } from '../machine.js'
import type { Mapping } from '../mem/vma.js'
import { type IoctlArgument, type Sys, s32 } from '../sys/sys.js'
import { vfioIo } from '../vfio/uapi/common.js'
import { IOASID_REQUEST_ALLOC, IOASID_REQUEST_FREE, ioasid_request } from '../vfio/uapi/ioasid.js'
import {
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  vfio_info_cap_header,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
  vfio_region_info,
} from '../vfio/uapi/vfio.js'
import {
  VFIO_IOMMU_CACHE_INVALIDATE,
  VFIO_IOMMU_FLAG_ALLOC_PASID,
  VFIO_IOMMU_FLAG_FREE_PASID,
  VFIO_IOMMU_NESTING_OP_BIND_PGTBL,
  VFIO_IOMMU_NESTING_OP_CACHE_INVLD,
  VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL,
  VFIO_IOMMU_SET_PASID_TABLE,
  VFIO_PASID_TABLE_FLAG_SET,
  VFIO_PASID_TABLE_FLAG_UNSET,
  vfio_iommu_type1_cache_invalidate,
  vfio_iommu_type1_set_pasid_table,
} from '../vfio/uapi/vsva.js'
import {
  type BindMembers,
  bindData,
  type InvalidationMembers,
  invalidation,
  LAST_PASID,
  nestingOp,
  type PasidTableMembers,
  pasidRequest,
  pasidTable,
  READ_WRITE,
} from './builders.js'

/** A function of the machine, as tests name it: by its place in the list. */
export interface BenchFunction {
  readonly name: string
  readonly group: number
  readonly bdf: number
}

/** What a program knows of its machine. */
export interface ProgramMachine {
  readonly machine: Machine<IommuUnit>
  readonly functions: readonly BenchFunction[]
  /** Numbers of the vSVA calls, `_IO(';', …)`. Where the profile has none: those of v7. */
  readonly calls: { readonly pasidRequest: number; readonly nestingOp: number }
}

/** Descriptors of /dev/ioasid, where PASIDs come from there (V8): one a process. */
const ioasidFiles = new WeakMap<Sys, number>()

function ioasidFile(sys: Sys): number {
  let fd = ioasidFiles.get(sys)
  if (fd === undefined) ioasidFiles.set(sys, (fd = sys.open('/dev/ioasid')))
  return fd
}

/** The call numbers of a machine's profile. */
export function callNumbers({ vfio }: Machine<IommuUnit>): ProgramMachine['calls'] {
  const { calls } = vfio.rules
  return {
    pasidRequest: vfioIo(calls['pasid-request'] ?? 18),
    nestingOp: vfioIo(calls['nesting-op'] ?? 19),
  }
}

/** One process of the machine, as a program that uses VFIO. */
export class Program {
  readonly sys: Sys
  readonly #on: ProgramMachine

  constructor(sys: Sys, on: ProgramMachine) {
    this.sys = sys
    this.#on = on
  }

  /** A container with these groups, and a driver when a type is given. */
  container(type?: number, ...groups: readonly number[]): Container {
    const { sys } = this
    const fd = sys.open('/dev/vfio/vfio')
    const opened = groups.map(id => this.group(id, fd))
    if (type !== undefined) sys.ioctl(fd, VFIO_SET_IOMMU, type)
    return new Container(sys, fd, opened, this.#on)
  }

  /** A nesting container (type 6) with the group of function `i`. */
  nesting(i = 0): Container {
    return this.container(VFIO_TYPE1_NESTING_IOMMU, this.#on.functions[i]!.group)
  }

  /** Opens a group's file, and puts it into a container when one is given. */
  group(id: number, container?: number): number {
    const fd = this.sys.open(`/dev/vfio/${id}`)
    if (container !== undefined) this.sys.ioctl(fd, VFIO_GROUP_SET_CONTAINER, s32(container))
    return fd
  }

  /** Anonymous memory of that many bytes. */
  memory(bytes = 4096): Mapping {
    return this.sys.mmap(bytes)
  }

  /** An address at which `bytes` are readable and nothing after them is. */
  atEndOfPage(bytes: Uint8Array): bigint {
    const pages = Math.ceil(bytes.length / 4096)
    const { vaddr, bytes: memory } = this.memory(pages * 4096)
    memory.set(bytes, memory.length - bytes.length)
    return vaddr + BigInt(memory.length - bytes.length)
  }

  /** A copy of the process that shares its files: the same containers, by descriptor. */
  fork(): Program {
    return new Program(this.sys.fork(), this.#on)
  }

  /** The same container (an inherited descriptor) as this process reaches it. */
  inherit(container: Container): Container {
    return new Container(this.sys, container.fd, container.groups, this.#on)
  }

  exit(): void {
    this.sys.exit()
  }
}

/** A container and the groups in it. */
export class Container {
  readonly sys: Sys
  readonly fd: number
  /** Descriptors of its groups. */
  readonly groups: readonly number[]
  readonly #on: ProgramMachine

  constructor(sys: Sys, fd: number, groups: readonly number[], on: ProgramMachine) {
    this.sys = sys
    this.fd = fd
    this.groups = groups
    this.#on = on
  }

  call(cmd: number, arg?: IoctlArgument): number {
    return this.sys.ioctl(this.fd, cmd, arg)
  }

  setIommu(type: number): number {
    return this.call(VFIO_SET_IOMMU, type)
  }

  /** GET_INFO by its two calls, and where each capability is. */
  info(): {
    readonly info: ReturnType<typeof vfio_iommu_type1_info>
    readonly capabilities: readonly {
      readonly id: number
      readonly version: number
      readonly at: number
    }[]
  } {
    const probe = vfio_iommu_type1_info()
    this.call(VFIO_IOMMU_GET_INFO, probe)
    const info = vfio_iommu_type1_info({}, Math.max(0, probe.argsz - probe.bytes.length))
    this.call(VFIO_IOMMU_GET_INFO, info)
    const capabilities = []
    for (let at = info.cap_offset; at !== 0; ) {
      const { id, version, next } = vfio_info_cap_header.at(info.bytes, at)
      capabilities.push({ id, version, at })
      at = next
    }
    return { info, capabilities }
  }

  map(iova: bigint, vaddr: bigint, size: bigint | number, flags = READ_WRITE): number {
    const arg = vfio_iommu_type1_dma_map({ flags, iova, vaddr, size: BigInt(size) })
    return this.call(VFIO_IOMMU_MAP_DMA, arg)
  }

  /** Returns the bytes removed. */
  unmap(iova: bigint, size: bigint | number, flags = 0): bigint {
    const arg = vfio_iommu_type1_dma_unmap({ flags, iova, size: BigInt(size) })
    this.call(VFIO_IOMMU_UNMAP_DMA, arg)
    return arg.size
  }

  /** PASID_REQUEST with any flags, or with an address as its argument. */
  request(flags: number, min = 1, max = LAST_PASID): number {
    return this.call(this.#on.calls.pasidRequest, pasidRequest(flags, min, max))
  }

  requestAt(vaddr: bigint): number {
    return this.call(this.#on.calls.pasidRequest, vaddr)
  }

  /** The lowest free PASID in the range, all of 20 bits unless told; from /dev/ioasid where the profile has it. */
  alloc(min = 1, max = LAST_PASID): number {
    if (this.#on.machine.vfio.rules.pasidFile)
      return this.sys.ioctl(
        ioasidFile(this.sys),
        IOASID_REQUEST_ALLOC,
        ioasid_request({ range: { min, max } }),
      )
    return this.request(VFIO_IOMMU_FLAG_ALLOC_PASID, min, max)
  }

  /** Frees a range; from /dev/ioasid one id at a time, which is `min`. */
  free(min: number, max = min): number {
    if (this.#on.machine.vfio.rules.pasidFile)
      return this.sys.ioctl(ioasidFile(this.sys), IOASID_REQUEST_FREE, s32(min))
    return this.request(VFIO_IOMMU_FLAG_FREE_PASID, min, max)
  }

  /** NESTING_OP with any operation and payload; `argsz` is the outer one. */
  op(flags: number, payload: { readonly bytes: Uint8Array } | Uint8Array, argsz?: number): number {
    return this.call(this.#on.calls.nestingOp, nestingOp(flags, payload, argsz))
  }

  opAt(vaddr: bigint): number {
    return this.call(this.#on.calls.nestingOp, vaddr)
  }

  /** BIND_PGTBL of a PASID, or of bind data with members replaced. */
  bind(members: number | BindMembers, argsz?: number): number {
    return this.op(VFIO_IOMMU_NESTING_OP_BIND_PGTBL, bindData(members), argsz)
  }

  unbind(members: number | BindMembers, argsz?: number): number {
    return this.op(VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL, bindData(members), argsz)
  }

  /** CACHE_INVLD of a PASID's whole space, or with members replaced. */
  invalidate(members: number | InvalidationMembers, argsz?: number): number {
    return this.op(VFIO_IOMMU_NESTING_OP_CACHE_INVLD, invalidation(members), argsz)
  }

  /** SET_PASID_TABLE of N13: a table that SMMUv3 takes, with members replaced. */
  setPasidTable(members: PasidTableMembers = {}): number {
    const config = pasidTable(members)
    const flags = VFIO_PASID_TABLE_FLAG_SET
    return this.call(
      VFIO_IOMMU_SET_PASID_TABLE,
      vfio_iommu_type1_set_pasid_table({ flags, config }),
    )
  }

  unsetPasidTable(): number {
    const flags = VFIO_PASID_TABLE_FLAG_UNSET
    return this.call(VFIO_IOMMU_SET_PASID_TABLE, vfio_iommu_type1_set_pasid_table({ flags }))
  }

  /** CACHE_INVALIDATE of N13, whose refusals are told. A bare number is the PASID, all of it. */
  cacheInvalidate(members: number | InvalidationMembers): number {
    const info = invalidation(members)
    return this.call(VFIO_IOMMU_CACHE_INVALIDATE, vfio_iommu_type1_cache_invalidate({ info }))
  }

  /** Takes a group out of the container. */
  unset(group = 0): number {
    return this.sys.ioctl(this.groups[group]!, VFIO_GROUP_UNSET_CONTAINER)
  }

  /** Opens function `i`, with memory decoding and bus mastering on. */
  device(i = 0, group = 0): Device {
    return new Device(this.sys, this.deviceFd(i, group))
  }

  /** The descriptor alone: the device as VFIO hands it out. */
  deviceFd(i = 0, group = 0): number {
    return this.sys.ioctl(
      this.groups[group]!,
      VFIO_GROUP_GET_DEVICE_FD,
      this.#on.functions[i]!.name,
    )
  }

  /** Closes groups and container. */
  close(): void {
    for (const group of this.groups) this.sys.close(group)
    this.sys.close(this.fd)
  }
}

/** A device that a program opened. */
export class Device {
  readonly sys: Sys
  readonly fd: number

  constructor(sys: Sys, fd: number) {
    this.sys = sys
    this.fd = fd
    this.writeConfig(0x04, Uint8Array.of(0x06, 0))
  }

  /** Bytes of a region. */
  read(region: number, offset: number, length: number): Uint8Array {
    return this.sys.pread(this.fd, length, this.#offset(region) + BigInt(offset))
  }

  write(region: number, offset: number, bytes: Uint8Array): number {
    return this.sys.pwrite(this.fd, bytes, this.#offset(region) + BigInt(offset))
  }

  /** Configuration space, little-endian, up to 4 bytes. */
  config(offset: number, size: 1 | 2 | 4): number {
    return this.read(VFIO_PCI_CONFIG_REGION_INDEX, offset, size).reduceRight(
      (value, byte) => value * 256 + byte,
      0,
    )
  }

  writeConfig(offset: number, bytes: Uint8Array): number {
    return this.write(VFIO_PCI_CONFIG_REGION_INDEX, offset, bytes)
  }

  reset(): number {
    return this.sys.ioctl(this.fd, VFIO_DEVICE_RESET)
  }

  close(): void {
    this.sys.close(this.fd)
  }

  #offset(index: number): bigint {
    const info = vfio_region_info({ index })
    this.sys.ioctl(this.fd, VFIO_DEVICE_GET_REGION_INFO, info)
    return info.offset
  }
}
