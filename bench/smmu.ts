// SMMUv3: translation with every cache warm, and a nested walk with no cache at all.

import { VirtualClock } from '../src/base/clock.js'
import { TraceBus } from '../src/base/trace.js'
import { CD } from '../src/iommu/smmu/cd.js'
import { CMD } from '../src/iommu/smmu/commands.js'
import { stage1Format, stage2Format } from '../src/iommu/smmu/formats.js'
import { SMMU } from '../src/iommu/smmu/registers.js'
import { STE, STE_CONFIG } from '../src/iommu/smmu/ste.js'
import { SmmuUnit } from '../src/iommu/smmu/unit.js'
import { AddressSpace } from '../src/mem/address-space.js'
import { createRam } from '../src/mem/ram.js'
import { TableBuilder } from '../src/paging/builder.js'
import { createNestedWalker } from '../src/paging/nested.js'
import { ACCESS_READ, ACCESS_USER, PERM_ALL, Walk } from '../src/paging/walk.js'
import { MemoryRequest, Translation } from '../src/pci/request.js'
import { type Body, nanoseconds, type Row } from './harness.js'

const PAGES = 256
const PASID = 5
const REQUESTER = 0x100
/** First page of the buffer as the device sees it. */
const VA_PAGE = 0x7_f123_4000
const RAM_BYTES = 64 << 20
const options = { granule: 12, inputBits: 48, outputBits: 48, accessFlag: true } as const
const FIRST = stage1Format({ ...options, upper: false, unprivileged: true, hierarchical: true })
const SECOND = stage2Format({ ...options, startLevel: 0, dirty: false })

/** A unit with one nested stream of 64 substreams, RAM mapped page by page in stage 2. */
function nestedStream() {
  const memory = new AddressSpace()
  memory.addRam(0, createRam(RAM_BYTES))
  let next = 0x10_0000
  const alloc = (bytes = 4096): number => {
    const at = Math.ceil(next / bytes) * bytes
    next = at + bytes
    return at
  }
  const tables = { allocTable: () => alloc() }
  const second = alloc()
  const first = alloc()
  const contexts = alloc()
  const streams = alloc(64 * 512)
  new TableBuilder(SECOND, memory, tables).map(second, 0, 0, RAM_BYTES / 4096, PERM_ALL)
  new TableBuilder(FIRST, memory, tables).map(first, VA_PAGE, 0x1000, PAGES, PERM_ALL)
  const ste = STE.create({
    V: true,
    Config: STE_CONFIG.NESTED,
    S1ContextPtr: contexts,
    S1CDMax: 6,
    S2TTB: second,
    S2AA64: true,
    S2T0SZ: 16,
    S2SL0: 2,
    S2PS: 5,
    S2R: true,
  })
  memory.write(streams + REQUESTER * 64, ste.bytes)
  const cd = CD.create({
    V: true,
    AA64: true,
    A: true,
    R: true,
    ASID: PASID,
    T0SZ: 16,
    EPD1: true,
    IPS: 5,
    TTB0: first,
  })
  memory.write(contexts + PASID * 64, cd.bytes)
  const unit = new SmmuUnit({
    memory,
    downstream: { invalidate: () => true, respond: () => {} },
    interrupts: { message: () => {} },
    clock: new VirtualClock(),
    trace: new TraceBus(new VirtualClock()),
  })
  unit.write(SMMU.STRTAB_BASE.offset, 8, BigInt(streams))
  unit.write(SMMU.STRTAB_BASE_CFG.offset, 4, 9n)
  unit.write(SMMU.CR0.offset, 4, 1n)
  return { memory, unit, first, second, alloc }
}

/** A ring of commands, TLBI_NH_VA and CMD_SYNC in turn. */
const COMMAND_BITS = 8

/** Queues one page's invalidation and a CMD_SYNC, again and again. */
function commands({ memory, unit, alloc }: ReturnType<typeof nestedStream>): Body {
  const ring = alloc(16 << COMMAND_BITS)
  for (let i = 0; i < 2 ** COMMAND_BITS; i++) {
    const low = i % 2 === 0 ? BigInt(CMD.TLBI_NH_VA) | (BigInt(PASID) << 48n) : BigInt(CMD.SYNC)
    memory.store(ring + i * 16, 8, low)
    memory.store(ring + i * 16 + 8, 8, i % 2 === 0 ? BigInt(VA_PAGE) << 12n : 0n)
  }
  unit.write(SMMU.CMDQ_BASE.offset, 8, BigInt(ring + COMMAND_BITS))
  unit.write(SMMU.CR0.offset, 4, 9n)
  const producers = Array.from({ length: 2 << COMMAND_BITS }, (_, i) => BigInt(i))
  let producer = 0
  return n => {
    for (let i = 0; i < n; i++) {
      producer = (producer + 2) & (producers.length - 1)
      unit.write(SMMU.CMDQ_PROD.offset, 4, producers[producer]!)
    }
  }
}

/** Rows of SMMUv3; `bareReads(n)` is what the bare memory costs. */
export function smmuRows(bareReads: (reads: number) => Body): Row[] {
  const stream = nestedStream()
  const { memory, unit, first, second } = stream
  const request = new MemoryRequest()
  request.requester = REQUESTER
  request.pasid = PASID
  request.length = 64
  request.hi = (VA_PAGE / 2 ** 20) | 0
  const base = (VA_PAGE % 2 ** 20) * 4096
  const answer = new Translation()
  const hit = (n: number): void => {
    for (let i = 0; i < n; i++) {
      request.lo = (base + ((i * 37) & (PAGES - 1)) * 4096) | 0
      unit.translate(request, answer)
      if (answer.status !== 0) throw new Error(`translation refused: ${answer.status}`)
    }
  }
  const walk = createNestedWalker(FIRST, SECOND, memory)
  const w = new Walk()
  const access = ACCESS_READ | ACCESS_USER
  const miss = (n: number): void => {
    for (let i = 0; i < n; i++) {
      const lo = (base + ((i * 37) & (PAGES - 1)) * 4096) | 0
      if (!walk(first, second, request.hi, lo, access, w))
        throw new Error(`walk failed: ${w.failure}`)
    }
  }
  return [
    nanoseconds({
      id: 'smmu-hit',
      what: `SMMUv3: translation of a nested, substream-tagged request, ${PAGES} pages warm`,
      body: hit,
      baseline: bareReads(8),
      target: 15,
    }),
    nanoseconds({
      id: 'smmu-walk',
      what: 'SMMUv3: nested walk, 4-level through 4-level, 4 KiB pages, no caches',
      body: miss,
      baseline: bareReads(24),
      target: 150,
    }),
    nanoseconds({
      id: 'smmu-command',
      what: 'SMMUv3: TLBI_NH_VA and CMD_SYNC written to the queue and executed, against reading them',
      body: commands(nestedStream()),
      baseline: bareReads(8),
      target: null,
    }),
  ]
}
