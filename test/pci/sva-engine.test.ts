import { crc32 } from 'node:zlib'
import { describe, expect, it } from 'vitest'
import {
  DESCRIPTOR,
  ERROR_CODE,
  MODE,
  OPCODE,
  PORTAL_DEPTH,
  STATUS,
  SVA_ENGINE,
} from '../../src/pci/devices/sva-engine.js'
import { PRG_RESPONSE } from '../../src/pci/request.js'
import { engine, RECORDS, SPACE, shared, VA } from './engine.js'
import { peek, poke } from './host.js'

const at = (offset: number) => BigInt(VA + offset)
function fill(bytes: Uint8Array, seed = 1) {
  for (let i = 0; i < bytes.length; i++) bytes[i] = i * seed + (i >> 8)
}

describe('sva-engine operations, in the address space of a PASID', () => {
  it.each([1, 7, 64, 65, 4096, 5000, 0x5000])('COPY moves %i bytes between pages', length => {
    const e = shared()
    fill(e.bytes(VA + 0x123, length))
    expect(e.run({ OPCODE: OPCODE.COPY, SRC: at(0x123), DST: at(0x7001), LENGTH: length })).toBe(
      true,
    )
    expect(e.record()).toMatchObject({ STATUS: STATUS.SUCCESS, BYTES: length })
    expect(e.bytes(VA + 0x7001, length)).toEqual(e.bytes(VA + 0x123, length))
    expect(e.bytes(VA + 0x7001 + length, 1)[0]).toBe(0)
  })

  it('FILL repeats the 8 bytes of OPERAND from DST on', () => {
    const e = shared()
    e.run({ OPCODE: OPCODE.FILL, DST: at(0xffd), LENGTH: 20, OPERAND: 0x0807_0605_0403_0201n })
    expect([...e.bytes(VA + 0xffc, 22)]).toEqual([
      0, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 0,
    ])
  })

  it('COMPARE answers equal, or where the first difference is', () => {
    const e = shared()
    fill(e.bytes(VA, 0x6000))
    e.bytes(VA + 0x6000, 0x6000).set(e.bytes(VA, 0x6000))
    const compare = { OPCODE: OPCODE.COMPARE, SRC: at(0), DST: at(0x6000), LENGTH: 0x6000 }
    e.run(compare)
    expect(e.record()).toMatchObject({ STATUS: STATUS.SUCCESS, RESULT: 0, BYTES: 0x6000 })
    e.bytes(VA + 0x6000 + 0x4567, 1)[0]! ^= 0x80
    e.run(compare)
    expect(e.record()).toMatchObject({ STATUS: STATUS.SUCCESS, RESULT: 1, BYTES: 0x4567 })
  })

  it('CHECKSUM is CRC-32 as zlib computes it, and continues from OPERAND', () => {
    const e = shared()
    fill(e.bytes(VA, 0x5000), 3)
    e.run({ OPCODE: OPCODE.CHECKSUM, SRC: at(0), LENGTH: 0x5000 })
    const whole = crc32(e.bytes(VA, 0x5000))
    expect(e.record().VALUE).toBe(BigInt(whole))
    const first = BigInt(crc32(e.bytes(VA, 100)))
    e.run({ OPCODE: OPCODE.CHECKSUM, SRC: at(100), LENGTH: 0x5000 - 100, OPERAND: first })
    expect(e.record().VALUE).toBe(BigInt(whole))
    e.run({ OPCODE: OPCODE.COPY_CHECKSUM, SRC: at(0), DST: at(0x8000), LENGTH: 0x5000 })
    expect(e.record().VALUE).toBe(BigInt(crc32(e.bytes(VA + 0x8000, 0x5000))))
  })

  it('NOP writes a record and raises the vector when asked to', () => {
    const e = shared()
    e.run({ OPCODE: OPCODE.NOP })
    expect(e.interrupts).toEqual([])
    e.run({ OPCODE: OPCODE.NOP, INTERRUPT: true, RECORD: false })
    expect(e.interrupts).toEqual([1])
  })
})

describe('sva-engine refuses bad descriptors with a status', () => {
  const copy = { OPCODE: OPCODE.COPY, SRC: at(0), DST: at(0x2000), LENGTH: 16 }
  it.each([
    ['an unknown opcode', { OPCODE: 99 }, STATUS.BAD_OPCODE],
    ['a reserved field', { ...copy, RESERVED2: 1n }, STATUS.BAD_RESERVED],
    ['a reserved flag', { ...copy, RESERVED0: 0x8000 }, STATUS.BAD_RESERVED],
    ['a length of zero', { ...copy, LENGTH: 0 }, STATUS.BAD_LENGTH],
    ['a length above the maximum', { ...copy, LENGTH: 0x4000_0001 }, STATUS.BAD_LENGTH],
    ['overlapping ranges', { ...copy, DST: at(15) }, STATUS.OVERLAP],
    ['a range that wraps', { ...copy, SRC: 0xffff_ffff_ffff_fff8n }, STATUS.BAD_ADDRESS],
    ['an empty batch', { OPCODE: OPCODE.BATCH, SRC: at(0), LENGTH: 0 }, STATUS.BAD_COUNT],
    ['a batch of 257', { OPCODE: OPCODE.BATCH, SRC: at(0), LENGTH: 257 }, STATUS.BAD_COUNT],
    ['a misaligned batch', { OPCODE: OPCODE.BATCH, SRC: at(8), LENGTH: 1 }, STATUS.BAD_ADDRESS],
  ])('%s', (_name, init, status) => {
    const e = shared()
    expect(e.run(init)).toBe(true)
    expect(e.record().STATUS).toBe(status)
    expect(e.read(0, 'STATUS')).toBe(1n)
  })

  it.each([
    ['is misaligned', BigInt(RECORDS + 8)],
    ['is not mapped', 0x9000_0000n],
  ])('a record that %s becomes an ERROR register and vector 0', (_name, completion) => {
    const e = shared()
    e.run({ OPCODE: OPCODE.NOP, COMPLETION: completion })
    const error = peek(e.h, e.fn, SVA_ENGINE.ERROR.offset)
    expect(error).toBe(0x8000_0000n | BigInt(ERROR_CODE.RECORD))
    expect(peek(e.h, e.fn, SVA_ENGINE.ERROR_ADDRESS.offset, 8)).toBe(completion)
    expect(peek(e.h, e.fn, SVA_ENGINE.ERROR_PASID.offset)).toBe(0x8000_0000n | BigInt(SPACE))
    expect(e.interrupts).toEqual([0])
    e.run({ OPCODE: OPCODE.NOP, COMPLETION: completion })
    poke(e.h, e.fn, SVA_ENGINE.ERROR.offset, 0x8000_0000n)
    expect(peek(e.h, e.fn, SVA_ENGINE.ERROR.offset) >> 30n).toBe(1n)
  })

  it('an unbound PASID faults, and does not reach another space', () => {
    const e = shared()
    e.run({ ...copy, PASID: 9 })
    expect(e.record().STATUS).toBe(0)
    expect(peek(e.h, e.fn, SVA_ENGINE.ERROR_PASID.offset)).toBe(0x8000_0009n)
  })

  it('a privileged request without Privileged Mode Enable is refused', () => {
    const e = shared()
    e.fn.config.write(e.fn.capabilityOffset(0x1b, true)! + 6, 2, 1)
    e.run({ ...copy, PRIV: true })
    expect(peek(e.h, e.fn, SVA_ENGINE.ERROR.offset) & 0xffn).toBe(BigInt(ERROR_CODE.RECORD))
  })
})

describe('sva-engine batches', () => {
  const list = 0x3000
  function batch(inits: Parameters<ReturnType<typeof shared>['bytesOf']>[0][]) {
    const e = shared()
    fill(e.bytes(VA, 0x1000))
    inits.forEach((init, i) => {
      const bytes = e.bytesOf({ COMPLETION: BigInt(RECORDS + 32 * (i + 1)), ...init })
      e.bytes(VA + list + 64 * i, 64).set(bytes)
    })
    e.run({ OPCODE: OPCODE.BATCH, SRC: at(list), LENGTH: inits.length })
    const statuses = inits.map((_, i) => e.record(i + 1).STATUS)
    return { e, statuses }
  }
  const copy = (n: number) => ({
    OPCODE: OPCODE.COPY,
    SRC: at(0),
    DST: at(0x5000 + n * 64),
    LENGTH: 64,
  })

  it('run their descriptors in order and count what succeeded', () => {
    const { e, statuses } = batch([copy(0), copy(1), { OPCODE: OPCODE.NOP }])
    expect(statuses).toEqual([1, 1, 1])
    expect(e.record()).toMatchObject({ STATUS: STATUS.SUCCESS, BYTES: 3 })
    expect(e.bytes(VA + 0x5040, 64)).toEqual(e.bytes(VA, 64))
  })

  it('go on after a failure, except at a fence', () => {
    const { e, statuses } = batch([copy(0), { OPCODE: 77 }, copy(1), { ...copy(2), FENCE: true }])
    expect(statuses).toEqual([STATUS.SUCCESS, STATUS.BAD_OPCODE, STATUS.SUCCESS, STATUS.FENCED])
    expect(e.record()).toMatchObject({ STATUS: STATUS.BATCH_FAILED, BYTES: 2 })
  })

  it('do not nest', () => {
    const { e, statuses } = batch([{ OPCODE: OPCODE.BATCH, SRC: at(list), LENGTH: 1 }])
    expect(statuses).toEqual([STATUS.NESTED_BATCH])
    expect(e.record().STATUS).toBe(STATUS.BATCH_FAILED)
  })

  it('use the PASID of the batch, whatever the descriptors in it say', () => {
    const { statuses } = batch([{ ...copy(0), PASID: 9 }])
    expect(statuses).toEqual([STATUS.SUCCESS])
  })
})

describe('sva-engine page faults', () => {
  const copy = { OPCODE: OPCODE.COPY, SRC: at(0x800), DST: at(0x2000), LENGTH: 0x1000 }

  it('complete partially when the descriptor does not wait', () => {
    const e = shared({ lazy: true })
    e.page(0)
    e.page(2)
    e.run(copy)
    expect(e.record()).toMatchObject({
      STATUS: STATUS.PAGE_FAULT,
      WRITE: false,
      BYTES: 0x800,
      FAULT: at(0x1000),
    })
    expect(e.t.pageRequests).toEqual([])
  })

  it('name the access: a write to a read-only page', () => {
    const e = shared()
    e.t.map(SPACE, VA + 0x2000, { output: 0x11_0000, write: false })
    e.run(copy)
    expect(e.record()).toMatchObject({
      STATUS: STATUS.PAGE_FAULT,
      WRITE: true,
      BYTES: 0,
      FAULT: at(0x2000),
    })
  })

  it('are waited for: a page request each, then the work resumes where it stopped', () => {
    const e = shared({ lazy: true })
    fill(e.bytes(VA + 0x800, 0x1000))
    e.t.onPageRequest = m => {
      e.page((m.lo - VA) >> 12)
      e.h.clock.later(() => e.respond(m, PRG_RESPONSE.SUCCESS), 5000)
    }
    e.run({ ...copy, BLOCK: true })
    expect(e.record()).toMatchObject({ STATUS: STATUS.SUCCESS, BYTES: 0x1000 })
    expect(e.bytes(VA + 0x2000, 0x1000)).toEqual(e.bytes(VA + 0x800, 0x1000))
    expect(e.t.pageRequests.map(m => [m.lo, m.write, m.last, m.pasid])).toEqual([
      [VA, false, true, SPACE],
      [VA + 0x2000, true, true, SPACE],
      [VA + 0x1000, false, true, SPACE],
    ])
  })

  it.each([
    ['INVALID', PRG_RESPONSE.INVALID, STATUS.PAGE_INVALID],
    ['FAILURE', PRG_RESPONSE.FAILURE, STATUS.PAGE_FAILURE],
  ])('end with their own status when the response is %s', (_name, code, status) => {
    const e = shared({ lazy: true })
    e.t.onPageRequest = m => e.h.clock.later(() => e.respond(m, code))
    e.run({ ...copy, BLOCK: true })
    expect(e.record()).toMatchObject({ STATUS: status, BYTES: 0, FAULT: at(0x800) })
  })

  it('give up when success never brings the page', () => {
    const e = shared({ lazy: true })
    e.t.onPageRequest = m => e.h.clock.later(() => e.respond(m, PRG_RESPONSE.SUCCESS))
    e.run({ ...copy, BLOCK: true })
    expect(e.record().STATUS).toBe(STATUS.PAGE_FAILURE)
    expect(e.t.pageRequests.length).toBe(9)
  })

  it('queue up behind the page request allocation', () => {
    const e = engine({ lazy: true })
    e.fn.config.write(e.fn.capabilityOffset(0x13, true)! + 12, 4, 1)
    for (const q of [0, 1, 2]) {
      e.enable(q, MODE.SHARED)
      e.enqueue(q, {
        OPCODE: OPCODE.FILL,
        DST: at(q * 4096),
        LENGTH: 8,
        BLOCK: true,
        COMPLETION: BigInt(RECORDS + 32 * q),
      })
    }
    let most = 0
    e.t.onPageRequest = m => {
      most = Math.max(most, e.fn.pri!.outstandingPages)
      e.page((m.lo - VA) >> 12)
      e.h.clock.later(() => e.respond(m, PRG_RESPONSE.SUCCESS), 1000)
    }
    e.h.clock.settle()
    expect([0, 1, 2].map(n => e.record(n).STATUS)).toEqual([1, 1, 1])
    expect(most).toBe(1)
  })

  it('do not wait when the queue has no PRS, or the allocation is zero', () => {
    const e = engine({ lazy: true })
    e.enable(0, MODE.SHARED, 0n)
    e.enqueue(0, { ...copy, BLOCK: true })
    e.h.clock.settle()
    expect(e.record().STATUS).toBe(STATUS.PAGE_FAULT)
    e.write(0, 'CONFIG', 0n)
    e.enable(0, MODE.SHARED)
    e.fn.config.write(e.fn.capabilityOffset(0x13, true)! + 12, 4, 0)
    e.enqueue(0, { ...copy, BLOCK: true })
    e.h.clock.settle()
    expect(e.record().STATUS).toBe(STATUS.PAGE_FAULT)
    expect(e.t.pageRequests).toEqual([])
  })
})

describe('sva-engine queues', () => {
  it('a shared portal answers retry when full, and takes more once it has worked', () => {
    const e = shared()
    const nop = { OPCODE: OPCODE.NOP }
    const answers = Array.from({ length: PORTAL_DEPTH + 2 }, () => e.enqueue(0, nop))
    expect(answers.filter(Boolean).length).toBe(PORTAL_DEPTH)
    expect(answers.slice(-2)).toEqual([false, false])
    expect(e.read(0, 'PENDING')).toBe(BigInt(PORTAL_DEPTH))
    e.h.clock.settle()
    expect(e.enqueue(0, nop)).toBe(true)
  })

  it('retry: disabled queues, dedicated queues, and functions whose memory space is off', () => {
    const e = engine()
    expect(e.enqueue(0, {})).toBe(false)
    e.enable(0, MODE.DEDICATED)
    expect(e.enqueue(0, {})).toBe(false)
    e.enable(1, MODE.SHARED)
    expect(e.enqueue(1, {})).toBe(true)
    const portal = e.portal(1)
    e.fn.config.write(4, 2, 4)
    expect(e.h.memory.writeDeferrable(portal, e.bytesOf({}))).toBe(false)
  })

  it('a posted write to a shared portal is lost and reported: it could name any PASID', () => {
    const e = shared()
    e.move(0, { OPCODE: OPCODE.NOP })
    e.h.clock.settle()
    expect(e.record().STATUS).toBe(0)
    expect(peek(e.h, e.fn, SVA_ENGINE.ERROR.offset) & 0xffn).toBe(BigInt(ERROR_CODE.PORTAL))
  })

  it('a dedicated portal runs under the PASID of the queue', () => {
    const e = engine()
    e.write(3, 'PASID', BigInt(SPACE))
    e.enable(3, MODE.DEDICATED, 0x10n)
    e.move(3, { OPCODE: OPCODE.FILL, PASID: 0, DST: at(0x1000), LENGTH: 4, OPERAND: 0xabn })
    e.h.clock.settle()
    expect(e.record().STATUS).toBe(STATUS.SUCCESS)
    expect(e.bytes(VA + 0x1000, 4)[0]).toBe(0xab)
  })

  function ring(log2 = 2) {
    const e = engine()
    e.write(2, 'PASID', BigInt(SPACE))
    e.write(2, 'BASE', at(0x4000))
    e.write(2, 'SIZE', BigInt(log2))
    e.enable(2, MODE.RING, 0x50n)
    const put = (slot: number, init: Parameters<typeof e.bytesOf>[0]) =>
      e.bytes(VA + 0x4000 + slot * 64, 64).set(e.bytesOf(init))
    return { ...e, put }
  }

  it('a ring is read at HEAD up to TAIL, round and round', () => {
    const e = ring()
    for (let i = 0; i < 10; i++) {
      e.put(i & 3, { OPCODE: OPCODE.FILL, DST: at(i * 16), LENGTH: 16, OPERAND: BigInt(i + 1) })
      e.write(2, 'TAIL', BigInt((i + 1) & 3))
      e.h.clock.settle()
    }
    expect(e.read(2, 'HEAD')).toBe(2n)
    expect(Array.from({ length: 10 }, (_, i) => e.bytes(VA + i * 16, 1)[0])).toEqual([
      1, 2, 3, 4, 5, 6, 7, 8, 9, 10,
    ])
  })

  it('a ring that cannot be read halts, and goes on when HALTED is cleared', () => {
    const e = ring()
    e.fn.config.write(e.fn.capabilityOffset(0x13, true)! + 4, 2, 0)
    e.put(0, { OPCODE: OPCODE.NOP })
    e.t.unmap(SPACE, VA + 0x4000)
    e.write(2, 'TAIL', 1n)
    e.h.clock.settle()
    expect(e.read(2, 'STATUS')).toBe(9n)
    expect(peek(e.h, e.fn, SVA_ENGINE.ERROR.offset) & 0xffffn).toBe(BigInt(0x200 | ERROR_CODE.RING))
    e.page(4)
    e.write(2, 'STATUS', 8n)
    e.h.clock.settle()
    expect(e.record().STATUS).toBe(STATUS.SUCCESS)
  })

  it.each([
    ['no mode', 0, 0x4000, 2],
    ['a misaligned ring', MODE.RING, 0x4020, 2],
    ['a ring of one', MODE.RING, 0x4000, 0],
    ['a ring of 2^13', MODE.RING, 0x4000, 13],
  ])('refuses to enable with %s', (_name, mode, base, log2) => {
    const e = engine()
    e.write(0, 'BASE', at(base))
    e.write(0, 'SIZE', BigInt(log2))
    e.enable(0, mode)
    expect(e.read(0, 'CONFIG') >> 31n).toBe(0n)
    expect(e.read(0, 'STATUS')).toBe(0n)
    expect(peek(e.h, e.fn, SVA_ENGINE.ERROR.offset) & 0xffn).toBe(BigInt(ERROR_CODE.CONFIG))
  })

  it('abort ends the descriptor in work and those waiting, each with a record', () => {
    const e = shared({ lazy: true })
    for (let n = 0; n < 3; n++)
      e.enqueue(0, {
        OPCODE: OPCODE.FILL,
        DST: at(0),
        LENGTH: 8,
        BLOCK: true,
        COMPLETION: BigInt(RECORDS + 32 * n),
      })
    e.h.clock.settle()
    expect(e.read(0, 'STATUS') & 0x30n).toBe(0x30n)
    e.write(0, 'COMMAND', 2n)
    expect([0, 1, 2].map(n => e.record(n).STATUS)).toEqual([8, 8, 8])
    expect(e.read(0, 'STATUS')).toBe(5n)
    e.respond(e.t.pageRequests[0]!, PRG_RESPONSE.SUCCESS)
    e.h.clock.settle()
    expect(e.bytes(VA, 8)).toEqual(new Uint8Array(8))
    expect(e.run({ OPCODE: OPCODE.NOP })).toBe(true)
    expect(e.record().STATUS).toBe(STATUS.SUCCESS)
  })

  it('drain ends when what was submitted before it is finished', () => {
    const e = shared()
    e.enqueue(0, { OPCODE: OPCODE.NOP })
    e.enqueue(0, { OPCODE: OPCODE.NOP })
    e.write(0, 'COMMAND', 1n)
    expect(e.read(0, 'STATUS') & 2n).toBe(0n)
    e.h.clock.step()
    expect(e.read(0, 'STATUS') & 2n).toBe(0n)
    e.h.clock.step()
    expect(e.read(0, 'STATUS') & 2n).toBe(2n)
    expect(e.interrupts).toEqual([1])
    e.write(0, 'STATUS', 2n)
    e.write(0, 'COMMAND', 1n)
    expect(e.read(0, 'STATUS') & 2n).toBe(2n)
  })

  it('a function-level reset takes everything back, and nothing completes afterwards', () => {
    const e = shared({ lazy: true })
    e.enqueue(0, { OPCODE: OPCODE.FILL, DST: at(0), LENGTH: 8, BLOCK: true })
    e.enqueue(0, { OPCODE: OPCODE.NOP })
    e.h.clock.settle()
    e.fn.config.write(e.fn.capabilityOffset(0x10, false)! + 8, 2, 0x8000)
    e.page(0)
    e.respond(e.t.pageRequests[0]!, PRG_RESPONSE.SUCCESS)
    e.h.clock.settle()
    expect(e.record().STATUS).toBe(0)
    expect(e.bytes(VA, 8)).toEqual(new Uint8Array(8))
    e.h.scan()
    expect(e.read(0, 'CONFIG')).toBe(0n)
  })

  it('a saved engine goes on in another machine', () => {
    const one = shared({ lazy: true })
    one.enqueue(0, { OPCODE: OPCODE.FILL, DST: at(0), LENGTH: 0x2000, OPERAND: 0x55n, BLOCK: true })
    one.enqueue(0, { OPCODE: OPCODE.NOP, COMPLETION: BigInt(RECORDS + 32) })
    one.page(0)
    one.h.clock.settle()
    const two = engine()
    two.fn.restore(one.fn.save())
    expect(two.read(0, 'PENDING')).toBe(1n)
    two.h.clock.settle()
    expect([two.record().STATUS, two.record().BYTES, two.record(1).STATUS]).toEqual([1, 0x2000, 1])
    expect(two.bytes(VA + 0x1ff8, 1)[0]).toBe(0x55)
    expect(two.bytes(VA, 1)[0]).toBe(0)
  })
})

describe('sva-engine, seed 0xc0ffee', () => {
  let state = 0xc0ffee
  const random = () => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return state >>> 0
  }

  it('survives 2000 random descriptors: each is accepted and ends', () => {
    const e = shared()
    for (let i = 0; i < 2000; i++) {
      const d = DESCRIPTOR.at(e.bytesOf({}))
      d.OPCODE = random() % 9
      d.SRC =
        random() % 4
          ? at((random() % 0x10000) & (random() % 2 ? -64 : -1))
          : BigInt(random()) << 32n
      d.DST = random() % 4 ? at(random() % 0x10000) : BigInt(random()) << 32n
      d.LENGTH = random() % 3 ? random() % 0x3000 : random()
      d.BLOCK = false
      if (random() % 3 === 0) crumble(d.bytes)
      expect(e.h.memory.writeDeferrable(e.portal(0), d.bytes)).toBe(true)
      e.h.clock.settle(1e5)
      expect(e.read(0, 'STATUS') & 0x30n).toBe(0n)
    }
    function crumble(bytes: Uint8Array) {
      for (let n = 0; n < 4; n++) bytes[random() % 64] = random()
      bytes[4]! &= ~4
    }
  })

  it('survives 5000 random register accesses of any width', () => {
    const e = engine()
    const sizes = [1, 2, 4, 8] as const
    for (let i = 0; i < 5000; i++) {
      const size = sizes[random() % 4]!
      const offset = (random() % 0x400) & -size
      if (random() % 2) poke(e.h, e.fn, offset, (BigInt(random()) << 32n) | BigInt(random()), size)
      else peek(e.h, e.fn, offset, size)
      if (i % 16 === 0) e.h.clock.settle(1e5)
    }
    e.h.clock.settle(1e5)
    expect(peek(e.h, e.fn, 0)).toBe(0x1e0801n)
  })
})
