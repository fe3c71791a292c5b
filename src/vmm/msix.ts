// MSI-X as the guest sees it: an emulated table whose vectors are eventfds on the host side. The real
// table is the kernel's; the guest's address and data only say which interrupt the VMM raises.

import type { Sys } from '../sys/sys.js'
import {
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SET_DATA_NONE,
  VFIO_PCI_MSIX_IRQ_INDEX,
  vfio_irq_set,
} from '../vfio/uapi/vfio.js'

const ENTRY = 16
const VECTOR_MASKED = 1

/** Raises an interrupt in the guest: an MSI address and data of its own choosing. */
export type RaiseMsi = (address: number, data: number) => void

/** The emulated MSI-X table of one function. */
export class GuestMsix {
  readonly #sys: Sys
  readonly #device: number
  readonly #raise: RaiseMsi
  readonly #table: Uint8Array
  readonly #view: DataView
  readonly #pending: Uint8Array
  #eventfds: number[] = []
  #enabled = false
  #masked = false

  constructor(sys: Sys, device: number, vectors: number, raise: RaiseMsi) {
    this.#sys = sys
    this.#device = device
    this.#raise = raise
    this.#table = new Uint8Array(vectors * ENTRY)
    this.#view = new DataView(this.#table.buffer)
    this.#pending = new Uint8Array(vectors)
    for (let v = 0; v < vectors; v++) this.#view.setUint32(v * ENTRY + 12, VECTOR_MASKED, true)
  }

  /** Bytes of the table. */
  get size(): number {
    return this.#table.length
  }

  read(offset: number, size: number): bigint {
    let v = 0n
    for (let i = size - 1; i >= 0; i--) v = (v << 8n) | BigInt(this.#table[offset + i] ?? 0)
    return v
  }

  write(offset: number, size: number, value: bigint): void {
    for (let i = 0; i < size && offset + i < this.#table.length; i++)
      this.#table[offset + i] = Number((value >> BigInt(8 * i)) & 0xffn)
    this.#deliverPending()
  }

  /** Follows the guest's MSI-X control: enable bit and function mask. */
  control(enabled: boolean, masked: boolean): void {
    this.#masked = masked
    if (enabled && !this.#enabled) this.#enable()
    if (!enabled && this.#enabled) this.#disable()
    this.#deliverPending()
  }

  /** Reads every eventfd that was signalled since, and raises or remembers its vector; true if any was. */
  poll(): boolean {
    let any = false
    for (let v = 0; v < this.#eventfds.length; v++) {
      if (!this.#sys.readable(this.#eventfds[v]!)) continue
      this.#sys.read(this.#eventfds[v]!, new Uint8Array(8))
      this.#pending[v] = 1
      any = true
    }
    this.#deliverPending()
    return any
  }

  /** The eventfds in use, for whoever waits on them. */
  get eventfds(): readonly number[] {
    return this.#eventfds
  }

  close(): void {
    if (this.#enabled) this.#disable()
  }

  #enable(): void {
    const vectors = this.#pending.length
    for (let v = 0; v < vectors; v++) this.#eventfds.push(this.#sys.eventfd())
    const data = new Uint8Array(4 * vectors)
    const view = new DataView(data.buffer)
    for (const [v, fd] of this.#eventfds.entries()) view.setInt32(4 * v, fd, true)
    this.#setIrqs(VFIO_IRQ_SET_DATA_EVENTFD, vectors, data)
    this.#enabled = true
  }

  #disable(): void {
    this.#setIrqs(VFIO_IRQ_SET_DATA_NONE, 0, new Uint8Array(0))
    for (const fd of this.#eventfds) this.#sys.close(fd)
    this.#eventfds = []
    this.#enabled = false
  }

  #setIrqs(kind: number, count: number, data: Uint8Array): void {
    const flags = kind | VFIO_IRQ_SET_ACTION_TRIGGER
    const index = VFIO_PCI_MSIX_IRQ_INDEX
    this.#sys.ioctl(this.#device, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index, count, data }))
  }

  #deliverPending(): void {
    if (!this.#enabled || this.#masked) return
    for (let v = 0; v < this.#pending.length; v++) {
      if (!this.#pending[v] || this.#view.getUint32(v * ENTRY + 12, true) & VECTOR_MASKED) continue
      this.#pending[v] = 0
      this.#raise(this.#view.getUint32(v * ENTRY, true), this.#view.getUint32(v * ENTRY + 8, true))
    }
  }
}
