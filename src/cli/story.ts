// Turns a machine's trace into the story of a run: one step for each thing a reader wants to see, the
// same for people (`text`) and for programs (`data`).

import { formatBdf, hex, join } from '../base/addr.js'
import type { TraceEvents, TraceName } from '../base/trace.js'
import { explanation } from '../explain/index.js'
import '../iommu/stale-use.js'
import {
  IOMMU_NESTING_FEAT_BIND_PGTBL,
  IOMMU_NESTING_FEAT_CACHE_INVLD,
  IOMMU_NESTING_FEAT_SYSWIDE_PASID,
} from '../iommu/uapi.js'
import type { IommuUnit, Machine } from '../machine.js'
import '../vmm/trace.js'
import { formatBytes } from './output.js'

/** One step of a story. */
export interface Step {
  /** Virtual time, ns. */
  readonly at: number
  readonly topic:
    | 'container'
    | 'pasid'
    | 'bind'
    | 'dma'
    | 'irq'
    | 'page'
    | 'guest'
    | 'flush'
    | 'fault'
    | 'stale'
    | 'sync'
  readonly text: string
  /** The same for programs. */
  readonly data: Readonly<Record<string, unknown>>
  readonly failed?: boolean
}

/** What a run amounted to. */
export interface Totals {
  dmas: number
  bytes: number
  refused: number
  interrupts: number
  pageRequests: number
  stalls: number
  pasids: number
  binds: number
  unbinds: number
  staleUses: number
  /** Registers used before the ISB that they need. */
  unsynchronised: number
}

const FEATURES: readonly (readonly [number, string])[] = [
  [IOMMU_NESTING_FEAT_SYSWIDE_PASID, 'SYSWIDE_PASID'],
  [IOMMU_NESTING_FEAT_BIND_PGTBL, 'BIND_PGTBL'],
  [IOMMU_NESTING_FEAT_CACHE_INVLD, 'CACHE_INVLD'],
]
const RESPONSES = ['success', 'invalid', 'failure']
const CACHES = {
  contexts: 'context descriptors',
  tlb: 'translations',
  'device-tlb': "the device's own translations",
} as const
/** Tags of stalls are apart from page request groups. */
const STALLS = 0x1_0000
/** Bits 63:20 of an interrupt message's address. */
const MESSAGES = 0xfeen
const PAGE = 4096n

/** The names of the set feature bits. */
export const featureNames = (features: number): string[] =>
  FEATURES.filter(([bit]) => features & bit).map(([, name]) => name)

/** Listens to a machine and tells what happens, step by step. */
export class Story {
  readonly totals: Totals = {
    dmas: 0,
    bytes: 0,
    refused: 0,
    interrupts: 0,
    pageRequests: 0,
    stalls: 0,
    pasids: 0,
    binds: 0,
    unbinds: 0,
    staleUses: 0,
    unsynchronised: 0,
  }
  readonly #machine: Machine<IommuUnit>
  readonly #tell: (step: Step) => void
  readonly #stop: (() => void)[] = []
  /** Page of guest memory by requester, PASID and page: a device's own cache asks once and uses the answer often. */
  readonly #walks = new Map<string, bigint>()
  /** Waits by PASID and page that ended with success and were not yet tried again, and what they were. */
  readonly #answered = new Map<string, string>()
  /** There is more than one device, so that each DMA says whose it is. */
  readonly #several: boolean
  readonly #open = new Map<number, { pasid: number; address: bigint }[]>()

  constructor(machine: Machine<IommuUnit>, tell: (step: Step) => void) {
    this.#machine = machine
    this.#several = machine.fabric.functions().length > 1
    this.#tell = tell
    this.#on('vmm.container', e => {
      const features = featureNames(e.features)
      this.#say(
        'container',
        `type nesting: ${features.join(' ')}, address width ${e.addressWidth}, pasid_bits ${e.pasidBits}`,
        { ...e, features },
      )
      this.#say(
        'container',
        `guest RAM: ${formatBytes(e.ramBytes)} mapped at IOVA 0, pinned and locked`,
        { mapped: e.ramBytes, iova: 0 },
      )
    })
    this.#on('vmm.pasid', e => {
      if (e.operation === 'alloc' && !e.refused) this.totals.pasids++
      const what = e.operation === 'alloc' ? 'allocated' : 'freed'
      this.#say(
        'pasid',
        e.refused ? `${e.operation} refused: ${e.refused}` : `PASID ${e.pasid} ${what}`,
        e,
        e.refused,
      )
    })
    this.#on('vmm.bind', e => this.#bind(e))
    this.#on('vmm.invalidate', e => {
      const range =
        e.pages === 0
          ? 'every page'
          : `${e.pages} page${e.pages > 1 ? 's' : ''} at ${hex(e.address)}`
      this.#say(
        'flush',
        `PASID ${e.pasid}: ${range}${e.refused ? `: ${e.refused}` : ''}`,
        e,
        e.refused,
      )
    })
    this.#on('vmm.page-request', e => {
      this.totals.pageRequests++
      const group = this.#open.get(e.group) ?? []
      this.#open.set(e.group, [...group, { pasid: e.pasid, address: e.address }])
      this.#say(
        'page',
        `request: PASID ${e.pasid} wants to ${e.write ? 'write' : 'read'} ${hex(e.address)} (group ${e.group}), handed to the guest`,
        e,
      )
    })
    this.#on('vmm.page-response', e => {
      const code = RESPONSES[e.code] ?? String(e.code)
      this.#close(e.group, e.code === 0)
      this.#say(
        'page',
        `response: group ${e.group} of PASID ${e.pasid} answered ${code}; the device ${e.code === 0 ? 'tries again' : 'gives up'}`,
        { ...e, code },
        e.code !== 0,
      )
    })
    this.#on('vtd.translate', e => {
      const first = e.stages.find(s => s.stage === 'first')
      if (e.stages.length > 0) this.#walked(e, first?.output)
    })
    this.#on('smmu.translate', e => {
      const first = e.stages.find(s => s.stage === 1)
      if (e.stages.length > 0) this.#walked(e, first?.output)
    })
    this.#on('vtd.fault', e => {
      this.#say(
        'fault',
        `${e.name} (${hex(e.code)}): ${formatBdf(e.requester)}${e.pasid >= 0 ? ` PASID ${e.pasid}` : ''} at ${hex(e.address)}`,
        { ...e },
        true,
      )
    })
    this.#smmu()
    this.#on('stale-use', e => {
      this.totals.staleUses++
      this.#say('stale', explanation(e).title, { ...e }, true)
    })
    this.#on('a64.use-before-isb', e => {
      this.totals.unsynchronised++
      const { register, writtenAt, usedAt, use, ...values } = e
      const places = { writtenAt: hex(writtenAt), usedAt: hex(usedAt) }
      this.#say(
        'sync',
        `${register} written at ${places.writtenAt}, used for ${use} at ${places.usedAt}: no ISB between them`,
        { register, use, ...places, ...values },
        true,
      )
    })
    this.#on('dma', e => this.#dma(e))
    this.#on('guest.console', e => this.#say('guest', e.line, e))
  }

  /** Stops listening. */
  end(): void {
    for (const stop of this.#stop) stop()
  }

  #on<K extends TraceName>(name: K, listener: (event: TraceEvents[K]) => void): void {
    this.#stop.push(this.#machine.trace.listen(name, listener))
  }

  #say(topic: Step['topic'], text: string, data: object, failed?: unknown): void {
    this.#tell({
      at: this.#machine.clock.now,
      topic,
      text,
      data: data as Record<string, unknown>,
      ...(failed ? { failed: true } : {}),
    })
  }

  #bind(e: TraceEvents['vmm.bind']): void {
    if (!e.refused) e.operation === 'bind' ? this.totals.binds++ : this.totals.unbinds++
    const text =
      e.operation === 'bind'
        ? `PASID ${e.pasid} bound to the guest's own page table at GPA ${hex(e.root)}`
        : `PASID ${e.pasid} unbound`
    this.#say(
      'bind',
      e.refused ? `${e.operation} PASID ${e.pasid} refused: ${e.refused}` : text,
      e,
      e.refused,
    )
  }

  #walked(e: { requester: number; pasid: number; address: bigint }, gpa: bigint | undefined): void {
    const key = `${e.requester}:${e.pasid}:${e.address / PAGE}`
    if (gpa === undefined) this.#walks.delete(key)
    else this.#walks.set(key, gpa - (gpa % PAGE))
  }

  /** Tells what a virtual SMMUv3 and its devices say to each other. */
  #smmu(): void {
    this.#on('vmm.passed', e => {
      const how = e.stalling ? 'its accesses stall' : 'it asks for pages'
      this.#say('container', `${e.device}: stream ${hex(e.stream)} of the guest's SMMU; ${how}`, e)
      const ram = formatBytes(e.ramBytes)
      this.#say('container', `guest RAM: ${ram} mapped as stage 2, pinned and locked`, e)
    })
    this.#on('vmm.table', e => {
      if (!e.refused && e.config === 'translate') this.totals.binds++
      const what =
        e.config === 'translate'
          ? `the guest's table of ${2 ** e.contextBits} context descriptors at GPA ${hex(e.table)} is stage 1`
          : e.config === 'bypass'
            ? 'no stage 1'
            : 'nothing passes'
      const refused = e.refused ? `: ${e.refused}` : ''
      this.#say('bind', `stream ${hex(e.stream)}: ${what}${refused}`, e, e.refused)
    })
    this.#on('vmm.smmu-invalidate', e => {
      const whose = [
        ...(e.pasid === undefined ? [] : [`PASID ${e.pasid}`]),
        ...(e.asid === undefined ? [] : [`ASID ${e.asid}`]),
        ...(e.address === undefined
          ? []
          : [`${e.pages} page${e.pages === 1 ? '' : 's'} at ${hex(e.address)}`]),
      ]
      const refused = e.refused ? `: ${e.refused}` : ''
      const text = `stream ${hex(e.stream)}: ${CACHES[e.cache]}, ${whose.join(', ') || 'all'}${refused}`
      this.#say('flush', text, e, e.refused)
    })
    this.#on('vmm.stall', e => {
      this.totals.stalls++
      this.#open.set(STALLS + e.tag, [{ pasid: e.pasid, address: e.address }])
      const wants = e.write ? 'write' : 'read'
      this.#say(
        'page',
        `stall: PASID ${e.pasid} waits to ${wants} ${hex(e.address)} (tag ${e.tag}), told to the guest`,
        e,
      )
    })
    this.#on('vmm.resume', e => {
      this.#close(STALLS + e.tag, e.retry)
      const text = e.retry ? 'resumed: it is tried again' : 'resumed with abort'
      this.#say('page', `stall: tag ${e.tag} ${text}`, e, !e.retry)
    })
    this.#on('vmm.smmu-event', e => {
      this.#say(
        'fault',
        `${e.event} of stream ${hex(e.stream)} at ${hex(e.address)}, told to the guest`,
        e,
        true,
      )
    })
    this.#on('smmu.fault', e => {
      // A stall is no fault yet, and what a guest aborts was told.
      if (e.record === 'stalled') return
      const who = `${formatBdf(e.requester)}${e.pasid >= 0 ? ` PASID ${e.pasid}` : ''}`
      this.#say('fault', `${e.name} (${hex(e.code)}): ${who} at ${hex(e.address)}`, { ...e }, true)
    })
  }

  /** A wait for a page is over; a page that came is tried again. */
  #close(group: number, success: boolean): void {
    const what = group < STALLS ? 'page request' : 'stall'
    for (const { pasid, address } of this.#open.get(group) ?? [])
      if (success) this.#answered.set(`${pasid}:${address / PAGE}`, what)
    this.#open.delete(group)
  }

  /** Whether a DMA is an interrupt message: by its address, or because translation led it to the doorbell. */
  #isMessage(e: TraceEvents['dma'], address: bigint): boolean {
    const { doorbell } = this.#machine.fabric
    if (e.pasid >= 0 || e.failure !== undefined) return false
    if (doorbell === undefined) return address >> 20n === MESSAGES
    return e.output >= doorbell.base && e.output < doorbell.base + doorbell.size
  }

  #dma(e: TraceEvents['dma']): void {
    const address = join(e.hi, e.lo)
    if (this.#isMessage(e, address)) {
      this.totals.interrupts++
      const way = this.#machine.fabric.doorbell
        ? 'at the ITS, which stage 2 leads to the doorbell'
        : 'through interrupt remapping'
      this.#say('irq', `message to ${hex(address)} ${way}`, {
        requester: e.requester,
        address,
      })
      return
    }
    const page = `${e.pasid}:${address / PAGE}`
    const direction = e.write ? 'write' : 'read '
    const space = e.pasid >= 0 ? `PASID ${e.pasid}` : 'no PASID'
    const who = this.#several ? `${formatBdf(e.requester).slice(5)}  ${space}` : space
    if (e.failure !== undefined) {
      const { failure } = e
      const waiting =
        failure === 'not-present' || failure === 'no-permission' || failure === 'stalled'
      this.totals.refused++
      this.#say(
        'dma',
        `${direction}  ${who}  GVA ${hex(address)}  ${waiting ? 'not there yet' : 'refused'}: ${failure}`,
        { ...e, address, outcome: failure },
        true,
      )
      return
    }
    this.totals.dmas++
    this.totals.bytes += e.length
    const wait = this.#answered.get(page)
    const retried = this.#answered.delete(page)
    const guestPage = this.#walks.get(`${e.requester}:${page}`)
    const gpa = guestPage === undefined ? undefined : guestPage + (address % PAGE)
    const middle = gpa === undefined ? '' : ` → GPA ${hex(gpa)}`
    const text = `${direction}  ${who}  GVA ${hex(address)}${middle} → HPA ${hex(e.output)}  ${e.length} B  ok${wait === undefined ? '' : `, retried after the ${wait}`}`
    this.#say('dma', text, {
      requester: e.requester,
      pasid: e.pasid,
      write: e.write,
      address,
      gpa,
      hpa: e.output,
      bytes: e.length,
      outcome: 'ok',
      retried,
    })
  }
}
