/**
 * SMMUv3 stream table: level 1 descriptors and stream table entries. Bits are numbered over the whole
 * structure, as IHI 0070 G.b chapter 5 prints them. Fields of Secure and Realm streams, MPAM and memory
 * attributes that nothing here looks at are left out. Who reads these tables: streams.ts.
 */
import { bits, flag, layout, oneOf, page } from '../../base/fields.js'

/** Level 1 stream table descriptor, 5.1. */
export const L1STD = layout('SMMUv3 L1STD', 8, {
  L2Ptr: page(51, 6, 'address of a second-level table, aligned to it'),
  Span: bits(4, 0, '2^(Span-1) STEs; 0 and above 11: none'),
})

/** STE.Config. */
export const STE_CONFIG = {
  ABORT: 0, // every transaction is aborted without an event; 1 to 3 mean the same
  BYPASS: 4,
  S1: 5,
  S2: 6,
  NESTED: 7,
} as const

/** STE.S1Fmt; 3 means the same as linear. */
export const S1FMT = { LINEAR: 0, TWO_LEVEL_4K: 1, TWO_LEVEL_64K: 2 } as const

/** STE.S1DSS: what a transaction without SubstreamID does where there are substreams; 3 means the same as 0. */
export const S1DSS = { TERMINATE: 0, BYPASS: 1, SUBSTREAM_0: 2 } as const

/** STE.EATS. */
export const EATS = { NONE: 0, FULL: 1, SPLIT: 2, DPT: 3 } as const

/** STE.STRW, where it is not ignored. */
export const STRW = { NS_EL1: 0, NS_EL2: 2 } as const

/** STE.PRIVCFG and INSTCFG: 0 and 1 leave the transaction's own. */
export const OVERRIDE = { INCOMING: 0, CLEAR: 2, SET: 3 } as const

/** Stream table entry, 5.2: one for each StreamID. */
export const STE = layout('SMMUv3 STE', 64, {
  S2TTB: page(247, 196, 'stage 2 table address'),
  S2R: flag(186, 'stage 2 faults are recorded'),
  S2S: flag(185, 'stage 2 faults stall'),
  S2HA: flag(184, 'stage 2 accessed flags are set'),
  S2HD: flag(183, 'stage 2 dirty state is set'),
  S2PTW: flag(182, 'table walks must not go to device memory; no effect'),
  S2AFFD: flag(181, 'no access flag faults at stage 2'),
  S2ENDI: flag(180, 'stage 2 tables are big-endian'),
  S2AA64: flag(179, 'stage 2 tables are AArch64'),
  S2PS: bits(178, 176, 'stage 2 output size: ADDRESS_SIZES'),
  S2TG: oneOf(175, 174, { '4K': 0, '64K': 1, '16K': 2 }, 'stage 2 granule'),
  S2SH0: bits(173, 172, 'attributes of stage 2 walks; no effect'),
  S2OR0: bits(171, 170, 'as S2SH0'),
  S2IR0: bits(169, 168, 'as S2SH0'),
  S2SL0: bits(167, 166, 'stage 2 start level, by granule'),
  S2T0SZ: bits(165, 160, 'stage 2 input size: 64 - S2T0SZ bits'),
  S2VMID: bits(143, 128, 'VMID'),
  INSTCFG: bits(115, 114, 'instruction override: OVERRIDE'),
  PRIVCFG: bits(113, 112, 'privilege override: OVERRIDE'),
  SHCFG: bits(109, 108, 'memory attributes; no effect'),
  ALLOCCFG: bits(104, 101, 'as SHCFG'),
  MTCFG: flag(100, 'as SHCFG'),
  MemAttr: bits(99, 96, 'as SHCFG'),
  STRW: oneOf(95, 94, { 'NS-EL1': 0, 'NS-EL2': 2 }, 'stream world'),
  EATS: oneOf(93, 92, { none: 0, full: 1, split: 2, dpt: 3 }, 'what ATS may do'),
  S1STALLD: flag(91, 'stage 1 faults must not stall'),
  MEV: flag(83, 'identical events may be merged'),
  PPAR: flag(82, 'automatic PRG responses carry a PASID'),
  CONT: bits(80, 77, '2^CONT STEs are alike; no effect'),
  S1CSH: bits(71, 70, 'attributes of CD fetches; no effect'),
  S1COR: bits(69, 68, 'as S1CSH'),
  S1CIR: bits(67, 66, 'as S1CSH'),
  S1DSS: oneOf(65, 64, { terminate: 0, bypass: 1, substream0: 2 }, 'without SubstreamID'),
  S1CDMax: bits(63, 59, '2^S1CDMax CDs; 0: one CD and no substreams'),
  S1ContextPtr: page(51, 6, 'CD table address; an IPA under stage 2'),
  S1Fmt: oneOf(5, 4, { linear: 0, 'two-level, 4 KB': 1, 'two-level, 64 KB': 2 }, 'CD table'),
  Config: oneOf(3, 1, { abort: 0, bypass: 4, S1: 5, S2: 6, nested: 7 }, 'what happens to traffic'),
  V: flag(0, 'valid'),
})
