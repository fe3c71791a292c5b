// INTx of a vfio-pci device: a level become events. Each delivery masks the line (by Interrupt Disable of the
// function, which the user sees a virtual copy of) until the user unmasks it, by call or by eventfd.
// Facts: drivers/vfio of 5.9. Lines are not shared, so no device needs masking at an interrupt controller.
import { ErrnoError } from '../base/errno.js'
import type { PciConfig } from '../iommu/pci-config.js'
import type { PciFunction } from '../pci/function.js'
import { PCI_COMMAND, PCI_COMMAND_INTX_DISABLE } from '../pci/ids.js'
import type { EventFd } from '../sys/eventfd.js'

/** Deliveries in a row: listeners that unmask and leave the device waiting end masked, and do not hang. */
const ROUNDS = 64

/** The interrupt pin in the hands of a user. */
export class Intx {
  /** The index is enabled, perhaps without an eventfd. */
  enabled = false
  readonly #fn: PciFunction
  readonly #config: PciConfig
  #eventfd: EventFd | undefined
  #masked = false
  /** Interrupt Disable as the user set it. */
  #disabled = false
  #signalling = false
  #endResample: (() => void) | undefined

  constructor(fn: PciFunction, config: PciConfig) {
    this.#fn = fn
    this.#config = config
  }

  /** 1 with a pin, else 0. */
  get count(): number {
    return this.#fn.line === undefined ? 0 : 1
  }

  /** Enables the index, or replaces the eventfd; undefined removes it. A mask stays. */
  trigger(eventfd: EventFd | undefined): void {
    const line = this.#fn.line!
    line.connect(undefined)
    this.#eventfd = eventfd
    if (!this.enabled) {
      this.enabled = true
      this.#masked = this.#disabled
      this.#disable(this.#masked)
    }
    if (eventfd !== undefined) line.connect(asserted => this.#changed(asserted))
  }

  /** Ends the index: eventfd and resample eventfd are let go of. */
  release(): void {
    if (!this.enabled) return
    this.#fn.line!.connect(undefined)
    this.resample(undefined)
    this.#eventfd = undefined
    this.#masked = false
    this.enabled = false
  }

  /** Signals the eventfd from user space; not while the user has set Interrupt Disable. */
  loopBack(): void {
    if (!this.#disabled) this.#eventfd?.signal()
  }

  mask(): void {
    this.#masked = true
    this.#disable(true)
  }

  /** Opens the mask; an interrupt that is pending then comes at once, and masks again. */
  unmask(): void {
    if (!this.#masked || this.#disabled) return
    this.#masked = false
    this.#disable(false)
  }

  /** Unmasks whenever `eventfd` is signalled, and now if it is already. EBUSY when one is set. */
  resample(eventfd: EventFd | undefined): void {
    if (eventfd === undefined) {
      this.#endResample?.()
      this.#endResample = undefined
      return
    }
    if (this.#endResample)
      throw new ErrnoError('EBUSY', 'VFIO_DEVICE_SET_IRQS: there is a resample eventfd')
    // An eventfd that is both must not answer its own signal.
    const signal = () => {
      if (!(this.#signalling && eventfd === this.#eventfd)) this.unmask()
    }
    const ends = [eventfd.onSignal(signal), eventfd.onRelease(() => this.resample(undefined))]
    this.#endResample = () => {
      for (const end of ends) end()
    }
    if (eventfd.readable()) signal()
  }

  /** The user wrote Interrupt Disable: a mask of its own above the one of deliveries. */
  setDisabled(disabled: boolean): void {
    if (disabled === this.#disabled) return
    this.#disabled = disabled
    if (!this.enabled) this.#disable(disabled)
    else if (disabled) this.mask()
    else this.unmask()
  }

  // The line changed. What unmasks while the eventfd is being signalled is served here, one after the other.
  #changed(asserted: boolean): void {
    if (!asserted || this.#signalling) return
    this.#signalling = true
    try {
      for (let i = 0; i < ROUNDS && this.#eventfd !== undefined; i++) {
        this.mask()
        const quiet = !this.#fn.line!.asserted
        this.#eventfd.signal()
        if (!quiet || !this.#fn.line!.asserted) break
      }
      if (this.#fn.line!.asserted) this.mask()
    } finally {
      this.#signalling = false
    }
  }

  #disable(on: boolean): void {
    const { bdf } = this.#fn
    const command = this.#config.read(bdf, PCI_COMMAND, 2)
    const next = on ? command | PCI_COMMAND_INTX_DISABLE : command & ~PCI_COMMAND_INTX_DISABLE
    if (next !== command) this.#config.write(bdf, PCI_COMMAND, 2, next)
  }
}
