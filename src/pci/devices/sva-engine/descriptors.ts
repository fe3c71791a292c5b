/**
 * What is submitted to the sva-engine, and what it writes back: the 64-byte descriptor, the 32-byte
 * completion record, opcodes, flags and statuses, and the checks a descriptor must pass.
 * Next: operations.ts (what opcodes do), queue.ts (in which order).
 */
import { bits, flag, layout, oneOf, u64 } from '../../../base/fields.js'
import { MAX_BATCH, MAX_TRANSFER_BITS } from './registers.js'

/** Bytes of a descriptor; also its alignment in rings and batches. */
export const DESCRIPTOR_SIZE = 64
/** Bytes of a completion record; also its alignment. */
export const RECORD_SIZE = 32

/** Operations. Bit n of OPERATIONS says that opcode n exists. */
export const OPCODE = {
  NOP: 0, // completes in turn, so it also marks that all before it completed
  BATCH: 1, // runs LENGTH descriptors from the array at SRC, in order
  COPY: 2, // LENGTH bytes from SRC to DST; the ranges must not overlap
  FILL: 3, // LENGTH bytes at DST with the 8 bytes of OPERAND, repeated
  COMPARE: 4, // LENGTH bytes at SRC with those at DST: RESULT 1 and the offset where they differ first
  CHECKSUM: 5, // CRC-32 (ISO-HDLC: polynomial 0x04c11db7 reflected) of LENGTH bytes at SRC, from OPERAND
  COPY_CHECKSUM: 6, // COPY, and CHECKSUM of what was copied
} as const

/** A descriptor. ENQCMD writes the first dword itself: PASID from IA32_PASID, PRIV 0. */
// biome-ignore format: table
export const DESCRIPTOR = layout('sva-engine descriptor', DESCRIPTOR_SIZE, {
  PASID:     bits(19, 0,     'shared queues: requests run under this PASID'),
  PRIV:      flag(31,        'shared queues: requests ask for privileged mode'),
  RECORD:    flag(32,        'write a completion record'),
  INTERRUPT: flag(33,        'raise the queue\'s vector on completion'),
  BLOCK:     flag(34,        'on a missing page: ask for it and wait (needs CONFIG.PRS); else complete partially'),
  FENCE:     flag(35,        'in a batch: do not start when a descriptor before failed'),
  RESERVED0: bits(55, 36,    'zero'),
  OPCODE:    oneOf(63, 56, OPCODE, 'operation'),
  COMPLETION: u64(127, 64,   'IOVA of the completion record, a multiple of 32'),
  SRC:       u64(191, 128,   'IOVA read; of a batch: its array, a multiple of 64'),
  DST:       u64(255, 192,   'IOVA written, or compared with'),
  LENGTH:    bits(287, 256,  'bytes; of a batch: descriptors'),
  RESERVED1: bits(319, 288,  'zero'),
  OPERAND:   u64(383, 320,   'fill pattern; checksum to continue from (low 32 bits)'),
  RESERVED2: u64(447, 384,   'zero'),
  RESERVED3: u64(511, 448,   'zero'),
})

/** How a descriptor ended: completion record STATUS. 0 is for software to wait on. */
export const STATUS = {
  SUCCESS: 0x01,
  PAGE_FAULT: 0x03, // a page was not there, and the descriptor did not ask to wait: BYTES were done
  PAGE_INVALID: 0x04, // software answered that the page cannot be made resident
  PAGE_FAILURE: 0x05, // the page request interface failed, or pages came and went without end
  BATCH_FAILED: 0x06, // one or more descriptors of the batch failed; BYTES counts those that did not
  REFUSED: 0x07, // a request was refused for good: unsupported, aborted, blocked, PASID not enabled
  ABORTED: 0x08, // the queue was aborted or disabled
  FENCED: 0x09, // FENCE, and a descriptor before it failed
  BAD_OPCODE: 0x10,
  BAD_RESERVED: 0x11, // a reserved field is not zero
  BAD_LENGTH: 0x12, // 0, or above ID.MAX_TRANSFER
  BAD_COUNT: 0x13, // a batch of none, or of more than 256
  BAD_ADDRESS: 0x14, // misaligned batch array, or a range that wraps the address space
  NESTED_BATCH: 0x15, // a batch inside a batch
  OVERLAP: 0x16, // COPY whose source and destination overlap
} as const
/** One of the statuses. */
export type Status = (typeof STATUS)[keyof typeof STATUS]

/** The completion record. */
// biome-ignore format: table
export const RECORD = layout('sva-engine completion record', RECORD_SIZE, {
  STATUS:  oneOf(6, 0, STATUS, 'how it ended'),
  WRITE:   flag(7,         'the access that failed was a write'),
  RESULT:  bits(15, 8,     'COMPARE: 1 the ranges differ'),
  BYTES:   bits(63, 32,    'bytes done; of a batch: descriptors that succeeded; COMPARE: bytes that are equal'),
  FAULT:   u64(127, 64,    'IOVA of the access that failed, when a page fault or a refusal ended it'),
  VALUE:   u64(191, 128,   'checksum'),
})

/** A descriptor as the engine keeps it: plain data. */
export interface Descriptor {
  readonly pasid: number
  readonly privileged: boolean
  readonly record: boolean
  readonly interrupt: boolean
  readonly block: boolean
  readonly fence: boolean
  readonly opcode: number
  readonly completion: bigint
  readonly source: bigint
  readonly destination: bigint
  readonly length: number
  readonly operand: bigint
  readonly reserved: boolean
}

const view = DESCRIPTOR.create()

/** Reads a descriptor's 64 bytes. */
export function readDescriptor(bytes: Uint8Array): Descriptor {
  view.bytes.set(bytes.subarray(0, DESCRIPTOR_SIZE))
  return {
    pasid: view.PASID,
    privileged: view.PRIV,
    record: view.RECORD,
    interrupt: view.INTERRUPT,
    block: view.BLOCK,
    fence: view.FENCE,
    opcode: view.OPCODE,
    completion: view.COMPLETION,
    source: view.SRC,
    destination: view.DST,
    length: view.LENGTH,
    operand: view.OPERAND,
    reserved:
      view.RESERVED0 !== 0 ||
      view.RESERVED1 !== 0 ||
      view.RESERVED2 !== 0n ||
      view.RESERVED3 !== 0n,
  }
}

const TOP = 1n << 64n

/** What is wrong with a descriptor, or undefined. `inBatch`: it came from a batch's array. */
export function refuse(d: Descriptor, inBatch: boolean): Status | undefined {
  if (d.reserved) return STATUS.BAD_RESERVED
  switch (d.opcode) {
    case OPCODE.NOP:
      return undefined
    case OPCODE.BATCH:
      if (inBatch) return STATUS.NESTED_BATCH
      if (d.length === 0 || d.length > MAX_BATCH) return STATUS.BAD_COUNT
      if (d.source & 63n || d.source + BigInt(d.length * DESCRIPTOR_SIZE) > TOP)
        return STATUS.BAD_ADDRESS
      return undefined
    case OPCODE.COPY:
    case OPCODE.COPY_CHECKSUM:
      return refuseRange(d, true, true) ?? (overlaps(d) ? STATUS.OVERLAP : undefined)
    case OPCODE.FILL:
      return refuseRange(d, false, true)
    case OPCODE.COMPARE:
      return refuseRange(d, true, true)
    case OPCODE.CHECKSUM:
      return refuseRange(d, true, false)
    default:
      return STATUS.BAD_OPCODE
  }
}

function refuseRange(d: Descriptor, source: boolean, destination: boolean): Status | undefined {
  if (d.length === 0 || d.length > 2 ** MAX_TRANSFER_BITS) return STATUS.BAD_LENGTH
  const wraps = (at: bigint) => at + BigInt(d.length) > TOP
  return (source && wraps(d.source)) || (destination && wraps(d.destination))
    ? STATUS.BAD_ADDRESS
    : undefined
}

const overlaps = ({ source, destination, length }: Descriptor): boolean =>
  source < destination + BigInt(length) && destination < source + BigInt(length)
