// Our SMMUv3 as a subject: an SmmuUnit over RAM, programmed through its registers, requests put in directly.
import { VirtualClock } from '../../src/base/clock.js'
import { TraceBus } from '../../src/base/trace.js'
import type { SmmuFault } from '../../src/iommu/smmu/faults.js'
import { SmmuUnit } from '../../src/iommu/smmu/unit.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { createRam } from '../../src/mem/ram.js'
import { MemoryRequest, Translation } from '../../src/pci/request.js'
import type { OurAnswer } from '../architectures.js'
import {
  type Case,
  type DmaOutcome,
  type FaultRecord,
  piecesOf,
  type Step,
  wordsAfter,
} from '../case.js'
import { translationText } from '../report.js'
import { PATTERN } from '../testdev.js'
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
  LIKE_QEMU,
  RAM,
  RAM_BYTES,
  REGISTER,
  STREAMS,
  TABLES,
  TABLES_END,
} from './units.js'

const pattern = new Uint8Array(Uint32Array.of(PATTERN).buffer)

export class OurSmmu {
  readonly #memory = new AddressSpace()
  readonly #ram = createRam(RAM_BYTES)
  readonly #request = new MemoryRequest()
  readonly #answer = new Translation()
  readonly #clock = new VirtualClock()
  readonly #trace = new TraceBus(this.#clock)
  readonly #plain = this.#unit(false)
  readonly #privileged = this.#unit(true)
  #first: SmmuFault | undefined

  constructor() {
    this.#memory.addRam(RAM, this.#ram)
  }

  /** The walks of a case that led somewhere, stage by stage. */
  story(c: Case): string[] {
    const lines: string[] = []
    const stop = this.#trace.listen('smmu.translate', e => lines.push(...translationText(e)))
    this.run(c)
    stop()
    return lines
  }

  run(c: Case): OurAnswer {
    const memory = this.#memory
    const faults: (SmmuFault | undefined)[] = []
    const unit = c.setup['PRIV'] ? this.#privileged : this.#plain
    unit.reset()
    const set = (name: keyof typeof REGISTER, value: number) =>
      unit.write(REGISTER[name], 4, BigInt(value))
    let commands = 0
    const submit = ([lo, hi]: readonly [bigint, bigint]) => {
      const at = COMMANDS + (commands % (1 << COMMAND_BITS)) * 16
      memory.store(at, 8, lo)
      memory.store(at + 8, 8, hi)
      commands++
      set('CMDQ_PROD', commands)
    }

    this.#ram.fill(0, TABLES - RAM, TABLES_END - RAM)
    for (const [at, value] of c.words) memory.store(at, 8, value)
    unit.write(REGISTER.CMDQ_BASE, 8, BigInt(COMMANDS + COMMAND_BITS))
    unit.write(REGISTER.EVENTQ_BASE, 8, BigInt(EVENTS + EVENT_BITS))
    unit.write(REGISTER.STRTAB_BASE, 8, c.setup['STRTAB_BASE']!)
    unit.write(REGISTER.STRTAB_BASE_CFG, 4, c.setup['STRTAB_BASE_CFG']!)
    set('CR2', Number(c.setup['CR2'] ?? 0))
    set('GBPA', GBPA_UPDATE + Number(c.setup['GBPA'] ?? 0))
    set('CR0', CR0.CMDQEN | CR0.EVENTQEN)
    for (const words of FLUSH) submit(words)
    set('CR0', CR0.CMDQEN | CR0.EVENTQEN | Number(c.setup['SMMUEN']!))
    const dma: DmaOutcome[] = []
    let events = 0
    for (const s of c.steps) {
      if (s.op === 'store') memory.store(s.at, 8, s.value)
      else if (s.op === 'register') unit.write(s.offset, 4, s.value)
      else if (s.op === 'invalidate') submit(s.words)
      else {
        this.#first = undefined
        const landed = piecesOf(s.iova, s.length).map(p => this.#piece(unit, s, p.iova))
        const records: FaultRecord[] = []
        const produced = Number(unit.read(REGISTER.EVENTQ_PROD, 4)) & ((2 << EVENT_BITS) - 1)
        for (; events < produced; events++) {
          const at = EVENTS - RAM + events * EVENT_SIZE
          const record = eventRecord(this.#ram.subarray(at, at + EVENT_SIZE))
          records.push(c.setup['PRIV'] ? { ...record, pnu: 0 } : record)
        }
        dma.push({ landed, faults: records })
        faults.push(this.#first)
      }
    }
    if (unit.read(REGISTER.GERROR, 4) !== unit.read(REGISTER.GERRORN, 4))
      dma.push({ landed: [], faults: [{ gerror: 1 }] })
    const changed: [number, bigint][] = []
    for (const [at, value] of wordsAfter(c)) {
      const now = memory.load(at, 8)
      if (now !== value) changed.push([at, now])
    }
    return { outcome: { dma, changed }, faults }
  }

  /** A unit; with `permissionOverrides` STEs can make transactions privileged. */
  #unit(permissionOverrides: boolean): SmmuUnit {
    return new SmmuUnit({
      memory: this.#memory,
      config: { ...LIKE_QEMU, permissionOverrides },
      clock: this.#clock,
      trace: this.#trace,
      downstream: { invalidate: () => true, respond: () => {} },
      interrupts: { message: () => {} },
      onFault: fault => {
        this.#first ??= fault
      },
    })
  }

  /** One request: where it landed. What leads to no memory is refused by whoever decodes the address. */
  #piece(unit: SmmuUnit, s: Step & { op: 'dma' }, iova: bigint): number | null {
    const r = this.#request
    r.requester = STREAMS[s.device]
    r.write = s.write
    r.hi = Number(BigInt.asIntN(32, iova >> 32n))
    r.lo = Number(BigInt.asIntN(32, iova))
    r.length = 4
    unit.translate(r, this.#answer)
    const { status, output } = this.#answer
    if (status !== 0 || !this.#memory.ramAt(output)) return null
    if (s.write) this.#memory.write(output, pattern)
    return output
  }
}
