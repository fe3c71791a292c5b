// The SMMUv3 that is compared: QEMU's on its `virt` machine, and our configuration of the same. It has no
// substreams, ATS, PRI, stalls, EL2 contexts or table updates; and nobody there makes privileged accesses.
import type { SmmuConfig } from '../../src/iommu/smmu/config.js'
import type { FaultRecord } from '../case.js'

export const LIKE_QEMU: Partial<SmmuConfig> = {
  hyp: false,
  substreamIdBits: 0,
  outputAddressBits: 44,
  virtualAddressBits: 48,
  tableUpdates: 'none',
  ats: false,
  stallModel: 1,
}

/** StreamIDs. */
export const STREAMS = { testdev: 0x18, upper: 0xa8, edu: 0x20 } as const

export const RAM = 0x4000_0000
export const RAM_BYTES = 64 << 20
/** Tables are made from here. */
export const TABLES = 0x4100_0000
export const TABLES_END = 0x411f_0000
/** Pages of data; blocks of 2 and 32 MiB may start here. */
export const DATA = 0x4200_0000
export const COMMANDS = 0x411f_0000
export const EVENTS = 0x411f_1000
/** For the devices themselves. */
export const SCRATCH = 0x411f_2000
/** log2 of the entries of the queues. */
export const COMMAND_BITS = 7
export const EVENT_BITS = 5

export const REGISTER = {
  IDR0: 0x00,
  CR0: 0x20,
  CR2: 0x2c,
  GBPA: 0x44,
  GERROR: 0x60,
  GERRORN: 0x64,
  STRTAB_BASE: 0x80,
  STRTAB_BASE_CFG: 0x88,
  CMDQ_BASE: 0x90,
  CMDQ_PROD: 0x98,
  CMDQ_CONS: 0x9c,
  EVENTQ_BASE: 0xa0,
  EVENTQ_PROD: 0x1_00a8,
  EVENTQ_CONS: 0x1_00ac,
} as const
export const CR0 = { SMMUEN: 1, EVENTQEN: 4, CMDQEN: 8 } as const
export const GBPA_UPDATE = 2 ** 31

/** The first words of every case's command queue: nothing is cached. */
export const FLUSH: readonly (readonly [bigint, bigint])[] = [
  [0x04n, 31n],
  [0x30n, 0n],
]

/** Bytes of an event record. */
export const EVENT_SIZE = 32

/** An event record as the fields that are compared. */
export function eventRecord(bytes: Uint8Array): FaultRecord {
  const view = new DataView(bytes.buffer, bytes.byteOffset, EVENT_SIZE)
  const word = (n: number) => view.getUint32(n * 4, true)
  const bits = (n: number, from: number, width: number) => (word(n) >>> from) & (2 ** width - 1)
  return {
    type: bits(0, 0, 8),
    ssv: bits(0, 11, 1),
    ssid: bits(0, 12, 20),
    sid: word(1),
    stag: bits(2, 0, 16),
    stall: bits(2, 31, 1),
    pnu: bits(3, 1, 1),
    ind: bits(3, 2, 1),
    rnw: bits(3, 3, 1),
    s2: bits(3, 7, 1),
    class: bits(3, 8, 2),
    address: view.getBigUint64(16, true),
    ipa: view.getBigUint64(24, true),
  }
}
