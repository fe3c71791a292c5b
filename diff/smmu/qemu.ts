// QEMU's SMMUv3 as a subject: virt with iommu-testdev in slots 3 and 15h and edu in slot 4. The queues start
// over with every case, so that events are found without asking where they are.
import type { Case, DmaOutcome, FaultRecord, Outcome, Subject } from '../case.js'
import { wordsAfter } from '../case.js'
import { QTest } from '../qtest.js'
import { type Devices, DmaRun } from '../testdev.js'
import {
  COMMAND_BITS,
  COMMANDS,
  CR0,
  EVENT_BITS,
  EVENT_SIZE,
  EVENTS,
  eventRecord,
  FLUSH,
  GBPA_UPDATE,
  RAM,
  REGISTER,
  SCRATCH,
  TABLES,
  TABLES_END,
} from './units.js'

const BASE = 0x0905_0000
const ECAM = 0x40_1000_0000
const DEVICES: Devices = { testdev: 0x1000_0000, upper: 0x1010_0000, edu: 0x1020_0000 }
const SLOTS: Readonly<Record<keyof Devices, number>> = { testdev: 0x03, upper: 0x15, edu: 0x04 }

export class QemuSmmu implements Subject {
  readonly #q: QTest
  #commands = 0

  private constructor(q: QTest) {
    this.#q = q
  }

  static async start(): Promise<QemuSmmu> {
    const device = (slot: number, model: string) => [
      '-device',
      `${model},addr=${slot.toString(16)}`,
    ]
    const q = await QTest.start({
      binary: 'qemu-system-aarch64',
      args: [
        ...['-machine', 'virt,iommu=smmuv3', '-cpu', 'cortex-a57', '-m', '64M'],
        ...device(SLOTS.testdev, 'iommu-testdev'),
        ...device(SLOTS.upper, 'iommu-testdev'),
        ...device(SLOTS.edu, 'edu,dma_mask=0xffffffffffffffff'),
      ],
    })
    for (const name of ['testdev', 'upper', 'edu'] as const) {
      const config = ECAM + SLOTS[name] * 0x8000
      q.write(config + 0x10, 4, DEVICES[name])
      q.write(config + 0x04, 4, 0x6)
    }
    // The machine puts its device tree there.
    q.clear(RAM, 0x10_0000)
    await q.drain()
    return new QemuSmmu(q)
  }

  async run(c: Case, hints: readonly number[]): Promise<Outcome> {
    const q = this.#q
    q.clear(TABLES, TABLES_END - TABLES)
    for (const [at, value] of c.words) q.write(at, 8, value)
    this.#register('CR0', 0)
    const devices = new DmaRun(q, DEVICES, SCRATCH, c, hints)
    devices.prepare(c.steps)
    this.#start(c)
    const produced: Promise<bigint>[] = []
    const pending: ((buffer: Uint8Array) => Promise<DmaOutcome>)[] = []
    for (const s of c.steps) {
      if (s.op === 'store') q.write(s.at, 8, s.value)
      else if (s.op === 'invalidate') this.#submit(s.words)
      else if (s.op === 'register') q.write(BASE + s.offset, 4, s.value)
      else {
        pending.push(devices.dma(s, [], () => Promise.resolve([])))
        produced.push(q.read(BASE + REGISTER.EVENTQ_PROD, 4))
      }
    }
    const after = wordsAfter(c)
    const read = [...after].map(([at]) => q.read(at, 8))
    const queue = q.bytes(EVENTS, EVENT_SIZE << EVENT_BITS)
    const errors = [q.read(BASE + REGISTER.GERROR, 4), q.read(BASE + REGISTER.GERRORN, 4)]
    this.#register('CR0', 0)
    this.#register('GBPA', GBPA_UPDATE)
    const copied = devices.finish()
    const drained = q.drain()
    const buffer = await copied
    await drained
    const events = await queue
    const dma: DmaOutcome[] = []
    let from = 0
    for (const [i, wait] of pending.entries()) {
      const { landed } = await wait(buffer)
      const to = Number(await produced[i]!) & ((2 << EVENT_BITS) - 1)
      const faults: FaultRecord[] = []
      for (; from < to; from++)
        faults.push(eventRecord(events.subarray(from * EVENT_SIZE, (from + 1) * EVENT_SIZE)))
      dma.push({ landed, faults })
    }
    if ((await errors[0]) !== (await errors[1])) dma.push({ landed: [], faults: [{ gerror: 1 }] })
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

  #register(name: keyof typeof REGISTER, value: number): void {
    this.#q.write(BASE + REGISTER[name], 4, value)
  }

  #start(c: Case): void {
    const q = this.#q
    this.#commands = 0
    q.clear(EVENTS, EVENT_SIZE << EVENT_BITS)
    q.write(BASE + REGISTER.CMDQ_BASE, 8, COMMANDS + COMMAND_BITS)
    q.write(BASE + REGISTER.EVENTQ_BASE, 8, EVENTS + EVENT_BITS)
    for (const name of ['CMDQ_PROD', 'CMDQ_CONS', 'EVENTQ_PROD', 'EVENTQ_CONS'] as const)
      this.#register(name, 0)
    q.write(BASE + REGISTER.STRTAB_BASE, 8, c.setup['STRTAB_BASE']!)
    this.#register('STRTAB_BASE_CFG', Number(c.setup['STRTAB_BASE_CFG']!))
    this.#register('CR2', Number(c.setup['CR2'] ?? 0))
    this.#register('GBPA', GBPA_UPDATE + Number(c.setup['GBPA'] ?? 0))
    this.#register('CR0', CR0.CMDQEN | CR0.EVENTQEN)
    for (const words of FLUSH) this.#submit(words)
    this.#register('CR0', CR0.CMDQEN | CR0.EVENTQEN | Number(c.setup['SMMUEN']!))
  }

  #submit([lo, hi]: readonly [bigint, bigint]): void {
    const q = this.#q
    const at = COMMANDS + (this.#commands % (1 << COMMAND_BITS)) * 16
    q.write(at, 8, lo)
    q.write(at + 8, 8, hi)
    this.#commands++
    this.#register('CMDQ_PROD', this.#commands)
  }
}
