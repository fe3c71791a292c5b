// Stalled transactions in whole machines: a device's access waits for software, goes on, or ends.
import { describe, expect, it } from 'vitest'
import { PciConfig } from '../../src/iommu/pci-config.js'
import {
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_SUCCESS,
  type IommuFault,
  iommu_page_response,
} from '../../src/iommu/uapi.js'
import { createMachine } from '../../src/machine.js'
import {
  DESCRIPTOR,
  ERROR_CODE,
  MODE,
  OPCODE,
  PORTAL_BAR,
  queueOffset,
  RECORD,
  STATUS,
  SVA_ENGINE,
  svaEngine,
} from '../../src/pci/devices/sva-engine.js'
import { HOST_RANGES } from '../../src/pci/fabric.js'
import { bdfOf, Guest, tableConfig } from './smmu-bench.js'

const AT = '0000:01:00.0'
const PASID = 5
const SRC = 0x40_0000n
const DST = 0x50_0000n
const RING = 0x60_0000n
const RECORDS = 0x61_0000n
const WAITING = 1n << 5n

/** An sva-engine whose faults stall, below a guest's tables. Descriptors never ask to block: PCIe does not know. */
function machine(stalling = [AT]) {
  const m = createMachine({
    iommu: 'smmuv3',
    ramBytes: 8 * 2 ** 20,
    devices: [{ at: AT, model: svaEngine }],
    stalling,
  })
  const { memory, iommu: core, clock, unit, kernel, trace } = m
  const bdf = bdfOf(0)
  new PciConfig(memory, HOST_RANGES.ecamBase).write(bdf, 4, 2, 6)
  const domain = core.domainAlloc(bdf, { nesting: true })
  domain.attach(bdf)
  const guest = new Guest({ frames: kernel.frames, memory }, domain, 0x1000, 8)
  domain.guestTables!.setPasidTable(
    tableConfig({ base_ptr: BigInt(guest.contexts), pasid_bits: 8, s1dss: 1 }),
  )
  guest.open(PASID, { S: stalling.length > 0 })
  const seen: IommuFault[] = []
  core.onFault(bdf, f => seen.push(f) > 0)
  const outcomes: string[] = []
  trace.listen('smmu.stall', e => outcomes.push(e.what))
  const fn = m.function(AT)
  const registers = fn.bars[0]!.address()
  const portal = fn.bars[PORTAL_BAR]!.address()
  const write = (name: Parameters<typeof queueOffset>[1], v: bigint, size: 4 | 8 = 4) =>
    memory.store(registers + queueOffset(0, name), size, v)
  const read = (name: Parameters<typeof queueOffset>[1]) =>
    memory.load(registers + queueOffset(0, name), 4)
  const back = (gva: bigint, value: number): number => {
    const page = guest.data(value)
    guest.map(PASID, gva, page)
    return guest.host(page * 4096)
  }
  const descriptor = (init: Parameters<typeof DESCRIPTOR.create>[0]) =>
    DESCRIPTOR.create({ PASID, RECORD: true, COMPLETION: RECORDS, ...init }).bytes
  write('CONFIG', BigInt(0x8000_0000 | MODE.SHARED))
  return {
    m,
    unit,
    domain,
    guest,
    seen,
    outcomes,
    registers,
    write,
    read,
    back,
    descriptor,
    waits: () => (read('STATUS') & WAITING) !== 0n,
    enqueue(init: Parameters<typeof DESCRIPTOR.create>[0]) {
      expect(memory.writeDeferrable(portal, descriptor(init))).toBe(true)
      clock.settle()
    },
    respond(code: number) {
      const { grpid } = seen.at(-1)!.event.prm
      const response = iommu_page_response({ version: 1, flags: 1, grpid, pasid: PASID, code })
      core.pageResponse(bdf, response)
      clock.settle()
    },
    record(host: number) {
      const bytes = new Uint8Array(32)
      memory.read(host, bytes)
      return RECORD.at(bytes)
    },
    error: () => memory.load(registers + SVA_ENGINE.ERROR.offset, 1),
  }
}

const COPY = { OPCODE: OPCODE.COPY, SRC, DST, LENGTH: 64 }

describe('an sva-engine behind an SMMUv3 that stalls', () => {
  it('waits at every page that is missing, its completion record’s too, and ends well', () => {
    const e = machine()
    e.enqueue(COPY)
    expect([e.waits(), e.unit.stalled]).toEqual([true, 1])
    e.back(SRC, 0x1234)
    e.respond(IOMMU_PAGE_RESP_SUCCESS)
    const to = e.back(DST, 0)
    e.respond(IOMMU_PAGE_RESP_SUCCESS)
    expect(e.m.memory.readU32(to)).toBe(0x1234)
    const record = e.back(RECORDS, 0)
    e.respond(IOMMU_PAGE_RESP_SUCCESS)
    expect(e.record(record)).toMatchObject({ STATUS: STATUS.SUCCESS, BYTES: 64 })
    expect(e.seen.map(f => f.event.prm.addr)).toEqual([SRC, DST, RECORDS])
    expect([e.waits(), e.unit.stalled, e.outcomes.filter(o => o === 'retry').length]).toEqual([
      false,
      0,
      3,
    ])
  })

  it('stalls again when software resumed it without mapping the page', () => {
    const e = machine()
    e.enqueue(COPY)
    e.respond(IOMMU_PAGE_RESP_SUCCESS)
    expect([e.waits(), e.unit.stalled, e.outcomes]).toEqual([
      true,
      1,
      ['stalled', 'retry', 'stalled'],
    ])
  })

  it('ends the descriptor when the access is aborted, without asking again', () => {
    const e = machine()
    e.back(SRC, 1)
    const record = e.back(RECORDS, 0)
    e.enqueue(COPY)
    e.respond(IOMMU_PAGE_RESP_INVALID)
    expect(e.record(record)).toMatchObject({
      STATUS: STATUS.REFUSED,
      WRITE: true,
      FAULT: DST,
      BYTES: 0,
    })
    expect([e.waits(), e.outcomes]).toEqual([false, ['stalled', 'abort']])
  })

  it('goes on after the pages that were there', () => {
    const e = machine()
    const from = e.back(SRC, 1)
    e.m.memory.writeU32(from + 4092, 0xabcd)
    const to = e.back(DST, 0)
    e.back(DST + 4096n, 0)
    const record = e.back(RECORDS, 0)
    e.enqueue({ ...COPY, LENGTH: 8192 })
    expect(e.m.memory.readU32(to + 4092)).toBe(0xabcd)
    expect(e.seen[0]!.event.prm.addr).toBe(SRC + 4096n)
    e.respond(IOMMU_PAGE_RESP_INVALID)
    expect(e.record(record)).toMatchObject({ STATUS: STATUS.REFUSED, BYTES: 4096 })
  })

  it('reports a completion record whose write is aborted', () => {
    const e = machine()
    e.enqueue({ OPCODE: OPCODE.NOP })
    e.respond(IOMMU_PAGE_RESP_INVALID)
    expect([e.waits(), e.unit.stalled, e.error()]).toEqual([false, 0, BigInt(ERROR_CODE.RECORD)])
  })

  it('is left alone by the outcome of an access that it gave up in an abort', () => {
    const e = machine()
    const record = e.back(RECORDS, 0)
    e.enqueue(COPY)
    e.write('COMMAND', 2n)
    expect([e.waits(), e.record(record).STATUS]).toEqual([false, STATUS.ABORTED])
    e.back(SRC, 1)
    e.enqueue({ ...COPY, COMPLETION: RECORDS + 32n })
    expect(e.waits()).toBe(true)
    const [first, second] = e.seen
    e.seen.pop()
    e.respond(IOMMU_PAGE_RESP_INVALID)
    expect([e.waits(), e.unit.stalled]).toEqual([true, 1])
    e.seen.push(second!)
    e.back(DST, 0)
    e.respond(IOMMU_PAGE_RESP_SUCCESS)
    expect(e.record(record + 32).STATUS).toBe(STATUS.SUCCESS)
    expect([first, second].map(f => f!.event.prm.addr)).toEqual([SRC, DST])
  })

  it('hears nothing of an access from before a reset', () => {
    const e = machine()
    e.enqueue(COPY)
    e.m.function(AT).reset()
    e.back(SRC, 1)
    e.respond(IOMMU_PAGE_RESP_SUCCESS)
    expect([e.unit.stalled, e.outcomes]).toEqual([0, ['stalled', 'retry']])
  })

  it('gets its accesses back as aborted when it leaves its domain', () => {
    const e = machine()
    e.enqueue(COPY)
    e.domain.detach(bdfOf(0))
    expect([e.unit.stalled, e.outcomes]).toEqual([0, ['stalled', 'abort']])
    e.m.settle()
    expect(e.waits()).toBe(false)
  })

  it.each([
    ['waits for its ring, and takes the descriptor', IOMMU_PAGE_RESP_SUCCESS, 0n],
    ['halts when the read of its ring is aborted', IOMMU_PAGE_RESP_INVALID, 8n],
  ])('%s', (_, code, halted) => {
    const e = machine()
    e.write('CONFIG', 0n)
    e.write('PASID', BigInt(PASID))
    e.write('BASE', RING, 8)
    e.write('SIZE', 2n)
    e.write('CONFIG', BigInt(0x8000_0010) | BigInt(MODE.RING))
    const record = e.back(RECORDS, 0)
    e.write('TAIL', 1n)
    e.m.settle()
    expect(e.waits()).toBe(true)
    if (code === IOMMU_PAGE_RESP_SUCCESS)
      e.m.memory.write(e.back(RING, 0), e.descriptor({ OPCODE: OPCODE.NOP }))
    e.respond(code)
    expect(e.read('STATUS') & 8n).toBe(halted)
    expect(e.record(record).STATUS).toBe(halted ? 0 : STATUS.SUCCESS)
  })

  it('is refused at once where firmware does not name it', () => {
    const e = machine([])
    const record = e.back(RECORDS, 0)
    e.enqueue(COPY)
    expect(e.record(record).STATUS).toBe(STATUS.PAGE_FAULT)
    expect(e.outcomes).toEqual([])
  })
})
