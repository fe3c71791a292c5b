// Ioctls in process: mapping, PASIDs and binding, with 1 to a million held, against an empty ioctl with an argument
// of the same size.

import { iommu_gpasid_bind_data } from '../src/iommu/uapi.js'
import { createMachine, type Machine } from '../src/machine.js'
import { dmaCopy } from '../src/pci/devices/dma-copy.js'
import { type Sys, s32 } from '../src/sys/sys.js'
import {
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_IOMMU_FLAG_ALLOC_PASID,
  VFIO_IOMMU_FLAG_FREE_PASID,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_NESTING_OP_BIND_PGTBL,
  VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_nesting_op,
  vfio_iommu_type1_pasid_request,
} from '../src/vfio/uapi/vfio.js'
import { type Body, nanoseconds, type Row, rate } from './harness.js'
import { GVA_HI, GVA_LO, nestedHost } from './nested-host.js'

const AT = '0000:01:00.0'
const EMPTY = 0x7f00
/** 20 bits, all of them but 0: 2^20 - 1 PASIDs. */
const LAST_PASID = 0xf_ffff

/** A process with a nesting container. */
export interface Caller {
  readonly machine: Machine
  readonly sys: Sys
  readonly container: number
}

/** A machine with room for a million of everything, and the caller on it. */
export function open(): Caller {
  const machine = createMachine({
    devices: [{ at: AT, model: dmaCopy }],
    parameters: { dmaEntryLimit: 2 ** 21, pasidQuota: 2 ** 20 - 1 },
    pasidCapacity: 2 ** 21,
    ramBytes: 1024 * 2 ** 20,
  })
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const container = sys.open('/dev/vfio/vfio')
  const group = sys.open(machine.groupOf(AT))
  sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
  sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU)
  return { machine, sys, container }
}

/** Two empty ioctls with an argument of `argument`'s size: the floor of a pair. */
export function emptyPair(
  { machine, sys }: Pick<Caller, 'machine' | 'sys'>,
  argument: { bytes: Uint8Array },
): Body {
  machine.kernel.nodes.register('/dev/empty', () => ({ kind: 'empty', ioctl: () => 0 }))
  const fd = sys.open('/dev/empty')
  return n => {
    for (let i = 0; i < n; i++) {
      sys.ioctl(fd, EMPTY, argument)
      sys.ioctl(fd, EMPTY, argument)
    }
  }
}

const MAP_FLAGS = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE

/** Maps one page at every other one, until `held` are mapped; the argument of the last call. */
export function holdMappings({ sys, container }: Caller, held: number) {
  const page = sys.mmap(4096)
  const map = vfio_iommu_type1_dma_map({ flags: MAP_FLAGS, vaddr: page.vaddr, size: 4096n })
  const before = holdings.get(sys) ?? 0
  for (let i = before; i < held; i++) {
    map.iova = 0x1_0000_0000n + BigInt(i) * 8192n
    sys.ioctl(container, VFIO_IOMMU_MAP_DMA, map)
  }
  holdings.set(sys, held)
  return map
}
const holdings = new WeakMap<Sys, number>()

/** Allocates PASIDs until `held` are held; the argument of the last call. */
export function holdPasids({ machine, sys, container }: Caller, held: number) {
  const range = { min: 1, max: LAST_PASID }
  const alloc = vfio_iommu_type1_pasid_request({ flags: VFIO_IOMMU_FLAG_ALLOC_PASID, range })
  while (machine.ioasid.held < held) sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, alloc)
  return alloc
}

function mapRow(id: string, held: number): Row {
  const caller = open()
  const { sys, container } = caller
  const map = holdMappings(caller, held - 1)
  map.iova = 0x100_0000_0000n
  const unmap = vfio_iommu_type1_dma_unmap({ iova: map.iova, size: 4096n })
  return rate(
    {
      id,
      what: `MAP_DMA + UNMAP_DMA of 4 KiB, the ${held}th`,
      body: n => {
        for (let i = 0; i < n; i++) {
          sys.ioctl(container, VFIO_IOMMU_MAP_DMA, map)
          sys.ioctl(container, VFIO_IOMMU_UNMAP_DMA, unmap)
        }
      },
      baseline: emptyPair(caller, map),
      target: 500_000,
    },
    'pairs/s',
  )
}

function pasidRow(id: string, held: number): Row {
  const caller = open()
  const { sys, container } = caller
  const alloc = holdPasids(caller, held - 1)
  const free = vfio_iommu_type1_pasid_request({ flags: VFIO_IOMMU_FLAG_FREE_PASID })
  return rate(
    {
      id,
      what: `PASID alloc + free, the ${held}th`,
      body: n => {
        for (let i = 0; i < n; i++) {
          const pasid = sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, alloc)
          free.view.setUint32(8, pasid, true)
          free.view.setUint32(12, pasid, true)
          sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, free)
        }
      },
      baseline: emptyPair(caller, alloc),
      target: 2_000_000,
    },
    'pairs/s',
  )
}

/** FREE of every PASID there could be, against FREE of each one that is held. */
function freeRangeRow(): Row {
  const owned = 64
  const caller = open()
  const { sys, container } = caller
  const alloc = holdPasids(caller, 1)
  const every = vfio_iommu_type1_pasid_request({
    flags: VFIO_IOMMU_FLAG_FREE_PASID,
    range: { min: 1, max: 0x7fff_ffff },
  })
  const one = vfio_iommu_type1_pasid_request({ flags: VFIO_IOMMU_FLAG_FREE_PASID })
  return nanoseconds({
    id: 'pasid-free-range',
    what: `${owned} PASIDs: alloc of each and FREE of [1, 2^31-1], against alloc and FREE of each`,
    body: n => {
      for (let i = 0; i < n; i++) {
        for (let k = 0; k < owned; k++) sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, alloc)
        sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, every)
      }
    },
    baseline: n => {
      for (let i = 0; i < n; i++) {
        const first = sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, alloc)
        for (let k = 1; k < owned; k++) sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, alloc)
        for (let pasid = first; pasid < first + owned; pasid++) {
          one.view.setUint32(8, pasid, true)
          one.view.setUint32(12, pasid, true)
          sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, one)
        }
      }
    },
    target: null,
  })
}

function bindRow(): Row {
  const { machine, sys, container, fd, function: fn, root } = nestedHost()
  const pasid = container.allocPasid(1, LAST_PASID)
  const data = iommu_gpasid_bind_data({
    version: 1,
    format: 1,
    addr_width: 48,
    gpgd: BigInt(root),
    hpasid: BigInt(pasid),
  }).bytes
  const bind = vfio_iommu_type1_nesting_op({ flags: VFIO_IOMMU_NESTING_OP_BIND_PGTBL, data })
  const unbind = vfio_iommu_type1_nesting_op({ flags: VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL, data })
  const buffer = new Uint8Array(64)
  const tag = { pasid }
  return rate(
    {
      id: 'bind-cycle',
      what: 'BIND_PGTBL + DMA of 64 bytes + UNBIND_PGTBL',
      body: n => {
        for (let i = 0; i < n; i++) {
          sys.ioctl(fd, VFIO_IOMMU_NESTING_OP, bind)
          if (!fn.dma.read(GVA_HI, GVA_LO, buffer, tag)) throw new Error(fn.dma.failedReason)
          sys.ioctl(fd, VFIO_IOMMU_NESTING_OP, unbind)
        }
        machine.settle()
      },
      baseline: emptyPair({ machine, sys }, bind),
      target: 100_000,
    },
    'cycles/s',
  )
}

const MAPPINGS = { 1: 1, '1k': 1000, '100k': 100_000, '1m': 1_000_000 }
const PASIDS = { ...MAPPINGS, '1m': LAST_PASID }

export function* ioctlRows(): Generator<Row> {
  for (const [name, held] of Object.entries(MAPPINGS)) yield mapRow(`map-unmap-${name}`, held)
  for (const [name, held] of Object.entries(PASIDS)) yield pasidRow(`pasid-${name}`, held)
  yield freeRangeRow()
  yield bindRow()
}
