// Our VT-d unit as a subject: a VtdUnit over RAM, programmed through its registers, requests put in directly.
import { VirtualClock } from '../../src/base/clock.js'
import { TraceBus } from '../../src/base/trace.js'
import type { VtdFault } from '../../src/iommu/vtd/faults.js'
import { VtdUnit } from '../../src/iommu/vtd/unit.js'
import { AddressSpace } from '../../src/mem/address-space.js'
import { createRam } from '../../src/mem/ram.js'
import { MemoryRequest, Translation } from '../../src/pci/request.js'
import {
  type Case,
  type DmaOutcome,
  type FaultRecord,
  type Outcome,
  piecesOf,
  type Step,
  wordsAfter,
} from '../case.js'
import { translationText } from '../report.js'
import { PATTERN } from '../testdev.js'
import {
  COMMAND,
  faultRecords,
  QUEUE,
  RAM_BYTES,
  REGISTER,
  REQUESTERS,
  TABLES,
  TABLES_END,
  UNITS,
  wideQueue,
} from './units.js'

const pattern = new Uint8Array(Uint32Array.of(PATTERN).buffer)

/** What we answered, and how it came about: for reports. */
export interface Answer {
  readonly outcome: Outcome
  /** For each DMA its first fault, recorded or not. */
  readonly faults: readonly (VtdFault | undefined)[]
}

export class OurVtd {
  readonly #memory = new AddressSpace()
  readonly #ram = createRam(RAM_BYTES)
  readonly #request = new MemoryRequest()
  readonly #answer = new Translation()
  readonly #clock = new VirtualClock()
  readonly #trace = new TraceBus(this.#clock)
  readonly #units = new Map<string, VtdUnit>()
  #first: VtdFault | undefined

  constructor() {
    this.#memory.addRam(0, this.#ram)
  }

  /** The walks of a case that led somewhere, stage by stage. */
  story(c: Case): string[] {
    const lines: string[] = []
    const stop = this.#trace.listen('vtd.translate', e => lines.push(...translationText(e)))
    this.run(c)
    stop()
    return lines
  }

  run(c: Case): Answer {
    const memory = this.#memory
    const faults: (VtdFault | undefined)[] = []
    const unit = this.#unit(c.unit)
    unit.reset()
    const wide = wideQueue(UNITS[c.unit]!)
    let tail = 0
    const command = (bits: number) => unit.write(REGISTER.GCMD, 4, BigInt(bits))

    this.#ram.fill(0, TABLES, TABLES_END)
    for (const [at, value] of c.words) memory.store(at, 8, value)
    unit.write(REGISTER.IQT, 8, 0n)
    unit.write(REGISTER.IQA, 8, BigInt(QUEUE) | (wide ? 0x800n : 0n))
    unit.write(REGISTER.RTADDR, 8, c.setup['RTADDR']!)
    const queue = c.setup['QIE'] ? COMMAND.QIE : 0
    command(queue + COMMAND.SRTP)
    command(queue + COMMAND.TE)
    const dma: DmaOutcome[] = []
    for (const s of c.steps) {
      if (s.op === 'store') memory.store(s.at, 8, s.value)
      else if (s.op === 'register') unit.write(s.offset, 8, s.value)
      else if (s.op === 'invalidate') {
        for (let i = 0; i < (wide ? 4 : 2); i++)
          memory.store(QUEUE + tail + i * 8, 8, s.words[i] ?? 0n)
        tail = (tail + (wide ? 32 : 16)) % 4096
        unit.write(REGISTER.IQT, 8, BigInt(tail))
      } else {
        this.#first = undefined
        dma.push(this.#dma(unit, s))
        faults.push(this.#first)
      }
    }
    const changed: [number, bigint][] = []
    for (const [at, value] of wordsAfter(c)) {
      const now = memory.load(at, 8)
      if (now !== value) changed.push([at, now])
    }
    return { outcome: { dma, changed }, faults }
  }

  /** The unit of that name, as an earlier case left it. */
  #unit(name: string): VtdUnit {
    let unit = this.#units.get(name)
    if (!unit) {
      unit = new VtdUnit({
        memory: this.#memory,
        config: UNITS[name]!.config,
        clock: this.#clock,
        trace: this.#trace,
        downstream: { invalidate: () => true, respond: () => {} },
        interrupts: { message: () => {} },
        onFault: fault => {
          this.#first ??= fault
        },
      })
      this.#units.set(name, unit)
    }
    return unit
  }

  #dma(unit: VtdUnit, s: Step & { op: 'dma' }): DmaOutcome {
    const landed = piecesOf(s.iova, s.length).map(p => this.#piece(unit, s, p.iova))
    return { landed, faults: recordsOf(unit) }
  }

  /** One request: where it landed. What leads to no memory is refused by whoever decodes the address. */
  #piece(unit: VtdUnit, s: Step & { op: 'dma' }, iova: bigint): number | null {
    const r = this.#request
    r.requester = REQUESTERS[s.device]
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

/** Takes the fault record, as a driver would. */
function recordsOf(unit: VtdUnit): FaultRecord[] {
  const lo = unit.read(REGISTER.FRCD, 8)
  const hi = unit.read(REGISTER.FRCD + 8, 8)
  const status = Number(unit.read(REGISTER.FSTS, 4))
  unit.write(REGISTER.FRCD + 8, 8, 1n << 63n)
  unit.write(REGISTER.FSTS, 4, 0x71n)
  return faultRecords(status, lo, hi)
}
