// The command framework: sizes, tails, unknown numbers, arguments that are not there.
import { afterEach, describe, expect, it } from 'vitest'
import { PROT_READ } from '../../../src/mem/vma.js'
import * as uapi from '../../../src/uapi.js'
import { refused } from '../../support/vfio-bench.js'
import { checkIommufd, iommufdBench, user, userBytes } from './bench.js'

afterEach(checkIommufd)

// biome-ignore format: table
const commands = [
  ['DESTROY',                 uapi.IOMMU_DESTROY,                 8,  8],
  ['IOAS_ALLOC',              uapi.IOMMU_IOAS_ALLOC,              12, 12],
  ['IOAS_ALLOW_IOVAS',        uapi.IOMMU_IOAS_ALLOW_IOVAS,        24, 24],
  ['IOAS_COPY',               uapi.IOMMU_IOAS_COPY,               40, 40],
  ['IOAS_IOVA_RANGES',        uapi.IOMMU_IOAS_IOVA_RANGES,        32, 32],
  ['IOAS_MAP',                uapi.IOMMU_IOAS_MAP,                40, 40],
  ['IOAS_UNMAP',              uapi.IOMMU_IOAS_UNMAP,              24, 24],
  ['OPTION',                  uapi.IOMMU_OPTION,                  24, 24],
  ['VFIO_IOAS',               uapi.IOMMU_VFIO_IOAS,               12, 12],
  ['HWPT_ALLOC',              uapi.IOMMU_HWPT_ALLOC,              24, 48],
  ['GET_HW_INFO',             uapi.IOMMU_GET_HW_INFO,             32, 40],
  ['HWPT_SET_DIRTY_TRACKING', uapi.IOMMU_HWPT_SET_DIRTY_TRACKING, 16, 16],
  ['HWPT_GET_DIRTY_BITMAP',   uapi.IOMMU_HWPT_GET_DIRTY_BITMAP,   48, 48],
  ['HWPT_INVALIDATE',         uapi.IOMMU_HWPT_INVALIDATE,         32, 32],
  ['FAULT_QUEUE_ALLOC',       uapi.IOMMU_FAULT_QUEUE_ALLOC,       16, 16],
  ['IOAS_MAP_FILE',           uapi.IOMMU_IOAS_MAP_FILE,           40, 40],
  ['VIOMMU_ALLOC',            uapi.IOMMU_VIOMMU_ALLOC,            24, 40],
  ['VDEVICE_ALLOC',           uapi.IOMMU_VDEVICE_ALLOC,           24, 24],
  ['IOAS_CHANGE_PROCESS',     uapi.IOMMU_IOAS_CHANGE_PROCESS,     8,  8],
  ['VEVENTQ_ALLOC',           uapi.IOMMU_VEVENTQ_ALLOC,           28, 32],
  ['HW_QUEUE_ALLOC',          uapi.IOMMU_HW_QUEUE_ALLOC,          40, 40],
] as const

/** A structure of that many bytes that says its size is `size`, and has a byte set somewhere. */
function raw(length: number, size: number, set?: number): { readonly bytes: Uint8Array } {
  const bytes = new Uint8Array(length)
  new DataView(bytes.buffer).setUint32(0, size, true)
  if (set !== undefined) bytes[set] = 1
  return { bytes }
}

/** What a call is refused with; 0 when it is not. */
function errno(call: () => unknown): string {
  try {
    call()
    return 'success'
  } catch (error) {
    return (error as { code: string }).code
  }
}

describe.each(commands)('%s', (_, cmd, minimum, full) => {
  it(`takes ${minimum} to ${full} bytes: EINVAL below`, () => {
    const { fd, sys } = user(iommufdBench())
    refused('EINVAL', () => sys.ioctl(fd, cmd, raw(full, minimum - 1)))
    refused('EINVAL', () => sys.ioctl(fd, cmd, raw(full, 0)))
  })

  it('E154: E2BIG with something behind what is known, taken with nothing there', () => {
    const { fd, sys } = user(iommufdBench())
    const known = errno(() => sys.ioctl(fd, cmd, raw(full, full)))
    refused('E2BIG', () => sys.ioctl(fd, cmd, raw(full + 24, full + 24, full + 20)))
    refused('E2BIG', () => sys.ioctl(fd, cmd, raw(full + 9000, full + 9000, full + 8999)))
    expect(errno(() => sys.ioctl(fd, cmd, raw(full + 9000, full + 9000)))).toBe(known)
    expect(errno(() => sys.ioctl(fd, cmd, raw(full, minimum)))).toBe(known)
  })

  it('EFAULT when argument or tail is not there; a byte that is set before comes first', () => {
    const { fd, sys } = user(iommufdBench())
    refused('EFAULT', () => sys.ioctl(fd, cmd, 0x1000))
    const page = sys.mmap(0x1000)
    const at = page.vaddr + 0x1000n - BigInt(full) - 8n
    page.bytes.set(raw(full, 0x2000).bytes, 0x1000 - full - 8)
    refused('EFAULT', () => sys.ioctl(fd, cmd, at))
    page.bytes[0xfff] = 1
    refused('E2BIG', () => sys.ioctl(fd, cmd, at))
  })
})

it('numbers follow each other from 0x3b80', () => {
  const numbers = commands.map(c => c[1]).sort((x, y) => x - y)
  expect(numbers).toEqual(numbers.map((_, i) => 0x3b80 + i))
})

describe('other numbers', () => {
  it.each([0x3b95, 0x3bff, 0x3b63, 0x3b9f, 0x4b81, 0xc008_3b81, 0])('ENOTTY: 0x%s', cmd => {
    const { fd, sys } = user(iommufdBench())
    refused('ENOTTY', () => sys.ioctl(fd, cmd, 0))
  })

  it('a command number with another type is not the command', () => {
    const { fd, sys } = user(iommufdBench())
    refused('ENOTTY', () => sys.ioctl(fd, 0x4_3b81, uapi.iommu_ioas_alloc()))
  })

  it('reading, writing and mapping an iommufd are not there', () => {
    const { fd, sys } = user(iommufdBench())
    refused('EINVAL', () => sys.read(fd, 8))
    refused('EINVAL', () => sys.write(fd, new Uint8Array(8)))
    refused('ENODEV', () => sys.mmap({ fd, offset: 0, length: 0x1000 }))
  })
})

describe('an answer that cannot be written', () => {
  it('is EFAULT, and the mapping is not made', () => {
    const b = iommufdBench()
    const u = user(b)
    const ioas_id = u.ioas()
    const { vaddr: user_va } = u.sys.mmap(0x1000)
    const map = uapi.iommu_ioas_map({ flags: 6, ioas_id, user_va, length: 0x1000n })
    const at = userBytes(u.sys, map.bytes)
    u.sys.process.memory.mprotect(at, 0x1000, PROT_READ)
    refused('EFAULT', () => u.sys.ioctl(u.fd, uapi.IOMMU_IOAS_MAP, at))
    expect(b.vfio.iommufd!.holdings().areas).toBe(0)
  })

  it('is EFAULT for a fault queue, and no descriptor is left', () => {
    const b = iommufdBench()
    const u = user(b)
    const open = u.sys.process.fds.count
    const at = userBytes(u.sys, uapi.iommu_fault_alloc().bytes)
    u.sys.process.memory.mprotect(at, 0x1000, PROT_READ)
    refused('EFAULT', () => u.sys.ioctl(u.fd, uapi.IOMMU_FAULT_QUEUE_ALLOC, at))
    expect([u.sys.process.fds.count, b.vfio.iommufd!.holdings().objects]).toEqual([open, 0])
  })
})

describe('the trace', () => {
  it('tells every call by name, and what came of it', () => {
    const b = iommufdBench()
    const told: unknown[] = []
    b.trace.listen('iommufd.ioctl', e => told.push([e.name, e.result ?? e.errno]))
    const u = user(b)
    u.ioas()
    refused('ENOENT', () => u.destroy(9))
    refused('ENOTTY', () => u.sys.ioctl(u.fd, 0x3bff))
    expect(told).toEqual([
      ['IOMMU_IOAS_ALLOC', 0],
      ['IOMMU_DESTROY', 'ENOENT'],
      ['0x3bff', 'ENOTTY'],
    ])
  })
})

describe('VFIO_IOAS', () => {
  const call = (u: ReturnType<typeof user>, init: Parameters<typeof uapi.iommu_vfio_ioas>[0]) => {
    const arg = uapi.iommu_vfio_ioas(init)
    u.call(uapi.IOMMU_VFIO_IOAS, arg)
    return arg.ioas_id
  }
  const { IOMMU_VFIO_IOAS_CLEAR: CLEAR, IOMMU_VFIO_IOAS_GET: GET, IOMMU_VFIO_IOAS_SET: SET } = uapi

  it('gets, sets and clears the address space of VFIO’s calls', () => {
    const u = user(iommufdBench())
    refused('ENODEV', () => call(u, { op: GET }))
    const ioas_id = u.ioas()
    call(u, { op: SET, ioas_id })
    expect(call(u, { op: GET })).toBe(ioas_id)
    call(u, { op: CLEAR })
    refused('ENODEV', () => call(u, { op: GET }))
    call(u, { op: SET, ioas_id })
    u.destroy(ioas_id)
    refused('ENODEV', () => call(u, { op: GET }))
  })

  it.each([
    ['EOPNOTSUPP', { op: 3 }],
    ['EOPNOTSUPP', { op: GET, __reserved: 1 }],
    ['ENOENT', { op: SET, ioas_id: 9 }],
  ] as const)('%s for %o', (code, init) => {
    refused(code, () => call(user(iommufdBench()), init))
  })
})
