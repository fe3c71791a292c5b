// Interrupts of a vfio-pci device by eventfd: MSI-X through the function's real table and vectors of its IOMMU's
// driver, error and request interrupts, and the fault interrupt of an extension; INTx and MSI have files of their own
// (intx.ts, msi.ts), and only one of the three is enabled at a time. uapi linux/vfio.h, vfio_irq_set; order of refusals: drivers/vfio of 5.9.
import { hex } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { DeviceVector } from '../iommu/domain.js'
import type { PciConfig } from '../iommu/pci-config.js'
import type { AddressSpace } from '../mem/address-space.js'
import type { PciFunction } from '../pci/function.js'
import { CAPABILITY, PCI_COMMAND, PCI_COMMAND_MEMORY } from '../pci/ids.js'
import { EventFd } from '../sys/eventfd.js'
import type { Process } from '../sys/process.js'
import { Intx } from './intx.js'
import { Msi } from './msi.js'
import {
  VFIO_IRQ_INFO_AUTOMASKED,
  VFIO_IRQ_INFO_EVENTFD,
  VFIO_IRQ_INFO_MASKABLE,
  VFIO_IRQ_INFO_NORESIZE,
  VFIO_IRQ_SET_ACTION_MASK,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_ACTION_TYPE_MASK,
  VFIO_IRQ_SET_ACTION_UNMASK,
  VFIO_IRQ_SET_DATA_BOOL,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_IRQ_SET_DATA_TYPE_MASK,
  VFIO_PCI_ERR_IRQ_INDEX,
  VFIO_PCI_INTX_IRQ_INDEX,
  VFIO_PCI_MSI_IRQ_INDEX,
  VFIO_PCI_MSIX_IRQ_INDEX,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_REQ_IRQ_INDEX,
  vfio_irq_set,
} from './uapi/vfio.js'

const CALL = 'VFIO_DEVICE_SET_IRQS'
const HEADER = vfio_irq_set.size
const MSIX_ENABLE = 0x8000
const MASKED = 1
const invalid = (what: string) => new ErrnoError('EINVAL', `${CALL}: ${what}`)
const noAction = ({ index, flags }: { readonly index: number; readonly flags: number }) =>
  new ErrnoError('ENOTTY', `${CALL}: index ${index} has no action of flags ${hex(flags)}`)

/** What interrupts need of the machine. */
export interface IrqEnvironment {
  readonly config: PciConfig
  readonly memory: AddressSpace
  /** A vector of this function that calls `handler`, or a block of `count` for MSI. */
  allocateVector(handler: (index: number) => void, count?: number): DeviceVector
  readonly dynamicMsix: boolean
  /** Whether the fault interrupt exists, as the first index after the stock ones. */
  readonly faults: boolean
}

interface Vector {
  readonly host: DeviceVector
  eventfd: EventFd | undefined
}

/** A request as `set` has checked it. */
interface Request {
  readonly flags: number
  readonly index: number
  readonly start: number
  readonly count: number
  readonly kind: number
  /** One for each interrupt: an eventfd, or undefined to remove (EVENTFD); whether to signal (NONE, BOOL). */
  readonly values: readonly (EventFd | undefined | boolean)[]
}

/** The interrupts of one device file's device. */
export class DeviceIrqs {
  /** Number of indices. */
  readonly count: number
  readonly #fn: PciFunction
  readonly #env: IrqEnvironment
  readonly #intx: Intx
  readonly #msi: Msi
  #vectors: Vector[] = []
  // Error, request and fault: one eventfd each, by index.
  readonly #single = new Map<number, EventFd | undefined>()

  constructor(fn: PciFunction, env: IrqEnvironment) {
    this.#fn = fn
    this.#env = env
    this.#intx = new Intx(fn, env.config)
    this.#msi = new Msi(fn, env.config)
    this.count = VFIO_PCI_NUM_IRQS + Number(env.faults)
    for (let i = VFIO_PCI_ERR_IRQ_INDEX; i < this.count; i++) this.#single.set(i, undefined)
  }

  /** Interrupts of an index, and VFIO_IRQ_INFO flags; undefined for no such index. */
  info(index: number): { readonly count: number; readonly flags: number } | undefined {
    const fixed = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE
    switch (index) {
      case VFIO_PCI_INTX_IRQ_INDEX: {
        const flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED
        return { count: this.#intx.count, flags }
      }
      case VFIO_PCI_MSI_IRQ_INDEX:
        return { count: this.#msi.count, flags: fixed }
      case VFIO_PCI_MSIX_IRQ_INDEX: {
        const flags = this.#env.dynamicMsix ? VFIO_IRQ_INFO_EVENTFD : fixed
        return { count: this.#fn.msix?.vectors ?? 0, flags }
      }
      default:
        return this.#single.has(index) ? { count: 1, flags: fixed } : undefined
    }
  }

  /** Signals the eventfd of the error, request or fault index; false when there is none. */
  signal(index: number): boolean {
    const eventfd = this.#single.get(index)
    eventfd?.signal()
    return eventfd !== undefined
  }

  /** SET_IRQS at `arg` of the caller. */
  set(arg: number, caller: Process): number {
    const request = this.#read(arg, caller)
    const action = request.flags & VFIO_IRQ_SET_ACTION_TYPE_MASK
    const { index } = request
    const pin = index === VFIO_PCI_INTX_IRQ_INDEX
    if (pin && action === VFIO_IRQ_SET_ACTION_MASK) this.#setIntxMask(request)
    else if (pin && action === VFIO_IRQ_SET_ACTION_UNMASK) this.#setIntxUnmask(request)
    else if (action !== VFIO_IRQ_SET_ACTION_TRIGGER) throw noAction(request)
    else if (pin) this.#setIntx(request)
    else if (index === VFIO_PCI_MSI_IRQ_INDEX) this.#setMsi(request)
    else if (index === VFIO_PCI_MSIX_IRQ_INDEX) this.#setMsix(request)
    else this.#setSingle(request)
    return 0
  }

  /** Lets go of every interrupt: the device is closed. */
  release(): void {
    this.#intx.release()
    this.#msi.release()
    this.#disableMsix()
    for (const index of this.#single.keys()) this.#single.set(index, undefined)
  }

  /** The user's Interrupt Disable. */
  disableIntx(on: boolean): void {
    if (this.#intx.count > 0) this.#intx.setDisabled(on)
  }

  /** Programs the function again after it was reset. */
  restore(): void {
    this.#msi.program()
    if (this.#vectors.length === 0) return
    for (let v = 0; v < this.#vectors.length; v++) this.#program(v)
    this.#enable(true)
  }

  #read(arg: number, { memory, fds, kernel }: Process): Request {
    const bytes = new Uint8Array(HEADER)
    if (!memory.copyIn(arg, bytes)) throw new ErrnoError('EFAULT', `${CALL}: unreadable`)
    const { argsz, flags, index, start, count } = vfio_irq_set.at(bytes)
    if (argsz < HEADER) throw invalid(`argsz ${argsz} < ${HEADER}`)
    if (index >= this.count) throw invalid(`index ${index}`)
    if (count >= 0xffff_ffff - start) throw invalid(`start ${start} count ${count}`)
    if (flags & ~(VFIO_IRQ_SET_DATA_TYPE_MASK | VFIO_IRQ_SET_ACTION_TYPE_MASK))
      throw invalid(`flags ${hex(flags)}`)
    const available = this.info(index)!.count
    if (start >= available || start + count > available)
      throw invalid(`start ${start} count ${count} of ${available} interrupts`)
    const kind = flags & VFIO_IRQ_SET_DATA_TYPE_MASK
    const sizes = new Map([
      [VFIO_IRQ_SET_DATA_NONE, 0],
      [VFIO_IRQ_SET_DATA_BOOL, 1],
      [VFIO_IRQ_SET_DATA_EVENTFD, 4],
    ])
    const size = sizes.get(kind)
    if (size === undefined) throw invalid(`flags ${hex(flags)}: one kind of data`)
    if (argsz - HEADER < count * size) throw invalid(`argsz ${argsz} for ${count} interrupts`)
    if (count * size > 0) kernel.failures.step('data of interrupts')
    const data = new Uint8Array(count * size)
    if (!memory.copyIn(arg + HEADER, data))
      throw new ErrnoError('EFAULT', `${CALL}: data unreadable`)
    const values = Array.from({ length: count }, (_, i) => {
      if (kind === VFIO_IRQ_SET_DATA_NONE) return true
      if (kind === VFIO_IRQ_SET_DATA_BOOL) return data[i] !== 0
      const fd = new DataView(data.buffer).getInt32(4 * i, true)
      if (fd === -1) return undefined
      if (fd < -1) throw invalid(`fd ${fd}`)
      kernel.failures.step('an eventfd', 'EBADF')
      const file = fds.get(fd)
      if (file === undefined) throw new ErrnoError('EBADF', `${CALL}: fd ${fd} is not open`)
      if (!(file instanceof EventFd)) throw invalid(`fd ${fd} is a ${file.kind}`)
      return file
    })
    return { flags, index, start, count, kind, values }
  }

  // The one index of INTx, MSI and MSI-X that is enabled.
  get #active(): number | undefined {
    if (this.#intx.enabled) return VFIO_PCI_INTX_IRQ_INDEX
    if (this.#msi.enabled > 0) return VFIO_PCI_MSI_IRQ_INDEX
    return this.#vectors.length > 0 ? VFIO_PCI_MSIX_IRQ_INDEX : undefined
  }

  #exclusive(index: number): void {
    const active = this.#active
    if (active !== undefined && active !== index)
      throw invalid(`index ${index} while index ${active} is enabled`)
  }

  #setIntx({ count, kind, values }: Request): void {
    const { enabled } = this.#intx
    if (enabled && count === 0 && kind === VFIO_IRQ_SET_DATA_NONE) {
      this.#intx.release()
      return
    }
    this.#exclusive(VFIO_PCI_INTX_IRQ_INDEX)
    if (count !== 1) throw invalid('INTx has one interrupt')
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) this.#intx.trigger(values[0] as EventFd | undefined)
    else if (!enabled) throw invalid('INTx is not enabled')
    else if (values[0] === true) this.#intx.loopBack()
  }

  #setIntxMask(request: Request): void {
    this.#oneIntx(request)
    if (request.kind === VFIO_IRQ_SET_DATA_EVENTFD) throw noAction(request)
    if (request.values[0] === true) this.#intx.mask()
  }

  #setIntxUnmask(request: Request): void {
    this.#oneIntx(request)
    const [value] = request.values
    if (request.kind === VFIO_IRQ_SET_DATA_EVENTFD)
      this.#intx.resample(value as EventFd | undefined)
    else if (value === true) this.#intx.unmask()
  }

  #oneIntx({ count }: Request): void {
    if (!this.#intx.enabled) throw invalid('INTx is not enabled')
    if (count !== 1) throw invalid('INTx has one interrupt')
  }

  #setMsi({ start, count, kind, values }: Request): void {
    if (count === 0 && kind === VFIO_IRQ_SET_DATA_NONE) {
      this.#msi.release()
      return
    }
    this.#exclusive(VFIO_PCI_MSI_IRQ_INDEX)
    const end = start + count
    const { enabled } = this.#msi
    if (enabled > 0 || kind !== VFIO_IRQ_SET_DATA_EVENTFD) {
      if (end > enabled) throw invalid(`MSI vector ${end - 1} of the ${enabled} enabled`)
    } else if (end > 0) this.#msi.enable(end, (run, block) => this.#env.allocateVector(run, block))
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD)
      this.#msi.set(start, values as readonly (EventFd | undefined)[])
    else
      values.forEach((value, i) => {
        if (value === true) this.#msi.signal(start + i)
      })
  }

  #setMsix(request: Request): void {
    const { start, count, kind, values } = request
    const enabled = this.#vectors.length > 0
    if (count === 0 && kind === VFIO_IRQ_SET_DATA_NONE) {
      this.#disableMsix()
      return
    }
    this.#exclusive(VFIO_PCI_MSIX_IRQ_INDEX)
    if (kind === VFIO_IRQ_SET_DATA_EVENTFD) {
      if (enabled && start + count > this.#vectors.length && !this.#env.dynamicMsix)
        throw invalid(`vector ${start + count - 1} of the ${this.#vectors.length} enabled`)
      this.#grow(start + count)
      values.forEach((value, i) => {
        this.#vectors[start + i]!.eventfd = value as EventFd | undefined
        this.#program(start + i)
      })
      if (!enabled && this.#vectors.length > 0) this.#enable(true)
      return
    }
    if (start + count > this.#vectors.length) throw invalid('MSI-X is not enabled for that vector')
    values.forEach((value, i) => {
      if (value === true) this.#vectors[start + i]!.eventfd?.signal()
    })
  }

  #setSingle({ index, start, count, kind, values }: Request): void {
    if (start !== 0 || count > 1) throw invalid(`index ${index} has one interrupt`)
    if (kind === VFIO_IRQ_SET_DATA_NONE && count === 0) this.#single.set(index, undefined)
    else if (count === 0) throw invalid(`index ${index}: count 0`)
    else if (kind === VFIO_IRQ_SET_DATA_EVENTFD)
      this.#single.set(index, values[0] as EventFd | undefined)
    else if (values[0] === true) this.signal(index)
  }

  #grow(count: number): void {
    const before = this.#vectors.length
    try {
      while (this.#vectors.length < count) {
        const vector: { host?: DeviceVector; eventfd: EventFd | undefined } = { eventfd: undefined }
        vector.host = this.#env.allocateVector(() => vector.eventfd?.signal())
        this.#vectors.push(vector as Vector)
      }
    } catch (error) {
      for (const { host } of this.#vectors.splice(before)) host.free()
      throw error
    }
    for (let v = before; v < count; v++) this.#program(v)
  }

  #disableMsix(): void {
    if (this.#vectors.length === 0) return
    this.#enable(false)
    const vectors = this.#vectors
    this.#vectors = []
    vectors.forEach(({ host }, v) => {
      this.#write(v, 0, 0, MASKED)
      host.free()
    })
  }

  // Writes the table entry of a vector: its message, and masked while it has no eventfd.
  #program(v: number): void {
    const { host, eventfd } = this.#vectors[v]!
    this.#write(v, host.address, host.data, eventfd === undefined ? MASKED : 0)
  }

  #write(v: number, address: number, data: number, control: number): void {
    const { msix, bars, bdf } = this.#fn
    const { config, memory } = this.#env
    const command = config.read(bdf, PCI_COMMAND, 2)
    const off = (command & PCI_COMMAND_MEMORY) === 0
    // The table is reached through the BAR, whatever the user did to memory decoding.
    if (off) config.write(bdf, PCI_COMMAND, 2, command | PCI_COMMAND_MEMORY)
    const at = bars[msix!.tableBar]!.address() + msix!.tableOffset + 16 * v
    memory.writeU32(at + 12, MASKED)
    memory.writeU32(at, address)
    memory.writeU32(at + 4, Math.floor(address / 2 ** 32))
    memory.writeU32(at + 8, data)
    memory.writeU32(at + 12, control)
    if (off) config.write(bdf, PCI_COMMAND, 2, command)
  }

  #enable(on: boolean): void {
    const at = this.#fn.capabilityOffset(CAPABILITY.MSIX, false)! + 2
    const control = this.#env.config.read(this.#fn.bdf, at, 2)
    const next = on ? control | MSIX_ENABLE : control & ~MSIX_ENABLE
    this.#env.config.write(this.#fn.bdf, at, 2, next)
  }
}

/** Index of the request interrupt. */
export const REQUEST_IRQ = VFIO_PCI_REQ_IRQ_INDEX
/** Index of the fault interrupt, where it exists. */
export const FAULT_IRQ = VFIO_PCI_NUM_IRQS
