/**
 * A descriptor while the sva-engine works on it, how it ended, and the record of that. Plain data.
 * Next: queue.ts.
 */
import type { RequestTag } from '../../device-model.js'
import { type Descriptor, OPCODE, RECORD, type Status } from './descriptors.js'
import { checksumOf, type Progress } from './operations.js'

/** A descriptor in work. */
export interface Task {
  readonly descriptor: Descriptor
  readonly tag: RequestTag
  readonly progress: Progress
  /** Set when the outcome is known and the record is still to be written. */
  outcome: Outcome | undefined
  /** Of a batch: how far it is, and the descriptor of it in work. */
  next: number
  succeeded: number
  inner: Task | undefined
}

/** How a descriptor ended. */
export interface Outcome {
  readonly status: Status
  readonly bytes: number
  readonly write: boolean
  readonly fault: bigint
}

/** An outcome without a faulting address. */
export const plain = (status: Status, bytes: number): Outcome => ({
  status,
  bytes,
  write: false,
  fault: 0n,
})

/** The completion record of a task that ended. */
export function record(task: Task, outcome: Outcome): Uint8Array {
  const { opcode } = task.descriptor
  const summed = opcode === OPCODE.CHECKSUM || opcode === OPCODE.COPY_CHECKSUM
  return RECORD.create({
    STATUS: outcome.status,
    WRITE: outcome.write,
    RESULT: task.progress.differs ? 1 : 0,
    BYTES: outcome.bytes,
    FAULT: outcome.fault,
    VALUE: summed ? BigInt(checksumOf(task.progress)) : 0n,
  }).bytes
}

/** A copy of plain data: objects, arrays, numbers, bigints, booleans. */
export function clone<T>(value: T): T {
  if (Array.isArray(value)) return value.map(clone) as T
  if (typeof value !== 'object' || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, clone(v)])) as T
}
