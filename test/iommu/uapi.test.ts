// linux/iommu.h of the series: offsets as documented, and the generic checks in their order.
import { describe, expect, it } from 'vitest'
import * as uapi from '../../src/iommu/uapi.js'
import type { UserMemory } from '../../src/mem/user-memory.js'
import { codeOf } from './driver-bench.js'

describe('layouts (2.3, 2.8 to 2.10)', () => {
  it.each([
    [
      uapi.iommu_nesting_info,
      56,
      {
        argsz: 0,
        flags: 4,
        format: 8,
        features: 12,
        addr_width: 16,
        pasid_bits: 18,
        padding: 20,
        vendor: 32,
      },
    ],
    [uapi.iommu_nesting_info_vtd, 24, { flags: 0, padding: 4, cap_reg: 8, ecap_reg: 16 }],
    [
      uapi.iommu_gpasid_bind_data,
      72,
      {
        argsz: 0,
        version: 4,
        format: 8,
        addr_width: 12,
        flags: 16,
        gpgd: 24,
        hpasid: 32,
        gpasid: 40,
        padding: 48,
        vendor: 56,
      },
    ],
    [uapi.iommu_gpasid_bind_data_vtd, 16, { flags: 0, pat: 8, emt: 12 }],
    [
      uapi.iommu_cache_invalidate_info,
      56,
      { argsz: 0, version: 4, cache: 8, granularity: 9, padding: 10, granu: 16 },
    ],
    [uapi.iommu_inv_pasid_info, 16, { flags: 0, archid: 4, pasid: 8 }],
    [
      uapi.iommu_inv_addr_info,
      40,
      { flags: 0, archid: 4, pasid: 8, addr: 16, granule_size: 24, nb_granules: 32 },
    ],
    [uapi.iommu_fault, 64, { type: 0, padding: 4, event: 8 }],
    [
      uapi.iommu_fault_unrecoverable,
      32,
      { reason: 0, flags: 4, pasid: 8, perm: 12, addr: 16, fetch_addr: 24 },
    ],
    [
      uapi.iommu_fault_page_request,
      40,
      { flags: 0, pasid: 4, grpid: 8, perm: 12, addr: 16, private_data: 24 },
    ],
    [
      uapi.iommu_page_response,
      24,
      { argsz: 0, version: 4, flags: 8, pasid: 12, grpid: 16, code: 20 },
    ],
  ] as const)('%#', (type, size, offsets) => {
    expect([type.ctype, type.size]).toEqual([type.ctype, size])
    expect(type.offsets).toEqual(offsets)
  })
})

/** A caller's memory of `readable` bytes from address 0. It counts what was read. */
function memory(bytes: Uint8Array, readable = bytes.length) {
  const reads: [number, number][] = []
  const mem: UserMemory = {
    copyIn(addr, into, length = into.length) {
      reads.push([addr, length])
      if (addr + length > readable) return false
      into.set(bytes.subarray(addr, addr + length))
      return true
    },
    copyOut: () => false,
    string: () => 'fault',
  }
  return { mem, reads }
}

describe('readGpasidBind', () => {
  const good = () =>
    uapi.iommu_gpasid_bind_data({ version: 1, format: 1, addr_width: 48, hpasid: 5n })
  type Data = ReturnType<typeof good>
  const read = (change: (d: Data) => void, readable?: number) => {
    const data = good()
    change(data)
    const { mem, reads } = memory(data.bytes, readable)
    return { answer: codeOf(() => uapi.readGpasidBind(mem, 0)), reads }
  }

  it.each([
    [
      '3 argsz 55 (E69)',
      (d: Data) => {
        d.argsz = 55
      },
      72,
      'EINVAL',
    ],
    [
      '2 fewer than 56 bytes readable, before argsz (E89)',
      (d: Data) => {
        d.argsz = 0
      },
      55,
      'EFAULT',
    ],
    ['4 argsz 72, readable to 64', () => {}, 64, 'EFAULT'],
    [
      '4 before 5',
      (d: Data) => {
        d.version = 9
      },
      64,
      'EFAULT',
    ],
    [
      'argsz 64, readable to 64: generic part passes (E90)',
      (d: Data) => {
        d.argsz = 64
      },
      64,
      'ok',
    ],
    [
      'argsz 56: generic part passes (E97)',
      (d: Data) => {
        d.argsz = 56
      },
      56,
      'ok',
    ],
    [
      'argsz 200 with 72 bytes readable (E71)',
      (d: Data) => {
        d.argsz = 200
      },
      72,
      'ok',
    ],
    [
      '5 version 0 (E72)',
      (d: Data) => {
        d.version = 0
      },
      72,
      'EINVAL',
    ],
    [
      '5 version 2 (E72)',
      (d: Data) => {
        d.version = 2
      },
      72,
      'EINVAL',
    ],
    [
      '5 format 2 (E73)',
      (d: Data) => {
        d.format = 2
      },
      72,
      'EINVAL',
    ],
    [
      "format 0 is the driver's to refuse (E73)",
      (d: Data) => {
        d.format = 0
      },
      72,
      'ok',
    ],
    [
      '5 flags bit 1 (E74)',
      (d: Data) => {
        d.flags = 2n
      },
      72,
      'EINVAL',
    ],
    [
      '5 flags bit 63',
      (d: Data) => {
        d.flags = 1n << 63n
      },
      72,
      'EINVAL',
    ],
    [
      'GPASID_VAL',
      (d: Data) => {
        d.flags = 1n
      },
      72,
      'ok',
    ],
    [
      '5 padding[7] (E75)',
      (d: Data) => {
        d.padding[7] = 1
      },
      72,
      'EINVAL',
    ],
    [
      "VT-d flags are the driver's to refuse",
      (d: Data) => {
        d.vendor.vtd.flags = 64n
      },
      72,
      'ok',
    ],
  ])('row %s', (_row, change, readable, errno) => {
    expect(read(change, readable).answer).toBe(errno)
  })

  it.each([
    [56, [[0, 56]]],
    [
      64,
      [
        [0, 56],
        [56, 8],
      ],
    ],
    [
      72,
      [
        [0, 56],
        [56, 16],
      ],
    ],
    [
      4096,
      [
        [0, 56],
        [56, 16],
      ],
    ],
  ])('argsz %i is read in two steps at most', (argsz, reads) => {
    expect(
      read(d => {
        d.argsz = argsz
      }).reads,
    ).toEqual(reads)
  })

  it('gives what was passed; what argsz leaves out is zero', () => {
    const data = good()
    data.vendor.vtd.flags = 5n
    data.argsz = 56
    const seen = uapi.readGpasidBind(memory(data.bytes).mem, 0, { unbind: true })
    expect([seen.hpasid, seen.argsz, seen.vendor.vtd.flags]).toEqual([5n, 56, 0n])
  })

  it('names the operation in what it throws', () => {
    const { mem } = memory(good().bytes, 3)
    expect(() => uapi.readGpasidBind(mem, 0)).toThrow('EFAULT: bind guest PASID')
    expect(() => uapi.readGpasidBind(mem, 0, { unbind: true })).toThrow(
      'EFAULT: unbind guest PASID',
    )
  })
})

describe('readCacheInvalidate', () => {
  const [DOMAIN, BY_PASID, ADDR] = [0, 1, 2]
  const good = (granularity: number, cache = 1) =>
    uapi.iommu_cache_invalidate_info({ version: 1, cache, granularity })
  type Info = ReturnType<typeof good>
  const answer = (info: Info, readable?: number) =>
    codeOf(() => uapi.readCacheInvalidate(memory(info.bytes, readable).mem, 0))

  it.each([
    [
      'header unreadable, before argsz',
      BY_PASID,
      (i: Info) => {
        i.argsz = 0
      },
      15,
      'EFAULT',
    ],
    [
      'argsz 15',
      DOMAIN,
      (i: Info) => {
        i.argsz = 15
      },
      56,
      'EINVAL',
    ],
    [
      'E110 DOMAIN, argsz 16',
      DOMAIN,
      (i: Info) => {
        i.argsz = 16
      },
      16,
      'ok',
    ],
    [
      'E109 PASID, argsz 31',
      BY_PASID,
      (i: Info) => {
        i.argsz = 31
      },
      56,
      'EINVAL',
    ],
    [
      'PASID, argsz 32',
      BY_PASID,
      (i: Info) => {
        i.argsz = 32
      },
      32,
      'ok',
    ],
    [
      'ADDR, argsz 55',
      ADDR,
      (i: Info) => {
        i.argsz = 55
      },
      56,
      'EINVAL',
    ],
    ['ADDR, argsz 56', ADDR, () => {}, 56, 'ok'],
    [
      'argsz 200 with 56 bytes readable',
      ADDR,
      (i: Info) => {
        i.argsz = 200
      },
      56,
      'ok',
    ],
    [
      'rest unreadable, before the version',
      BY_PASID,
      (i: Info) => {
        i.version = 0
      },
      20,
      'EFAULT',
    ],
    [
      'a short argsz before an unreadable rest',
      ADDR,
      (i: Info) => {
        i.argsz = 30
      },
      16,
      'EINVAL',
    ],
    [
      'version 0',
      BY_PASID,
      (i: Info) => {
        i.version = 0
      },
      56,
      'EINVAL',
    ],
    [
      'cache bit 3',
      BY_PASID,
      (i: Info) => {
        i.cache = 8
      },
      56,
      'EINVAL',
    ],
    [
      'E104 granularity 3',
      3,
      (i: Info) => {
        i.argsz = 16
      },
      56,
      'EINVAL',
    ],
    [
      'padding',
      BY_PASID,
      (i: Info) => {
        i.padding[5] = 1
      },
      56,
      'EINVAL',
    ],
    [
      'PASID flags bit 2',
      BY_PASID,
      (i: Info) => {
        i.granu.pasid_info.flags = 4
      },
      56,
      'EINVAL',
    ],
    [
      'ADDR flags bit 3',
      ADDR,
      (i: Info) => {
        i.granu.addr_info.flags = 8
      },
      56,
      'EINVAL',
    ],
    [
      'all known PASID flags',
      BY_PASID,
      (i: Info) => {
        i.granu.pasid_info.flags = 3
      },
      56,
      'ok',
    ],
    [
      'all known ADDR flags',
      ADDR,
      (i: Info) => {
        i.granu.addr_info.flags = 7
      },
      56,
      'ok',
    ],
  ])('%s', (_name, granularity, change, readable, errno) => {
    const info = good(granularity)
    change(info)
    expect(answer(info, readable)).toBe(errno)
  })

  const [I, D, P] = [1, 2, 4]
  it.each([
    [DOMAIN, [0, I, P, I | P]],
    [BY_PASID, [0, I, D, I | D, P, I | P, D | P, I | D | P]],
    [ADDR, [0, I, D, I | D]],
  ])(
    'granularity %i takes cache masks %j, all of a mask or none (E105, E106)',
    (granularity, masks) => {
      const taken = Array.from({ length: 8 }, (_, cache) => cache).filter(
        cache => answer(good(granularity, cache)) === 'ok',
      )
      expect(taken).toEqual(masks.toSorted((a, b) => a - b))
    },
  )
})
