/**
 * What travels on the fabric: memory requests and the answers to them, page requests, responses and
 * invalidations. Plain values that a requester owns and reuses; nothing here routes or translates.
 * Next: upstream.ts (who answers), bus-master.ts (who asks).
 */

/** Completion Status of a non-posted request, PCIe 2.2.9. `CRS` (2) is answered to configuration requests only. */
export const COMPLETION = {
  SC: 0, // Successful Completion
  UR: 1, // Unsupported Request
  CA: 4, // Completer Abort
} as const
/** One of the Completion Status codes a memory request can be answered with. */
export type CompletionStatus = (typeof COMPLETION)[keyof typeof COMPLETION]

/** Address Type (AT) field of a memory request header, PCIe 10.2.1. */
export const AT = {
  UNTRANSLATED: 0, // the address is an I/O virtual address
  TRANSLATION_REQUEST: 1, // a question: what does this address translate to
  TRANSLATED: 2, // the address came from a translation completion
} as const
/** One of the Address Type codes; 3 is reserved. */
export type AddressType = (typeof AT)[keyof typeof AT]

/** Value of `pasid` in requests, invalidations and responses that carry no PASID prefix. */
export const NO_PASID = -1

/** Response Code of a PRG Response Message, PCIe 10.4.2.1. Other codes are treated as `FAILURE`. */
export const PRG_RESPONSE = {
  SUCCESS: 0, // every page of the group was made resident
  INVALID: 1, // at least one page of the group does not exist or forbids the access
  FAILURE: 15, // the page request interface had a catastrophic error; the function is stopped
} as const
/** One of the Response Codes. */
export type PrgResponseCode = (typeof PRG_RESPONSE)[keyof typeof PRG_RESPONSE]

/** First byte of the range whose writes without a PASID prefix are interrupt messages (Intel SDM vol. 3, 11.11.1). */
export const MESSAGE_BASE = 0xfee0_0000
/** Size in bytes of the message range. */
export const MESSAGE_SIZE = 0x10_0000
/** Whether an address without prefix falls into the message range. */
export const isMessage = (hi: number, lo: number): boolean =>
  hi === 0 && lo >>> 20 === MESSAGE_BASE >>> 20
/** Whether a range that starts below the message range reaches into it. */
export const crossesMessages = (hi: number, lo: number, length: number): boolean =>
  hi === 0 && lo >>> 0 < MESSAGE_BASE && (lo >>> 0) + length > MESSAGE_BASE

/**
 * One memory request, or one piece of it, as a translator sees it. A requester keeps one and rewrites
 * it; a translator must not keep a reference.
 */
export class MemoryRequest {
  /** Requester id: bus << 8 | device << 3 | function. */
  requester = 0
  /** PASID of the prefix, 0 to 2^20-1, or `NO_PASID` when the request carries no prefix. */
  pasid = NO_PASID
  /** Execute Requested bit of the prefix. */
  execute = false
  /** Privileged Mode Requested bit of the prefix. */
  privileged = false
  /** True for a write (for AT 1: unused, see `noWrite`). */
  write = false
  /** Address Type. */
  at: AddressType = AT.UNTRANSLATED
  /** No Write flag of a translation request (AT 1): the requester asks for read permission only. */
  noWrite = false
  /** Bits 63:32 of the address, as int32. */
  hi = 0
  /** Bits 31:0 of the address, as int32. */
  lo = 0
  /** Bytes; for AT 0 and 2 the piece stays inside one 4 KiB page. */
  length = 0
}

/** Value of `Translation.stalled` when the answer is final. */
export const NOT_STALLED = -1

/**
 * The answer to one translated piece or to one ATS translation request. The caller lends it; the
 * translator fills every member it answers with. Not reset between requests: a translator always sets
 * `status`, and with `SC` also `output`, `pageBits`, `read` and `write`.
 */
export class Translation {
  /** Completion status; the other members count only with `SC`. */
  status: CompletionStatus = COMPLETION.SC
  /** Host physical address of the requested byte, page offset included. */
  output = 0
  /** log2 of the size of the page the answer holds for: 12, 21, 30, or larger for a wider answer. */
  pageBits = 12
  /** Permissions: R and W of a translation completion. Both false with `SC` means: not present. */
  read = false
  write = false
  /** Exe, Priv and Global of a translation completion with PASID (PCIe 10.2.3). */
  execute = false
  privileged = false
  global = false
  /** U bit: the requester must use untranslated requests for this page. */
  untranslatedOnly = false
  /**
   * With `UR`, from a translator that can stall: not the last word. The token names the request, and
   * `DownstreamPort.resume` tells what becomes of it. A requester that cannot wait takes `UR` as it is.
   */
  stalled = NOT_STALLED
}

/** Page Request Message, PCIe 10.4.1. The address is a page's; its low 12 bits are zero. */
export interface PageRequest {
  requester: number
  /** `NO_PASID` when the message carries no prefix. */
  pasid: number
  hi: number
  lo: number
  /** Access wanted. Both false with `last` is a Stop Marker when a PASID is present (PCIe 10.4.1.2.1). */
  read: boolean
  write: boolean
  execute: boolean
  privileged: boolean
  /** Page Request Group Index, 0 to 511. */
  prgIndex: number
  /** Last request of its group: the one that is answered. */
  last: boolean
}

/** PRG Response Message, PCIe 10.4.2. */
export interface PageGroupResponse {
  /** The function that is answered (the message's Destination Device ID). */
  requester: number
  pasid: number
  prgIndex: number
  code: PrgResponseCode
}

/** Invalidate Request Message, PCIe 10.3.1: drop what was cached for an aligned range of 2^pageBits bytes. */
export interface AtsInvalidation {
  /** The function whose ATC is addressed. */
  requester: number
  /** `NO_PASID` when the message carries no prefix: then entries of every PASID are meant only with `global`. */
  pasid: number
  /** Address of the range, low `pageBits` bits ignored. */
  hi: number
  lo: number
  /** log2 of the range; 64 covers the whole address space. */
  pageBits: number
  /** Global Invalidate: the range is dropped for all PASIDs (needs ATS capability bit 6). */
  global: boolean
}
