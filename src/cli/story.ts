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
import type { TranslatedStage } from '../iommu/vtd/trace.js'
import type { Machine } from '../machine.js'
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
  pasids: number
  binds: number
  unbinds: number
  staleUses: number
}

const FEATURES: readonly (readonly [number, string])[] = [
  [IOMMU_NESTING_FEAT_SYSWIDE_PASID, 'SYSWIDE_PASID'],
  [IOMMU_NESTING_FEAT_BIND_PGTBL, 'BIND_PGTBL'],
  [IOMMU_NESTING_FEAT_CACHE_INVLD, 'CACHE_INVLD'],
]
const RESPONSES = ['success', 'invalid', 'failure']
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
    pasids: 0,
    binds: 0,
    unbinds: 0,
    staleUses: 0,
  }
  readonly #machine: Machine
  readonly #tell: (step: Step) => void
  readonly #stop: (() => void)[] = []
  /** Walks by requester, PASID and page: a device's own cache asks once and uses the answer often. */
  readonly #walks = new Map<string, readonly TranslatedStage[]>()
  /** Page requests by PASID and page that were answered with success and not yet tried again. */
  readonly #answered = new Set<string>()
  readonly #open = new Map<number, { pasid: number; address: bigint }[]>()

  constructor(machine: Machine, tell: (step: Step) => void) {
    this.#machine = machine
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
      for (const { pasid, address } of this.#open.get(e.group) ?? [])
        if (e.code === 0) this.#answered.add(`${pasid}:${address / PAGE}`)
      this.#open.delete(e.group)
      this.#say(
        'page',
        `response: group ${e.group} of PASID ${e.pasid} answered ${code}; the device ${e.code === 0 ? 'tries again' : 'gives up'}`,
        { ...e, code },
        e.code !== 0,
      )
    })
    this.#on('vtd.translate', e => {
      if (e.stages.length > 0)
        this.#walks.set(`${e.requester}:${e.pasid}:${e.address / PAGE}`, e.stages)
    })
    this.#on('vtd.fault', e => {
      this.#say(
        'fault',
        `${e.name} (${hex(e.code)}): ${formatBdf(e.requester)}${e.pasid >= 0 ? ` PASID ${e.pasid}` : ''} at ${hex(e.address)}`,
        { ...e },
        true,
      )
    })
    this.#on('stale-use', e => {
      this.totals.staleUses++
      this.#say('stale', explanation(e).title, { ...e }, true)
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

  #dma(e: TraceEvents['dma']): void {
    const address = join(e.hi, e.lo)
    if (e.pasid < 0 && address >> 20n === MESSAGES) {
      this.totals.interrupts++
      this.#say('irq', `message to ${hex(address)} through interrupt remapping`, {
        requester: e.requester,
        address,
      })
      return
    }
    const page = `${e.pasid}:${address / PAGE}`
    const direction = e.write ? 'write' : 'read '
    const who = e.pasid >= 0 ? `PASID ${e.pasid}` : 'no PASID'
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
    const retried = this.#answered.delete(page)
    const stages = this.#walks.get(`${e.requester}:${page}`) ?? []
    const offset = address % PAGE
    const gpa = stages.find(s => s.stage === 'first')?.output
    const middle = gpa === undefined ? '' : ` → GPA ${hex(gpa - (gpa % PAGE) + offset)}`
    const text = `${direction}  ${who}  GVA ${hex(address)}${middle} → HPA ${hex(e.output)}  ${e.length} B  ok${retried ? ', retried after the page request' : ''}`
    this.#say('dma', text, {
      requester: e.requester,
      pasid: e.pasid,
      write: e.write,
      address,
      gpa: gpa === undefined ? undefined : gpa - (gpa % PAGE) + offset,
      hpa: e.output,
      bytes: e.length,
      outcome: 'ok',
      retried,
    })
  }
}
