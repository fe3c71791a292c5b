// iommufd over an SMMUv3: what the unit is, domains, and a guest's SMMUv3 over one: its STEs, its StreamIDs, its commands.
// uapi linux/iommufd.h; fields by IHI 0070 4.4, 5.2.
import { afterEach, describe, expect, it } from 'vitest'
import { CD } from '../../../src/iommu/smmu/cd.js'
import { FAULT_RECORD } from '../../../src/iommu/smmu/events.js'
import { STE } from '../../../src/iommu/smmu/ste.js'
import { dmaCopy } from '../../../src/pci/devices/dma-copy.js'
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_HWPT_INVALIDATE,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VEVENTQ_FLAG_LOST_EVENTS,
  IOMMU_VIOMMU_ALLOC,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  iommu_hw_info,
  iommu_hw_info_arm_smmuv3,
  iommu_hw_queue_alloc,
  iommu_hwpt_arm_smmuv3,
  iommu_hwpt_invalidate,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
  iommu_vdevice_alloc,
  iommu_veventq_alloc,
  iommu_viommu_alloc,
  iommufd_vevent_header,
} from '../../../src/uapi.js'
import { refused } from '../../support/vfio-bench.js'
import { asker, READ, REFUSED, WAITING } from './asker.js'
import { checkIommufd, iommufdBench, PAGE, user, userBytes } from './bench.js'

afterEach(checkIommufd)

const STREAM = 0x77
const PASID = 5
const ASID = 9
const GVA = 0x40_0000n
const CONTEXTS = 0x1_0000
const S1 = 5
const BYPASS = 4
const ABORT = 0

const machine = (options: Parameters<typeof iommufdBench>[0] = {}) =>
  iommufdBench({ iommu: 'smmuv3', ...options } as Parameters<typeof iommufdBench>[0])

/** Commands of the guest's queue, IHI 0070 chapter 4; the VMID in them is nobody's. */
const command = {
  va: (va: bigint, asid = ASID) => [0x12n | (0x1234n << 32n) | (BigInt(asid) << 48n), va],
  asid: (asid = ASID) => [0x11n | (0x1234n << 32n) | (BigInt(asid) << 48n), 0n],
  all: () => [0x30n, 0n],
  cd: (ssid: number, stream = STREAM) => [
    0x05n | (BigInt(ssid) << 12n) | (BigInt(stream) << 32n),
    0n,
  ],
  cds: (stream = STREAM) => [0x06n | (BigInt(stream) << 32n), 0n],
  atc: (va: bigint, ssid: number, stream = STREAM) => [
    0x40n | 0x800n | (BigInt(ssid) << 12n) | (BigInt(stream) << 32n),
    va,
  ],
}

/** A program with 256 KiB of guest memory at 0: CDs at 0x1_0000, tables of PASID 5 at 0x2_0000. */
function setup(options: Parameters<typeof iommufdBench>[0] = {}) {
  const b = machine(options)
  const u = user(b)
  const d = u.device()
  const ioas = u.ioas()
  const memory = u.sys.mmap(0x4_0000)
  u.map(ioas, memory.vaddr, 0x4_0000n, 0n)
  const words = new DataView(memory.bytes.buffer, memory.bytes.byteOffset, 0x4_0000)
  const put = (at: number, value: bigint) => words.setBigUint64(at, value, true)
  const context = (table: number) =>
    CD.create({
      V: true,
      AA64: true,
      T0SZ: 16,
      EPD1: true,
      IPS: 5,
      TTB0: table,
      ASID,
      ASET: true,
      R: true,
      A: true,
    })
  const setContext = (table: number) =>
    memory.bytes.set(context(table).bytes, CONTEXTS + PASID * 64)
  setContext(0x2_0000)
  put(0x2_0000, 0x2_1003n)
  put(0x2_1000, 0x2_2003n)
  put(0x2_2000 + 2 * 8, 0x2_3003n)
  /** Maps page `n` of the guest's addresses. */
  const page = (n: number, gpa: number) =>
    put(0x2_3000 + n * 8, gpa === 0 ? 0n : BigInt(gpa) | 0xc43n)
  for (let n = 0; n < 4; n++) page(n, 0x5000 + n * 0x1000)
  put(0x5000, 11n)
  put(0xa000, 22n)

  const parent = u.hwpt(d.id, ioas, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT })
  const viommu = (init: Parameters<typeof iommu_viommu_alloc>[0] = {}) => {
    const arg = iommu_viommu_alloc({ type: 1, dev_id: d.id, hwpt_id: parent, ...init })
    u.call(IOMMU_VIOMMU_ALLOC, arg)
    return arg.out_viommu_id
  }
  const vdevice = (viommu_id: number, init: Parameters<typeof iommu_vdevice_alloc>[0] = {}) => {
    const arg = iommu_vdevice_alloc({ viommu_id, dev_id: d.id, virt_id: BigInt(STREAM), ...init })
    u.call(IOMMU_VDEVICE_ALLOC, arg)
    return arg.out_vdevice_id
  }
  const vste = (fields: Parameters<typeof STE.create>[0] = {}) => {
    const ste = STE.create({
      V: true,
      Config: S1,
      S1ContextPtr: CONTEXTS,
      S1CDMax: 6,
      S1DSS: 1,
      EATS: 1,
      ...fields,
    })
    const view = new DataView(ste.bytes.buffer, ste.bytes.byteOffset)
    return [view.getBigUint64(0, true), view.getBigUint64(8, true)] as const
  }
  /** A guest's STE as a table. */
  const nested = (over: number, ste = vste(), init: Parameters<typeof u.hwpt>[2] = {}) => {
    const { bytes } = iommu_hwpt_arm_smmuv3({ ste: [...ste] })
    return u.hwpt(d.id, over, {
      data_type: IOMMU_HWPT_DATA_ARM_SMMUV3,
      data_len: bytes.length,
      data_uptr: userBytes(u.sys, bytes),
      ...init,
    })
  }
  const submit = (
    hwpt_id: number,
    commands: readonly (readonly bigint[])[],
    init: Parameters<typeof iommu_hwpt_invalidate>[0] = {},
  ) => {
    const bytes = new Uint8Array(new BigUint64Array(commands.flat()).buffer)
    const arg = iommu_hwpt_invalidate({
      hwpt_id,
      data_type: IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
      data_uptr: userBytes(u.sys, bytes),
      entry_len: 16,
      entry_num: commands.length,
      ...init,
    })
    let failed: unknown
    try {
      u.call(IOMMU_HWPT_INVALIDATE, arg)
    } catch (error) {
      failed = error
    }
    return { handled: arg.entry_num, failed }
  }
  /** What the device finds at page 0 under the PASID, by copying it to page 2. */
  const seen = () => {
    put(0x7000, 0n)
    expect(d.dma(GVA, GVA + 2n * PAGE, 8, PASID)).toBe(true)
    return Number(words.getBigUint64(0x7000, true))
  }
  return {
    b,
    u,
    d,
    ioas,
    parent,
    memory,
    put,
    words,
    page,
    setContext,
    viommu,
    vdevice,
    vste,
    nested,
    submit,
    seen,
  }
}

/** The same with the guest's SMMUv3 in place and the device on its STE. */
function guest(options: Parameters<typeof iommufdBench>[0] = {}) {
  const s = setup(options)
  const v = s.viommu()
  const name = s.vdevice(v)
  const hwpt = s.nested(v)
  s.d.attach(hwpt)
  return { ...s, v, name, hwpt }
}

describe('the unit', () => {
  it('shows its identification registers as they are', () => {
    const b = machine()
    const u = user(b)
    const d = u.device()
    const room = u.sys.mmap(4096)
    const arg = iommu_hw_info({ dev_id: d.id, data_len: 64, data_uptr: room.vaddr })
    u.call(IOMMU_GET_HW_INFO, arg)
    const info = iommu_hw_info_arm_smmuv3.at(room.bytes)
    const registers = [...Array(6).keys()].map(i => Number(b.unit.read(i * 4, 4)))
    expect([...(info.idr as unknown as Iterable<number>)]).toEqual(registers)
    expect([info.iidr, info.aidr]).toEqual([b.unit.read(0x18, 4), b.unit.read(0x1c, 4)].map(Number))
    expect([arg.data_len, arg.data_type.out_data_type, arg.out_max_pasid_log2]).toEqual([40, 2, 20])
    refused('EOPNOTSUPP', () =>
      u.call(
        IOMMU_GET_HW_INFO,
        iommu_hw_info({ dev_id: d.id, flags: 1, data_type: { in_data_type: 1 } }),
      ),
    )
  })

  it('translates by an address space, until a page goes', () => {
    const { u, d, ioas, put, words } = setup()
    d.attach(ioas)
    put(0x6000, 33n)
    expect(d.dma(0x6000n, 0x8000n)).toBe(true)
    expect(words.getBigUint64(0x8000, true)).toBe(33n)
    u.unmap(ioas, 0n, 0x4_0000n)
    expect(d.dma(0x6000n, 0x8000n)).toBe(false)
    d.detach()
  })

  it('moves a device from one address space to another', () => {
    const { u, d, ioas, words, put } = setup()
    const other = u.ioas()
    u.copy(ioas, 0x5000n, PAGE, other, 0x10_0000n)
    put(0x5008, 44n)
    d.attach(ioas)
    expect(d.dma(0x5008n, 0x5010n)).toBe(true)
    d.attach(other)
    expect(d.dma(0x5008n, 0x5010n)).toBe(false)
    expect(d.dma(0x10_0008n, 0x10_0018n)).toBe(true)
    expect(words.getBigUint64(0x5018, true)).toBe(44n)
    d.detach()
  })

  it.each([
    ['EOPNOTSUPP', 'dirty tracking', { flags: IOMMU_HWPT_ALLOC_DIRTY_TRACKING }],
    ['EOPNOTSUPP', 'PASIDs on its own tables', { flags: IOMMU_HWPT_ALLOC_PASID }],
  ] as const)('%s: %s', (code, _, init) => {
    const { u, d, ioas } = setup()
    refused(code, () => u.hwpt(d.id, ioas, init))
  })

  it('EOPNOTSUPP: a first-stage table of VT-d over a parent', () => {
    const { u, d, parent } = setup()
    refused('EOPNOTSUPP', () => u.nested(d.id, parent, {}))
  })

  it('EOPNOTSUPP: a parent, where the unit has one stage', () => {
    const b = machine({ smmu: { stage2: false } } as Parameters<typeof machine>[0])
    const u = user(b)
    const d = u.device()
    refused('EOPNOTSUPP', () => u.hwpt(d.id, u.ioas(), { flags: IOMMU_HWPT_ALLOC_NEST_PARENT }))
  })
})

describe('a guest’s STE', () => {
  it('leads through the guest’s CDs and tables, and the domain below', () => {
    const { seen } = guest()
    expect(seen()).toBe(11)
  })

  it('S1DSS says what becomes of requests without a PASID', () => {
    const s = guest()
    s.put(0x6000, 55n)
    expect(s.d.dma(0x6000n, 0x8000n)).toBe(true)
    const other = s.nested(s.v, s.vste({ S1DSS: 0 }))
    s.d.attach(other)
    expect(s.d.dma(0x6000n, 0x8000n)).toBe(false)
    expect(s.seen()).toBe(11)
  })

  it.each([
    ['bypass: the domain alone', { Config: BYPASS }, true],
    ['abort', { Config: ABORT }, false],
    ['not valid', { V: false }, false],
  ] as const)('%s', (_, fields, passes) => {
    const s = guest()
    const other = s.nested(s.v, s.vste(fields))
    s.d.attach(other)
    expect(s.d.dma(0x6000n, 0x8000n)).toBe(passes)
    expect(s.d.dma(GVA, GVA + 2n * PAGE, 8, PASID)).toBe(false)
  })

  it('gives way to an address space, and comes back', () => {
    const s = guest()
    expect(s.seen()).toBe(11)
    s.d.attach(s.ioas)
    expect(s.d.dma(GVA, GVA + 2n * PAGE, 8, PASID)).toBe(false)
    s.page(0, 0xa000)
    s.d.attach(s.hwpt)
    expect(s.seen(), 'nothing of before is cached').toBe(22)
  })

  it('a page that the host takes away is gone behind it', () => {
    const s = guest()
    expect(s.seen()).toBe(11)
    s.u.unmap(s.ioas, 0n, 0x4_0000n)
    expect(s.d.dma(GVA, GVA + 2n * PAGE, 8, PASID)).toBe(false)
  })

  it('EATS 0: the function asks for no translations', () => {
    const s = guest()
    const ats = () => s.b.functions[0]!.fn.ats?.enabled
    expect(ats()).toBe(true)
    s.d.attach(s.nested(s.v, s.vste({ EATS: 0 })))
    expect(ats()).toBe(false)
    expect(s.seen()).toBe(11)
    s.d.attach(s.hwpt)
    expect(ats()).toBe(true)
  })

  it.each([
    ['EIO', 'a field of the host’s', { Config: S1, S2VMID: 0, MTCFG: true }, {}],
    ['EIO', 'stage 2', { Config: 6 }, {}],
    ['EIO', 'split-stage ATS', { EATS: 2 }, {}],
    ['EINVAL', 'data of VT-d', {}, { data_type: IOMMU_HWPT_DATA_VTD_S1 }],
    ['EINVAL', 'data of another length', {}, { data_len: 8 }],
    ['EFAULT', 'data that is not there', {}, { data_uptr: 0x10n }],
    ['EOPNOTSUPP', 'PASIDs of the host’s', {}, { flags: IOMMU_HWPT_ALLOC_PASID }],
    ['EOPNOTSUPP', 'a parent of others', {}, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT }],
  ] as const)('%s: %s', (code, _, fields, init) => {
    const s = setup()
    const v = s.viommu()
    refused(code, () => s.nested(v, s.vste(fields), init))
  })

  it('ENOENT: attached before the guest has a StreamID; bypass and abort need none', () => {
    const s = setup()
    const v = s.viommu()
    refused('ENOENT', () => s.d.attach(s.nested(v)))
    expect(s.d.attach(s.nested(v, s.vste({ Config: BYPASS })))).toBeGreaterThan(0)
    s.d.detach()
  })

  it('EINVAL: under a PASID', () => {
    const s = setup()
    const v = s.viommu()
    s.vdevice(v)
    const hwpt = s.nested(v)
    refused('EINVAL', () => s.d.attach(hwpt, 3))
  })
})

describe('a guest’s commands', () => {
  it.each([
    ['TLBI_NH_VA', [command.va(GVA)]],
    ['TLBI_NH_VAA', [[0x13n, GVA]]],
    ['TLBI_NH_ASID', [command.asid()]],
    ['TLBI_NH_ALL', [[0x10n, 0n]]],
    ['TLBI_NSNH_ALL', [command.all()]],
    [
      'a range of 16 pages',
      [[0x12n | (15n << 12n) | (BigInt(ASID) << 48n), (GVA - PAGE) | (1n << 10n)]],
    ],
  ] as const)('%s, then ATC_INV: a changed entry is seen', (_, tlbi) => {
    const s = guest()
    expect(s.seen()).toBe(11)
    s.page(0, 0xa000)
    expect(s.seen(), 'cached').toBe(11)
    expect(s.submit(s.v, [...tlbi, command.atc(GVA, PASID)])).toEqual({
      handled: 2,
      failed: undefined,
    })
    expect(s.seen()).toBe(22)
  })

  it.each([
    ['another ASID', [command.asid(ASID + 1)]],
    ['another page', [command.va(GVA + 16n * PAGE)]],
    ['the unit’s cache, not the device’s', [command.va(GVA)]],
  ] as const)('%s: a changed entry is not seen', (_, commands) => {
    const s = guest()
    expect(s.seen()).toBe(11)
    s.page(0, 0xa000)
    expect(s.submit(s.v, commands).failed).toBeUndefined()
    expect(s.seen()).toBe(11)
  })

  it.each([
    ['CFGI_CD', command.cd(PASID)],
    ['CFGI_CD_ALL', command.cds()],
  ] as const)('%s: a changed CD is read again', (_, cfgi) => {
    const s = guest()
    expect(s.seen()).toBe(11)
    // Another table of the same shape, whose page 0 is elsewhere.
    s.memory.bytes.copyWithin(0x3_0000, 0x2_0000, 0x2_4000)
    for (const [at, to] of [
      [0x3_0000, 0x3_1003],
      [0x3_1000, 0x3_2003],
      [0x3_2010, 0x3_3003],
    ] as const)
      s.put(at, BigInt(to))
    s.put(0x3_3000, 0xac43n)
    s.setContext(0x3_0000)
    s.submit(s.v, [command.asid(), command.atc(GVA, PASID)])
    expect(s.seen(), 'the CD is cached').toBe(11)
    s.submit(s.v, [cfgi, command.asid(), command.atc(GVA, PASID)])
    expect(s.seen()).toBe(22)
  })

  it.each([
    ['a StreamID that the guest has not', command.cd(PASID, STREAM + 1)],
    ['an ATC_INV of such a one', command.atc(GVA, PASID, STREAM + 1)],
    ['CFGI_STE', [0x03n | (BigInt(STREAM) << 32n), 0n]],
    ['TLBI_S12_VMALL', [0x28n, 0n]],
    ['CMD_SYNC', [0x46n, 0n]],
    ['a command that is none', [0xffn, 0n]],
    ['a range of nothing', [0x12n, GVA | (1n << 10n)]],
    ['an ATC_INV of 2^53 pages', [0x40n | (BigInt(STREAM) << 32n), 53n]],
  ] as const)('EIO: %s; what stands before it was done', (_, bad) => {
    const s = guest()
    expect(s.seen()).toBe(11)
    s.page(0, 0xa000)
    const { handled, failed } = s.submit(s.v, [
      command.va(GVA),
      command.atc(GVA, PASID),
      bad,
      command.all(),
    ])
    expect(handled).toBe(2)
    expect((failed as { code: string }).code).toBe('EIO')
    expect(s.seen()).toBe(22)
  })

  it.each([
    ['EINVAL', 'no commands', [], {}],
    ['EINVAL', 'another type', [command.all()], { data_type: 0 }],
    ['EINVAL', 'entries of no bytes', [command.all()], { entry_len: 0 }],
    [
      'E2BIG',
      'an entry with more in it than is known',
      [command.all(), [1n, 0n]],
      { entry_len: 32, entry_num: 1 },
    ],
    ['EFAULT', 'commands that are not there', [command.all()], { data_uptr: 0x10n }],
  ] as const)('%s: %s', (code, _, commands, init) => {
    const s = guest()
    const { handled, failed } = s.submit(s.v, commands, init)
    expect([handled, (failed as { code: string }).code]).toEqual([0, code])
  })

  it('EOPNOTSUPP: of the table rather than the vIOMMU', () => {
    const s = guest()
    const { failed } = s.submit(s.hwpt, [command.all()], { data_type: 0 })
    expect((failed as { code: string }).code).toBe('EOPNOTSUPP')
  })
})

describe('page requests of a function on a guest’s STE', () => {
  /** The guest's SMMUv3 with page 0 missing, and a device that asks for it. */
  function asking(withQueue: boolean) {
    const s = setup({ devices: [[asker]] } as Parameters<typeof setup>[0])
    const v = s.viommu()
    s.vdevice(v)
    const queue = s.u.faultQueue()
    const init = withQueue ? { flags: IOMMU_HWPT_FAULT_ID_VALID, fault_id: queue.id } : {}
    const hwpt = s.nested(v, s.vste(), init)
    s.d.attach(hwpt)
    s.page(0, 0)
    const window = s.d.start()
    const { ADDR, PASID: UNDER, PAGES, STATE, GO } = asker.bar0
    const state = () => {
      s.b.settle()
      return Number(window.load(STATE.offset, 4))
    }
    window.store(ADDR.offset, 8, GVA)
    window.store(UNDER.offset, 4, 0x8000_0000n | BigInt(PASID))
    window.store(PAGES.offset, 4, 1n)
    window.store(GO.offset, 4, 1n)
    const [first] = [state()]
    s.u.sys.munmap(window.vaddr, 0x1000)
    const again = () => {
      const w = s.d.start()
      s.b.settle()
      const now = Number(w.load(STATE.offset, 4))
      s.u.sys.munmap(w.vaddr, 0x1000)
      return now
    }
    return { ...s, v, hwpt, queue, first, again }
  }

  it.each([
    [0, READ],
    [1, REFUSED],
  ] as const)('are read and answered: code %i ends as %i', (code, ends) => {
    const s = asking(true)
    expect(s.first).toBe(WAITING)
    const record = iommu_hwpt_pgfault.at(s.u.sys.read(s.queue.fd, iommu_hwpt_pgfault.size))
    expect(record).toMatchObject({ dev_id: s.d.id, pasid: PASID, addr: GVA })
    s.page(0, 0x5000)
    s.u.sys.write(s.queue.fd, iommu_hwpt_page_response({ cookie: record.cookie, code }).bytes)
    expect(s.again()).toBe(ends)
  })

  it('are refused when nobody takes them', () => {
    expect(asking(false).first).toBe(REFUSED)
  })

  it('are refused when the function leaves the table', () => {
    const s = asking(true)
    s.d.attach(s.ioas)
    expect(s.again()).toBe(REFUSED)
    expect(s.u.sys.readable(s.queue.fd)).toBe(false)
  })
})

describe('virtual SMMUs and their devices', () => {
  it.each([
    ['EOPNOTSUPP', 'flags', { flags: 1 }],
    ['EOPNOTSUPP', 'type 0', { type: 0 }],
    ['EOPNOTSUPP', 'another type', { type: 2 }],
    ['ENOENT', 'no device', { dev_id: 99 }],
    ['ENOENT', 'no table', { hwpt_id: 99 }],
  ] as const)('VIOMMU_ALLOC %s: %s', (code, _, init) => {
    const s = setup()
    refused(code, () => s.viommu(init))
  })

  it('VIOMMU_ALLOC EINVAL: over a table that is no parent', () => {
    const s = setup()
    const plain = s.u.hwpt(s.d.id, s.ioas)
    refused('EINVAL', () => s.viommu({ hwpt_id: plain }))
  })

  it('VDEVICE_ALLOC: each function has one name, and each name one function', () => {
    const s = setup({ devices: [[dmaCopy], [dmaCopy]] } as Parameters<typeof setup>[0])
    const v = s.viommu()
    const other = s.u.device(1)
    refused('ENOENT', () => s.vdevice(99))
    refused('ENOENT', () => s.vdevice(v, { dev_id: 99 }))
    s.vdevice(v)
    refused('EEXIST', () => s.vdevice(v, { virt_id: 1n }))
    refused('EEXIST', () => s.vdevice(v, { dev_id: other.id }))
    expect(s.vdevice(v, { dev_id: other.id, virt_id: 1n })).toBeGreaterThan(0)
  })

  it('nothing goes while something stands on it', () => {
    const s = guest()
    for (const id of [s.parent, s.v, s.hwpt]) refused('EBUSY', () => s.u.destroy(id))
    s.d.detach()
    for (const id of [s.hwpt, s.name, s.v, s.parent]) s.u.destroy(id)
  })

  it('a name that is given back can be given again', () => {
    const s = guest()
    s.u.destroy(s.name)
    const { failed } = s.submit(s.v, [command.cds()])
    expect((failed as { code: string }).code).toBe('EIO')
    s.vdevice(s.v)
    expect(s.submit(s.v, [command.cds()]).failed).toBeUndefined()
  })

  it('a device that closes takes its name along', () => {
    const s = guest()
    s.d.close()
    refused('ENOENT', () => s.u.destroy(s.name))
    s.u.destroy(s.hwpt)
    s.u.destroy(s.v)
  })

  it('HW_QUEUE_ALLOC has none to give: EOPNOTSUPP', () => {
    const s = guest()
    const ask = (viommu_id: number) =>
      s.u.call(IOMMU_HW_QUEUE_ALLOC, iommu_hw_queue_alloc({ type: 1, length: 4096n, viommu_id }))
    refused('EOPNOTSUPP', () => ask(s.v))
    refused('ENOENT', () => ask(99))
  })
})

describe('events of a guest’s SMMUv3', () => {
  const HEADER = 8
  const EVENT = HEADER + 32

  /** Without ATS, whose requests are refused without an event. */
  function listening(depth = 8) {
    const s = guest()
    s.d.attach(s.nested(s.v, s.vste({ EATS: 0 })))
    const queue = (init: Parameters<typeof iommu_veventq_alloc>[0] = {}) => {
      const arg = iommu_veventq_alloc({ viommu_id: s.v, type: 1, veventq_depth: depth, ...init })
      s.u.call(IOMMU_VEVENTQ_ALLOC, arg)
      return { id: arg.out_veventq_id, fd: arg.out_veventq_fd }
    }
    const q = queue()
    const read = (bytes = 16 * EVENT) => {
      const got = s.u.sys.read(q.fd, bytes)
      const list: { sequence: number; lost: boolean; record: Uint8Array | undefined }[] = []
      for (let at = 0; at < got.length; ) {
        const { flags, sequence } = iommufd_vevent_header.at(got, at)
        const lost = flags === IOMMU_VEVENTQ_FLAG_LOST_EVENTS
        list.push({ sequence, lost, record: lost ? undefined : got.slice(at + HEADER, at + EVENT) })
        at += lost ? HEADER : EVENT
      }
      return list
    }
    const fault = () => {
      expect(s.d.dma(GVA + 16n * PAGE, GVA, 8, PASID)).toBe(false)
      s.b.settle()
    }
    return { ...s, queue, q, read, fault }
  }

  it('come as the unit wrote them, with the guest’s StreamID', () => {
    const s = listening()
    expect(s.u.sys.readable(s.q.fd)).toBe(false)
    s.fault()
    expect(s.u.sys.readable(s.q.fd)).toBe(true)
    const [event, ...more] = s.read()
    expect(more).toEqual([])
    expect([event!.sequence, event!.lost]).toEqual([0, false])
    const r = FAULT_RECORD.at(event!.record!)
    const address = BigInt(r.InputAddr_HI) * 2n ** 32n + BigInt(r.InputAddr_LO)
    expect([r.EventID, r.StreamID, r.SSV, r.SubstreamID, r.S2, r.RnW]).toEqual([
      ...[0x10, STREAM, true, PASID, false, true],
    ])
    expect(address).toBe(GVA + 16n * PAGE)
    expect(s.u.sys.readable(s.q.fd)).toBe(false)
  })

  it('a substream without a CD is the guest’s matter, a page that the host has not is the host’s', () => {
    const s = listening()
    s.d.dma(GVA, GVA, 8, PASID + 1)
    s.b.settle()
    expect(s.read().map(e => FAULT_RECORD.at(e.record!).EventID)).toEqual([0x0a])
    s.page(0, 0x30_0000)
    s.d.dma(GVA, GVA, 8, PASID)
    s.b.settle()
    expect(s.read()).toEqual([])
  })

  it('stop when the function leaves the guest’s STE', () => {
    const s = listening()
    s.d.attach(s.ioas)
    s.d.dma(GVA, GVA, 8, PASID)
    s.b.settle()
    expect(s.read()).toEqual([])
  })

  it('that are lost are counted, and told at the end', () => {
    const s = listening(2)
    for (let i = 0; i < 4; i++) s.fault()
    expect(s.read().map(({ sequence, lost }) => [sequence, lost])).toEqual([
      [0, false],
      [1, false],
      [3, true],
    ])
    s.fault()
    expect(s.read().map(e => e.sequence)).toEqual([4])
  })

  it('after which room was made show by their numbers', () => {
    const s = listening(2)
    for (let i = 0; i < 3; i++) s.fault()
    expect(s.read(EVENT).map(e => e.sequence)).toEqual([0])
    s.fault()
    expect(s.read().map(({ sequence, lost }) => [sequence, lost])).toEqual([
      [1, false],
      [3, false],
    ])
  })

  it.each([0, 7, HEADER, EVENT - 1])('EINVAL: a read of %i bytes; the event stays', bytes => {
    const s = listening()
    s.fault()
    refused('EINVAL', () => s.u.sys.read(s.q.fd, bytes))
    expect(s.read()).toHaveLength(1)
  })

  it.each([
    ['EOPNOTSUPP', 'flags', { flags: 1 }],
    ['EOPNOTSUPP', 'a reserved field', { __reserved: 1 }],
    ['EOPNOTSUPP', 'type 0', { type: 0 }],
    ['EINVAL', 'no depth', { veventq_depth: 0 }],
    ['EINVAL', 'too much depth', { veventq_depth: 2 ** 19 + 1 }],
    ['ENOENT', 'no vIOMMU', { viommu_id: 99 }],
    ['EEXIST', 'a second one', {}],
  ] as const)('VEVENTQ_ALLOC %s: %s', (code, _, init) => {
    const s = listening()
    refused(code, () => s.queue(init))
  })

  it('a queue keeps its vIOMMU, and its file the queue', () => {
    const s = listening()
    s.u.destroy(s.name)
    for (const id of [s.v, s.q.id]) refused('EBUSY', () => s.u.destroy(id))
    s.u.sys.close(s.q.fd)
    s.u.destroy(s.q.id)
  })
})
