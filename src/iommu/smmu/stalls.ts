/**
 * Stalled transactions (IHI 0070 3.12.2): held until CMD_RESUME or CMD_STALL_TERM names them, each with a
 * record in the event queue that is never lost: it waits while the queue is full, and while more stalls than
 * the unit has tags are about. Transactions are not retried early, their records never merged.
 */
import type { TracePoint } from '../../base/trace.js'
import type { FaultLog, FaultReport } from './faults.js'

/** What happened to a stalled transaction. */
export interface StallEvent {
  readonly what: 'stalled' | 'retry' | 'abort'
  readonly streamId: number
  readonly requester: number
  /** Names the transaction towards its requester. */
  readonly token: number
  /** Names it towards software; -1 while its record is still due. */
  readonly stag: number
}

interface Stall {
  readonly token: number
  readonly report: FaultReport
  stag: number
  /** A CMD_SYNC passed before its record could be written: it is tried again instead. */
  outdated: boolean
}

/** The stalled transactions of one unit. */
export class Stalls {
  readonly #faults: FaultLog
  readonly #point: TracePoint<StallEvent>
  readonly #most: number
  readonly #answer: (requester: number, token: number, retry: boolean) => void
  readonly #retries: boolean
  /** By STAG. */
  readonly #held = new Map<number, Stall>()
  /** Without a record yet, in order. */
  #waiting: Stall[] = []
  #nextToken = 0
  #nextStag = 0

  /** `answer` tells a requester to try a transaction again, or that it was aborted; without it none can. */
  constructor(
    faults: FaultLog,
    point: TracePoint<StallEvent>,
    most: number,
    answer: ((requester: number, token: number, retry: boolean) => void) | undefined,
  ) {
    this.#faults = faults
    this.#point = point
    this.#most = most
    this.#answer = answer ?? (() => {})
    this.#retries = answer !== undefined
  }

  /** Transactions held. */
  get count(): number {
    return this.#held.size + this.#waiting.length
  }

  /** Holds a transaction; the token names it towards its requester. */
  hold(report: FaultReport): number {
    const stall: Stall = { token: this.#nextToken, report, stag: -1, outdated: false }
    this.#nextToken = (this.#nextToken + 1) % 2 ** 31
    this.#waiting.push(stall)
    this.#faults.reportStall(report)
    this.flush()
    this.#trace('stalled', stall)
    return stall.token
  }

  /** CMD_SYNC: what is due belongs to configuration and translations of before, and is not recorded any more. */
  synchronize(): void {
    if (this.#retries) for (const stall of this.#waiting) stall.outdated = true
  }

  /** Writes the records that are due, as far as there is room. */
  flush(): void {
    while (this.#waiting.length > 0 && this.#held.size < this.#most) {
      const stall = this.#waiting[0]!
      if (stall.outdated) {
        if (!this.#faults.writable) return
        this.#waiting.shift()
        this.#finish(stall, true)
        continue
      }
      while (this.#held.has(this.#nextStag)) this.#nextStag = (this.#nextStag + 1) % this.#most
      if (!this.#faults.writeStall(stall.report, this.#nextStag)) return
      stall.stag = this.#nextStag
      this.#held.set(stall.stag, stall)
      this.#nextStag = (this.#nextStag + 1) % this.#most
      this.#waiting.shift()
    }
  }

  /** CMD_RESUME; one that matches nothing has no effect. */
  resume(streamId: number, stag: number, retry: boolean): void {
    const stall = this.#held.get(stag)
    if (stall?.report.streamId !== streamId) return
    this.#held.delete(stag)
    this.flush()
    this.#finish(stall, retry)
  }

  /** CMD_STALL_TERM, or every stream when `streamId` is undefined. Records still due are not written. */
  terminate(streamId: number | undefined): void {
    const meant = (s: Stall): boolean => streamId === undefined || s.report.streamId === streamId
    const ended = [...this.#held.values(), ...this.#waiting].filter(meant)
    for (const stall of ended) this.#held.delete(stall.stag)
    this.#waiting = this.#waiting.filter(s => !meant(s))
    this.flush()
    for (const stall of ended) this.#finish(stall, false)
  }

  reset(): void {
    this.#held.clear()
    this.#waiting = []
    this.#nextStag = 0
  }

  #finish(stall: Stall, retry: boolean): void {
    this.#trace(retry ? 'retry' : 'abort', stall)
    this.#answer(stall.report.requester, stall.token, retry)
  }

  #trace(what: StallEvent['what'], { report, token, stag }: Stall): void {
    const { streamId, requester } = report
    if (this.#point.on) this.#point.emit({ what, streamId, requester, token, stag })
  }
}
