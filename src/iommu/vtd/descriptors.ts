/**
 * Invalidation queue descriptors, VT-d 6.5.2 and 7.6.1. A 256-bit queue pads the 128-bit ones with
 * zeros, so each layout here is 32 bytes and a 128-bit queue uses the first 16. TYPE is split over bits
 * 11:9 and 3:0. Who executes them: invalidate.ts; who writes them: driver.ts.
 */
import { bits, flag, layout, oneOf, page } from '../../base/fields.js'

/** Descriptor types: bits 11:9 above bits 3:0. */
export const DESCRIPTOR = {
  CONTEXT_CACHE: 1,
  IOTLB: 2,
  DEVICE_TLB: 3,
  INTERRUPT_ENTRY_CACHE: 4,
  WAIT: 5,
  PASID_IOTLB: 6,
  PASID_CACHE: 7,
  PASID_DEVICE_TLB: 8,
  PAGE_GROUP_RESPONSE: 9,
} as const
/** One of the descriptor types. */
export type DescriptorType = (typeof DESCRIPTOR)[keyof typeof DESCRIPTOR]

// An address of 64 bits: two fields, so that neither half becomes a bigint.
const address = {
  ADDR_HI: bits(127, 96, 'address 63:32'),
  ADDR_LO: bits(95, 76, 'address 31:12'),
}
const type = { TYPE_HI: bits(11, 9, 'type 6:4'), TYPE: bits(3, 0, 'type 3:0') }
const range = {
  ...address,
  IH: flag(70, 'only leaves changed'),
  AM: bits(69, 64, 'low page-number bits to ignore'),
}

/** Context-cache invalidate, VT-d 6.5.2.1. */
export const CONTEXT_CACHE_DESCRIPTOR = layout('VT-d cc_inv_dsc', 32, {
  FM: bits(49, 48, 'function bits to ignore: 0 none, 1 bit 2, 2 bits 2:1, 3 bits 2:0'),
  SID: bits(47, 32, 'source id'),
  DID: bits(31, 16, 'domain id'),
  G: oneOf(5, 4, { global: 1, domain: 2, device: 3 }, 'granularity'),
  ...type,
})

/** PASID-cache invalidate, VT-d 6.5.2.2. */
export const PASID_CACHE_DESCRIPTOR = layout('VT-d pc_inv_dsc', 32, {
  PASID: bits(51, 32, 'PASID'),
  DID: bits(31, 16, 'domain id'),
  G: oneOf(5, 4, { domain: 0, pasid: 1, global: 3 }, 'granularity'),
  ...type,
})

/** IOTLB invalidate, VT-d 6.5.2.3. */
export const IOTLB_DESCRIPTOR = layout('VT-d iotlb_inv_dsc', 32, {
  ...range,
  DID: bits(31, 16, 'domain id'),
  DR: flag(7, 'drain reads'),
  DW: flag(6, 'drain writes'),
  G: oneOf(5, 4, { global: 1, domain: 2, page: 3 }, 'granularity'),
  ...type,
})

/** PASID-based IOTLB invalidate, VT-d 6.5.2.4. */
export const PASID_IOTLB_DESCRIPTOR = layout('VT-d p_iotlb_inv_dsc', 32, {
  ...range,
  PASID: bits(51, 32, 'PASID'),
  DID: bits(31, 16, 'domain id'),
  G: oneOf(5, 4, { pasid: 2, page: 3 }, 'granularity'),
  ...type,
})

/** Device-TLB invalidate, VT-d 6.5.2.5. */
export const DEVICE_TLB_DESCRIPTOR = layout('VT-d dev_tlb_inv_dsc', 32, {
  ...address,
  S: flag(64, 'the address encodes a range larger than a page'),
  PFSID_HI: bits(63, 52, 'physical function 15:4'),
  SID: bits(47, 32, 'function whose TLB is meant'),
  MIP: bits(20, 16, 'invalidations the function may have pending'),
  PFSID_LO: bits(15, 12, 'physical function 3:0'),
  ...type,
})

/** PASID-based device-TLB invalidate, VT-d 6.5.2.6. */
export const PASID_DEVICE_TLB_DESCRIPTOR = layout('VT-d p_dev_tlb_inv_dsc', 32, {
  ...address,
  S: flag(75, 'the address encodes a range larger than a page'),
  G: flag(64, 'all PASIDs'),
  PFSID_HI: bits(63, 52, 'physical function 15:4'),
  PASID: bits(51, 32, 'PASID'),
  SID: bits(31, 16, 'function whose TLB is meant'),
  PFSID_LO: bits(15, 12, 'physical function 3:0'),
  MIP: bits(8, 4, 'invalidations the function may have pending'),
  ...type,
})

/** Interrupt entry cache invalidate, VT-d 6.5.2.8. */
export const INTERRUPT_ENTRY_CACHE_DESCRIPTOR = layout('VT-d iec_inv_dsc', 32, {
  IIDX: bits(47, 32, 'first interrupt index'),
  IM: bits(31, 27, 'low index bits to ignore'),
  G: oneOf(4, 4, { global: 0, index: 1 }, 'granularity'),
  ...type,
})

/** Invalidation wait, VT-d 6.5.2.9. */
export const WAIT_DESCRIPTOR = layout('VT-d inv_wait_dsc', 32, {
  STADDR: page(127, 66, 'status address, a multiple of 4'),
  STDATA: bits(63, 32, 'status data'),
  PD: flag(7, 'drain page requests'),
  FN: flag(6, 'fence: descriptors after this one wait for those before it'),
  SW: flag(5, 'write STDATA to STADDR'),
  IF: flag(4, 'raise the completion interrupt'),
  ...type,
})

/** Page group response, VT-d 7.6.1. */
export const PAGE_GROUP_RESPONSE_DESCRIPTOR = layout('VT-d page_grp_resp_dsc', 32, {
  PRGI: bits(75, 67, 'page request group index'),
  PASID: bits(51, 32, 'PASID'),
  RID: bits(31, 16, 'requester id'),
  RC: oneOf(15, 12, { success: 0, invalid: 1, failure: 15 }, 'response code'),
  PP: flag(4, 'PASID present'),
  ...type,
})
