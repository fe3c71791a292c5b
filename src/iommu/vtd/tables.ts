/**
 * VT-d structures in memory: root, context, PASID directory and table entries, interrupt remapping
 * table entries. Bits are numbered over the whole entry, as chapter 9 prints them. Paging entries are
 * formats of the walker (paging/formats-vtd.ts); who reads these tables: entries.ts, remap.ts.
 */
import { bits, flag, layout, oneOf, page } from '../../base/fields.js'

/** Legacy-mode root entry, VT-d 9.1: one for each bus. */
export const ROOT_ENTRY = layout('VT-d root entry', 16, {
  CTP: page(63, 12, 'context table address'),
  P: flag(0, 'present'),
})

/** Scalable-mode root entry, VT-d 9.2: one for each bus, two context tables of 128 functions. */
export const SM_ROOT_ENTRY = layout('VT-d scalable-mode root entry', 16, {
  UCTP: page(127, 76, 'context table address of devices 16 to 31'),
  UP: flag(64, 'upper present'),
  LCTP: page(63, 12, 'context table address of devices 0 to 15'),
  LP: flag(0, 'lower present'),
})

/** Legacy-mode context entry, VT-d 9.3: one for each function of a bus. */
export const CONTEXT_ENTRY = layout('VT-d context entry', 16, {
  DID: bits(87, 72, 'domain id'),
  AVAIL: bits(70, 67, 'software'),
  AW: oneOf(66, 64, { '39-bit': 1, '48-bit': 2, '57-bit': 3 }, 'second-stage width'),
  SSPTPTR: page(63, 12, 'second-stage table address'),
  TT: oneOf(3, 2, { untranslated: 0, deviceTlb: 1, passThrough: 2 }, 'translation type'),
  FPD: flag(1, 'qualified faults are not recorded'),
  P: flag(0, 'present'),
})
/** CONTEXT_ENTRY.TT: 0 only untranslated requests, 1 also device-TLB requests, 2 untranslated pass through. */
export const TT = { UNTRANSLATED: 0, DEVICE_TLB: 1, PASS_THROUGH: 2 } as const

/** Scalable-mode context entry, VT-d 9.4: 256 bits; context tables are pages of 128. */
export const SM_CONTEXT_ENTRY = layout('VT-d scalable-mode context entry', 32, {
  RID_PRIV: flag(84, 'requests without PASID are privileged'),
  RID_PASID: bits(83, 64, 'PASID of requests without one'),
  PASIDDIRPTR: page(63, 12, 'PASID directory address'),
  PDTS: bits(11, 9, 'PASID directory has 2^(PDTS+7) entries'),
  PRE: flag(4, 'page requests are allowed'),
  PASIDE: flag(3, 'requests with PASID are allowed'),
  DTE: flag(2, 'device-TLB requests are allowed'),
  FPD: flag(1, 'qualified faults are not recorded'),
  P: flag(0, 'present'),
})

/** PASID directory entry, VT-d 9.5: one for 64 PASIDs. */
export const PASID_DIRECTORY_ENTRY = layout('VT-d PASID directory entry', 8, {
  SMPTBLPTR: page(63, 12, 'PASID table address'),
  FPD: flag(1, 'qualified faults are not recorded'),
  P: flag(0, 'present'),
})
/** PASIDs of one PASID table, and of one directory entry. */
export const PASIDS_PER_TABLE = 64

/** PASID table entry, VT-d 9.6. */
export const PASID_ENTRY = layout('VT-d PASID table entry', 64, {
  FSPTPTR: page(191, 140, 'first-stage table address'),
  EAFE: flag(135, 'extended accessed flag is kept'),
  SMEP: flag(134, 'supervisor may not execute user pages'),
  NXE: flag(133, 'XD of first-stage entries is honoured'),
  WPE: flag(132, 'supervisor writes obey R/W'),
  FSPM: oneOf(131, 130, { '4-level': 0, '5-level': 1 }, 'first-stage paging mode'),
  ERE: flag(129, 'execute requests are allowed'),
  SRE: flag(128, 'supervisor requests are allowed'),
  PAT: bits(127, 96, 'page attribute table'),
  PCD: flag(95, 'page-level cache disable'),
  PWT: flag(94, 'page-level write-through'),
  EMT: bits(93, 91, 'extended memory type'),
  EMTE: flag(90, 'extended memory type enable'),
  CD: flag(89, 'cache disable'),
  PGSNP: flag(88, 'page accesses snoop'),
  PWSNP: flag(87, 'page walks snoop'),
  DID: bits(79, 64, 'domain id'),
  SSPTPTR: page(63, 12, 'second-stage table address'),
  SSADE: flag(9, 'second-stage accessed and dirty flags are kept'),
  PGTT: oneOf(
    8,
    6,
    { firstStage: 1, secondStage: 2, nested: 3, passThrough: 4 },
    'translation type',
  ),
  SSEE: flag(5, 'second-stage execute permission is honoured'),
  AW: oneOf(4, 2, { '39-bit': 1, '48-bit': 2, '57-bit': 3 }, 'second-stage width'),
  FPD: flag(1, 'qualified faults are not recorded'),
  P: flag(0, 'present'),
})
/** PASID_ENTRY.PGTT. */
export const PGTT = { FIRST_STAGE: 1, SECOND_STAGE: 2, NESTED: 3, PASS_THROUGH: 4 } as const
/** Second-stage width of AW, in CONTEXT_ENTRY and PASID_ENTRY: 1 is 3-level, 2 is 4-level, 3 is 5-level. */
export const AW = { BITS_39: 1, BITS_48: 2, BITS_57: 3 } as const

/** Interrupt remapping table entry of a remapped interrupt, VT-d 9.9. */
export const IRTE = layout('VT-d interrupt remapping table entry', 16, {
  SVT: oneOf(83, 82, { none: 0, sourceId: 1, busRange: 2 }, 'source validation'),
  SQ: bits(81, 80, 'function bits to ignore: 0 none, 1 bit 2, 2 bits 2:1, 3 bits 2:0'),
  SID: bits(79, 64, 'source id, or bus range: 15:8 first, 7:0 last'),
  DST: bits(63, 32, 'destination: 31:0 with EIME, else 15:8'),
  V: bits(23, 16, 'vector'),
  IM: flag(15, 'posted'),
  AVAIL: bits(11, 8, 'software'),
  DLM: bits(7, 5, 'delivery mode'),
  TM: flag(4, 'level triggered'),
  RH: flag(3, 'redirection hint'),
  DM: flag(2, 'logical destination'),
  FPD: flag(1, 'qualified faults are not recorded'),
  P: flag(0, 'present'),
})

/** Interrupt remapping table entry of a posted interrupt, VT-d 9.10. */
export const POSTED_IRTE = layout('VT-d posted interrupt remapping table entry', 16, {
  PDAH: bits(127, 96, 'descriptor address 63:32'),
  SVT: oneOf(83, 82, { none: 0, sourceId: 1, busRange: 2 }, 'source validation'),
  SQ: bits(81, 80, 'function bits to ignore: 0 none, 1 bit 2, 2 bits 2:1, 3 bits 2:0'),
  SID: bits(79, 64, 'source id, or bus range: 15:8 first, 7:0 last'),
  PDAL: bits(63, 38, 'descriptor address 31:6'),
  VV: bits(23, 16, 'vector to post'),
  IM: flag(15, 'posted'),
  URG: flag(14, 'notify even while SN is set'),
  AVAIL: bits(11, 8, 'software'),
  FPD: flag(1, 'qualified faults are not recorded'),
  P: flag(0, 'present'),
})

/** Posted interrupt descriptor, VT-d 9.11. Bits 255:0 are the posted vectors (PIR). */
export const POSTED_DESCRIPTOR = layout('VT-d posted interrupt descriptor', 64, {
  NDST: bits(319, 288, 'notification destination: 31:0 with EIME, else 15:8'),
  NV: bits(279, 272, 'notification vector'),
  SN: flag(257, 'notifications of interrupts that are not urgent are suppressed'),
  ON: flag(256, 'a notification is outstanding'),
})

/** Page request descriptor, VT-d 7.4.1.1: what the unit writes into the page request queue. */
export const PAGE_REQUEST_DESCRIPTOR = layout('VT-d page request descriptor', 32, {
  ADDR_HI: bits(127, 96, 'address 63:32'),
  ADDR_LO: bits(95, 76, 'address 31:12'),
  PRGI: bits(75, 67, 'page request group index'),
  LPIG: flag(66, 'last page in group'),
  WRR: flag(65, 'write requested'),
  RDR: flag(64, 'read requested'),
  PMR: flag(53, 'privileged mode requested'),
  EXR: flag(52, 'execute requested'),
  PASID: bits(51, 32, 'PASID'),
  RID: bits(31, 16, 'requester id'),
  PP: flag(8, 'PASID present'),
  TYPE: bits(7, 0, '1'),
})
/** PAGE_REQUEST_DESCRIPTOR.TYPE. */
export const PAGE_REQUEST_TYPE = 1
