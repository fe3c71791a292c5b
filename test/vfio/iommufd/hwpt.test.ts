// Making page tables and asking what the hardware can do; what each refusal is called.
import { afterEach, describe, expect, it } from 'vitest'
import { msix } from '../../../src/pci/device-model.js'
import {
  IOMMU_GET_HW_INFO,
  IOMMU_HW_CAP_DIRTY_TRACKING,
  IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED,
  IOMMU_HW_CAP_PCI_PASID_EXEC,
  IOMMU_HW_INFO_FLAG_INPUT_TYPE,
  IOMMU_HW_INFO_TYPE_ARM_SMMUV3,
  IOMMU_HW_INFO_TYPE_INTEL_VTD,
  IOMMU_HW_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_VDEVICE_ALLOC,
  IOMMU_VEVENTQ_ALLOC,
  IOMMU_VIOMMU_ALLOC,
  iommu_hw_info,
  iommu_hw_info_vtd,
  iommu_hw_queue_alloc,
  iommu_vdevice_alloc,
  iommu_veventq_alloc,
  iommu_viommu_alloc,
} from '../../../src/uapi.js'
import { plainDevice, refused } from '../../support/vfio-bench.js'
import { ALL, checkIommufd, guestMemory, iommufdBench, PAGE, user } from './bench.js'

afterEach(checkIommufd)

const PARENT = IOMMU_HWPT_ALLOC_NEST_PARENT
const PASID = IOMMU_HWPT_ALLOC_PASID

function setup(options: Parameters<typeof iommufdBench>[0] = {}) {
  const b = iommufdBench(options)
  const u = user(b)
  const d = u.device()
  const ioas = u.ioas()
  const guest = guestMemory(u.sys)
  u.map(ioas, guest.vaddr, 0x1_0000n, 0n)
  return { b, u, d, ioas, guest }
}

describe('HWPT_ALLOC over an address space', () => {
  it('maps what is there at once, keeps the address space, and goes by DESTROY', () => {
    const { b, u, d, ioas } = setup()
    const hwpt = u.hwpt(d.id, ioas)
    expect(b.held().pins).toBe(16)
    refused('EBUSY', () => u.destroy(ioas))
    u.destroy(hwpt)
    expect(b.held().pins).toBe(0)
    u.destroy(ioas)
  })

  it('by 24 bytes, without a fault queue', () => {
    const { u, d, ioas } = setup()
    u.destroy(u.hwpt(d.id, ioas, { size: 24 }))
  })

  // biome-ignore format: table
  it.each([
    ['E155', 'EOPNOTSUPP', 'a reserved member',         { __reserved: 1 }],
    ['E155', 'EOPNOTSUPP', 'the other reserved member', { __reserved2: 1 }],
    ['',     'EOPNOTSUPP', 'an unknown flag',           { flags: 16 }],
    ['E148', 'EOPNOTSUPP', 'page requests of a parent', { flags: PARENT | IOMMU_HWPT_FAULT_ID_VALID }],
    ['',     'EINVAL',     'data without a type',       { data_len: 24 }],
    ['',     'EINVAL',     'a type without data',       { data_type: IOMMU_HWPT_DATA_VTD_S1 }],
    ['',     'EOPNOTSUPP', 'stage-1 data',              { data_type: IOMMU_HWPT_DATA_VTD_S1, data_len: 24 }],
    ['',     'ENOENT',     'no device',                 { dev_id: 99 }],
    ['',     'EINVAL',     'no address space',          { pt_id: 99 }],
    ['',     'EINVAL',     'a device as address space', { pt_id: 1 }],
    ['',     'ENOENT',     'no fault queue',            { flags: IOMMU_HWPT_FAULT_ID_VALID, fault_id: 99 }],
    ['',     'ENOENT',     'a device as fault queue',   { flags: IOMMU_HWPT_FAULT_ID_VALID, fault_id: 1 }],
  ] as const)('%s %s: %s, and nothing is left', (_, code, _what, init) => {
    const { b, u, d, ioas } = setup()
    const { objects } = b.vfio.iommufd!.holdings()
    refused(code, () => u.hwpt(d.id, ioas, init))
    expect([b.held().pins, b.vfio.iommufd!.holdings().objects]).toEqual([0, objects])
  })

  it.each([
    ['NEST_PARENT without nesting', PARENT, { nesting: false }],
    [
      'DIRTY_TRACKING without dirty flags',
      IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
      { secondStageAccessedDirty: false },
    ],
    ['PASID without PASIDs', PASID, { pasidBits: 0 }],
  ] as const)('EOPNOTSUPP: %s', (_, flags, vtd) => {
    const { u, d, ioas } = setup({ vtd })
    refused('EOPNOTSUPP', () => u.hwpt(d.id, ioas, { flags }))
    u.hwpt(d.id, ioas)
  })

  it('ENOMEM when pinning passes the limit, and nothing is left', () => {
    const b = iommufdBench()
    const u = user(b, b.spawn({ memlock: 4096 }))
    const d = u.device()
    const ioas = u.ioas()
    u.map(ioas, u.sys.mmap(0x2000).vaddr, 0x2000n)
    refused('ENOMEM', () => u.hwpt(d.id, ioas))
    u.destroy(ioas)
  })
})

describe('HWPT_ALLOC over a parent', () => {
  function nesting(options: Parameters<typeof iommufdBench>[0] = {}) {
    const made = setup(options)
    const parent = made.u.hwpt(made.d.id, made.ioas, { flags: PARENT })
    return { ...made, parent }
  }

  it('E146: the parent is EBUSY until the nested table is destroyed', () => {
    const { u, d, guest, parent } = nesting()
    const nested = u.nested(d.id, parent, { pgtbl_addr: guest.root })
    refused('EBUSY', () => u.destroy(parent))
    u.destroy(nested)
    u.destroy(parent)
  })

  it('E147: EINVAL over a table without NEST_PARENT, one made by an attach, and a nested one', () => {
    const { u, d, ioas, guest, parent } = nesting()
    const stage1 = { pgtbl_addr: guest.root }
    refused('EINVAL', () => u.nested(d.id, u.hwpt(d.id, ioas), stage1))
    const auto = d.attach(ioas)
    refused('EINVAL', () => u.nested(d.id, auto, stage1))
    refused('EINVAL', () => u.nested(d.id, u.nested(d.id, parent, stage1), stage1))
  })

  // biome-ignore format: table
  it.each([
    ['EOPNOTSUPP', 'NEST_PARENT',                {}, { flags: PARENT }],
    ['EOPNOTSUPP', 'DIRTY_TRACKING',             {}, { flags: IOMMU_HWPT_ALLOC_DIRTY_TRACKING }],
    ['EOPNOTSUPP', 'no stage-1 data',            {}, { data_type: 0, data_len: 0 }],
    ['EOPNOTSUPP', 'SMMUv3 data',                {}, { data_type: IOMMU_HWPT_DATA_ARM_SMMUV3, data_len: 16 }],
    ['EINVAL',     'data that is too short',     {}, { data_len: 16 }],
    ['EINVAL',     'data that is too long',      {}, { data_len: 32 }],
    ['EFAULT',     'data that is not there',     {}, { data_uptr: 0x1000n }],
    ['EOPNOTSUPP', 'unknown stage-1 flags',      { flags: 8n }, {}],
    ['EOPNOTSUPP', 'a reserved stage-1 member',  { __reserved: 1 }, {}],
    ['ENOENT',     'no fault queue',             {}, { flags: IOMMU_HWPT_FAULT_ID_VALID }],
  ] as const)('%s: %s', (code, _, stage1, init) => {
    const { b, u, d, guest, parent } = nesting()
    const { objects } = b.vfio.iommufd!.holdings()
    refused(code, () => u.nested(d.id, parent, { pgtbl_addr: guest.root, ...stage1 }, init))
    expect(b.vfio.iommufd!.holdings().objects).toBe(objects)
    u.destroy(parent)
  })

  it.each([
    ['address width 39', { addr_width: 39 }, {}],
    ['address width 57 without 5 levels', { addr_width: 57 }, {}],
    ['SRE without supervisor requests', { flags: 1n }, { supervisorRequests: false }],
    ['EAFE without extended access', { flags: 2n }, { extendedAccessed: false }],
    ['a root beyond the parent', { pgtbl_addr: 2n ** 48n }, {}],
    ['a root beyond 52 bits', { pgtbl_addr: ALL - 0xfffn }, {}],
  ] as const)('EINVAL at attach, not before: %s', (_, stage1, vtd) => {
    const { u, d, guest, parent } = nesting({ vtd })
    const nested = u.nested(d.id, parent, { pgtbl_addr: guest.root, ...stage1 }, { flags: PASID })
    refused('EINVAL', () => d.attach(nested))
    refused('EINVAL', () => d.attach(nested, 5))
    u.destroy(nested)
  })

  it('attaches flags and widths that the unit has', () => {
    const { u, d, guest, parent } = nesting({ vtd: { firstStage5Level: true } })
    const stage1 = { pgtbl_addr: guest.root, addr_width: 57, flags: 7n }
    d.attach(u.nested(d.id, parent, stage1, { flags: PASID }), 5)
  })
})

describe('GET_HW_INFO', () => {
  const info = (
    u: ReturnType<typeof user>,
    dev_id: number,
    init: Parameters<typeof iommu_hw_info>[0] = {},
  ) => {
    const arg = iommu_hw_info({ dev_id, ...init })
    u.call(IOMMU_GET_HW_INFO, arg)
    return arg
  }

  it('tells the registers unmasked, the width of PASIDs and what is supported', () => {
    const { b, u, d } = setup()
    const buffer = u.sys.mmap(0x1000)
    const arg = info(u, d.id, { data_len: 24, data_uptr: buffer.vaddr })
    const vtd = iommu_hw_info_vtd.at(buffer.bytes)
    expect(vtd.cap_reg).toBe(b.unit.read(0x08, 8))
    expect(vtd.ecap_reg).toBe(b.unit.read(0x10, 8))
    expect(arg.data_type.out_data_type).toBe(IOMMU_HW_INFO_TYPE_INTEL_VTD)
    expect([arg.data_len, arg.out_max_pasid_log2]).toEqual([24, 20])
    expect(arg.out_capabilities & BigInt(IOMMU_HW_CAP_DIRTY_TRACKING)).not.toBe(0n)
  })

  it('truncates to a short buffer and zeroes the rest of a long one', () => {
    const { u, d } = setup()
    const buffer = u.sys.mmap(0x1000)
    buffer.bytes.fill(0xff)
    expect(info(u, d.id, { data_len: 10, data_uptr: buffer.vaddr }).data_len).toBe(24)
    expect(buffer.bytes[10]).toBe(0xff)
    expect(info(u, d.id, { data_len: 100, data_uptr: buffer.vaddr }).data_len).toBe(24)
    expect([...buffer.bytes.subarray(24, 101)]).toEqual([...new Array(76).fill(0), 0xff])
  })

  it('0 PASID bits and no ATS of a function without either', () => {
    const b = iommufdBench({ devices: [[plainDevice([msix({ vectors: 1, bar: 2 })])]] })
    const u = user(b)
    const arg = info(u, u.device().id)
    expect(arg.out_max_pasid_log2).toBe(0)
    expect(arg.out_capabilities & BigInt(IOMMU_HW_CAP_PCI_ATS_NOT_SUPPORTED)).not.toBe(0n)
    expect(arg.out_capabilities & BigInt(IOMMU_HW_CAP_PCI_PASID_EXEC)).toBe(0n)
  })

  it('answers 32 bytes without capabilities', () => {
    const { u, d } = setup()
    expect(info(u, d.id, { size: 32 }).out_capabilities).toBe(0n)
  })

  const TYPED = IOMMU_HW_INFO_FLAG_INPUT_TYPE
  it.each([
    ['EOPNOTSUPP', { flags: 2 }],
    ['EOPNOTSUPP', { __reserved: [0, 1, 0] }],
    ['ENOENT', { dev_id: 99 }],
    ['EFAULT', { data_len: 8, data_uptr: 0x1000n }],
    ['EOPNOTSUPP', { flags: TYPED, data_type: { in_data_type: IOMMU_HW_INFO_TYPE_ARM_SMMUV3 } }],
  ] as const)('%s for %o', (code, init) => {
    const { u, d } = setup()
    refused(code, () => info(u, d.id, init as Parameters<typeof iommu_hw_info>[0]))
  })

  it('takes VT-d and the default as the type asked for, any number without the flag', () => {
    const { u, d } = setup()
    for (const in_data_type of [0, 1]) info(u, d.id, { flags: TYPED, data_type: { in_data_type } })
    info(u, d.id, { data_type: { in_data_type: 77 } })
  })
})

describe('virtual IOMMUs over VT-d', () => {
  // biome-ignore format: table
  it.each([
    ['EOPNOTSUPP', 'VIOMMU_ALLOC of an SMMUv3', IOMMU_VIOMMU_ALLOC, iommu_viommu_alloc({ type: 1, dev_id: 1 })],
    ['EOPNOTSUPP', 'VIOMMU_ALLOC type 0', IOMMU_VIOMMU_ALLOC, iommu_viommu_alloc({ dev_id: 99 })],
    ['EOPNOTSUPP', 'VIOMMU_ALLOC flags', IOMMU_VIOMMU_ALLOC, iommu_viommu_alloc({ flags: 1, type: 1, dev_id: 99 })],
    ['ENOENT',     'VIOMMU_ALLOC of no device', IOMMU_VIOMMU_ALLOC, iommu_viommu_alloc({ type: 1, dev_id: 99 })],
    ['ENOENT',     'VDEVICE_ALLOC', IOMMU_VDEVICE_ALLOC, iommu_vdevice_alloc({ viommu_id: 1, dev_id: 1 })],
    ['EOPNOTSUPP', 'VEVENTQ_ALLOC type 0', IOMMU_VEVENTQ_ALLOC, iommu_veventq_alloc({ veventq_depth: 1 })],
    ['EOPNOTSUPP', 'VEVENTQ_ALLOC reserved', IOMMU_VEVENTQ_ALLOC, iommu_veventq_alloc({ type: 1, __reserved: 1 })],
    ['EINVAL',     'VEVENTQ_ALLOC depth 0', IOMMU_VEVENTQ_ALLOC, iommu_veventq_alloc({ type: 1 })],
    ['EINVAL',     'VEVENTQ_ALLOC too deep', IOMMU_VEVENTQ_ALLOC, iommu_veventq_alloc({ type: 1, veventq_depth: 2 ** 19 + 1 })],
    ['ENOENT',     'VEVENTQ_ALLOC', IOMMU_VEVENTQ_ALLOC, iommu_veventq_alloc({ type: 1, veventq_depth: 2 ** 19 })],
    ['EOPNOTSUPP', 'HW_QUEUE_ALLOC type 0', IOMMU_HW_QUEUE_ALLOC, iommu_hw_queue_alloc({ length: PAGE })],
    ['EINVAL',     'HW_QUEUE_ALLOC length 0', IOMMU_HW_QUEUE_ALLOC, iommu_hw_queue_alloc({ type: 1 })],
    ['EOVERFLOW',  'HW_QUEUE_ALLOC that wraps', IOMMU_HW_QUEUE_ALLOC, iommu_hw_queue_alloc({ type: 1, length: 2n, nesting_parent_iova: ALL })],
    ['ENOENT',     'HW_QUEUE_ALLOC', IOMMU_HW_QUEUE_ALLOC, iommu_hw_queue_alloc({ type: 1, length: 1n, nesting_parent_iova: ALL })],
  ] as const)('%s: %s', (code, _, cmd, arg) => {
    const { u } = setup()
    refused(code, () => u.call(cmd, arg))
  })
})
