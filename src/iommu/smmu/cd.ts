/**
 * SMMUv3 context descriptors: one address space each, and the first level of a two-level table. Bits are
 * numbered over the whole structure, as IHI 0070 G.b chapter 5 prints them. Memory attribute indirection
 * (MAIR, AMAIR), permission indirection and 128-bit tables are left out. Who reads them: contexts.ts.
 */
import { bits, flag, layout, oneOf, page } from '../../base/fields.js'

/** Level 1 context descriptor, 5.3. */
export const L1CD = layout('SMMUv3 L1CD', 8, {
  L2Ptr: page(51, 12, 'address of a table of 64 or 1024 CDs'),
  V: flag(0, 'valid'),
})

/** Context descriptor, 5.4: one for each substream. */
export const CD = layout('SMMUv3 CD', 64, {
  MAIR1: bits(255, 224, 'memory types; no effect'),
  MAIR0: bits(223, 192, 'memory types; no effect'),
  TTB1: page(179, 132, 'table address of the upper range'),
  HAD1: flag(129, 'upper range: hierarchical permissions are off'),
  NSCFG1: flag(128, 'Secure streams only'),
  TTB0: page(115, 68, 'table address of the lower range'),
  HAD0: flag(65, 'lower range: hierarchical permissions are off'),
  NSCFG0: flag(64, 'Secure streams only'),
  ASID: bits(63, 48, 'address space id'),
  ASET: flag(47, 'not shared with processors; no effect'),
  A: flag(46, 'a terminated fault is aborted'),
  R: flag(45, 'faults are recorded'),
  S: flag(44, 'faults stall'),
  HA: flag(43, 'accessed flags are set'),
  HD: flag(42, 'dirty state is set'),
  AA64: flag(41, 'tables are AArch64'),
  PAN: flag(40, 'privileged access to unprivileged pages is refused'),
  TBI1: flag(39, 'upper range: bits 63:56 of an address are ignored'),
  TBI0: flag(38, 'lower range: bits 63:56 of an address are ignored'),
  UWXN: flag(37, 'AArch32 only'),
  WXN: flag(36, 'writable pages are not executable'),
  AFFD: flag(35, 'no access flag faults'),
  IPS: bits(34, 32, 'output size: ADDRESS_SIZES'),
  V: flag(31, 'valid'),
  EPD1: flag(30, 'no walks of the upper range'),
  SH1: bits(29, 28, 'attributes of walks; no effect'),
  OR1: bits(27, 26, 'as SH1'),
  IR1: bits(25, 24, 'as SH1'),
  TG1: oneOf(23, 22, { '16K': 1, '4K': 2, '64K': 3 }, 'granule of the upper range'),
  T1SZ: bits(21, 16, 'input size of the upper range: 64 - T1SZ bits'),
  ENDI: flag(15, 'tables are big-endian'),
  EPD0: flag(14, 'no walks of the lower range'),
  SH0: bits(13, 12, 'attributes of walks; no effect'),
  OR0: bits(11, 10, 'as SH0'),
  IR0: bits(9, 8, 'as SH0'),
  TG0: oneOf(7, 6, { '4K': 0, '64K': 1, '16K': 2 }, 'granule of the lower range'),
  T0SZ: bits(5, 0, 'input size of the lower range: 64 - T0SZ bits'),
})

/** Bytes of an STE and of a CD. */
export const CD_SIZE = 64
/** log2 of the CDs in a second-level table: S1FMT.TWO_LEVEL_4K and TWO_LEVEL_64K. */
export const CD_SPLIT = [0, 6, 10] as const
