/**
 * The VT-d register file as a table. Sections are numbered as revision 5.10 prints them. Stages carry
 * their present names (FS1GP, SSPTPTR); printings before 4.0 say level (FL1GP, SLPTPTR).
 * Reset values of CAP and ECAP come from the unit's configuration (config.ts). Behaviour: unit.ts.
 */
import {
  type Bank,
  bank,
  bits,
  type Field,
  type Fields,
  flag,
  page,
  type Register,
  r32,
  r64,
  u64,
} from '../../base/fields.js'

/** Bytes of MMIO space that a unit decodes. */
export const VTD_MMIO_SIZE = 0x1000

/** Offset of the first fault recording register (CAP.FRO times 16). */
export const FRCD_OFFSET = 0x220
/** Bytes of one fault recording register. */
export const FRCD_SIZE = 16
/** Offset of IVA_REG (ECAP.IRO times 16); IOTLB_REG follows it. */
export const IOTLB_OFFSET = 0xf0

// Each event interrupt (fault, invalidation completion, page request) has the same four registers.
const eventControl = {
  IM: flag(31, 'rw', 'no message is sent while set'),
  IP: flag(30, 'ro', 'an interrupt waits for IM to be cleared'),
}
const eventData = { IMD: bits(31, 0, 'rw', 'message data') }
const eventAddress = { MA: bits(31, 2, 'rw', 'message address 31:2') }
const eventUpperAddress = { MUA: bits(31, 0, 'rw', 'message address 63:32') }

const masked = 0x8000_0000n // IM is set after reset

/** Registers every unit has. The fault records and the virtual command registers are added by `vtdBank`. */
export const VTD_REGISTERS = {
  VER_REG: r32(0x000, '11.4.1', {
    MAX: bits(7, 4, 'ro', 'major version'),
    MIN: bits(3, 0, 'ro', 'minor version'),
  }),
  CAP_REG: r64(0x008, '11.4.2', {
    ESRTPS: flag(63, 'ro', 'SRTP invalidates all remapping caches'),
    ESIRTPS: flag(62, 'ro', 'SIRTP invalidates the interrupt entry cache'),
    FS5LP: flag(60, 'ro', 'first stage has 5-level paging'),
    PI: flag(59, 'ro', 'posted interrupts'),
    FS1GP: flag(56, 'ro', 'first stage has 1 GB pages'),
    DRD: flag(55, 'ro', 'read draining'),
    DWD: flag(54, 'ro', 'write draining'),
    MAMV: bits(53, 48, 'ro', 'largest address mask of a page-selective invalidation'),
    NFR: bits(47, 40, 'ro', 'fault recording registers, minus one'),
    PSI: flag(39, 'ro', 'page-selective invalidation'),
    SSLPS: bits(37, 34, 'ro', 'second stage large pages: bit 0 2 MB, bit 1 1 GB'),
    FRO: bits(33, 24, 'ro', 'offset of the fault recording registers, in 16 bytes'),
    ZLR: flag(22, 'ro', 'zero-length reads of write-only pages are allowed'),
    MGAW: bits(21, 16, 'ro', 'largest guest address width, minus one'),
    SAGAW: bits(12, 8, 'ro', 'second stage widths: bit 1 39, bit 2 48, bit 3 57'),
    CM: flag(7, 'ro', 'caching mode: not-present entries may be cached'),
    PHMR: flag(6, 'ro', 'protected high memory'),
    PLMR: flag(5, 'ro', 'protected low memory'),
    RWBF: flag(4, 'ro', 'write buffer must be flushed by software'),
    AFL: flag(3, 'ro', 'advanced fault logging'),
    ND: bits(2, 0, 'ro', 'domain id bits: 4 + 2 x ND'),
  }),
  ECAP_REG: r64(0x010, '11.4.3', {
    RPRIVS: flag(53, 'ro', 'RID_PRIV of the context entry is honoured'),
    ADMS: flag(52, 'ro', 'abort-DMA mode (TTM 3)'),
    RPS: flag(49, 'ro', 'RID_PASID of the context entry is honoured'),
    SMPWCS: flag(48, 'ro', 'scalable-mode page walks can snoop (PWSNP)'),
    FSTS: flag(47, 'ro', 'first-stage translation'),
    SSTS: flag(46, 'ro', 'second-stage translation in scalable mode'),
    SSADS: flag(45, 'ro', 'second-stage accessed and dirty flags'),
    VCS: flag(44, 'ro', 'virtual command registers'),
    SMTS: flag(43, 'ro', 'scalable mode'),
    PDS: flag(42, 'ro', 'page-request drain in wait descriptors'),
    DIT: flag(41, 'ro', 'device-TLB invalidation throttle (PFSID is used)'),
    PASID: flag(40, 'ro', 'requests with PASID'),
    PSS: bits(39, 35, 'ro', 'PASID bits, minus one'),
    EAFS: flag(34, 'ro', 'extended accessed flag'),
    NWFS: flag(33, 'ro', 'No Write flag of translation requests'),
    SRS: flag(31, 'ro', 'supervisor requests'),
    ERS: flag(30, 'ro', 'execute requests'),
    PRS: flag(29, 'ro', 'page requests'),
    NEST: flag(26, 'ro', 'nested translation'),
    MTS: flag(25, 'ro', 'memory types of the first stage'),
    MHMV: bits(23, 20, 'ro', 'largest index mask of an interrupt entry cache invalidation'),
    IRO: bits(17, 8, 'ro', 'offset of IVA_REG, in 16 bytes'),
    SC: flag(7, 'ro', 'snoop control of second-stage leaves'),
    PT: flag(6, 'ro', 'pass-through'),
    EIM: flag(4, 'ro', '32-bit APIC ids'),
    IR: flag(3, 'ro', 'interrupt remapping'),
    DT: flag(2, 'ro', 'device TLBs'),
    QI: flag(1, 'ro', 'queued invalidation'),
    C: flag(0, 'ro', 'page walks snoop'),
  }),
  GCMD_REG: r32(0x018, '11.4.4.1', {
    TE: flag(31, 'wo', 'translation enable'),
    SRTP: flag(30, 'wo', 'latch RTADDR_REG'),
    SFL: flag(29, 'wo', 'set fault log'),
    EAFL: flag(28, 'wo', 'enable advanced fault log'),
    WBF: flag(27, 'wo', 'flush the write buffer'),
    QIE: flag(26, 'wo', 'queued invalidation enable'),
    IRE: flag(25, 'wo', 'interrupt remapping enable'),
    SIRTP: flag(24, 'wo', 'latch IRTA_REG'),
    CFI: flag(23, 'wo', 'let compatibility-format interrupts through'),
  }),
  GSTS_REG: r32(0x01c, '11.4.4.2', {
    TES: flag(31, 'ro', 'translation is enabled'),
    RTPS: flag(30, 'ro', 'RTADDR_REG was latched'),
    FLS: flag(29, 'ro', 'fault log pointer was set'),
    AFLS: flag(28, 'ro', 'advanced fault log is enabled'),
    WBFS: flag(27, 'ro', 'a write buffer flush is under way'),
    QIES: flag(26, 'ro', 'queued invalidation is enabled'),
    IRES: flag(25, 'ro', 'interrupt remapping is enabled'),
    IRTPS: flag(24, 'ro', 'IRTA_REG was latched'),
    CFIS: flag(23, 'ro', 'compatibility-format interrupts pass'),
  }),
  RTADDR_REG: r64(0x020, '11.4.5', {
    RTA: page(63, 12, 'rw', 'root table address'),
    TTM: bits(11, 10, 'rw', 'translation table mode: 0 legacy, 1 scalable, 3 abort DMA'),
  }),
  CCMD_REG: r64(0x028, '11.4.6.1', {
    ICC: flag(63, 'rw', 'begin; cleared when done'),
    CIRG: bits(62, 61, 'rw', 'granularity asked for: 1 global, 2 domain, 3 device'),
    CAIG: bits(60, 59, 'ro', 'granularity performed'),
    FM: bits(33, 32, 'rw', 'function bits to ignore'),
    SID: bits(31, 16, 'rw', 'source id'),
    DID: bits(15, 0, 'rw', 'domain id'),
  }),
  FSTS_REG: r32(0x034, '11.4.7.1', {
    FRI: bits(15, 8, 'ro', 'index of the first pending fault record'),
    ITE: flag(6, 'rw1c', 'invalidation time-out'),
    ICE: flag(5, 'rw1c', 'invalidation completion error'),
    IQE: flag(4, 'rw1c', 'invalidation queue error'),
    APF: flag(3, 'ro', 'a record is in the advanced fault log'),
    AFO: flag(2, 'ro', 'the advanced fault log overflowed'),
    PPF: flag(1, 'ro', 'a fault record is pending'),
    PFO: flag(0, 'rw1c', 'a fault was lost'),
  }),
  FECTL_REG: r32(0x038, '11.4.7.2', eventControl, masked),
  FEDATA_REG: r32(0x03c, '11.4.7.3', eventData),
  FEADDR_REG: r32(0x040, '11.4.7.4', eventAddress),
  FEUADDR_REG: r32(0x044, '11.4.7.5', eventUpperAddress),
  PMEN_REG: r32(0x064, '11.4.8.1', {
    EPM: flag(31, 'rw', 'protected memory enable'),
    PRS: flag(0, 'ro', 'protected memory is enabled'),
  }),
  PLMBASE_REG: r32(0x068, '11.4.8.2', {
    PLMB: page(31, 21, 'rw', 'first address of protected low memory'),
  }),
  PLMLIMIT_REG: r32(0x06c, '11.4.8.3', {
    PLML: page(31, 21, 'rw', 'last 2 MB of protected low memory'),
  }),
  PHMBASE_REG: r64(0x070, '11.4.8.4', {
    PHMB: page(63, 21, 'rw', 'first address of protected high memory'),
  }),
  PHMLIMIT_REG: r64(0x078, '11.4.8.5', {
    PHML: page(63, 21, 'rw', 'last 2 MB of protected high memory'),
  }),
  IQH_REG: r64(0x080, '11.4.9.1', { QH: bits(18, 4, 'ro', 'next descriptor, in 16 bytes') }),
  IQT_REG: r64(0x088, '11.4.9.2', { QT: bits(18, 4, 'rw', 'end of the queue, in 16 bytes') }),
  IQA_REG: r64(0x090, '11.4.9.3', {
    IQA: page(63, 12, 'rw', 'queue address'),
    DW: flag(11, 'rw', 'descriptors are 256 bits wide'),
    QS: bits(2, 0, 'rw', 'queue size: 2^QS pages'),
  }),
  ICS_REG: r32(0x09c, '11.4.9.4', { IWC: flag(0, 'rw1c', 'a wait descriptor with IF completed') }),
  IECTL_REG: r32(0x0a0, '11.4.9.5', eventControl, masked),
  IEDATA_REG: r32(0x0a4, '11.4.9.6', eventData),
  IEADDR_REG: r32(0x0a8, '11.4.9.7', eventAddress),
  IEUADDR_REG: r32(0x0ac, '11.4.9.8', eventUpperAddress),
  IQERCD_REG: r64(0x0b0, '11.4.9.9', {
    ICESID: bits(63, 48, 'ro', 'source of the erroneous invalidation completion'),
    ITESID: bits(47, 32, 'ro', 'device whose invalidation timed out'),
    IQEI: bits(3, 0, 'ro', 'why the queue stopped: IQEI'),
  }),
  IRTA_REG: r64(0x0b8, '11.4.10', {
    IRTA: page(63, 12, 'rw', 'interrupt remapping table address'),
    EIME: flag(11, 'rw', '32-bit APIC ids in the table'),
    S: bits(3, 0, 'rw', '2^(S+1) entries'),
  }),
  PQH_REG: r64(0x0c0, '11.4.11.1', {
    PQH: bits(18, 5, 'rw', 'next request software takes, in 32 bytes'),
  }),
  PQT_REG: r64(0x0c8, '11.4.11.2', { PQT: bits(18, 5, 'rw', 'end of the queue, in 32 bytes') }),
  PQA_REG: r64(0x0d0, '11.4.11.3', {
    PQA: page(63, 12, 'rw', 'page request queue address'),
    PQS: bits(2, 0, 'rw', 'queue size: 2^PQS pages'),
  }),
  PRS_REG: r32(0x0dc, '11.4.11.4', {
    PRO: flag(1, 'rw1c', 'page request queue overflow'),
    PPR: flag(0, 'rw1c', 'a page request is pending'),
  }),
  PECTL_REG: r32(0x0e0, '11.4.11.5', eventControl, masked),
  PEDATA_REG: r32(0x0e4, '11.4.11.6', eventData),
  PEADDR_REG: r32(0x0e8, '11.4.11.7', eventAddress),
  PEUADDR_REG: r32(0x0ec, '11.4.11.8', eventUpperAddress),
  IVA_REG: r64(IOTLB_OFFSET, '11.4.6.4', {
    ADDR: u64(63, 12, 'rw', 'page number'),
    IH: flag(6, 'rw', 'only leaves changed'),
    AM: bits(5, 0, 'rw', 'low page-number bits to ignore'),
  }),
  IOTLB_REG: r64(IOTLB_OFFSET + 8, '11.4.6.3', {
    IVT: flag(63, 'rw', 'begin; cleared when done'),
    IIRG: bits(61, 60, 'rw', 'granularity asked for: 1 global, 2 domain, 3 page'),
    IAIG: bits(58, 57, 'ro', 'granularity performed'),
    DR: flag(49, 'rw', 'drain reads'),
    DW: flag(48, 'rw', 'drain writes'),
    DID: bits(47, 32, 'rw', 'domain id'),
  }),
}

/** Low half of a fault recording register, 11.4.7.6. */
export const frcdLow = (index: number) =>
  r64(FRCD_OFFSET + index * FRCD_SIZE, '11.4.7.6', {
    FI: u64(63, 12, 'ro', 'page number of the address; 63:48 the interrupt index for 20h to 29h'),
  })
/** High half of a fault recording register, 11.4.7.6. */
export const frcdHigh = (index: number) =>
  r64(FRCD_OFFSET + index * FRCD_SIZE + 8, '11.4.7.6', {
    F: flag(63, 'rw1c', 'the record holds a fault'),
    T1: flag(62, 'ro', 'with T2: 0 write, 1 page request, 2 read, 3 atomic'),
    AT: bits(61, 60, 'ro', 'address type of the request'),
    PV: bits(59, 40, 'ro', 'PASID'),
    FR: bits(39, 32, 'ro', 'fault reason'),
    PP: flag(31, 'ro', 'the request carried a PASID'),
    EXE: flag(30, 'ro', 'execute was requested'),
    PRIV: flag(29, 'ro', 'privileged mode was requested'),
    T2: flag(28, 'ro', 'see T1'),
    SID: bits(15, 0, 'ro', 'requester id'),
  })

/** Revision of the specification that places the virtual command registers. */
export type VtdEdition = '3.0' | '3.3'

/** The virtual command registers (11.4.16) as revisions 3.0 to 3.2 and as 3.3 and later lay them out. */
export const VIRTUAL_COMMAND = {
  '3.0': {
    VCCAP_REG: r64(0xe00, '11.4.16.4', { PAS: flag(0, 'ro', 'PASIDs are allocated by command') }),
    VCMD_REG: r64(0xe10, '11.4.16.1', {
      OP: u64(63, 8, 'rw', 'operand; of a free, the PASID in its low 20 bits'),
      CMD: bits(7, 0, 'rw', 'command'),
    }),
    VCRSP_REG: r64(0xe20, '11.4.16.3', {
      RSLT: u64(63, 8, 'ro', 'result; of an allocation, the PASID in its low 20 bits'),
      SC: bits(2, 1, 'ro', 'status'),
      IP: flag(0, 'ro', 'in progress'),
    }),
  },
  '3.3': {
    VCMD_REG: r64(0xe00, '11.4.16.1', {
      OP: u64(63, 16, 'rw', 'operand; of a free, the PASID in its low 20 bits'),
      CMD: bits(7, 0, 'rw', 'command'),
    }),
    VCRSP_REG: r64(0xe10, '11.4.16.3', {
      RSLT: u64(63, 16, 'ro', 'result; of an allocation, the PASID in its low 20 bits'),
      SC: bits(7, 1, 'ro', 'status'),
      IP: flag(0, 'ro', 'in progress'),
    }),
    VCCAP_REG: r64(0xe30, '11.4.16.4', { PAS: flag(0, 'ro', 'PASIDs are allocated by command') }),
  },
} as const

/** Virtual commands (VCMD_REG.CMD). */
export const VCMD = { ALLOCATE_PASID: 1, FREE_PASID: 2 } as const
/** VCRSP_REG.SC of a command that failed, by edition. */
export const VCRSP_STATUS = {
  '3.0': { SUCCESS: 0, UNDEFINED_COMMAND: 1, NO_PASID: 2, INVALID_PASID: 2 },
  '3.3': { SUCCESS: 0, UNDEFINED_COMMAND: 1, NO_PASID: 16, INVALID_PASID: 16 },
} as const

/** IQERCD_REG.IQEI: why the invalidation queue stopped, 11.4.9.9. */
export const IQEI = {
  NO_INFORMATION: 0,
  INVALID_TAIL: 1, // IQT_REG is not inside the queue
  FETCH_FAILED: 2, // the descriptor could not be read
  INVALID_TYPE: 3, // the descriptor's type is reserved or not supported
  RESERVED_FIELD: 4, // a reserved field of the descriptor is not zero
  INVALID_WIDTH: 5, // scalable mode with 128-bit descriptors
  MISALIGNED_TAIL: 6, // 256-bit descriptors and an odd IQT_REG.QT
  INVALID_TTM: 7, // RTADDR_REG.TTM is reserved
} as const

/** RTADDR_REG.TTM. */
export const TTM = { LEGACY: 0, SCALABLE: 1, RESERVED: 2, ABORT_DMA: 3 } as const

/** What a unit's bank depends on. */
export interface VtdBankOptions {
  /** Fault recording registers, 1 to 128. */
  readonly faultRecords: number
  /** Whether the virtual command registers are there, and in which layout. */
  readonly virtualCommand: boolean
  readonly edition: VtdEdition
  /** Which protected memory registers take writes; the others stay zero. */
  readonly protectedLowMemory: boolean
  readonly protectedHighMemory: boolean
}

/** A register whose software-writable bits are not there: it reads what it was reset to. */
function readOnly<F extends Fields>(r: Register<F>): Register<F> {
  const fields: Record<string, Field> = {}
  for (const [name, f] of Object.entries(r.fields)) fields[name] = { ...f, access: 'ro' }
  return { ...r, fields: fields as unknown as F }
}

/** The protected memory registers of one unit, 11.4.8: read-only where the region is not there. */
function protectedMemory({ protectedLowMemory: low, protectedHighMemory: high }: VtdBankOptions) {
  const { PMEN_REG, PLMBASE_REG, PLMLIMIT_REG, PHMBASE_REG, PHMLIMIT_REG } = VTD_REGISTERS
  return {
    PMEN_REG: low || high ? PMEN_REG : readOnly(PMEN_REG),
    PLMBASE_REG: low ? PLMBASE_REG : readOnly(PLMBASE_REG),
    PLMLIMIT_REG: low ? PLMLIMIT_REG : readOnly(PLMLIMIT_REG),
    PHMBASE_REG: high ? PHMBASE_REG : readOnly(PHMBASE_REG),
    PHMLIMIT_REG: high ? PHMLIMIT_REG : readOnly(PHMLIMIT_REG),
  }
}

/** The bank of one unit: the common registers, its fault records, its virtual command registers. */
export function vtdBank(o: VtdBankOptions): Bank<typeof VTD_REGISTERS> {
  const records: Record<string, ReturnType<typeof frcdLow | typeof frcdHigh>> = {}
  for (let i = 0; i < o.faultRecords; i++) {
    records[`FRCD${i}_LO`] = frcdLow(i)
    records[`FRCD${i}_HI`] = frcdHigh(i)
  }
  const virtual = o.virtualCommand ? VIRTUAL_COMMAND[o.edition] : {}
  const registers = { ...VTD_REGISTERS, ...protectedMemory(o), ...records, ...virtual }
  return bank('VT-d', registers, VTD_MMIO_SIZE)
}

/** The registers that every unit has, as a bank of their own: what a driver programs against. */
export const VTD = bank('VT-d', VTD_REGISTERS, VTD_MMIO_SIZE)
