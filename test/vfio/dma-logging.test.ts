import { afterEach, describe, expect, it } from 'vitest'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import * as uapi from '../../src/uapi.js'
import {
  VFIO_DEVICE_FEATURE_GET as GET,
  VFIO_DEVICE_FEATURE_PROBE as PROBE,
  VFIO_DEVICE_FEATURE_SET as SET,
  VFIO_DEVICE_FEATURE,
  VFIO_TYPE1v2_IOMMU,
  vfio_device_feature,
  vfio_device_feature_dma_logging_control,
  vfio_device_feature_dma_logging_range,
  vfio_device_feature_dma_logging_report,
} from '../../src/uapi.js'
import { bench, checkBenches, refused } from '../support/vfio-bench.js'

afterEach(checkBenches)

const START = uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_START
const STOP = uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
const REPORT = uapi.VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
const { SRC, DST, LEN, CTRL } = dmaCopy.bar0
const BASE = 0x10_0000
const PAGES = 16
const ALL = [[BASE, PAGES * 4096]] as const

type Ranges = readonly (readonly [iova: number | bigint, length: number | bigint])[]

/** One function with sixteen pages mapped at 1 MiB. */
function setup(profile: 'L72' | 'V7R' = 'L72') {
  const b = bench({ profile })
  const p = b.program()
  const { sys } = p
  const c = p.container(VFIO_TYPE1v2_IOMMU, b.functions[0]!.group)
  const fd = c.device()
  const memory = sys.mmap(PAGES * 4096)
  c.map(BigInt(BASE), memory.vaddr, BigInt(PAGES * 4096))
  sys.pwrite(fd, Uint8Array.of(6, 0), (7n << 40n) + 4n)
  const scratch = sys.mmap(3 * 4096)
  const feature = (flags: number, data: Uint8Array = new Uint8Array(0)) => {
    const arg = vfio_device_feature({ flags, data })
    sys.ioctl(fd, VFIO_DEVICE_FEATURE, arg)
    return arg.data
  }
  const start = (ranges: Ranges = ALL, page_size = 4096n, address = scratch.vaddr) => {
    ranges.forEach(([iova, length], i) => {
      const range = vfio_device_feature_dma_logging_range({
        iova: BigInt(iova),
        length: BigInt(length),
      })
      scratch.bytes.set(range.bytes, i * range.bytes.length)
    })
    const num_ranges = ranges.length
    const control = { page_size, num_ranges, ranges: address }
    const answer = feature(SET | START, vfio_device_feature_dma_logging_control(control).bytes)
    return vfio_device_feature_dma_logging_control.at(answer)
  }
  /** Bits set of the range. */
  const report = (iova = BASE, length: number | bigint = PAGES * 4096, page = 4096n) => {
    const bitmap = scratch.vaddr + 8192n
    scratch.bytes.fill(0, 8192, 8192 + 64)
    const asked = { iova: BigInt(iova), length: BigInt(length), page_size: page, bitmap }
    feature(GET | REPORT, vfio_device_feature_dma_logging_report(asked).bytes)
    const bits: number[] = []
    for (let i = 0; i < 512; i++) if (scratch.bytes[8192 + (i >> 3)]! & (1 << (i & 7))) bits.push(i)
    return bits
  }
  const store = (at: number, value: number, size: number) => {
    const bytes = new Uint8Array(size)
    new DataView(bytes.buffer).setUint32(0, value, true)
    sys.pwrite(fd, bytes, BigInt(at))
  }
  const copy = (to: number, length: number, from = BASE) => {
    store(SRC.offset, from, 8)
    store(DST.offset, to, 8)
    store(LEN.offset, length, 4)
    store(CTRL.offset, 1, 4)
    b.settle()
  }
  return { b, sys, fd, memory, scratch, feature, start, report, copy, fn: b.functions[0]!.fn }
}

describe('DMA logging', () => {
  it('reports each page written once, none that was read, and none twice', () => {
    const m = setup()
    m.copy(BASE + 0x8000, 8)
    m.start()
    m.copy(BASE + 0x2ffc, 8, BASE + 0x9000)
    m.copy(BASE + 0x5000, 0x2000)
    expect(m.report()).toEqual([2, 3, 5, 6])
    expect(m.report()).toEqual([])
    m.copy(BASE + 0x5000, 1)
    expect(m.report(BASE + 0x6000, 0x1000)).toEqual([])
    expect(m.report(BASE + 0x5000, 0x1000)).toEqual([0])
  })
  it('tracks nothing outside its ranges', () => {
    const m = setup()
    m.start([
      [BASE + 0x1000, 0x1000],
      [BASE + 0x4000, 0x2000],
    ])
    for (let page = 0; page < PAGES; page++) m.copy(BASE + page * 4096, 4, BASE)
    expect(m.report()).toEqual([1, 4, 5])
  })
  it('reports by larger pages than it tracks, from wherever the range begins', () => {
    const m = setup()
    m.start()
    m.copy(BASE + 0x2000, 4)
    m.copy(BASE + 0x9000, 4)
    expect(m.report(BASE + 0x1000, 0xf000, 0x4000n)).toEqual([0, 2])
  })
  it('tells that it tracks by 4 KiB, whatever was proposed', () => {
    const m = setup()
    expect(m.start(ALL, 0x2000n).page_size).toBe(4096n)
    m.feature(SET | STOP)
    expect(m.start(ALL, 64n).page_size).toBe(4096n)
  })
  it('keeps the bits a bitmap has', () => {
    const m = setup()
    m.start()
    m.copy(BASE + 0x1000, 4)
    const bitmap = m.scratch.vaddr + 8192n
    m.scratch.bytes[8192] = 0x80
    const asked = { iova: BigInt(BASE), length: 0x8000n, page_size: 4096n, bitmap }
    m.feature(GET | REPORT, vfio_device_feature_dma_logging_report(asked).bytes)
    expect(m.scratch.bytes[8192]).toBe(0x82)
  })
  it('counts what a refused write wrote before it was refused', () => {
    const m = setup()
    m.start([[BASE, 0x100_0000]])
    m.copy(BASE + PAGES * 4096 - 4, 8)
    expect(m.report(BASE, 0x2_0000)).toEqual([15])
  })
  it('forgets with STOP, and ends with the last close', () => {
    const m = setup()
    m.start()
    m.copy(BASE, 4)
    m.feature(SET | STOP)
    expect(m.fn.writeLog).toBeUndefined()
    m.start()
    expect(m.report()).toEqual([])
    m.sys.close(m.fd)
    expect(m.fn.writeLog).toBeUndefined()
  })
  it('is kept through a reset of the device', () => {
    const m = setup()
    m.start()
    m.copy(BASE + 0x3000, 4)
    m.sys.ioctl(m.fd, uapi.VFIO_DEVICE_RESET)
    expect(m.report()).toEqual([3])
  })
})

describe('a refused call of DMA logging', () => {
  const overlap = [
    [BASE, 0x2000],
    [BASE + 0x1000, 0x1000],
  ] as const
  // biome-ignore format: table
  it.each([
    ['no ranges',              [],                                     4096n, 'EINVAL'],
    ['257 ranges',             Array(257).fill([BASE, 4096]),          4096n, 'E2BIG'],
    ['page size 0',            ALL,                                    0n,    'EINVAL'],
    ['page size 12288',        ALL,                                    12288n, 'EINVAL'],
    ['a length of 0',          [[BASE, 0]],                            4096n, 'EINVAL'],
    ['an unaligned start',     [[BASE + 1, 4096]],                     4096n, 'EINVAL'],
    ['an unaligned length',    [[BASE, 4097]],                         4096n, 'EINVAL'],
    ['a range that wraps',     [[(1n << 64n) - 4096n, 4096]],          4096n, 'EOVERFLOW'],
    ['ranges that overlap',    overlap,                                4096n, 'EINVAL'],
  ] as [string, Ranges, bigint, 'EINVAL' | 'E2BIG' | 'EOVERFLOW'][])(
    'START with %s tracks nothing',
    (_name, ranges, page, errno) => {
      const m = setup()
      refused(errno, () => m.start(ranges, page))
      expect(m.fn.writeLog).toBeUndefined()
      m.start()
    },
  )
  it('START twice: EBUSY, and the first goes on', () => {
    const m = setup()
    m.start()
    m.copy(BASE, 4)
    refused('EBUSY', () => m.start())
    expect(m.report()).toEqual([0])
  })
  it('unreadable ranges: EFAULT', () => {
    const m = setup()
    refused('EFAULT', () => m.start(ALL, 4096n, 8n))
    expect(m.fn.writeLog).toBeUndefined()
  })
  it('STOP and REPORT while nothing is tracked: EINVAL', () => {
    const m = setup()
    refused('EINVAL', () => m.feature(SET | STOP))
    refused('EINVAL', () => m.report())
  })
  // biome-ignore format: table
  it.each([
    ['pages of 2048',      BASE, 0x1000,              2048n, 'EINVAL'],
    ['pages of 5000',      BASE, 0x1000,              5000n, 'EINVAL'],
    ['a length of 0',      BASE, 0,                   4096n, 'EINVAL'],
    ['a range that wraps', BASE, (1n << 64n) - 4096n, 4096n, 'EOVERFLOW'],
  ] as const)('REPORT with %s', (_name, iova, length, page, errno) => {
    const m = setup()
    m.start()
    refused(errno, () => m.report(iova, length, page))
  })
  it('REPORT into a bitmap that is not there keeps the pages', () => {
    const m = setup()
    m.start()
    m.copy(BASE, 4)
    const asked = { iova: BigInt(BASE), length: 4096n, page_size: 4096n, bitmap: 8n }
    const data = vfio_device_feature_dma_logging_report(asked).bytes
    refused('EFAULT', () => m.feature(GET | REPORT, data))
    expect(m.report()).toEqual([0])
  })
  // biome-ignore format: table
  it.each([
    ['L72', START | GET,          24, 'EINVAL'],
    ['L72', START | SET,          23, 'EINVAL'],
    ['L72', START,                24, 'EINVAL'],
    ['L72', STOP | GET,           0,  'EINVAL'],
    ['L72', REPORT | SET,         32, 'EINVAL'],
    ['L72', REPORT | GET,         31, 'EINVAL'],
    ['L72', REPORT | SET | PROBE, 0,  'EINVAL'],
    ['V7R', START | SET,          24, 'ENOTTY'],
    ['V7R', REPORT | PROBE,       32, 'ENOTTY'],
  ] as const)('%s flags %d with %d bytes: %s', (profile, flags, tail, errno) => {
    const m = setup(profile)
    refused(errno, () => m.feature(flags, new Uint8Array(tail)))
  })
  it('a probe of each succeeds and tracks nothing', () => {
    const m = setup()
    for (const flags of [START | SET, STOP | SET, REPORT | GET]) m.feature(flags | PROBE)
    expect(m.fn.writeLog).toBeUndefined()
  })
})
