// Mediated devices: devices that software makes, each in a group of its own. Without a backing function they reach a
// user's memory through the container's mappings and have no IOMMU; with one, the group's domain is put under a PASID
// of the function that the host chose. vSVA v7 patch 12; drivers/vfio/mdev of 5.9. Interrupts: left out. Pages held: mdev-pins.ts.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import { IOMMU_READ, IOMMU_WRITE } from '../iommu/domain.js'
import type { OpenFile } from '../sys/open-file.js'
import type { Process } from '../sys/process.js'
import type { DmaMappings } from './dma.js'
import type { IoctlTrace } from './ioctl-trace.js'
import { MdevPins } from './mdev-pins.js'
import { regionIndex, regionOffset } from './regions.js'
import {
  VFIO_DEVICE_FLAGS_PCI,
  VFIO_DEVICE_FLAGS_RESET,
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_RESET,
  VFIO_PCI_CONFIG_REGION_INDEX,
  VFIO_REGION_INFO_FLAG_READ,
  VFIO_REGION_INFO_FLAG_WRITE,
  vfio_device_info,
  vfio_irq_info,
  vfio_region_info,
} from './uapi/vfio.js'

/** Region indices and interrupt indices that the PCI view of a device has. */
const REGIONS = 9
const IRQS = 5
const INFO_MINIMUM = vfio_device_info.offsets.cap_offset

/** In place of a requester id: the backing function of a member is gone. */
export const NO_BACKING = -1

/** What a mediated device does with accesses to one of its regions; offsets are inside it. */
export interface MdevRegion {
  readonly size: number
  read(into: Uint8Array, offset: number): void
  write(from: Uint8Array, offset: number): void
}

/** The software of a mediated device. */
export interface MdevModel {
  /** Regions by VFIO index, 0 to 8. */
  readonly regions: Readonly<Record<number, MdevRegion>>
  reset(): void
  /** A range is about to be unmapped of which pages are held: time to unpin them. */
  unmapping?(iova: bigint, size: bigint): void
}

/** How a mediated device is made. */
export interface MdevOptions {
  /** Its name, a UUID, by which GET_DEVICE_FD finds it. */
  readonly name: string
  /** Requester id of the function whose requests serve it; without one it is software only. */
  readonly backing?: number
  /** Default: 256 bytes of configuration space that keep what is written. */
  readonly model?: MdevModel
}

/** One mediated device. */
export class Mdev {
  readonly name: string
  /** Number of its group: `/dev/vfio/N`. */
  readonly group: number
  readonly model: MdevModel
  /** PASID of the backing function under which its requests travel; undefined while no container has the group. */
  pasid: number | undefined = undefined
  #mappings: DmaMappings | undefined = undefined
  #pins: MdevPins | undefined = undefined
  #backing: number | undefined

  constructor({ name, backing, model }: MdevOptions, group: number) {
    this.name = name
    this.group = group
    this.#backing = backing
    this.model = model ?? scratch()
  }

  /** A container took the group in. For type1.ts. */
  join(mappings: DmaMappings): void {
    this.#mappings = mappings
    this.#pins = new MdevPins(mappings, (iova, size) => this.model.unmapping?.(iova, size))
  }

  /** And let it go. */
  leave(): void {
    this.#pins?.close()
    this.#mappings = this.#pins = undefined
  }

  /** Pages of the user that are held. */
  get pinned(): number {
    return this.#pins?.size ?? 0
  }

  /** Holds a page of the user and returns its host page. EINVAL no container, or not mapped so; EFAULT; ENOMEM. */
  pin(iovaPage: number, write: boolean): number {
    if (this.#pins === undefined)
      throw new ErrnoError('EINVAL', 'vfio_pin_pages: no container', 'pin')
    return this.#pins.pin(iovaPage, write)
  }

  unpin(iovaPage: number): void {
    this.#pins?.unpin(iovaPage)
  }

  get backing(): number | undefined {
    return this.#backing
  }

  /** Requester ids that per-device steps of a container address. */
  get devices(): readonly number[] {
    return [this.#backing ?? NO_BACKING]
  }

  /** The parent driver takes the backing function back; a container that has the group keeps its domain. */
  loseBacking(): void {
    this.#backing = undefined
  }

  /** Reads a user's memory as software does: through the container's mappings. False where nothing is mapped for it. */
  read(iova: bigint, into: Uint8Array): boolean {
    return this.#move(iova, into, IOMMU_READ)
  }

  write(iova: bigint, from: Uint8Array): boolean {
    return this.#move(iova, from, IOMMU_WRITE)
  }

  #move(iova: bigint, bytes: Uint8Array, access: number): boolean {
    for (let done = 0; done < bytes.length; ) {
      const at = iova + BigInt(done)
      const page = Number(at >> 12n)
      const offset = Number(at & 4095n)
      const n = Math.min(4096 - offset, bytes.length - done)
      const m = this.#mappings?.find(page)
      if (m === undefined || m.suspended || !(m.prot & access)) return false
      const vaddr = (m.vaddrPage + page - m.iovaPage) * 4096 + offset
      const part = bytes.subarray(done, done + n)
      const moved =
        access === IOMMU_READ ? m.memory.copyIn(vaddr, part) : m.memory.copyOut(vaddr, part)
      if (!moved) return false
      done += n
    }
    return true
  }
}

function scratch(): MdevModel {
  const bytes = new Uint8Array(256)
  const config: MdevRegion = {
    size: bytes.length,
    read: (into, offset) => into.set(bytes.subarray(offset, offset + into.length)),
    write: (from, offset) => bytes.set(from, offset),
  }
  return { regions: { [VFIO_PCI_CONFIG_REGION_INDEX]: config }, reset: () => void bytes.fill(0) }
}

/** One open file of a mediated device. */
export class MdevFile implements OpenFile {
  readonly kind = 'vfio-device'
  readonly #mdev: Mdev
  readonly #trace: IoctlTrace
  readonly #released: () => void

  constructor(mdev: Mdev, trace: IoctlTrace, released: () => void) {
    this.#mdev = mdev
    this.#trace = trace
    this.#released = released
  }

  ioctl(cmd: number, arg: number, caller: Process): number {
    const trace = this.#trace
    if (trace.on) return trace.run(cmd, arg, caller, () => this.#call(cmd, arg, caller))
    return this.#call(cmd, arg, caller)
  }

  pread(into: Uint8Array, offset: number): number {
    const [region, at] = this.#at(offset, into.length, 'pread')
    region.read(into, at)
    return into.length
  }

  pwrite(from: Uint8Array, offset: number): number {
    const [region, at] = this.#at(offset, from.length, 'pwrite')
    region.write(from, at)
    return from.length
  }

  release(): void {
    this.#released()
  }

  #call(cmd: number, arg: number, caller: Process): number {
    switch (cmd) {
      case VFIO_DEVICE_GET_INFO:
        return info(arg, caller)
      case VFIO_DEVICE_GET_REGION_INFO:
        return regionInfo(this.#mdev.model, arg, caller)
      case VFIO_DEVICE_GET_IRQ_INFO:
        return irqInfo(arg, caller)
      case VFIO_DEVICE_RESET:
        this.#mdev.model.reset()
        return 0
      default:
        throw new ErrnoError('ENOTTY', `a mediated device knows no ioctl ${hex(cmd)}`)
    }
  }

  #at(offset: number, length: number, syscall: string): [MdevRegion, number] {
    const index = regionIndex(offset)
    const at = offset - regionOffset(index)
    const region = this.#mdev.model.regions[index]
    if (region === undefined || at + length > region.size)
      throw new ErrnoError('EINVAL', `${syscall}: outside region ${index}`, syscall)
    return [region, at]
  }
}

function info(arg: number, { memory }: Process): number {
  const call = 'VFIO_DEVICE_GET_INFO'
  const out = vfio_device_info({ argsz: 0 })
  if (!memory.copyIn(arg, out.bytes, INFO_MINIMUM)) throw unreadable(call)
  if (out.argsz < INFO_MINIMUM) throw short(call, out.argsz, INFO_MINIMUM)
  out.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET
  out.num_regions = REGIONS
  out.num_irqs = IRQS
  if (!memory.copyOut(arg, out.bytes, INFO_MINIMUM)) throw unreadable(call)
  return 0
}

function regionInfo(model: MdevModel, arg: number, { memory }: Process): number {
  const call = 'VFIO_DEVICE_GET_REGION_INFO'
  const out = vfio_region_info({ argsz: 0 })
  if (!memory.copyIn(arg, out.bytes)) throw unreadable(call)
  if (out.argsz < vfio_region_info.size) throw short(call, out.argsz, vfio_region_info.size)
  if (out.index >= REGIONS) throw new ErrnoError('EINVAL', `${call}: index ${out.index}`)
  const size = model.regions[out.index]?.size ?? 0
  out.flags = size > 0 ? VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE : 0
  out.cap_offset = 0
  out.size = BigInt(size)
  out.offset = BigInt(regionOffset(out.index))
  if (!memory.copyOut(arg, out.bytes)) throw unreadable(call)
  return 0
}

function irqInfo(arg: number, { memory }: Process): number {
  const call = 'VFIO_DEVICE_GET_IRQ_INFO'
  const out = vfio_irq_info({ argsz: 0 })
  if (!memory.copyIn(arg, out.bytes)) throw unreadable(call)
  if (out.argsz < vfio_irq_info.size) throw short(call, out.argsz, vfio_irq_info.size)
  if (out.index >= IRQS) throw new ErrnoError('EINVAL', `${call}: index ${out.index}`)
  out.flags = 0
  out.count = 0
  if (!memory.copyOut(arg, out.bytes)) throw unreadable(call)
  return 0
}

const unreadable = (call: string) => new ErrnoError('EFAULT', `${call}: bad address`)
const short = (call: string, argsz: number, least: number) =>
  new ErrnoError('EINVAL', `${call}: argsz ${argsz} < ${least}`)
