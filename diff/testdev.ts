// Makes QEMU's two DMA-capable test devices do what a step says, and finds out where the data went.
//   iommu-testdev (1b36:0005): writes 0x12345678 over and over; says whether the write failed.
//   edu (1234:11e8): copies between memory and a buffer of its own when 100 ms of virtual time have passed;
//   ignores errors. Its buffer is seen by copying it out once translation is off.
import { type Case, type DmaOutcome, type FaultRecord, piecesOf, type Step } from './case.js'
import type { QTest } from './qtest.js'

/** What iommu-testdev writes. */
export const PATTERN = 0x1234_5678
const TESTDEV = {
  TRIGGER: 0x00,
  IOVA_LO: 0x04,
  IOVA_HI: 0x08,
  LENGTH: 0x0c,
  RESULT: 0x10,
  DOORBELL: 0x14,
  ATTRIBUTES: 0x18,
  CHECK_LO: 0x1c,
  CHECK_HI: 0x20,
} as const
/** Non-secure, from memory. */
const ATTRIBUTES = 0b1010
/** RESULT of a write that the bus refused. */
const WRITE_FAILED = 0xdead_0002n
const EDU = { SOURCE: 0x80, DESTINATION: 0x88, COUNT: 0x90, COMMAND: 0x98 } as const
/** Where edu keeps its buffer, in addresses of its own. */
const EDU_BUFFER = 0x4_0000
const EDU_DELAY = 100_000_000
/** Bytes of edu's buffer that one step uses. */
const EDU_SLOT = 16
/** Where the buffer has the pattern, and how much of it is used. */
const EDU_PATTERN = 256
const EDU_BYTES = 264

/** BARs of the devices. */
export interface Devices {
  readonly testdev: number
  readonly upper: number
  readonly edu: number
}

type Dma = Step & { op: 'dma' }

/** Which device reads and writes where; made anew for each case. */
export class DmaRun {
  readonly #q: QTest
  readonly #devices: Devices
  readonly #scratch: number
  readonly #pages: readonly number[]
  #slots = 0

  /** `scratch`: a page for edu's buffer. */
  constructor(q: QTest, devices: Devices, scratch: number, c: Case, hints: readonly number[]) {
    this.#q = q
    this.#devices = devices
    this.#scratch = scratch
    this.#pages = [...new Set([...c.pages, ...hints.map(at => at - (at % 4096))])]
  }

  /** Empties edu's buffer. To be called while nothing is translated. */
  prepare(steps: readonly Step[]): void {
    if (!steps.some(s => s.op === 'dma' && s.device === 'edu')) return
    this.#q.clear(this.#scratch, 4096)
    for (let i = 0; i < 2; i++) this.#q.write(this.#scratch + EDU_PATTERN + i * 4, 4, PATTERN)
    this.#copy(this.#scratch, EDU_BUFFER, EDU_BYTES, 1)
  }

  /** Queues a DMA. What it answers is known after `finish`. */
  dma(s: Dma, faults: Promise<FaultRecord[]>[], record: () => Promise<FaultRecord[]>) {
    return s.write ? this.#write(s, faults, record) : this.#read(s, faults, record)
  }

  /** Copies edu's buffer out. To be called while nothing is translated. */
  finish(): Promise<Uint8Array> {
    if (this.#slots === 0) return Promise.resolve(new Uint8Array(0))
    this.#copy(EDU_BUFFER, this.#scratch, EDU_BYTES, 3)
    return this.#q.bytes(this.#scratch, EDU_BYTES)
  }

  #write(
    s: Dma,
    faults: Promise<FaultRecord[]>[],
    record: () => Promise<FaultRecord[]>,
  ): (buffer: Uint8Array) => Promise<DmaOutcome> {
    const q = this.#q
    const pieces = piecesOf(s.iova, s.length).map(p =>
      this.#pages.map(page => page + Number(p.iova & 0xfffn)),
    )
    for (const at of pieces.flat()) q.write(at, 4, 0)
    const result = s.device === 'edu' ? this.#eduWrite(s) : this.#testdevWrite(s)
    const found = pieces.map(places => places.map(at => q.read(at, 4)))
    const recorded = record()
    faults.push(recorded)
    return async () => {
      const failed = await result
      const landed: (number | null)[] = []
      for (const [i, places] of pieces.entries()) {
        const values = await Promise.all(found[i]!)
        const n = values.indexOf(BigInt(PATTERN))
        landed.push(n < 0 ? null : places[n]!)
      }
      const records = await recorded
      if (!failed && landed.includes(null))
        return { landed: landed.map(at => at ?? -1), faults: records }
      return { landed, faults: records }
    }
  }

  /** True when the bus refused. */
  async #testdevWrite(s: Dma): Promise<boolean> {
    const q = this.#q
    const bar = this.#devices[s.device]
    const set = (register: number, value: bigint | number) => q.write(bar + register, 4, value)
    set(TESTDEV.IOVA_LO, s.iova & 0xffff_ffffn)
    set(TESTDEV.IOVA_HI, s.iova >> 32n)
    set(TESTDEV.CHECK_LO, this.#scratch)
    set(TESTDEV.CHECK_HI, 0)
    set(TESTDEV.LENGTH, s.length)
    set(TESTDEV.ATTRIBUTES, ATTRIBUTES)
    set(TESTDEV.DOORBELL, 1)
    const triggered = q.read(bar + TESTDEV.TRIGGER, 4)
    const result = q.read(bar + TESTDEV.RESULT, 4)
    await triggered
    return (await result) === WRITE_FAILED
  }

  /** It does not tell: what is not found anywhere was refused. */
  #eduWrite(s: Dma): Promise<boolean> {
    this.#copy(EDU_BUFFER + EDU_PATTERN, s.iova, s.length, 3)
    return Promise.resolve(true)
  }

  #read(
    s: Dma,
    faults: Promise<FaultRecord[]>[],
    record: () => Promise<FaultRecord[]>,
  ): (buffer: Uint8Array) => Promise<DmaOutcome> {
    const slot = this.#slots++ * EDU_SLOT
    const pieces = piecesOf(s.iova, s.length)
    const marks = new Map<number, number>()
    for (const p of pieces)
      for (const page of this.#pages) {
        const at = page + Number(p.iova & 0xfffn)
        // Neither zeros nor ones: what is not there may read as either.
        const mark = 0xa000_0000 + marks.size
        marks.set(mark, at)
        this.#q.write(at, 4, mark)
      }
    this.#copy(s.iova, EDU_BUFFER + slot, s.length, 1)
    const recorded = record()
    faults.push(recorded)
    return async buffer => {
      const view = new DataView(buffer.buffer, buffer.byteOffset)
      let at = slot
      const landed = pieces.map(p => {
        const mark = view.getUint32(at, true)
        at += p.length
        return marks.get(mark) ?? null
      })
      return { landed, faults: await recorded }
    }
  }

  #copy(from: bigint | number, to: bigint | number, bytes: number, command: 1 | 3): void {
    const bar = this.#devices.edu
    const q = this.#q
    q.write(bar + EDU.SOURCE, 8, from)
    q.write(bar + EDU.DESTINATION, 8, to)
    q.write(bar + EDU.COUNT, 8, bytes)
    q.write(bar + EDU.COMMAND, 8, command)
    q.step(EDU_DELAY)
  }
}
