// MSI of a vfio-pci device: a block of vectors of its IOMMU's driver, an eventfd each, and the capability
// programmed through configuration space. The number enabled is the next power of two; those past the
// request have no eventfd. A vector without an eventfd is masked where the function has masks.
import type { DeviceVector } from '../iommu/domain.js'
import type { PciConfig } from '../iommu/pci-config.js'
import type { PciFunction } from '../pci/function.js'
import { CAPABILITY } from '../pci/ids.js'
import type { EventFd } from '../sys/eventfd.js'

const CONTROL = 0x02
const ENABLE = 1
const QUEUE_SIZE = 0x70

/** The MSI capability in the hands of a user. */
export class Msi {
  readonly #fn: PciFunction
  readonly #config: PciConfig
  #host: DeviceVector | undefined
  #eventfds: (EventFd | undefined)[] = []

  constructor(fn: PciFunction, config: PciConfig) {
    this.#fn = fn
    this.#config = config
  }

  /** Vectors of the capability; 0 without one. */
  get count(): number {
    return this.#fn.msi?.vectors ?? 0
  }

  /** Vectors enabled, as many as asked for; 0 while the index is disabled. */
  get enabled(): number {
    return this.#eventfds.length
  }

  /** Enables `count` vectors of a block that `allocate` gives, which may throw. */
  enable(
    count: number,
    allocate: (handler: (index: number) => void, count: number) => DeviceVector,
  ): void {
    this.#host = allocate(v => this.signal(v), 2 ** Math.ceil(Math.log2(count)))
    this.#eventfds = Array.from({ length: count }, () => undefined)
  }

  /** Sets or, with undefined, removes the eventfds from `start`; those vectors must be enabled. */
  set(start: number, eventfds: readonly (EventFd | undefined)[]): void {
    eventfds.forEach((eventfd, i) => {
      this.#eventfds[start + i] = eventfd
    })
    this.program()
  }

  signal(vector: number): void {
    this.#eventfds[vector]?.signal()
  }

  /** Writes address, data, masks and control; again after a reset. */
  program(): void {
    const host = this.#host
    if (host === undefined) return
    const at = this.#at
    const config = this.#config
    const { bdf } = this.#fn
    config.write(bdf, at + 0x04, 4, host.address % 2 ** 32)
    config.write(bdf, at + 0x08, 4, Math.floor(host.address / 2 ** 32))
    config.write(bdf, at + 0x0c, 2, host.data & 0xffff)
    this.#control((Math.ceil(Math.log2(this.#eventfds.length)) << 4) | ENABLE)
    if (this.#fn.msi!.masking) {
      const open = this.#eventfds.reduce((bits, e, v) => (e ? bits | (1 << v) : bits), 0)
      config.write(bdf, at + 0x10, 4, ~open >>> 0)
    }
  }

  /** Disables the index and gives the vectors back. */
  release(): void {
    if (this.#host === undefined) return
    this.#control(0)
    this.#eventfds = []
    this.#host.free()
    this.#host = undefined
  }

  get #at(): number {
    return this.#fn.capabilityOffset(CAPABILITY.MSI, false)!
  }

  #control(bits: number): void {
    const { bdf } = this.#fn
    const control = this.#config.read(bdf, this.#at + CONTROL, 2)
    this.#config.write(bdf, this.#at + CONTROL, 2, (control & ~(QUEUE_SIZE | ENABLE)) | bits)
  }
}
