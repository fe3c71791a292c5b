// Shared virtual addressing through the ioctls alone: a guest's table in mapped memory, bound to a PASID, used by
// a device that asks for missing pages. The process below plays VMM and guest.
import { afterEach, describe, expect, it } from 'vitest'
import { iova, pasid } from '../../src/base/addr.js'
import { bank, bits, r32, r64, u64 } from '../../src/base/fields.js'
import { ats, defineDevice, msix, pasidCapability, pri } from '../../src/pci/device-model.js'
import {
  IOMMU_FAULT_PAGE_REQ,
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_PASID_VALID,
  IOMMU_PAGE_RESP_SUCCESS,
  iommu_fault,
  iommu_page_response,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_REGION_INFO_CAP_DMA_FAULT,
  VFIO_REGION_INFO_CAP_DMA_FAULT_RESPONSE,
  VFIO_REGION_INFO_CAP_TYPE,
  vfio_info_cap_header,
  vfio_irq_set,
  vfio_region_dma_fault,
  vfio_region_dma_fault_response,
  vfio_region_info,
  vfio_region_info_cap_type,
} from '../../src/uapi.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const GVA = 0x40_0000
const PENDING = 0
const DONE = 1
const FAILED = 2

/** Reads 8 bytes at ADDR under PASID, asking for the page when it is missing. */
const reader = defineDevice({
  name: 'reader',
  identity: { vendorId: 1, deviceId: 3, classCode: 0x088000 },
  capabilities: [
    msix({ vectors: 1, bar: 2 }),
    ats(),
    pri({ capacity: 8 }),
    pasidCapability({ width: 20 }),
  ],
  bar0: bank('reader', {
    ADDR: r64(0x00, '1', { VALUE: u64(63, 0, 'rw', 'where') }),
    DATA: r64(0x08, '2', { VALUE: u64(63, 0, 'ro', 'what was there') }),
    PASID: r32(0x10, '3', { ID: bits(19, 0, 'rw', 'under') }),
    STATE: r32(0x14, '4', { STATE: bits(1, 0, 'ro', '0 pending, 1 done, 2 failed') }),
    GO: r32(0x18, '5', { GO: bits(0, 0, 'wo', 'begin') }),
  }),
  create(port, regs) {
    const run = () => {
      const tag = { pasid: pasid(regs.PASID.ID) }
      const data = new Uint8Array(8)
      const at = iova(regs.ADDR.VALUE)
      const result = port.dma.read(at, data, tag)
      regs.DATA.VALUE = new DataView(data.buffer).getBigUint64(0, true)
      regs.STATE.STATE = result.ok ? DONE : FAILED
      if (result.ok || !result.recoverable) return
      const asked = port.dma.pageRequest(at, {}, tag, code => {
        if (code === 0) port.later(run)
        else regs.STATE.STATE = FAILED
      })
      if (asked.ok) regs.STATE.STATE = PENDING
    }
    return { onWrite: { GO: () => port.later(run) } }
  },
})

function setup() {
  const b = bench({ devices: [[reader], [reader]] })
  const p = b.program()
  const c = p.nesting()
  const { sys } = p
  const guest = sys.mmap(0x10000)
  c.map(0n, guest.vaddr, 0x10000n)
  const words = new DataView(guest.bytes.buffer, guest.bytes.byteOffset, 0x10000)
  const put = (at: number, value: number) => words.setBigUint64(at, BigInt(value), true)
  // Four levels at 0x1000 to 0x4000; the page itself at 0x5000, not present yet.
  put(0x1000, 0x2007)
  put(0x2000, 0x3007)
  put(0x3000 + 2 * 8, 0x4007)
  const present = () => put(0x4000, 0x5007)
  put(0x5008, 0x1234_5678)

  const fd = c.device()
  sys.pwrite(fd, Uint8Array.of(6, 0), (7n << 40n) + 4n)
  const window = sys.mmap({ fd, offset: 0, length: 0x1000 })
  const id = c.alloc()
  const bar = reader.bar0
  const go = (under = id) => {
    window.store(bar.ADDR.offset, 8, BigInt(GVA + 8))
    window.store(bar.PASID.offset, 4, BigInt(under))
    window.store(bar.GO.offset, 4, 1n)
    b.settle()
    return Number(window.load(bar.STATE.offset, 4))
  }
  const data = () => window.load(bar.DATA.offset, 8)
  const state = () => Number(window.load(bar.STATE.offset, 4))
  const bind = () => c.bind({ hpasid: BigInt(id), gpgd: 0x1000n })
  return { b, p, c, sys, fd, window, id, go, data, state, bind, present }
}

/** The two rings and the fault interrupt, as a VMM sets them up. */
function channel({ sys, fd, b }: ReturnType<typeof setup>) {
  const offset = (index: number) => BigInt(index) << 40n
  const eventfd = sys.eventfd()
  const fds = new Uint8Array(Int32Array.of(eventfd).buffer)
  const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
  sys.ioctl(fd, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index: 5, count: 1, data: fds }))
  const ring = () => {
    const r = vfio_region_dma_fault()
    sys.pread(fd, r.bytes, offset(9))
    return r
  }
  const answers = () => {
    const r = vfio_region_dma_fault_response()
    sys.pread(fd, r.bytes, offset(10))
    return r
  }
  const u32 = (v: number) => new Uint8Array(Uint32Array.of(v).buffer)
  return {
    offset,
    ring,
    answers,
    u32,
    signals: () => Number(sys.eventfdOf(eventfd).take()),
    take() {
      const r = ring()
      const f = iommu_fault()
      sys.pread(fd, f.bytes, offset(9) + BigInt(r.offset + r.tail * r.entry_size))
      sys.pwrite(fd, u32((r.tail + 1) % r.nb_entries), offset(9))
      return f
    },
    respond(init: Parameters<typeof iommu_page_response>[0]) {
      const r = answers()
      const response = iommu_page_response({
        version: 1,
        flags: IOMMU_PAGE_RESP_PASID_VALID,
        ...init,
      })
      sys.pwrite(fd, response.bytes, offset(10) + BigInt(r.offset + r.head * r.entry_size))
      sys.pwrite(fd, u32((r.head + 1) % r.nb_entries), offset(10))
      b.settle()
    },
  }
}

describe('DMA under a bound PASID', () => {
  it('reads through the guest table and the container, and faults before bind and after unbind', () => {
    const s = setup()
    s.present()
    expect(s.go()).toBe(FAILED)
    s.bind()
    expect([s.go(), s.data()]).toEqual([DONE, 0x1234_5678n])
    s.c.unbind({ hpasid: BigInt(s.id) })
    expect(s.go()).toBe(FAILED)
  })
  it('E53 faults after the PASID was freed', () => {
    const s = setup()
    s.present()
    s.bind()
    expect(s.go()).toBe(DONE)
    s.c.free(s.id)
    expect(s.go()).toBe(FAILED)
  })
  it('E82 a root that the container does not map is found out at the first request, not at bind', () => {
    const s = setup()
    s.c.bind({ hpasid: BigInt(s.id), gpgd: 0x7777_7000n })
    expect(s.go()).toBe(PENDING)
    expect(channel(s).take().event.prm.addr).toBe(BigInt(GVA))
  })
  it('stops when the page under it is unmapped', () => {
    const s = setup()
    s.present()
    s.bind()
    expect(s.go()).toBe(DONE)
    s.c.unmap(0n, 0x10000n)
    expect(s.go()).toBe(PENDING)
  })
})

describe('fault regions', () => {
  it('tell their type and version', () => {
    const { sys, fd } = setup()
    const capability = [VFIO_REGION_INFO_CAP_DMA_FAULT, VFIO_REGION_INFO_CAP_DMA_FAULT_RESPONSE]
    for (const subtype of [1, 2]) {
      const info = vfio_region_info({ index: 8 + subtype }, 64)
      sys.ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, info)
      const type = vfio_region_info_cap_type.at(info.bytes, info.cap_offset)
      expect([type.header.id, type.type, type.subtype]).toEqual([
        VFIO_REGION_INFO_CAP_TYPE,
        4,
        subtype,
      ])
      expect(vfio_info_cap_header.at(info.bytes, type.header.next)).toMatchObject({
        id: capability[subtype - 1],
        version: 1,
        next: 0,
      })
      expect(info.flags & 3).toBe(3)
    }
  })
  it('deliver a page request, whose answer lets the device go on', () => {
    const s = setup()
    const ch = channel(s)
    expect(ch.ring()).toMatchObject({ tail: 0, head: 0, entry_size: 64, nb_entries: 512 })
    expect(ch.answers()).toMatchObject({ tail: 0, head: 0, entry_size: 24, nb_entries: 512 })
    s.bind()
    expect([s.go(), ch.signals(), ch.ring().head]).toEqual([PENDING, 1, 1])
    const fault = ch.take()
    expect(fault.type).toBe(IOMMU_FAULT_PAGE_REQ)
    expect(fault.event.prm).toMatchObject({ pasid: s.id, perm: 1, addr: BigInt(GVA) })
    s.present()
    ch.respond({ pasid: s.id, grpid: fault.event.prm.grpid, code: IOMMU_PAGE_RESP_SUCCESS })
    expect([s.state(), s.data()]).toEqual([DONE, 0x1234_5678n])
    expect(ch.answers()).toMatchObject({ tail: 1, head: 1 })
    expect(s.b.held().requests).toBe(0)
  })
  it('let the device fail when the answer is INVALID', () => {
    const s = setup()
    const ch = channel(s)
    s.bind()
    s.go()
    const { grpid } = ch.take().event.prm
    const refusals: string[] = []
    s.b.trace.listen('vfio.page-response', e => refusals.push(e.errno ?? 'done'))
    ch.respond({ pasid: s.id, grpid: grpid + 1, code: IOMMU_PAGE_RESP_SUCCESS })
    ch.respond({ pasid: s.id + 1, grpid, code: IOMMU_PAGE_RESP_SUCCESS })
    ch.respond({ pasid: s.id, grpid, code: 3 })
    expect(s.state()).toBe(PENDING)
    ch.respond({ pasid: s.id, grpid, code: IOMMU_PAGE_RESP_INVALID })
    expect(s.state()).toBe(FAILED)
    ch.respond({ pasid: s.id, grpid, code: IOMMU_PAGE_RESP_INVALID })
    expect(refusals).toEqual(['EINVAL', 'EINVAL', 'EINVAL', 'done', 'EINVAL'])
  })
  it('report what was refused for good', () => {
    const s = setup()
    const ch = channel(s)
    s.go()
    expect(ch.signals()).toBeGreaterThan(0)
    expect(ch.take().type).toBe(1)
  })
  it('go round, and a full ring answers INVALID at once', () => {
    const s = setup()
    const ch = channel(s)
    s.bind()
    for (let i = 0; i < 511; i++) s.b.core.fault(s.b.functions[0]!.fn.bdf, iommu_fault({ type: 1 }))
    expect(ch.ring().head).toBe(511)
    expect(s.go()).toBe(FAILED)
    expect(ch.ring().head).toBe(511)
    ch.take()
    expect(s.go()).toBe(PENDING)
    expect(ch.ring().head).toBe(0)
  })
  it('take an index below the number of entries, as 4 bytes at 0, and nothing else', () => {
    const s = setup()
    const { u32, offset } = channel(s)
    const write = (bytes: Uint8Array, at: bigint) => s.sys.pwrite(s.fd, bytes, at)
    for (const region of [9, 10]) {
      refused('EINVAL', () => write(u32(512), offset(region)))
      refused('EINVAL', () => write(u32(0).subarray(0, 2), offset(region)))
      refused('EINVAL', () => write(u32(0), offset(region) + 4n))
      refused('EINVAL', () => write(u32(0), offset(region) + 0x10_0000n))
      refused('EINVAL', () => s.sys.pread(s.fd, 4, offset(region) + 0x10_0000n))
      write(u32(0), offset(region))
    }
    refused('EINVAL', () => write(u32(0), offset(9) + 0x1000n))
  })
  it('answer INVALID to what waits when the device is closed', () => {
    const s = setup()
    channel(s)
    s.bind()
    expect(s.go()).toBe(PENDING)
    expect(s.b.held().requests).toBe(1)
    s.sys.munmap(s.window.vaddr, 0x1000)
    s.sys.close(s.fd)
    s.b.settle()
    expect(s.b.held().requests).toBe(0)
  })
})

describe('the end of a process', () => {
  it.each([
    ['container', 'group', 'device'],
    ['device', 'group', 'container'],
    ['group', 'container', 'device'],
    ['device', 'container', 'group'],
  ] as const)('E162 leaves nothing when %s, %s, %s are closed in that order', (...order) => {
    const s = setup()
    s.present()
    s.bind()
    s.go()
    const fds = { container: s.c.fd, group: s.c.groups[0]!, device: s.fd }
    for (const name of order) s.sys.close(fds[name])
    s.b.settle()
    // The mapping of the BAR keeps the device open, as a mapping keeps its file.
    expect(s.b.held()).toMatchObject({ devices: 1 })
    s.sys.exit()
    s.b.settle()
    expect(s.b.held()).toMatchObject({
      devices: 0,
      bindings: 0,
      mappings: 0,
      pins: 0,
      pasidContexts: 0,
    })
  })
  it('E60, E162 unbinds, detaches, frees and releases in that order', () => {
    const s = setup()
    s.bind()
    const seen: string[] = []
    s.b.trace.listen('vfio.bind', e => seen.push(e.what))
    s.b.trace.listen('vtd.driver', e => seen.push(e.what))
    s.b.trace.listen('ioasid', e => seen.push(e.what))
    s.sys.exit()
    const order = ['unbind', 'detach', 'free', 'reclaim'].map(what => seen.lastIndexOf(what))
    expect(order.every(i => i >= 0)).toBe(true)
    expect([...order].sort((x, y) => x - y)).toEqual(order)
  })
})

describe('the trace', () => {
  it('names calls, arguments, results and errors', () => {
    const s = setup()
    const seen: unknown[] = []
    s.b.trace.listen('vfio.ioctl', e => seen.push([e.fd, e.name, e.result ?? e.errno, e.args]))
    refused('ENOENT', () => s.c.bind({ hpasid: 77n }))
    s.c.alloc(5, 9)
    expect(seen).toEqual([
      ['container', 'VFIO_IOMMU_NESTING_OP', 'ENOENT', { argsz: 80, flags: 0, data: [] }],
      [
        'container',
        'VFIO_IOMMU_PASID_REQUEST',
        5,
        { argsz: 16, flags: 1, range: { min: 5, max: 9 } },
      ],
    ])
  })
})
