// QEMU's VT-d unit as a subject: q35 with iommu-testdev in slots 5 and 15h and edu in slot 6.
import type { Case, DmaOutcome, FaultRecord, Outcome, Subject } from '../case.js'
import { wordsAfter } from '../case.js'
import { QTest } from '../qtest.js'
import { type Devices, DmaRun } from '../testdev.js'
import {
  COMMAND,
  faultRecords,
  QUEUE,
  REGISTER,
  SCRATCH,
  TABLES,
  TABLES_END,
  type Unit,
  wideQueue,
} from './units.js'

const BASE = 0xfed9_0000
const DEVICES: Devices = { testdev: 0xe000_0000, upper: 0xe010_0000, edu: 0xe020_0000 }
const SLOTS: Readonly<Record<keyof Devices, number>> = { testdev: 0x05, upper: 0x15, edu: 0x06 }
const QUEUE_BYTES = 4096

/** A wait descriptor that writes its status: a queue that did not end in one cannot be switched off. */
const WAIT = [0x25n, BigInt(SCRATCH + 0x800)] as const

/** Global invalidations of everything that is cached. */
const FLUSH_LEGACY: readonly (readonly [bigint, bigint])[] = [
  [0x11n, 0n],
  [0x12n, 0n],
]
const FLUSH_SCALABLE: readonly (readonly [bigint, bigint])[] = [
  [0x11n, 0n],
  [0x37n, 0n],
  [0x12n, 0n],
]

export class QemuVtd implements Subject {
  readonly #q: QTest
  readonly #unit: Unit
  /** CAP_REG and ECAP_REG. */
  readonly capabilities: readonly [bigint, bigint]
  #tail = 0

  private constructor(q: QTest, unit: Unit, capabilities: readonly [bigint, bigint]) {
    this.#q = q
    this.#unit = unit
    this.capabilities = capabilities
  }

  static async start(unit: Unit): Promise<QemuVtd> {
    const device = (slot: number, model: string) => [
      '-device',
      `${model},addr=${slot.toString(16)}`,
    ]
    const q = await QTest.start({
      binary: 'qemu-system-x86_64',
      args: [
        ...['-machine', 'q35', '-m', '64M'],
        ...['-device', ['intel-iommu', unit.options].filter(Boolean).join(',')],
        ...device(SLOTS.testdev, 'iommu-testdev'),
        ...device(SLOTS.upper, 'iommu-testdev'),
        ...device(SLOTS.edu, 'edu,dma_mask=0xffffffffffffffff'),
      ],
    })
    for (const name of ['testdev', 'upper', 'edu'] as const) {
      const config = (offset: number, value: number) => {
        q.outl(0xcf8, 0x8000_0000 + (SLOTS[name] << 11) + offset)
        q.outl(0xcfc, value)
      }
      config(0x10, DEVICES[name])
      config(0x04, 0x6)
    }
    const cap = q.read(BASE + REGISTER.CAP, 8)
    const ecap = q.read(BASE + REGISTER.ECAP, 8)
    await q.drain()
    const subject = new QemuVtd(q, unit, [await cap, await ecap])
    subject.#startQueue()
    await q.drain()
    return subject
  }

  async run(c: Case, hints: readonly number[]): Promise<Outcome> {
    const q = this.#q
    q.clear(TABLES, TABLES_END - TABLES)
    for (const [at, value] of c.words) q.write(at, 8, value)
    const devices = new DmaRun(q, DEVICES, SCRATCH, c, hints)
    devices.prepare(c.steps)
    q.write(BASE + REGISTER.RTADDR, 8, c.setup['RTADDR']!)
    this.#command(COMMAND.QIE + COMMAND.SRTP)
    for (const words of wideQueue(this.#unit) ? FLUSH_SCALABLE : FLUSH_LEGACY) this.#submit(words)
    this.#clearFaults()
    const queue = this.#queue(c)
    this.#command(queue + COMMAND.TE)
    const faults: Promise<FaultRecord[]>[] = []
    const pending: ((buffer: Uint8Array) => Promise<DmaOutcome>)[] = []
    for (const s of c.steps) {
      if (s.op === 'store') q.write(s.at, 8, s.value)
      else if (s.op === 'invalidate') this.#submit(s.words)
      else if (s.op === 'register') q.write(BASE + s.offset, 8, s.value)
      else pending.push(devices.dma(s, faults, () => this.#faults()))
    }
    const after = wordsAfter(c)
    const read = [...after].map(([at]) => q.read(at, 8))
    this.#command(queue)
    const copied = devices.finish()
    if (queue === 0) this.#startQueue()
    const drained = q.drain()
    const buffer = await copied
    await drained
    const dma: DmaOutcome[] = []
    for (const wait of pending) dma.push(await wait(buffer))
    const changed: [number, bigint][] = []
    for (const [i, [at, value]] of [...after].entries()) {
      const now = await read[i]!
      if (now !== value) changed.push([at, now])
    }
    return { dma, changed }
  }

  close(): Promise<void> {
    return this.#q.quit()
  }

  /** The queue's bit of GCMD_REG; switches it off where a case invalidates by registers. */
  #queue(c: Case): number {
    if (c.setup['QIE']) return COMMAND.QIE
    this.#submit(WAIT)
    this.#command(0)
    return 0
  }

  #startQueue(): void {
    const q = this.#q
    this.#tail = 0
    q.write(BASE + REGISTER.IQT, 8, 0)
    q.write(BASE + REGISTER.IQA, 8, QUEUE | (wideQueue(this.#unit) ? 0x800 : 0))
    this.#command(COMMAND.QIE)
  }

  #command(bits: number): void {
    this.#q.write(BASE + REGISTER.GCMD, 4, bits)
  }

  #submit([lo, hi]: readonly [bigint, bigint]): void {
    const q = this.#q
    const size = wideQueue(this.#unit) ? 32 : 16
    const at = QUEUE + this.#tail
    q.write(at, 8, lo)
    q.write(at + 8, 8, hi)
    if (size === 32) q.clear(at + 16, 16)
    this.#tail = (this.#tail + size) % QUEUE_BYTES
    q.write(BASE + REGISTER.IQT, 8, this.#tail)
  }

  #clearFaults(): void {
    this.#q.write(BASE + REGISTER.FRCD + 8, 8, 1n << 63n)
    this.#q.write(BASE + REGISTER.FSTS, 4, 0x71)
  }

  async #faults(): Promise<FaultRecord[]> {
    const q = this.#q
    const lo = q.read(BASE + REGISTER.FRCD, 8)
    const hi = q.read(BASE + REGISTER.FRCD + 8, 8)
    const status = q.read(BASE + REGISTER.FSTS, 4)
    this.#clearFaults()
    const record = await hi
    return faultRecords(Number(await status), await lo, record)
  }
}
