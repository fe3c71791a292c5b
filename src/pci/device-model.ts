/**
 * How devices are written: `defineDevice` takes identity, capabilities, registers and behaviour, and the
 * port is all that a device sees of the world. Configuration space, BARs, interrupts tables, request
 * checks, page splits, reset and save are done here and below.
 * Next: devices/dma-copy.ts (the smallest one), docs/guides/writing-a-device.md.
 */
import { halves, type Iova, join, type Pasid, split } from '../base/addr.js'
import type { Timer } from '../base/clock.js'
import { type Bank, bankInfo } from '../base/fields.js'
import { type LiveRegisters, type RegisterBehaviour, RegisterFile } from '../base/registers.js'
import type { BarSpec } from './bar.js'
import type { Bus } from './bus.js'
import { express } from './capabilities/express.js'
import { powerManagement } from './capabilities/power-management.js'
import type { CapabilityFactory } from './capability.js'
import type { DmaFailureReason } from './dma.js'
import type { PageRequestRefusal } from './extended/pri.js'
import { type DeviceModel, PciFunction } from './function.js'
import type { InterruptPin } from './intx.js'
import type { Identity } from './node.js'
import { PortalTarget } from './portal.js'
import { type CompletionStatus, NO_PASID, type PrgResponseCode } from './request.js'

export { msi } from './capabilities/msi.js'
export { msix } from './capabilities/msix.js'
export { acs } from './extended/acs.js'
export { aer } from './extended/aer.js'
export { ats } from './extended/ats.js'
export { pasidCapability } from './extended/pasid.js'
export { pri } from './extended/pri.js'
export { sriov } from './extended/sriov.js'

/** A 64-bit address as two 32-bit halves, for devices that have it so and for hot paths. */
export interface Halves {
  readonly hi: number
  readonly lo: number
}

/** How a request is tagged. Without `pasid` it carries no prefix, and neither other bit can be set. */
export interface RequestTag {
  readonly pasid?: Pasid | undefined
  readonly execute?: boolean | undefined
  readonly privileged?: boolean | undefined
}

/** A request that did not go through. Bytes before it were moved. */
export interface DmaFailure {
  readonly ok: false
  readonly reason: DmaFailureReason
  /** Completion status: `SC` when an ATS answer withheld the page. */
  readonly status: CompletionStatus
  /** Address of the first byte not moved. */
  readonly at: Iova
  /** Bytes moved before it. */
  readonly done: number
  /** Whether a page request may help: the page was withheld by ATS, and PRI is enabled. */
  readonly recoverable: boolean
  /** With reason `stalled` only: names the request in `DeviceBehaviour.resumed`. */
  readonly token?: number
}

/** The answer to a memory request. */
export type DmaResult = { readonly ok: true } | DmaFailure

/** The access a page request asks for; it covers `pages` consecutive pages as one group. */
export interface PageWant {
  readonly pages?: number
  readonly write?: boolean
  /** Defaults to true. */
  readonly read?: boolean
}

/** Whether a page request was issued. */
export type PageRequestResult =
  | { readonly ok: true }
  | { readonly ok: false; readonly reason: PageRequestRefusal }

/** A device's requests. Addresses are I/O virtual, as a bigint or as halves. */
export interface DmaPort {
  /** Fills `into` from memory. */
  read(at: Iova | Halves, into: Uint8Array, tag?: RequestTag): DmaResult
  /** Writes `from` to memory. */
  write(at: Iova | Halves, from: Uint8Array, tag?: RequestTag): DmaResult
  /** Asks for the translation of a page ahead of use (ATS), for reading or for writing too. */
  translate(at: Iova | Halves, want: { readonly write?: boolean }, tag?: RequestTag): DmaResult
  /** Asks software to make pages resident (PRI). `answered` runs once, later, unless a reset comes first. */
  pageRequest(
    at: Iova | Halves,
    want: PageWant,
    tag: RequestTag,
    answered: (code: PrgResponseCode) => void,
  ): PageRequestResult
}

/** All that a device can do to the world. */
export interface DevicePort {
  readonly dma: DmaPort
  /** Raises a vector of MSI when software enabled that, else of MSI-X; lost while neither is. */
  interrupt(vector: number): void
  /**
   * Sets the level of the interrupt pin: pending until told otherwise or reset. It reaches the host while
   * software has neither disabled it nor enabled messages. Nothing happens without a pin.
   */
  intx(asserted: boolean): void
  /** Runs `work` after `delayNs` of virtual time; a reset of the function cancels it. */
  later(work: () => void, delayNs?: number): void
}

/** What a device does. `R` is the bank of its BAR0. */
export interface DeviceBehaviour<R extends object> {
  readonly onWrite?: RegisterBehaviour<R>['onWrite']
  readonly onRead?: RegisterBehaviour<R>['onRead']
  /** Drops state beside the registers; registers are reset and pending work is cancelled before. */
  reset?(): void
  /**
   * Takes one 64-byte write to the portal BAR at a 64-byte aligned offset: true for accepted, false
   * for retry. The answer counts for deferrable writes (ENQCMD) only. Keep no reference to `bytes`.
   */
  portal?(offset: number, bytes: Uint8Array, deferrable: boolean): boolean
  /**
   * Software decided on a request that failed as `stalled`: `retry` asks to make it again, from the byte it
   * stopped at; otherwise it was aborted. Runs later than the request, and not after a reset. A device
   * without this takes `stalled` as refused.
   */
  resumed?(token: number, retry: boolean): void
  /** State beside the registers as plain data; work under way must be taken up again by `restore`. */
  save?(): unknown
  restore?(state: unknown): void
}

/** What a device author writes. */
export interface DeviceDefinition<R extends Bank> {
  readonly name: string
  readonly identity: Identity
  /** Beyond PCI Express and power management, which every device here has. */
  readonly capabilities?: readonly CapabilityFactory[]
  /** Function-level reset and End-End TLP prefixes, both true unless told otherwise. */
  readonly express?: { readonly flr?: boolean; readonly endEndPrefix?: boolean }
  /** The interrupt pin, INTA (1) to INTD (4); without it the device has messages only. */
  readonly intx?: { readonly pin: InterruptPin }
  /** Registers, decoded by BAR0. */
  readonly bar0: R
  /** A BAR whose 64-byte writes go to `portal`. */
  readonly portal?: { readonly bar: number; readonly size: number }
  create(port: DevicePort, regs: LiveRegisters<R>): DeviceBehaviour<R>
}

/** A device model that knows its registers, so that a program can name them. */
export interface DefinedDevice<R extends Bank> extends DeviceModel {
  readonly bar0: R
}

const OK = { ok: true } as const
const NO_TAG: RequestTag = {}

/** Makes a device model from its definition; each place it is put at gets an instance of its own. */
export function defineDevice<const R extends Bank>(
  definition: DeviceDefinition<R>,
): DefinedDevice<R> {
  const { name, identity, bar0 } = definition
  return { name, identity, bar0, build: (bus, devfn) => build(definition, bus, devfn) }
}

function build<R extends Bank>(
  definition: DeviceDefinition<R>,
  bus: Bus,
  devfn: number,
): PciFunction {
  const { name, identity, bar0, portal } = definition
  let behaviour: DeviceBehaviour<R> | undefined
  const file = new RegisterFile(
    bar0,
    lateBound(bar0, () => behaviour),
  )
  const bars: BarSpec[] = [{ index: 0, size: bankInfo(bar0).size, target: file }]
  const target = new PortalTarget(
    (offset, bytes, deferrable) => behaviour?.portal?.(offset, bytes, deferrable) ?? false,
  )
  if (portal) bars.push({ index: portal.bar, size: portal.size, target })
  const fn = new PciFunction(bus, devfn, {
    name,
    identity,
    bars,
    pin: definition.intx?.pin,
    capabilities: [
      express(definition.express),
      powerManagement(),
      ...(definition.capabilities ?? []),
    ],
  })
  const work = new PendingWork(fn)
  behaviour = definition.create(makePort(fn, work), file.regs)
  fn.model = {
    migratable: behaviour.save !== undefined && behaviour.restore !== undefined,
    hold: on => work.hold(on),
    reset() {
      work.cancel()
      target.reset()
      file.reset()
      behaviour?.reset?.()
    },
    resumed(token, retry) {
      if (behaviour?.resumed) work.later(() => behaviour.resumed?.(token, retry), 0)
    },
    save: () => ({ registers: file.save(), device: behaviour?.save?.() }),
    restore(state) {
      const { registers, device } = state as { registers: Uint8Array; device: unknown }
      work.cancel()
      file.restore(registers)
      behaviour?.restore?.(device)
    },
  }
  return fn
}

/** Register behaviour that is looked up when it happens: a device's exists only after its registers. */
function lateBound<R extends Bank>(
  bank: R,
  behaviour: () => DeviceBehaviour<R> | undefined,
): RegisterBehaviour<R> {
  const onWrite: Record<string, (written: never) => void> = {}
  const onRead: Record<string, () => void> = {}
  for (const key of Object.keys(bank)) {
    const name = key as keyof R
    onWrite[key] = written => behaviour()?.onWrite?.[name]?.(written)
    onRead[key] = () => behaviour()?.onRead?.[name]?.()
  }
  return { onWrite, onRead } as RegisterBehaviour<R>
}

/** What a function does later, so that a reset can take it back. */
class PendingWork {
  readonly #fn: PciFunction
  readonly #timers = new Set<Timer>()
  /** What fell due while held; undefined when nothing holds it. */
  #due: (() => void)[] | undefined

  constructor(fn: PciFunction) {
    this.#fn = fn
  }

  later(work: () => void, delayNs: number): void {
    const timer = this.#fn.fabric.clock.later(() => {
      this.#timers.delete(timer)
      if (this.#due !== undefined) this.#due.push(work)
      else work()
    }, delayNs)
    this.#timers.add(timer)
  }

  hold(on: boolean): void {
    if (on === (this.#due !== undefined)) return
    const due = this.#due
    this.#due = on ? [] : undefined
    for (const work of due ?? []) this.later(work, 0)
  }

  cancel(): void {
    for (const timer of this.#timers) timer.cancel()
    this.#timers.clear()
    if (this.#due !== undefined) this.#due = []
  }
}

function makePort(fn: PciFunction, work: PendingWork): DevicePort {
  const master = fn.dma
  const failed = (): DmaFailure => {
    const { failedReason: reason, failedStatus: status, failedDone: done } = master
    const withheld = reason === 'not-present' || reason === 'no-permission'
    return {
      ok: false,
      reason,
      status,
      at: join(master.failedHi, master.failedLo) as Iova,
      done,
      recoverable: withheld && fn.pri?.enabled === true,
      ...(reason === 'stalled' && { token: master.failedToken }),
    }
  }
  const dma: DmaPort = {
    read(at, into, tag = NO_TAG) {
      place(at)
      return master.read(halves[1]!, halves[0]!, into, tag) ? OK : failed()
    },
    write(at, from, tag = NO_TAG) {
      place(at)
      const ok = master.write(halves[1]!, halves[0]!, from, tag)
      if (fn.writeLog !== undefined && tag.pasid === undefined) {
        place(at)
        fn.writeLog.wrote(halves[1]!, halves[0]!, ok ? from.length : master.failedDone)
      }
      return ok ? OK : failed()
    },
    translate(at, want, tag = NO_TAG) {
      place(at)
      const write = want.write === true
      return master.translate(halves[1]!, halves[0]!, write, tag) ? OK : failed()
    },
    pageRequest(at, want, tag, answered) {
      const { pri, pasid } = fn
      const { pages = 1, read = true, write = false } = want
      const tagged = tag.pasid !== undefined
      if (!pri || (tagged && !pasid?.enabled)) return { ok: false, reason: 'disabled' }
      place(at)
      const group = {
        pasid: tag.pasid ?? NO_PASID,
        hi: halves[1]!,
        lo: halves[0]!,
        pages,
        read,
        write,
        execute: tagged && tag.execute === true,
        privileged: tagged && tag.privileged === true,
      }
      const reason = pri.request(group, code => work.later(() => answered(code), 0))
      return reason ? { ok: false, reason } : OK
    },
  }
  return {
    dma,
    interrupt: vector => fn.interrupt(vector),
    intx: asserted => fn.setIntx(asserted),
    later: (run, delayNs = 0) => work.later(run, delayNs),
  }
}

/** Leaves an address in `halves`. */
function place(at: Iova | Halves): void {
  if (typeof at === 'bigint') split(at)
  else {
    halves[0] = at.lo
    halves[1] = at.hi
  }
}
