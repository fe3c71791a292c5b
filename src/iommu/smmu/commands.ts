/**
 * SMMUv3 commands, IHI 0070 G.b chapter 4: 16 bytes each, in the command queue. Bits are numbered over the
 * whole command. Commands of the Secure and Realm queues are left out. What they do: execute.ts.
 */
import { bits, flag, layout, oneOf, page } from '../../base/fields.js'

/** Bytes of a command. */
export const COMMAND_SIZE = 16

/** Opcodes. One that is not here is CERROR_ILL. */
export const CMD = {
  PREFETCH_CONFIG: 0x01, // 4.2.1
  PREFETCH_ADDR: 0x02, // 4.2.2
  CFGI_STE: 0x03, // 4.3.1
  CFGI_STE_RANGE: 0x04, // 4.3.2; CFGI_ALL is the range of 31
  CFGI_CD: 0x05, // 4.3.3
  CFGI_CD_ALL: 0x06, // 4.3.4
  TLBI_NH_ALL: 0x10, // 4.4.2.1
  TLBI_NH_ASID: 0x11, // 4.4.2.2
  TLBI_NH_VA: 0x12, // 4.4.2.4
  TLBI_NH_VAA: 0x13, // 4.4.2.3
  TLBI_EL2_ALL: 0x20, // 4.4.2.7
  TLBI_EL2_ASID: 0x21, // 4.4.2.10
  TLBI_EL2_VA: 0x22, // 4.4.2.8
  TLBI_EL2_VAA: 0x23, // 4.4.2.9
  TLBI_S12_VMALL: 0x28, // 4.4.3.2
  TLBI_S2_IPA: 0x2a, // 4.4.3.1
  TLBI_NSNH_ALL: 0x30, // 4.4.4.1
  ATC_INV: 0x40, // 4.5.1
  PRI_RESP: 0x41, // 4.5.2
  RESUME: 0x44, // 4.7.1
  STALL_TERM: 0x45, // 4.7.2
  SYNC: 0x46, // 4.7.3
} as const

/** Range of CMD_CFGI_STE_RANGE that means every stream: CMD_CFGI_ALL. */
export const CFGI_ALL_RANGE = 31

/** CMD_SYNC.CS; 3 is reserved. */
export const SYNC_CS = { NONE: 0, IRQ: 1, SEV: 2 } as const

/** CMD_PRI_RESP.Resp; 3 is reserved. */
export const PRI_RESP = { FAILURE: 0, INVALID: 1, SUCCESS: 2 } as const

const opcode = {
  SSec: flag(10, 'a Secure stream is meant; must be 0'),
  OPCODE: bits(7, 0, 'CMD'),
}

/** CMD_CFGI_STE, CMD_CFGI_CD and CMD_CFGI_CD_ALL; and, without Leaf, the prefetch commands. */
export const CONFIG_COMMAND = layout('SMMUv3 configuration command', COMMAND_SIZE, {
  Leaf: flag(64, 'cached level 1 descriptors may stay'),
  StreamID: bits(63, 32, 'stream'),
  SubstreamID: bits(31, 12, 'substream, of CFGI_CD and prefetches'),
  SSV: flag(11, 'prefetches: SubstreamID is valid'),
  ...opcode,
})

/** CMD_CFGI_STE_RANGE and CMD_CFGI_ALL. */
export const CFGI_STE_RANGE_COMMAND = layout('SMMUv3 CMD_CFGI_STE_RANGE', COMMAND_SIZE, {
  Range: bits(68, 64, '2^(Range+1) streams, aligned; 31: all'),
  StreamID: bits(63, 32, 'one of them'),
  ...opcode,
})

/** CMD_TLBI_*. */
export const TLBI_COMMAND = layout('SMMUv3 TLBI command', COMMAND_SIZE, {
  ADDR_HI: bits(127, 96, 'VA or IPA 63:32'),
  ADDR_LO: bits(95, 76, 'VA or IPA 31:12'),
  TG: oneOf(75, 74, { any: 0, '4K': 1, '16K': 2, '64K': 3 }, 'granule; other than 0: a range'),
  TTL: bits(73, 72, 'level of the leaves, as a hint'),
  Leaf: flag(64, 'only last-level entries changed'),
  ASID: bits(63, 48, 'ASID'),
  VMID: bits(47, 32, 'VMID'),
  SCALE: bits(24, 20, 'range: (NUM+1) x 2^SCALE granules'),
  NUM: bits(16, 12, 'see SCALE'),
  ...opcode,
})

/** CMD_ATC_INV. */
export const ATC_INV_COMMAND = layout('SMMUv3 CMD_ATC_INV', COMMAND_SIZE, {
  ADDR_HI: bits(127, 96, 'address 63:32'),
  ADDR_LO: bits(95, 76, 'address 31:12'),
  Size: bits(69, 64, '2^Size pages of 4 KB; 52: everything'),
  StreamID: bits(63, 32, 'the function'),
  SubstreamID: bits(31, 12, 'PASID'),
  SSV: flag(11, 'SubstreamID is valid'),
  G: flag(9, 'all PASIDs'),
  ...opcode,
})

/** CMD_PRI_RESP. */
export const PRI_RESP_COMMAND = layout('SMMUv3 CMD_PRI_RESP', COMMAND_SIZE, {
  Resp: bits(77, 76, 'PRI_RESP'),
  PRGIndex: bits(72, 64, 'page request group'),
  StreamID: bits(63, 32, 'the function'),
  SubstreamID: bits(31, 12, 'PASID'),
  SSV: flag(11, 'SubstreamID is valid'),
  ...opcode,
})

/** CMD_RESUME and CMD_STALL_TERM. */
export const RESUME_COMMAND = layout('SMMUv3 CMD_RESUME', COMMAND_SIZE, {
  STAG: bits(79, 64, 'RESUME: the stall, as its event named it'),
  StreamID: bits(63, 32, 'its stream'),
  Ab: flag(13, 'RESUME without Ac: abort; otherwise RAZ/WI where there is that'),
  Ac: flag(12, 'RESUME: try again'),
  ...opcode,
})

/** CMD_SYNC. */
export const SYNC_COMMAND = layout('SMMUv3 CMD_SYNC', COMMAND_SIZE, {
  MSIAddress: page(115, 66, 'message address; 0: a wired interrupt'),
  MSIData: bits(63, 32, 'message data'),
  MSIAttr: bits(27, 24, 'memory type of the message; no effect'),
  MSH: bits(23, 22, 'shareability of the message; no effect'),
  CS: bits(13, 12, 'completion signal: SYNC_CS'),
  ...opcode,
})
