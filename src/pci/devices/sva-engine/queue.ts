/**
 * One work queue of the sva-engine: takes descriptors from its portal or its ring, works on one at a
 * time, waits for pages, writes completion records. All state is plain data, so that it can be saved.
 * Next: operations.ts (the work itself), ../sva-engine.ts (the eight queues together).
 */
import { type Iova, iova, pasid } from '../../../base/addr.js'
import type { DevicePort, DmaFailure, DmaResult, RequestTag } from '../../device-model.js'
import { PRG_RESPONSE, type PrgResponseCode } from '../../request.js'
import {
  DESCRIPTOR_SIZE,
  type Descriptor,
  OPCODE,
  RECORD_SIZE,
  readDescriptor,
  refuse,
  STATUS,
  type Status,
} from './descriptors.js'
import { begin, type Mover, type Stretch } from './operations.js'
import { ERROR_CODE, MAX_RING_BITS, MODE, PORTAL_DEPTH, type QueueRegisters } from './registers.js'
import { clone, type Outcome, plain, record, type Task } from './task.js'

/** Virtual time between two stretches of work, in ns. */
const STRETCH_NS = 100
/** Page responses of success for one page that do not help before the engine gives up. */
const MAX_RETRIES = 8

/** What a queue was enabled with. */
interface Setup {
  readonly mode: number
  readonly vector: number
  readonly tag: RequestTag
  readonly prs: boolean
  readonly base: bigint
  readonly entries: number
}

/** Something that no completion record could say, for the ERROR registers. */
export type ReportError = (code: number, tag: RequestTag | undefined, address: bigint) => void

/** What a queue needs of its engine. */
export interface EngineServices {
  readonly port: DevicePort
  readonly mover: Mover
  readonly report: ReportError
  /** A page request was issued (1) or answered (-1). */
  readonly outstanding: (change: 1 | -1) => void
  /** Calls `resume` when a page response comes; false when none is due, ever. */
  readonly stall: (queue: WorkQueue) => boolean
}

/** A queue's state beside its registers. */
export interface QueueState {
  readonly setup: Setup | undefined
  readonly task: Task | undefined
  readonly pending: readonly Descriptor[]
  readonly accepted: number
  readonly finished: number
  readonly drainAt: number | undefined
}

type Failed = Extract<Stretch, { kind: 'fault' }>

/** One work queue. */
export class WorkQueue {
  readonly #regs: QueueRegisters
  readonly #engine: EngineServices
  #setup: Setup | undefined
  #task: Task | undefined
  #pending: Descriptor[] = []
  #scheduled = false
  #waiting = false
  /** Counts aborts, so that a late page response is not taken for a current one. */
  #epoch = 0
  /** Where the last wait for a page was, how often it did not help, and the answer that denied it. */
  #retryAt: bigint | undefined
  #retries = 0
  #denied: Status | undefined
  /** The access that the IOMMU stalled, while it is waited for. */
  #stalled: Failed | undefined
  /** A stalled access that was aborted, until the step that would make it again has seen it. */
  #aborted: Failed | undefined
  #accepted = 0
  #finished = 0
  #drainAt: number | undefined

  constructor(regs: QueueRegisters, engine: EngineServices) {
    this.#regs = regs
    this.#engine = engine
  }

  /** CONFIG was written. */
  configure(): void {
    const { ENABLE } = this.#regs.CONFIG
    if (ENABLE === (this.#setup !== undefined)) return
    if (!ENABLE) {
      this.abort()
      this.#setup = undefined
    } else this.#enable()
    this.#regs.STATUS.ENABLED = this.#setup !== undefined
  }

  /** TAIL was written. */
  doorbell(): void {
    const { TAIL, HEAD } = this.#regs
    const setup = this.#setup
    if (setup?.mode !== MODE.RING) return
    TAIL.INDEX &= setup.entries - 1
    this.#accepted = this.#finished + this.#inRing(HEAD.INDEX) + (this.#task ? 1 : 0)
    this.#schedule()
  }

  /** COMMAND.DRAIN was written. */
  drain(): void {
    this.#drainAt = this.#accepted
    this.#checkDrained()
  }

  /** STATUS.HALTED was cleared. */
  unhalt(): void {
    if (!this.#regs.STATUS.HALTED) this.#schedule()
  }

  /** Ends everything taken so far with ABORTED; descriptors still in a ring are skipped. */
  abort(): void {
    const { STATUS: status, HEAD, TAIL, PENDING } = this.#regs
    this.#epoch++
    this.#wait(false)
    this.#forget()
    if (this.#task) this.#end(this.#task)
    for (const d of this.#pending) this.#end(this.#start(d))
    this.#task = undefined
    this.#pending = []
    PENDING.COUNT = 0
    if (this.#setup?.mode === MODE.RING) HEAD.INDEX = TAIL.INDEX
    this.#finished = this.#accepted
    status.BUSY = false
    status.ABORTED = true
    this.#checkDrained()
    this.#interrupt()
  }

  /** A 64-byte write to the queue's portal page; false is retry. */
  submit(bytes: Uint8Array, deferrable: boolean): boolean {
    const mode = this.#setup?.mode
    const fits = this.#pending.length < PORTAL_DEPTH
    // A posted write could name any PASID; a deferrable one carries what the processor put there.
    if (!fits || mode !== (deferrable ? MODE.SHARED : MODE.DEDICATED)) {
      if (!deferrable) this.#engine.report(ERROR_CODE.PORTAL, undefined, 0n)
      return false
    }
    this.#pending.push(readDescriptor(bytes))
    this.#regs.PENDING.COUNT = this.#pending.length
    this.#accepted++
    this.#schedule()
    return true
  }

  /** The page request allocation has room again. */
  resume(): void {
    this.#wait(false)
    this.#schedule()
  }

  /** The outcome of a stalled access, of this queue or another. */
  resumed(token: number, retry: boolean): void {
    const stalled = this.#stalled
    if (stalled?.failure.token !== token) return
    this.#stalled = undefined
    if (!retry) this.#aborted = { ...stalled, failure: { ...stalled.failure, reason: 'refused' } }
    this.resume()
  }

  reset(): void {
    this.#setup = undefined
    this.#task = undefined
    this.#pending = []
    this.#scheduled = this.#waiting = false
    this.#epoch++
    this.#forget()
    this.#accepted = this.#finished = 0
    this.#drainAt = undefined
  }

  save(): QueueState {
    return clone({
      setup: this.#setup,
      task: this.#task,
      pending: this.#pending,
      accepted: this.#accepted,
      finished: this.#finished,
      drainAt: this.#drainAt,
    })
  }

  /** Takes back a state and goes on with it; a page that was waited for is asked for again. */
  restore(saved: QueueState): void {
    this.reset()
    const state = clone(saved)
    this.#setup = state.setup
    this.#task = state.task
    this.#pending = [...state.pending]
    this.#accepted = state.accepted
    this.#finished = state.finished
    this.#drainAt = state.drainAt
    this.#regs.STATUS.WAITING = false
    this.#schedule()
  }

  #enable(): void {
    const { CONFIG, PASID, BASE, SIZE, HEAD, TAIL, STATUS: status } = this.#regs
    const { MODE: mode, PASID_EN, PRIV, PRS: prs } = CONFIG
    const base = BASE.ADDR
    const entries = 2 ** SIZE.LOG2
    const ring = mode === MODE.RING
    const ringFits = SIZE.LOG2 >= 1 && SIZE.LOG2 <= MAX_RING_BITS && (base & 63n) === 0n
    if (mode === 0 || (ring && !ringFits)) {
      CONFIG.ENABLE = false
      this.#engine.report(ERROR_CODE.CONFIG, undefined, base)
      return
    }
    const tag = PASID_EN ? { pasid: pasid(PASID.ID), privileged: PRIV } : {}
    this.#setup = { mode, vector: CONFIG.VECTOR, tag, prs, base, entries }
    HEAD.INDEX = 0
    TAIL.INDEX = 0
    status.HALTED = false
  }

  #schedule(): void {
    if (this.#scheduled || this.#waiting || !this.#setup) return
    this.#scheduled = true
    this.#engine.port.later(() => {
      this.#scheduled = false
      this.#step()
    }, STRETCH_NS)
  }

  #step(): void {
    if (this.#waiting || !this.#setup) return
    this.#task ??= this.#take()
    this.#regs.STATUS.BUSY = this.#task !== undefined
    if (!this.#task) return
    if (this.#work(this.#task, false)) {
      this.#task = undefined
      this.#regs.STATUS.BUSY = false
      this.#finished++
      this.#checkDrained()
    }
    this.#schedule()
  }

  /** The next descriptor: from the portal, or read from the ring. */
  #take(): Task | undefined {
    const setup = this.#setup!
    if (setup.mode !== MODE.RING) {
      const d = this.#pending.shift()
      this.#regs.PENDING.COUNT = this.#pending.length
      return d && this.#start(d)
    }
    const { HEAD, STATUS: status } = this.#regs
    if (status.HALTED || this.#inRing(HEAD.INDEX) === 0) {
      this.#aborted = undefined
      return undefined
    }
    const bytes = new Uint8Array(DESCRIPTOR_SIZE)
    const where = BigInt.asUintN(64, setup.base + BigInt(HEAD.INDEX * DESCRIPTOR_SIZE))
    const read = this.#abortedOnce()?.failure ?? this.#read(where, bytes, setup.tag)
    if (!read.ok) {
      const settled = this.#fault(read, false, setup.prs, setup.tag)
      if (settled !== undefined) {
        status.HALTED = true
        this.#engine.report(ERROR_CODE.RING, setup.tag, read.at)
      }
      return undefined
    }
    HEAD.INDEX = (HEAD.INDEX + 1) & (setup.entries - 1)
    return this.#start(readDescriptor(bytes))
  }

  #start(descriptor: Descriptor, tag = this.#tagOf(descriptor)): Task {
    const progress = begin(descriptor)
    return {
      descriptor,
      tag,
      progress,
      outcome: undefined,
      next: 0,
      succeeded: 0,
      inner: undefined,
    }
  }

  #tagOf(d: Descriptor): RequestTag {
    const setup = this.#setup!
    if (setup.mode !== MODE.SHARED) return setup.tag
    return { pasid: pasid(d.pasid), privileged: d.privileged }
  }

  /** Does one stretch of a task; true when it is finished, record and interrupt included. */
  #work(task: Task, inBatch: boolean): boolean {
    task.outcome ??= this.#advance(task, inBatch)
    return task.outcome !== undefined && this.#complete(task, true)
  }

  #advance(task: Task, inBatch: boolean): Outcome | undefined {
    const { descriptor: d, progress: p, tag } = task
    if (p.done === 0 && task.next === 0) {
      const wrong = refuse(d, inBatch)
      if (wrong !== undefined) return plain(wrong, 0)
    }
    if (d.opcode === OPCODE.BATCH) return this.#batch(task)
    const before = p.done
    const stretch = this.#abortedOnce() ?? this.#engine.mover.advance(d, p, tag)
    if (p.done !== before) this.#retryAt = undefined
    if (stretch.kind === 'more') return undefined
    if (stretch.kind === 'finished') return plain(STATUS.SUCCESS, p.done)
    const { failure, write } = stretch
    const status = this.#fault(failure, write, d.block && this.#setup!.prs, tag)
    return status && { status, bytes: p.done, write, fault: failure.at }
  }

  /** One stretch of a batch: fetch a descriptor, or work on the one fetched. */
  #batch(task: Task): Outcome | undefined {
    const { descriptor: d, tag } = task
    if (!task.inner) {
      if (task.next === d.length) return this.#batchOutcome(task)
      const bytes = new Uint8Array(DESCRIPTOR_SIZE)
      const where = d.source + BigInt(task.next * DESCRIPTOR_SIZE)
      const read = this.#abortedOnce()?.failure ?? this.#read(where, bytes, tag)
      if (!read.ok) {
        const status = this.#fault(read, false, d.block && this.#setup!.prs, tag)
        return status && { status, bytes: task.succeeded, write: false, fault: read.at }
      }
      task.inner = this.#start(readDescriptor(bytes), tag)
      if (task.inner.descriptor.fence && task.succeeded < task.next)
        task.inner.outcome = plain(STATUS.FENCED, 0)
    }
    const { inner } = task
    if (!this.#work(inner, true)) return undefined
    if (inner.outcome?.status === STATUS.SUCCESS) task.succeeded++
    task.next++
    task.inner = undefined
    return task.next === d.length ? this.#batchOutcome(task) : undefined
  }

  #batchOutcome(task: Task): Outcome {
    const all = task.succeeded === task.descriptor.length
    return plain(all ? STATUS.SUCCESS : STATUS.BATCH_FAILED, task.succeeded)
  }

  /**
   * Decides what a failed access means: undefined when the queue now waits and will try again, else
   * the status that ends the descriptor.
   */
  #fault(failure: DmaFailure, write: boolean, block: boolean, tag: RequestTag): Status | undefined {
    if (failure.reason === 'stalled') {
      this.#stalled = { kind: 'fault', failure, write }
      this.#wait(true)
      return undefined
    }
    const withheld = failure.reason === 'not-present' || failure.reason === 'no-permission'
    if (!withheld) return STATUS.REFUSED
    if (!block || !failure.recoverable) return STATUS.PAGE_FAULT
    if (this.#retryAt !== failure.at) this.#retries = 0
    else if (this.#denied !== undefined || ++this.#retries > MAX_RETRIES) {
      const status = this.#denied ?? STATUS.PAGE_FAILURE
      // Whoever comes next at this page asks anew.
      this.#retryAt = this.#denied = undefined
      return status
    }
    this.#retryAt = failure.at
    this.#denied = undefined
    return this.#askFor(failure.at, write, tag)
  }

  #askFor(page: Iova, write: boolean, tag: RequestTag): Status | undefined {
    const epoch = this.#epoch
    const { port, outstanding, stall } = this.#engine
    const asked = port.dma.pageRequest(page, { write }, tag, code => {
      outstanding(-1)
      if (epoch === this.#epoch) this.#answered(code)
    })
    if (asked.ok) outstanding(1)
    else if (asked.reason !== 'full') return STATUS.PAGE_FAILURE
    else if (!stall(this)) return STATUS.PAGE_FAULT
    else this.#retryAt = undefined
    this.#wait(true)
    return undefined
  }

  /** A denied page is tried once more, since it may have come meanwhile; then the denial counts. */
  #answered(code: PrgResponseCode): void {
    if (code === PRG_RESPONSE.INVALID) this.#denied = STATUS.PAGE_INVALID
    if (code === PRG_RESPONSE.FAILURE) this.#denied = STATUS.PAGE_FAILURE
    this.#wait(false)
    this.#schedule()
  }

  /** Writes the completion record and raises the vector; false when it waits for the record's page. */
  #complete(task: Task, mayWait: boolean): boolean {
    const { descriptor: d, tag, outcome } = task
    if (d.record && outcome) {
      const { completion } = d
      const aligned = (completion & BigInt(RECORD_SIZE - 1)) === 0n
      const wrote = aligned
        ? (this.#abortedOnce()?.failure ??
          this.#engine.port.dma.write(iova(completion), record(task, outcome), tag))
        : undefined
      if (!wrote?.ok) {
        const block = d.block && this.#setup!.prs
        if (wrote && mayWait && this.#fault(wrote, true, block, tag) === undefined) return false
        this.#engine.report(ERROR_CODE.RECORD, tag, wrote?.at ?? completion)
      }
    }
    if (d.interrupt) this.#interrupt()
    return true
  }

  /** Ends a task at once with ABORTED, the descriptor of a batch in work before the batch. */
  #end(task: Task): void {
    if (task.inner) this.#end(task.inner)
    const done = task.descriptor.opcode === OPCODE.BATCH ? task.succeeded : task.progress.done
    task.outcome ??= plain(STATUS.ABORTED, done)
    this.#complete(task, false)
  }

  #read(at: bigint, into: Uint8Array, tag: RequestTag): DmaResult {
    return this.#engine.port.dma.read(iova(at), into, tag)
  }

  /** What the next access comes to, if it is the one that stalled and was aborted: a step repeats that first. */
  #abortedOnce(): Failed | undefined {
    const aborted = this.#aborted
    this.#aborted = undefined
    return aborted
  }

  /** Drops what was waited for. */
  #forget(): void {
    this.#retryAt = this.#denied = this.#stalled = this.#aborted = undefined
  }

  #inRing(head: number): number {
    return (this.#regs.TAIL.INDEX - head) & (this.#setup!.entries - 1)
  }

  #checkDrained(): void {
    if (this.#drainAt === undefined || this.#finished < this.#drainAt) return
    this.#drainAt = undefined
    this.#regs.STATUS.DRAINED = true
    this.#interrupt()
  }

  #interrupt(): void {
    this.#engine.port.interrupt(this.#setup?.vector ?? this.#regs.CONFIG.VECTOR)
  }

  #wait(waiting: boolean): void {
    this.#waiting = waiting
    this.#regs.STATUS.WAITING = waiting
  }
}
