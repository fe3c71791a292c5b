/**
 * Registers of the sva-engine (BAR 0). Global registers first, then eight work queues, 0x40 bytes each,
 * from 0x100. BAR 2 holds the MSI-X table, BAR 4 one portal page per queue.
 * Next: descriptors.ts (what is submitted), queue.ts (what the registers do).
 */
import {
  type Bank,
  bank,
  bits,
  flag,
  oneOf,
  type Register,
  r32,
  r64,
  u64,
} from '../../../base/fields.js'
import type { LiveRegisters } from '../../../base/registers.js'

/** Work queues. */
export const QUEUES = 8
/** Offset of queue 0's registers, and bytes from one queue's to the next's. */
export const QUEUE_BASE = 0x100
export const QUEUE_STRIDE = 0x40
/** Descriptors a portal queue holds before it answers retry. */
export const PORTAL_DEPTH = 16
/** Largest LENGTH of one descriptor: 2^MAX_TRANSFER_BITS bytes. */
export const MAX_TRANSFER_BITS = 30
/** Largest count of one batch. */
export const MAX_BATCH = 256
/** log2 of the largest ring. */
export const MAX_RING_BITS = 12

/** How descriptors reach a queue, and whose PASID they run under. */
export const MODE = {
  SHARED: 1, // portal, deferrable writes only (ENQCMD); PASID and privilege from the descriptor
  DEDICATED: 2, // portal, posted writes only (MOVDIR64B); PASID and privilege from the queue
  RING: 3, // ring in memory at BASE, TAIL is the doorbell; PASID and privilege from the queue
} as const

/** What ERROR.CODE says: something that no completion record could say. */
export const ERROR_CODE = {
  RECORD: 1, // a completion record could not be written; ERROR_ADDRESS is its address
  RING: 2, // the ring could not be read; the queue is halted
  CONFIG: 3, // a queue was enabled with a configuration that makes no sense; it stays disabled
  PORTAL: 4, // a posted write was lost: queue full, disabled, or not dedicated
} as const

const ID_RESET = BigInt(1 | (QUEUES << 8) | (MAX_TRANSFER_BITS << 16))

// biome-ignore format: table
const GLOBAL = {
  ID:         r32(0x000, '1.1', {
    MAX_TRANSFER: bits(20, 16, 'ro', 'log2 of the largest LENGTH'),
    QUEUES:       bits(15, 8, 'ro', 'work queues'),
    VERSION:      bits(7, 0, 'ro', 'of this layout'),
  }, ID_RESET),
  OPERATIONS: r32(0x004, '1.2', { SUPPORTED: bits(31, 0, 'ro', 'bit n: opcode n exists') }, 0x7fn),
  ERROR:      r32(0x010, '1.3', {
    VALID:        flag(31, 'rw1c', 'the fields describe the first error since this was cleared'),
    OVERFLOW:     flag(30, 'rw1c', 'errors after it were not recorded'),
    QUEUE:        bits(15, 8, 'ro', 'which queue'),
    CODE:         oneOf(7, 0, ERROR_CODE, 'ro', 'what happened'),
  }),
  ERROR_PASID: r32(0x014, '1.4', {
    EN:           flag(31, 'ro', 'the request carried a PASID'),
    ID:           bits(19, 0, 'ro', 'which'),
  }),
  ERROR_ADDRESS: r64(0x018, '1.5', { ADDR: u64(63, 0, 'ro', 'IOVA of the request that failed') }),
}

/** One queue's registers, at offsets from its own base. */
// biome-ignore format: table
export const QUEUE = bank('sva-engine queue', {
  CONFIG:  r32(0x00, '2.1', {
    ENABLE:    flag(31, 'rw', 'latches the other fields, PASID, BASE and SIZE; clearing it aborts'),
    VECTOR:    bits(11, 8, 'rw', 'MSI-X vector of completions, drain and abort'),
    PRS:       flag(6, 'rw', 'descriptors may wait for pages (page requests)'),
    PRIV:      flag(5, 'rw', 'modes 2 and 3: requests ask for privileged mode'),
    PASID_EN:  flag(4, 'rw', 'modes 2 and 3: requests carry PASID.ID'),
    MODE:      oneOf(1, 0, MODE, 'rw', '1 shared portal, 2 dedicated portal, 3 ring'),
  }),
  PASID:   r32(0x04, '2.2', { ID: bits(19, 0, 'rw', 'modes 2 and 3: under which requests run') }),
  BASE:    r64(0x08, '2.3', { ADDR: u64(63, 0, 'rw', 'mode 3: IOVA of the ring, a multiple of 64') }),
  SIZE:    r32(0x10, '2.4', { LOG2: bits(4, 0, 'rw', 'mode 3: log2 of the descriptors in the ring, 1 to 12') }),
  HEAD:    r32(0x14, '2.5', { INDEX: bits(15, 0, 'ro', 'mode 3: next descriptor the engine takes') }),
  TAIL:    r32(0x18, '2.6', { INDEX: bits(15, 0, 'rw', 'mode 3: doorbell; one past the last descriptor') }),
  COMMAND: r32(0x1c, '2.7', {
    ABORT:     flag(1, 'wo', 'ends every descriptor taken with status ABORTED; a ring continues at TAIL'),
    DRAIN:     flag(0, 'wo', 'sets STATUS.DRAINED once all that was submitted before is finished'),
  }),
  STATUS:  r32(0x20, '2.8', {
    WAITING:   flag(5, 'ro', 'the work waits for a page response, or for a stalled access'),
    BUSY:      flag(4, 'ro', 'a descriptor is in work'),
    HALTED:    flag(3, 'rw1c', 'mode 3: the ring could not be read; clearing it tries again'),
    ABORTED:   flag(2, 'rw1c', 'an abort ended'),
    DRAINED:   flag(1, 'rw1c', 'a drain ended'),
    ENABLED:   flag(0, 'ro', 'CONFIG.ENABLE took effect'),
  }),
  PENDING: r32(0x24, '2.9', { COUNT: bits(15, 0, 'ro', 'portal descriptors that wait for their turn') }),
}, QUEUE_STRIDE)

const QUEUE_REGISTERS = Object.entries<Register>(QUEUE)

/** Name of a queue's register in the whole bank, such as `Q0_TAIL`. */
export const queueRegister = (queue: number, name: string): string => `Q${queue}_${name}`

/** A register of a queue in the whole bank; for programs that poke one. */
export const queueOffset = (queue: number, name: keyof typeof QUEUE & string): number =>
  QUEUE_BASE + queue * QUEUE_STRIDE + QUEUE[name].offset

/** All registers of BAR 0. */
export const SVA_ENGINE = bank(
  'sva-engine',
  {
    ...GLOBAL,
    ...Object.fromEntries(
      Array.from({ length: QUEUES }, (_, n) =>
        QUEUE_REGISTERS.map(([name, r]): [string, Register] => [
          queueRegister(n, name),
          { ...r, offset: QUEUE_BASE + n * QUEUE_STRIDE + r.offset },
        ]),
      ).flat(),
    ),
  } as typeof GLOBAL,
  QUEUE_BASE + QUEUES * QUEUE_STRIDE,
)

/** Live global registers. */
export type GlobalRegisters = LiveRegisters<Bank<typeof GLOBAL>>
/** Live registers of one queue. */
export type QueueRegisters = LiveRegisters<typeof QUEUE>

/** One queue's share of the live registers; the table above guarantees that each exists. */
export function queueRegisters(all: GlobalRegisters, queue: number): QueueRegisters {
  const named = all as unknown as Readonly<Record<string, unknown>>
  return Object.fromEntries(
    QUEUE_REGISTERS.map(([name]) => [name, named[queueRegister(queue, name)]]),
  ) as unknown as QueueRegisters
}
