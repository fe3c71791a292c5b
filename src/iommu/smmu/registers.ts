/**
 * The SMMUv3 register file as a table: Non-secure page 0 and page 1. Sections are numbered as IHI 0070 G.b
 * prints them. Identification registers take their values from the unit's configuration (config.ts).
 * Secure registers, ATOS, performance monitors and MPAM are not there: they read zero. Behaviour: unit.ts.
 */
import { bank, bits, flag, page, r32, r64 } from '../../base/fields.js'

/** Bytes of MMIO space that a unit decodes: pages 0 and 1 of 64 KB. */
export const SMMU_MMIO_SIZE = 0x2_0000
/** Offset of register page 1, which holds the indices of the event and PRI queues. */
export const PAGE_1 = 0x1_0000

const queueBase = {
  RA: flag(62, 'rw', 'allocation hint; no effect'),
  ADDR: page(51, 5, 'rw', 'queue address, aligned to the queue'),
  LOG2SIZE: bits(4, 0, 'rw', '2^LOG2SIZE entries'),
}
const msiAddress = { ADDR: page(51, 2, 'rw', 'message address; 0: a wired interrupt instead') }
const msiData = { DATA: bits(31, 0, 'rw', 'message data') }
const msiAttributes = {
  SH: bits(5, 4, 'rw', 'shareability of the message; no effect'),
  MEMATTR: bits(3, 0, 'rw', 'memory type of the message; no effect'),
}
const errors = (access: 'ro' | 'rw') => ({
  SFM_ERR: flag(8, access, 'service failure mode was entered'),
  MSI_GERROR_ABT_ERR: flag(7, access, 'the GERROR message was aborted'),
  MSI_PRIQ_ABT_ERR: flag(6, access, 'a PRI queue message was aborted'),
  MSI_EVENTQ_ABT_ERR: flag(5, access, 'an event queue message was aborted'),
  MSI_CMDQ_ABT_ERR: flag(4, access, 'a CMD_SYNC message was aborted'),
  PRIQ_ABT_ERR: flag(3, access, 'the PRI queue could not be written'),
  EVENTQ_ABT_ERR: flag(2, access, 'the event queue could not be written'),
  CMDQ_ERR: flag(0, access, 'a command failed: CMDQ_CONS.ERR'),
})
const enables = (access: 'ro' | 'rw') => ({
  VMW: bits(8, 6, access, 'VMID wildcard; none is supported'),
  ATSCHK: flag(4, access, 'translated traffic is checked against the STE'),
  CMDQEN: flag(3, access, 'commands are consumed'),
  EVENTQEN: flag(2, access, 'events are recorded'),
  PRIQEN: flag(1, access, 'page requests are recorded'),
  SMMUEN: flag(0, access, 'traffic is translated'),
})
const interruptEnables = (access: 'ro' | 'rw') => ({
  EVENTQ_IRQEN: flag(2, access, 'event queue interrupts'),
  PRIQ_IRQEN: flag(1, access, 'PRI queue interrupts'),
  GERROR_IRQEN: flag(0, access, 'global error interrupts'),
})
const producer = {
  OVFLG: flag(31, 'rw', 'differs from OVACKFLG: records were lost'),
  WR: bits(19, 0, 'rw', 'next entry to be written, with the wrap bit above the index'),
}
const consumer = {
  OVACKFLG: flag(31, 'rw', 'software has seen OVFLG'),
  RD: bits(19, 0, 'rw', 'next entry to be read, with the wrap bit above the index'),
}

/** Registers of a unit. */
export const SMMU_REGISTERS = {
  IDR0: r32(0x000, '6.3.1', {
    ST_LEVEL: bits(28, 27, 'ro', 'stream tables: 0 linear, 1 also two-level'),
    TERM_MODEL: flag(26, 'ro', 'a fault can only be terminated with an abort (CD.A must be 1)'),
    STALL_MODEL: bits(25, 24, 'ro', '0 stall and terminate, 1 terminate only, 2 stall only'),
    ATSRECERR: flag(23, 'ro', 'CR2.REC_CFG_ATS is there'),
    TTENDIAN: bits(22, 21, 'ro', 'endianness of tables: 2 little'),
    VATOS: flag(20, 'ro', 'virtual ATOS page'),
    CD2L: flag(19, 'ro', 'two-level CD tables'),
    VMID16: flag(18, 'ro', '16-bit VMIDs'),
    VMW: flag(17, 'ro', 'VMID wildcards'),
    PRI: flag(16, 'ro', 'page requests'),
    ATOS: flag(15, 'ro', 'address translation registers'),
    SEV: flag(14, 'ro', 'CMD_SYNC can send an event'),
    MSI: flag(13, 'ro', 'interrupts by message'),
    ASID16: flag(12, 'ro', '16-bit ASIDs'),
    NS1ATS: flag(11, 'ro', 'split-stage ATS is not supported'),
    ATS: flag(10, 'ro', 'ATS'),
    HYP: flag(9, 'ro', 'EL2 contexts'),
    DORMHINT: flag(8, 'ro', 'dormant hint'),
    HTTU: bits(7, 6, 'ro', '1 accessed flag, 2 accessed flag and dirty state'),
    BTM: flag(5, 'ro', 'takes part in broadcast invalidation'),
    COHACC: flag(4, 'ro', 'table and queue accesses are coherent'),
    TTF: bits(3, 2, 'ro', 'table formats: bit 0 AArch32, bit 1 AArch64'),
    S1P: flag(1, 'ro', 'stage 1'),
    S2P: flag(0, 'ro', 'stage 2'),
  }),
  IDR1: r32(0x004, '6.3.2', {
    TABLES_PRESET: flag(30, 'ro', 'table addresses are fixed'),
    QUEUES_PRESET: flag(29, 'ro', 'queue addresses are fixed'),
    REL: flag(28, 'ro', 'fixed addresses are relative'),
    ATTR_TYPES_OVR: flag(27, 'ro', 'memory types can be overridden'),
    ATTR_PERMS_OVR: flag(26, 'ro', 'PRIVCFG and INSTCFG are honoured'),
    CMDQS: bits(25, 21, 'ro', 'largest LOG2SIZE of the command queue'),
    EVENTQS: bits(20, 16, 'ro', 'largest LOG2SIZE of the event queue'),
    PRIQS: bits(15, 11, 'ro', 'largest LOG2SIZE of the PRI queue'),
    SSIDSIZE: bits(10, 6, 'ro', 'SubstreamID bits'),
    SIDSIZE: bits(5, 0, 'ro', 'StreamID bits'),
  }),
  IDR2: r32(0x008, '6.3.3', { BA_VATOS: bits(9, 0, 'ro', 'place of the virtual ATOS page') }),
  IDR3: r32(0x00c, '6.3.4', {
    BBML: bits(12, 11, 'ro', 'break-before-make level'),
    RIL: flag(10, 'ro', 'range invalidation and level hints'),
    STT: flag(9, 'ro', 'small translation tables'),
    FWB: flag(8, 'ro', 'forced write-back'),
    MPAM: flag(7, 'ro', 'memory partitioning'),
    PPS: flag(5, 'ro', 'automatic PRG responses carry the PASID of the request'),
    XNX: flag(4, 'ro', 'stage 2 execute control by privilege'),
    PBHA: flag(3, 'ro', 'page-based hardware attributes'),
    HAD: flag(2, 'ro', 'hierarchical permissions can be disabled'),
  }),
  IDR4: r32(0x010, '6.3.5', { IMPL: bits(31, 0, 'ro', 'implementation defined') }),
  IDR5: r32(0x014, '6.3.6', {
    STALL_MAX: bits(31, 16, 'ro', 'stalled transactions that are recorded at a time'),
    VAX: bits(11, 10, 'ro', 'virtual addresses: 0 48 bits, 1 up to 52'),
    GRAN64K: flag(6, 'ro', '64 KB granule'),
    GRAN16K: flag(5, 'ro', '16 KB granule'),
    GRAN4K: flag(4, 'ro', '4 KB granule'),
    OAS: bits(2, 0, 'ro', 'output address size: 32, 36, 40, 42, 44, 48, 52 bits'),
  }),
  IIDR: r32(0x018, '6.3.7', {
    ProductID: bits(31, 20, 'ro', 'product'),
    Variant: bits(19, 16, 'ro', 'variant'),
    Revision: bits(15, 12, 'ro', 'revision'),
    Implementer: bits(11, 0, 'ro', 'JEP106 code'),
  }),
  AIDR: r32(0x01c, '6.3.8', {
    ArchMajorRev: bits(7, 4, 'ro', '0: SMMUv3'),
    ArchMinorRev: bits(3, 0, 'ro', 'minor version: 2 is SMMUv3.2'),
  }),
  CR0: r32(0x020, '6.3.9', enables('rw')),
  CR0ACK: r32(0x024, '6.3.10', enables('ro')),
  CR1: r32(0x028, '6.3.11', {
    TABLE_SH: bits(11, 10, 'rw', 'attributes of table accesses; no effect'),
    TABLE_OC: bits(9, 8, 'rw', 'as TABLE_SH'),
    TABLE_IC: bits(7, 6, 'rw', 'as TABLE_SH'),
    QUEUE_SH: bits(5, 4, 'rw', 'attributes of queue accesses; no effect'),
    QUEUE_OC: bits(3, 2, 'rw', 'as QUEUE_SH'),
    QUEUE_IC: bits(1, 0, 'rw', 'as QUEUE_SH'),
  }),
  CR2: r32(0x02c, '6.3.12', {
    REC_CFG_ATS: flag(3, 'rw', 'configuration errors of ATS traffic are recorded'),
    PTM: flag(2, 'rw', 'broadcast invalidation is ignored; there is none'),
    RECINVSID: flag(1, 'rw', 'C_BAD_STREAMID is recorded'),
    E2H: flag(0, 'rw', 'EL2 streams use EL2-E2H'),
  }),
  STATUSR: r32(0x040, '6.3.13', { DORMANT: flag(0, 'ro', 'no cache holds anything') }),
  GBPA: r32(0x044, '6.3.14', {
    UPDATE: flag(31, 'rw', 'set with new values; cleared when they took effect'),
    ABORT: flag(20, 'rw', 'with SMMUEN clear: traffic is aborted'),
    INSTCFG: bits(19, 18, 'rw', 'instruction override of bypassing traffic; no effect'),
    PRIVCFG: bits(17, 16, 'rw', 'privilege override of bypassing traffic; no effect'),
    SHCFG: bits(13, 12, 'rw', 'attributes of bypassing traffic; no effect'),
    ALLOCCFG: bits(11, 8, 'rw', 'as SHCFG'),
    MTCFG: flag(4, 'rw', 'as SHCFG'),
    MemAttr: bits(3, 0, 'rw', 'as SHCFG'),
  }),
  AGBPA: r32(0x048, '6.3.15', { IMPL: bits(31, 0, 'ro', 'implementation defined') }),
  IRQ_CTRL: r32(0x050, '6.3.16', interruptEnables('rw')),
  IRQ_CTRLACK: r32(0x054, '6.3.17', interruptEnables('ro')),
  GERROR: r32(0x060, '6.3.18', errors('ro')),
  GERRORN: r32(0x064, '6.3.19', errors('rw')),
  GERROR_IRQ_CFG0: r64(0x068, '6.3.20', msiAddress),
  GERROR_IRQ_CFG1: r32(0x070, '6.3.21', msiData),
  GERROR_IRQ_CFG2: r32(0x074, '6.3.22', msiAttributes),
  STRTAB_BASE: r64(0x080, '6.3.23', {
    RA: flag(62, 'rw', 'allocation hint; no effect'),
    ADDR: page(51, 6, 'rw', 'stream table address, aligned to the table'),
  }),
  STRTAB_BASE_CFG: r32(0x088, '6.3.24', {
    FMT: bits(17, 16, 'rw', '0 linear, 1 two-level'),
    SPLIT: bits(10, 6, 'rw', 'StreamID bits of the second level: 6, 8 or 10'),
    LOG2SIZE: bits(5, 0, 'rw', 'StreamID bits that the table covers'),
  }),
  CMDQ_BASE: r64(0x090, '6.3.25', queueBase),
  CMDQ_PROD: r32(0x098, '6.3.26', { WR: bits(19, 0, 'rw', 'end of the commands, with wrap bit') }),
  CMDQ_CONS: r32(0x09c, '6.3.27', {
    ERR: bits(30, 24, 'rw', 'why the command at RD failed: CERROR'),
    RD: bits(19, 0, 'rw', 'next command, with wrap bit'),
  }),
  EVENTQ_BASE: r64(0x0a0, '6.3.28', queueBase),
  EVENTQ_IRQ_CFG0: r64(0x0b0, '6.3.31', msiAddress),
  EVENTQ_IRQ_CFG1: r32(0x0b8, '6.3.32', msiData),
  EVENTQ_IRQ_CFG2: r32(0x0bc, '6.3.33', msiAttributes),
  PRIQ_BASE: r64(0x0c0, '6.3.34', queueBase),
  PRIQ_IRQ_CFG0: r64(0x0d0, '6.3.37', msiAddress),
  PRIQ_IRQ_CFG1: r32(0x0d8, '6.3.38', msiData),
  PRIQ_IRQ_CFG2: r32(0x0dc, '6.3.39', {
    LO: flag(
      31,
      'rw',
      'interrupt when the last request of a group arrives, not when the queue fills',
    ),
    ...msiAttributes,
  }),
  EVENTQ_PROD: r32(PAGE_1 + 0x0a8, '6.3.29', producer),
  EVENTQ_CONS: r32(PAGE_1 + 0x0ac, '6.3.30', consumer),
  PRIQ_PROD: r32(PAGE_1 + 0x0c8, '6.3.35', producer),
  PRIQ_CONS: r32(PAGE_1 + 0x0cc, '6.3.36', consumer),
}

/** The registers as a bank: what a unit is and a driver programs against. */
export const SMMU = bank('SMMUv3', SMMU_REGISTERS, PAGE_1 + 0x0d0)

/** Registers that are read-only while a bit of CR0ACK or IRQ_CTRLACK is set; a write then is ignored. */
export const GUARDED = {
  SMMUEN: ['CR1', 'CR2', 'STRTAB_BASE', 'STRTAB_BASE_CFG'],
  CMDQEN: ['CMDQ_BASE', 'CMDQ_CONS'],
  EVENTQEN: ['EVENTQ_BASE', 'EVENTQ_PROD'],
  PRIQEN: ['PRIQ_BASE', 'PRIQ_PROD'],
  GERROR_IRQEN: ['GERROR_IRQ_CFG0', 'GERROR_IRQ_CFG1', 'GERROR_IRQ_CFG2'],
  EVENTQ_IRQEN: ['EVENTQ_IRQ_CFG0', 'EVENTQ_IRQ_CFG1', 'EVENTQ_IRQ_CFG2'],
  PRIQ_IRQEN: ['PRIQ_IRQ_CFG0', 'PRIQ_IRQ_CFG1', 'PRIQ_IRQ_CFG2'],
} as const satisfies Partial<
  Record<
    keyof ReturnType<typeof enables> | keyof ReturnType<typeof interruptEnables>,
    readonly (keyof typeof SMMU_REGISTERS)[]
  >
>

/** Global errors, by the name of their bit in GERROR and GERRORN. */
export type GlobalError = keyof ReturnType<typeof errors>

/** CMDQ_CONS.ERR, 7.1. */
export const CERROR = {
  NONE: 0,
  ILL: 1, // the command is unknown, or has a value that is not allowed
  ABT: 2, // the command could not be read
  ATC_INV_SYNC: 3, // a CMD_SYNC waited for an ATC invalidation that did not complete
} as const

/** STRTAB_BASE_CFG.FMT. */
export const STRTAB_FMT = { LINEAR: 0, TWO_LEVEL: 1 } as const

/** IDR0.STALL_MODEL. */
export const STALL_MODEL = { STALL_AND_TERMINATE: 0, TERMINATE: 1, STALL: 2 } as const

/** Address sizes that IDR5.OAS, CD.IPS and STE.S2PS stand for; 7 is reserved and means the largest. */
export const ADDRESS_SIZES = [32, 36, 40, 42, 44, 48, 52, 52] as const
