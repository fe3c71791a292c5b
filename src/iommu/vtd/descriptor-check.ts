/**
 * Which invalidation descriptors a unit takes: known types (VT-d table 26) and well-formed ones, whose
 * reserved fields and values are not used (IQEI 3 and 4). The masks come from descriptors.ts.
 */
import type { Field, Layout } from '../../base/fields.js'
import { MAMV, type VtdConfig } from './config.js'
import {
  CONTEXT_CACHE_DESCRIPTOR,
  DESCRIPTOR,
  DEVICE_TLB_DESCRIPTOR,
  INTERRUPT_ENTRY_CACHE_DESCRIPTOR,
  IOTLB_DESCRIPTOR,
  PAGE_GROUP_RESPONSE_DESCRIPTOR,
  PASID_CACHE_DESCRIPTOR,
  PASID_DEVICE_TLB_DESCRIPTOR,
  PASID_IOTLB_DESCRIPTOR,
  WAIT_DESCRIPTOR,
} from './descriptors.js'

/** The bits of a descriptor that must be zero, word by word. */
function reserved(layout: Layout, ignored: readonly number[] = []): Int32Array {
  const words = new Int32Array(8).fill(-1)
  const allow = (bit: number) => {
    words[bit >> 5]! &= ~(1 << (bit & 31))
  }
  for (const f of Object.values<Field>(layout.fields))
    for (let bit = f.lo; bit <= f.hi; bit++) allow(bit)
  for (const bit of ignored) allow(bit)
  return words
}

const RESERVED: Readonly<Record<number, Int32Array>> = {
  [DESCRIPTOR.CONTEXT_CACHE]: reserved(CONTEXT_CACHE_DESCRIPTOR),
  [DESCRIPTOR.IOTLB]: reserved(IOTLB_DESCRIPTOR),
  [DESCRIPTOR.DEVICE_TLB]: reserved(DEVICE_TLB_DESCRIPTOR),
  [DESCRIPTOR.INTERRUPT_ENTRY_CACHE]: reserved(INTERRUPT_ENTRY_CACHE_DESCRIPTOR),
  [DESCRIPTOR.WAIT]: reserved(WAIT_DESCRIPTOR),
  [DESCRIPTOR.PASID_IOTLB]: reserved(PASID_IOTLB_DESCRIPTOR),
  [DESCRIPTOR.PASID_CACHE]: reserved(PASID_CACHE_DESCRIPTOR),
  [DESCRIPTOR.PASID_DEVICE_TLB]: reserved(PASID_DEVICE_TLB_DESCRIPTOR),
  // Older software copies LPIG into bit 66.
  [DESCRIPTOR.PAGE_GROUP_RESPONSE]: reserved(PAGE_GROUP_RESPONSE_DESCRIPTOR, [66]),
}

/** True when the unit knows the type; `pasids` when PASID-based types are valid in the mode it is in. */
export function knownDescriptor(type: number, pasids: boolean, config: VtdConfig): boolean {
  switch (type) {
    case DESCRIPTOR.CONTEXT_CACHE:
    case DESCRIPTOR.IOTLB:
    case DESCRIPTOR.WAIT:
      return true
    case DESCRIPTOR.INTERRUPT_ENTRY_CACHE:
      return config.interruptRemapping
    case DESCRIPTOR.DEVICE_TLB:
      return config.deviceTlb
    case DESCRIPTOR.PASID_IOTLB:
    case DESCRIPTOR.PASID_CACHE:
      return pasids
    case DESCRIPTOR.PASID_DEVICE_TLB:
      return pasids && config.deviceTlb
    case DESCRIPTOR.PAGE_GROUP_RESPONSE:
      return pasids && config.pageRequests
    default:
      return false
  }
}

/** True when a descriptor of a known type has no reserved bit set and no reserved granularity. */
export function wellFormedDescriptor(type: number, words: Int32Array, config: VtdConfig): boolean {
  const mask = RESERVED[type]!
  for (let i = 0; i < 8; i++) if ((words[i]! & mask[i]!) !== 0) return false
  const first = words[0]!
  const granularity = (first >>> 4) & 3
  switch (type) {
    case DESCRIPTOR.CONTEXT_CACHE:
      return granularity !== 0
    case DESCRIPTOR.PASID_CACHE:
      return granularity !== 2
    case DESCRIPTOR.IOTLB:
      return granularity !== 0 && (granularity !== 3 || (words[2]! & 63) <= MAMV)
    case DESCRIPTOR.PASID_IOTLB:
      return granularity >= 2
    case DESCRIPTOR.WAIT:
      return config.pageRequestDrain || (first & 0x80) === 0
    case DESCRIPTOR.DEVICE_TLB:
    case DESCRIPTOR.PASID_DEVICE_TLB:
      // PFSID: bits 63:52 and 15:12.
      return config.deviceTlbThrottle || ((first & 0xf000) | (words[1]! >>> 20)) === 0
    default:
      return true
  }
}
