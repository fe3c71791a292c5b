// How guests put a table under a PASID, by IOMMU. VT-d, vSVA profiles: the host hands out PASIDs and binds each.
// SMMUv3, profile N13: the guest owns a table of context descriptors, one a container, which the host was shown once.
import { CD, CD_SIZE, CD_SPLIT, L1CD } from '../iommu/smmu/cd.js'
import { S1DSS, S1FMT } from '../iommu/smmu/ste.js'
import { SmmuUnit } from '../iommu/smmu/unit.js'
import {
  IOMMU_CACHE_INV_TYPE_DEV_IOTLB,
  IOMMU_CACHE_INV_TYPE_IOTLB,
  IOMMU_CACHE_INV_TYPE_PASID,
  IOMMU_INV_PASID_FLAGS_ARCHID,
  IOMMU_INV_PASID_FLAGS_PASID,
} from '../iommu/uapi.js'
import type { IommuUnit, Machine } from '../machine.js'
import { vmsaFormat } from '../paging/formats-vmsa.js'
import { X86_4LEVEL } from '../paging/formats-x86.js'
import type { Guest, Stage1 } from './guest.js'
import type { Container } from './program.js'

/** What guests of a machine do. */
export function stage1Of({ unit }: Machine<IommuUnit>): Stage1 {
  return unit instanceof SmmuUnit ? smmuStage1(unit.config.substreamIdBits) : VTD
}

const VTD: Stage1 = {
  format: X86_4LEVEL,
  space(guest, container, pasid, root) {
    container.alloc(pasid, pasid)
    return {
      invalidate: iova =>
        void container.invalidate(iova === undefined ? pasid : { pasid, addr: iova }),
      bind: () => void container.bind({ hpasid: pasid, gpgd: BigInt(root) }),
      unbind: () => void container.unbind(pasid),
      free: () => {
        container.free(pasid)
        guest.settle()
      },
    }
  },
}

const TLBS = IOMMU_CACHE_INV_TYPE_IOTLB | IOMMU_CACHE_INV_TYPE_DEV_IOTLB
const BOTH_IDS = IOMMU_INV_PASID_FLAGS_PASID | IOMMU_INV_PASID_FLAGS_ARCHID
/** log2 of the descriptors in one second-level page. */
const SPLIT = CD_SPLIT[S1FMT.TWO_LEVEL_4K]

function smmuStage1(pasidBits: number): Stage1 {
  const tables = new Map<Container, number>()
  let asids = 0

  /** The first level of a container's table; the host is shown it, and requests without PASID stay as they were. */
  function tableOf(guest: Guest, container: Container): number {
    let table = tables.get(container)
    if (table === undefined) {
      table = guest.take(Math.ceil(2 ** (pasidBits - SPLIT - 9)))
      container.setPasidTable({
        base_ptr: BigInt(table),
        pasid_bits: pasidBits,
        s1fmt: S1FMT.TWO_LEVEL_4K,
        s1dss: S1DSS.BYPASS,
      })
      tables.set(container, table)
    }
    return table
  }

  return {
    format: vmsaFormat(),
    space(guest, container, pasid, root) {
      const asid = ++asids
      const ids = { pasid, archid: asid, flags: BOTH_IDS }
      const first = tableOf(guest, container)
      const l1 = L1CD.at(guest.bytes(first + (pasid >>> SPLIT) * 8, 8))
      if (!l1.V) Object.assign(l1, { L2Ptr: guest.take(), V: true })
      const at = l1.L2Ptr + (pasid % 2 ** SPLIT) * CD_SIZE
      const cd = CD.create({
        V: true,
        AA64: true,
        T0SZ: 16,
        EPD1: true,
        IPS: 5,
        TTB0: root,
        ASID: asid,
        ASET: true,
        R: true,
        A: true,
      })
      const put = (bytes: Uint8Array, cache: number) => {
        guest.bytes(at, CD_SIZE).set(bytes)
        container.cacheInvalidate({ ...ids, cache: IOMMU_CACHE_INV_TYPE_PASID | cache })
      }
      const unbind = () => put(new Uint8Array(CD_SIZE), TLBS)
      return {
        bind: () => put(cd.bytes, 0),
        unbind,
        invalidate: iova =>
          void container.cacheInvalidate(
            iova === undefined ? { ...ids, cache: TLBS } : { ...ids, cache: TLBS, addr: iova },
          ),
        free: () => {
          unbind()
          guest.settle()
        },
      }
    },
  }
}
