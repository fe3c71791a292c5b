// What an invalidation costs: in proportion to what it drops, not to what is held beside it.

import { ANY_SOURCE, IOTLB_NESTED, Iotlb } from '../src/iommu/iotlb.js'
import {
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_INV_ADDR_FLAGS_PASID,
  IOMMU_INV_GRANU_ADDR,
  iommu_cache_invalidate_info,
} from '../src/iommu/uapi.js'
import {
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_NESTING_OP_CACHE_INVLD,
  vfio_iommu_type1_nesting_op,
} from '../src/vfio/uapi/vfio.js'
import { nanoseconds, type Row } from './harness.js'
import { emptyPair } from './ioctl.js'
import { GVA, GVA_HI, GVA_LO, nestedHost, PAGES } from './nested-host.js'

const DOMAIN = 1
const PERMISSIONS = 0x3f

/** An IOTLB of 4096 with `held` entries of other PASIDs, 16 each. */
function filled(held: number): Iotlb {
  const iotlb = new Iotlb()
  for (let i = 0; i < held; i++) put(iotlb, 1000 + (i >> 4), i & 15)
  return iotlb
}

function put(iotlb: Iotlb, pasid: number, page: number): void {
  iotlb.insert(DOMAIN, pasid, ANY_SOURCE, IOTLB_NESTED, 0, page << 12, page << 12, 12, PERMISSIONS)
}

/** Fills `entries` pages of a PASID and drops them again, against filling them over themselves. */
function dropRow(entries: number, held: number): Row {
  const iotlb = filled(held)
  const other = filled(held)
  const fill = (of: Iotlb) => {
    for (let page = 0; page < entries; page++) put(of, 1, page)
  }
  return nanoseconds({
    id: `invalidate-${entries}-of-${held}`,
    what: `IOTLB: ${entries} entries made and dropped by PASID, beside ${held}, against making them alone`,
    body: n => {
      for (let i = 0; i < n; i++) {
        fill(iotlb)
        if (iotlb.invalidatePasid(DOMAIN, 1) !== entries) throw new Error('not dropped')
      }
    },
    baseline: n => {
      for (let i = 0; i < n; i++) fill(other)
    },
    target: null,
  })
}

/** CACHE_INVLD of one page, nothing else or everything cached. */
function callRow(warm: number): Row {
  const { machine, sys, fd, function: fn, pasid } = nestedHost()
  const bytes = new Uint8Array(64)
  for (let page = 0; page < warm; page++)
    fn.dma.read(GVA_HI, (GVA_LO + page * 4096) | 0, bytes, { pasid })
  const info = iommu_cache_invalidate_info({
    version: 1,
    cache: IOMMU_CACHE_INV_TYPE_IOTLB,
    granularity: IOMMU_INV_GRANU_ADDR,
  })
  const { addr_info } = info.granu
  addr_info.flags = IOMMU_INV_ADDR_FLAGS_PASID
  addr_info.pasid = BigInt(pasid)
  addr_info.addr = GVA
  addr_info.granule_size = 4096n
  addr_info.nb_granules = 1n
  const argument = vfio_iommu_type1_nesting_op({
    flags: VFIO_IOMMU_NESTING_OP_CACHE_INVLD,
    data: info.bytes,
  })
  return nanoseconds({
    id: `invalidate-page-${warm}`,
    what: `CACHE_INVLD of one page, ${warm} pages cached by unit and device, against two empty ioctls`,
    body: n => {
      for (let i = 0; i < n; i++) sys.ioctl(fd, VFIO_IOMMU_NESTING_OP, argument)
    },
    baseline: emptyPair({ machine, sys }, argument),
    target: null,
  })
}

export function* invalidateRows(): Generator<Row> {
  for (const held of [0, 4000]) for (const entries of [1, 64]) yield dropRow(entries, held)
  for (const warm of [1, PAGES]) yield callRow(warm)
}
