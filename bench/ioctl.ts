// Ioctls in process: mapping, PASIDs and binding, with 1, a thousand and a million held, against an
// empty ioctl with an argument of the same size.

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
import { type Body, type Row, rate } from './harness.js'
import { GVA_HI, GVA_LO, nestedHost } from './nested-host.js'

const AT = '0000:01:00.0'
const EMPTY = 0x7f00

interface Caller {
  readonly machine: Machine
  readonly sys: Sys
  readonly container: number
}

function open(): Caller {
  const machine = createMachine({
    devices: [{ at: AT, model: dmaCopy }],
    parameters: { dmaEntryLimit: 2 ** 21, pasidQuota: 2 ** 20 - 1 },
    pasidCapacity: 2 ** 21,
    ramBytes: 1024 * 2 ** 20,
  })
  machine.kernel.nodes.register('/dev/empty', () => ({ kind: 'empty', ioctl: () => 0 }))
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const container = sys.open('/dev/vfio/vfio')
  const group = sys.open(machine.groupOf(AT))
  sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(container))
  sys.ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1_NESTING_IOMMU)
  return { machine, sys, container }
}

/** Two empty ioctls with an argument of `argument`'s size: the floor of a pair. */
function emptyPair({ sys }: Caller, argument: { bytes: Uint8Array }): Body {
  const fd = sys.open('/dev/empty')
  return n => {
    for (let i = 0; i < n; i++) {
      sys.ioctl(fd, EMPTY, argument)
      sys.ioctl(fd, EMPTY, argument)
    }
  }
}

const MAP_FLAGS = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE

function mapRow(id: string, held: number): Row {
  const caller = open()
  const { sys, container } = caller
  const page = sys.mmap(4096)
  const map = vfio_iommu_type1_dma_map({ flags: MAP_FLAGS, vaddr: page.vaddr, size: 4096n })
  for (let i = 1; i < held; i++) {
    map.iova = 0x1_0000_0000n + BigInt(i) * 8192n
    sys.ioctl(container, VFIO_IOMMU_MAP_DMA, map)
  }
  map.iova = 0x100_0000_0000n
  const unmap = vfio_iommu_type1_dma_unmap({ iova: map.iova, size: 4096n })
  return rate(
    {
      id,
      what: `MAP_DMA + UNMAP_DMA of 4 KiB, ${held} held`,
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
  const range = { min: 1, max: 0xf_ffff }
  const alloc = vfio_iommu_type1_pasid_request({ flags: VFIO_IOMMU_FLAG_ALLOC_PASID, range })
  for (let i = 1; i < held; i++) sys.ioctl(container, VFIO_IOMMU_PASID_REQUEST, alloc)
  const free = vfio_iommu_type1_pasid_request({ flags: VFIO_IOMMU_FLAG_FREE_PASID })
  return rate(
    {
      id,
      what: `PASID alloc + free, ${held} held`,
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

function bindRow(): Row {
  const { machine, sys, container, fd, function: fn, root } = nestedHost()
  const caller = open()
  const pasid = container.allocPasid(1, 0xf_ffff)
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
      baseline: emptyPair(caller, bind),
      target: 100_000,
    },
    'cycles/s',
  )
}

const HELD = [
  ['1', 1],
  ['1k', 1000],
  ['1m', 1_000_000],
] as const

export function* ioctlRows(): Generator<Row> {
  for (const [name, held] of HELD) yield mapRow(`map-unmap-${name}`, held)
  for (const [name, held] of HELD) yield pasidRow(`pasid-${name}`, held)
  yield bindRow()
}
