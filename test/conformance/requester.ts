// How requesters behave with ATS, page requests and PASIDs on any IOMMU, seen through two devices: dma-copy, which takes
// a refusal as it comes, and sva-engine, which asks for pages and waits. The handler plays the guest's kernel.
import { describe, expect, it } from 'vitest'
import {
  IOMMU_PAGE_RESP_FAILURE,
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_SUCCESS,
  type IommuFault,
} from '../../src/iommu/uapi.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { DESCRIPTOR, OPCODE, RECORD, STATUS } from '../../src/pci/devices/sva-engine/descriptors.js'
import { MODE, queueOffset } from '../../src/pci/devices/sva-engine/registers.js'
import { svaEngine } from '../../src/pci/devices/sva-engine.js'
import {
  bdfOf,
  type NestedGuest,
  type Space,
  type Subject,
  type SubjectOptions,
} from './subject.js'

const RW = 3
const PAGE = 0x1000n
const SRC = 0x40_0000n
const DST = 0x50_0000n
const RING = 0x60_0000n
const RECORDS = 0x61_0000n

/** dma-copy at device 0: copies 8 bytes, and says how it ended. */
function copier(s: Subject) {
  const { memory } = s.machine
  const base = s.machine.fabric.function(bdfOf(0))!.bars[0]!.address()
  const { SRC, DST, LEN, PASID, CTRL, STATUS: status } = dmaCopy.bar0
  return (from: bigint, to: bigint, pasid?: number): 'done' | 'fault' => {
    memory.store(base + SRC.offset, 8, from)
    memory.store(base + DST.offset, 8, to)
    memory.store(base + LEN.offset, 4, 8n)
    memory.store(base + PASID.offset, 4, pasid === undefined ? 0n : BigInt(pasid + 2 ** 31))
    memory.store(base + status.offset, 4, 3n)
    memory.store(base + CTRL.offset, 4, 1n)
    s.machine.settle()
    return memory.readU32(base + status.offset) & 2 ? 'fault' : 'done'
  }
}

/** sva-engine at device 0, with queue `queue` as a ring under an open space. */
function engine(s: Subject, guest: NestedGuest, space: Space, queue = 0) {
  const { memory } = s.machine
  const base = s.machine.fabric.function(bdfOf(0))!.bars[0]!.address()
  const store = (name: Parameters<typeof queueOffset>[1], value: number) =>
    memory.store(base + queueOffset(queue, name), name === 'BASE' ? 8 : 4, BigInt(value >>> 0))
  const ring = guest.page(0)
  const records = guest.page(0)
  space.map(RING, ring)
  space.map(RECORDS, records)
  store('PASID', space.pasid)
  store('BASE', Number(RING))
  store('SIZE', 6)
  store('CONFIG', (1 << 31) | (1 << 6) | (1 << 4) | MODE.RING)
  const at = (page: number) => guest.domain.iovaToPhys(page) * 4096
  let tail = 0
  return {
    store,
    /** Puts a copy of `length` bytes into the ring and rings; answers its number. */
    copy(length: number, { block = true, from = SRC, to = DST } = {}): number {
      const d = DESCRIPTOR.create({
        RECORD: true,
        BLOCK: block,
        OPCODE: OPCODE.COPY,
        COMPLETION: RECORDS + BigInt(tail * 32),
        SRC: from,
        DST: to,
        LENGTH: length,
      })
      memory.write(at(ring) + tail * DESCRIPTOR.size, d.bytes)
      store('TAIL', ++tail)
      s.machine.settle()
      return tail - 1
    },
    /** The completion record of a descriptor. */
    record(n: number) {
      const bytes = new Uint8Array(RECORD.size)
      memory.read(at(records) + n * 32, bytes)
      return RECORD.at(bytes)
    },
  }
}

/** Takes the page requests of device 0; `serve` decides about each. */
function kernel(s: Subject, serve: (address: bigint, pasid: number) => number) {
  const seen: bigint[] = []
  const { clock } = s.machine
  s.core.onFault(bdfOf(0), (fault: IommuFault) => {
    const { addr, pasid } = fault.event.prm
    seen.push(addr)
    clock.later(() => s.respond(0, fault, serve(addr, pasid)))
    return true
  })
  return seen
}

type Case = readonly [name: string, run: (s: Subject) => void]
const word = (s: Subject, guest: NestedGuest, page: number) => s.word(guest.domain.iovaToPhys(page))

const copies: readonly Case[] = [
  [
    'copies without a PASID and under one, from the right place each',
    s => {
      const guest = s.guest([0])
      const copy = copier(s)
      const [a, b] = [guest.page(0x11), guest.page(0)]
      expect(copy(BigInt(a) << 12n, BigInt(b) << 12n)).toBe('done')
      expect(word(s, guest, b)).toBe(0x11)
      const space = guest.open(3)
      const [c, d] = [guest.page(0x33), guest.page(0)]
      space.map(SRC, c)
      space.map(DST, d)
      expect(copy(SRC, DST, 3)).toBe('done')
      expect(word(s, guest, d)).toBe(0x33)
      expect([copy(SRC, DST), copy(SRC, DST, 4)]).toEqual(['fault', 'fault'])
    },
  ],
  [
    'a refused read writes nothing, a refused write is a fault',
    s => {
      const guest = s.guest([0])
      const copy = copier(s)
      const space = guest.open(3)
      const d = guest.page(0x44)
      space.map(DST, d)
      expect([copy(SRC, DST, 3), word(s, guest, d)]).toEqual(['fault', 0x44])
      space.map(SRC, d, false)
      expect(copy(DST, SRC, 3)).toBe('fault')
    },
  ],
  [
    'what it cached is dropped when the guest says so, and not before it asks again',
    s => {
      const guest = s.guest([0])
      const copy = copier(s)
      const space = guest.open(3)
      const d = guest.page(0)
      space.map(SRC, guest.page(0x55))
      space.map(DST, d)
      copy(SRC, DST, 3)
      space.map(SRC, guest.page(0x66))
      space.invalidate(SRC)
      expect([copy(SRC, DST, 3), word(s, guest, d)]).toEqual(['done', 0x66])
      space.unmap(DST)
      space.invalidate(DST)
      expect([copy(SRC, DST, 3), word(s, guest, d)]).toEqual(['fault', 0x66])
    },
  ],
  [
    'with its services switched off it sends no PASID, and what it cached is gone',
    s => {
      const domain = s.core.domainAlloc(bdfOf(0))
      domain.attach(bdfOf(0))
      const copy = copier(s)
      const host = s.page(0x77)
      domain.map(1, host, 1, RW)
      domain.map(2, s.page(0), 1, RW)
      expect(copy(0x1000n, 0x2000n)).toBe('done')
      domain.detach(bdfOf(0))
      expect([copy(0x1000n, 0x2000n), copy(0x1000n, 0x2000n, 1)]).toEqual(['fault', 'fault'])
    },
  ],
  [
    'raises its interrupt once the copy ended, by the message it was given',
    s => {
      const domain = s.core.domainAlloc(bdfOf(0))
      domain.attach(bdfOf(0))
      let arrived = 0
      const vector = s.core.allocateVector(bdfOf(0), () => arrived++)
      const { memory, fabric } = s.machine
      const fn = fabric.function(bdfOf(0))!
      const table = fn.bars[fn.msix!.tableBar]!.address() + fn.msix!.tableOffset
      memory.store(table, 8, BigInt(vector.address))
      memory.store(table + 8, 8, BigInt(vector.data))
      const control = s.config.capability(bdfOf(0), 0x11) + 2
      s.config.write(bdfOf(0), control, 2, 0x8000)
      copier(s)(0x1000n, 0x2000n)
      expect(arrived).toBe(1)
    },
  ],
]

/** A guest with one space of PASID 3 that maps the source, and the engine on it. */
function engaged(s: Subject, pages = 1) {
  const guest = s.guest([0])
  const space = guest.open(3)
  const { memory } = s.machine
  for (let i = 0; i < pages; i++) {
    const page = guest.page(0)
    memory.writeU32(guest.domain.iovaToPhys(page) * 4096 + 0xffc, 0xa00 + i)
    space.map(SRC + BigInt(i) * PAGE, page)
  }
  return { guest, space, e: engine(s, guest, space) }
}

const engines: readonly Case[] = [
  [
    'waits for a page that is missing, and ends when it is there',
    s => {
      const { guest, space, e } = engaged(s)
      const page = guest.page(0)
      const seen = kernel(s, () => {
        space.map(DST, page)
        return IOMMU_PAGE_RESP_SUCCESS
      })
      const n = e.copy(4096)
      expect(e.record(n)).toMatchObject({ STATUS: STATUS.SUCCESS, BYTES: 4096 })
      expect(seen).toEqual([DST])
      const last = guest.domain.iovaToPhys(page) * 4096 + 0xffc
      expect(s.machine.memory.readU32(last)).toBe(0xa00)
    },
  ],
  [
    'asks for each page of a long copy, once each',
    s => {
      const { guest, space, e } = engaged(s, 8)
      const seen = kernel(s, address => {
        space.map(address, guest.page(0))
        return IOMMU_PAGE_RESP_SUCCESS
      })
      const n = e.copy(8 * 4096)
      expect(e.record(n)).toMatchObject({ STATUS: STATUS.SUCCESS, BYTES: 8 * 4096 })
      expect(new Set(seen)).toEqual(
        new Set(Array.from({ length: 8 }, (_, i) => DST + BigInt(i) * PAGE)),
      )
      expect(seen).toHaveLength(8)
    },
  ],
  [
    'a descriptor that does not wait says how far it came',
    s => {
      const { guest, space, e } = engaged(s, 2)
      space.map(DST, guest.page(0))
      const seen = kernel(s, () => IOMMU_PAGE_RESP_SUCCESS)
      const n = e.copy(2 * 4096, { block: false })
      expect(e.record(n)).toMatchObject({
        STATUS: STATUS.PAGE_FAULT,
        BYTES: 4096,
        FAULT: DST + PAGE,
      })
      expect(seen).toEqual([])
    },
  ],
  ...(
    [
      ['INVALID', IOMMU_PAGE_RESP_INVALID, STATUS.PAGE_INVALID],
      ['FAILURE', IOMMU_PAGE_RESP_FAILURE, STATUS.PAGE_FAILURE],
    ] as const
  ).map(
    ([name, code, status]): Case => [
      `an answer of ${name} ends the descriptor`,
      s => {
        const { e } = engaged(s)
        kernel(s, () => code)
        expect(e.record(e.copy(4096))).toMatchObject({ STATUS: status, FAULT: DST })
      },
    ],
  ),
  [
    'after INVALID the next descriptor is served',
    s => {
      const { guest, space, e } = engaged(s)
      let present = false
      kernel(s, address => {
        if (!present) return IOMMU_PAGE_RESP_INVALID
        space.map(address, guest.page(0))
        return IOMMU_PAGE_RESP_SUCCESS
      })
      const first = e.copy(4096)
      present = true
      const second = e.copy(4096)
      expect([first, second].map(n => e.record(n).STATUS)).toEqual([
        STATUS.PAGE_INVALID,
        STATUS.SUCCESS,
      ])
    },
  ],
  [
    'two queues under two PASIDs use the same addresses apart',
    s => {
      const { guest, space, e } = engaged(s)
      const other = guest.open(4)
      const [mine, theirs] = [guest.page(0), guest.page(0)]
      space.map(DST, mine)
      other.map(SRC, guest.page(0xbbb))
      other.map(DST, theirs)
      const second = engine(s, guest, other, 1)
      expect(e.record(e.copy(4096)).STATUS).toBe(STATUS.SUCCESS)
      expect(second.record(second.copy(4)).STATUS).toBe(STATUS.SUCCESS)
      expect([word(s, guest, mine), word(s, guest, theirs)]).toEqual([0, 0xbbb])
    },
  ],
  [
    'a space that closes while a descriptor waits ends it, and other queues go on',
    s => {
      const { guest, space, e } = engaged(s)
      s.listen(0)
      const n = e.copy(4096)
      expect([e.record(n).STATUS, s.core.pendingPageRequests()]).toEqual([0, 1])
      const other = guest.open(4)
      other.map(SRC, guest.page(0xccc))
      const target = guest.page(0)
      other.map(DST, target)
      space.close()
      s.machine.settle()
      const second = engine(s, guest, other, 1)
      expect(second.record(second.copy(4)).STATUS).toBe(STATUS.SUCCESS)
      expect(word(s, guest, target)).toBe(0xccc)
      s.core.onFault(bdfOf(0), undefined)
      s.machine.settle()
      expect(s.core.pendingPageRequests()).toBe(0)
    },
  ],
  [
    'an abort while a descriptor waits ends it; the answer that comes later does no harm',
    s => {
      const { guest, space, e } = engaged(s)
      const seen = s.listen(0)
      const n = e.copy(4096)
      e.store('COMMAND', 2)
      s.machine.settle()
      expect(e.record(n).STATUS).toBe(STATUS.ABORTED)
      space.map(DST, guest.page(0))
      s.respond(0, seen[0]!, IOMMU_PAGE_RESP_SUCCESS)
      expect(e.record(e.copy(4096)).STATUS).toBe(STATUS.SUCCESS)
      expect(s.core.pendingPageRequests()).toBe(0)
    },
  ],
  [
    'pages that the host takes away and gives back are asked for again',
    s => {
      const { guest, space, e } = engaged(s)
      const page = guest.page(0)
      space.map(DST, page)
      expect(e.record(e.copy(4096)).STATUS).toBe(STATUS.SUCCESS)
      const host = guest.domain.iovaToPhys(page)
      guest.domain.unmap(page, 1)
      guest.domain.flush()
      const seen = kernel(s, () => {
        guest.domain.map(page, host, 1, RW)
        return IOMMU_PAGE_RESP_SUCCESS
      })
      expect(e.record(e.copy(4096)).STATUS).toBe(STATUS.SUCCESS)
      expect(seen).toEqual([DST])
    },
  ],
]

/** Runs the suite on a subject. */
export function runRequester(create: (options: SubjectOptions) => Subject): void {
  const on = (name: string, model: SubjectOptions['models'], cases: readonly Case[]) =>
    describe(name, () => {
      it.each(cases)('%s', (_, run) => run(create({ models: model! })))
    })
  on('dma-copy', [dmaCopy], copies)
  on('sva-engine', [svaEngine], engines)
}
