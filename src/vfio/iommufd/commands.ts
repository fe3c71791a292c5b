// How commands are read and answered: `size` first, then as much of the structure as the caller knows; what the
// kernel does not know must be zero (E2BIG). Nothing here knows a command. uapi linux/iommufd.h, "General ioctl format".
import { hex } from '../../base/addr.js'
import { ErrnoError } from '../../base/errno.js'
import type { Members, StructType, StructValue } from '../../base/struct.js'
import type { ProcessMemory } from '../../mem/process-memory.js'
import type { Process } from '../../sys/process.js'

/** One call, while it is made. */
export interface Call<M extends Members = Members> {
  readonly name: string
  /** The structure; what the command changes in it goes back with `respond`. */
  readonly cmd: StructValue<M>
  readonly caller: Process
  /** Writes the structure back, as much as the caller knows. EFAULT. */
  respond(): void
}

/** One row of the command table. */
export interface Command<C> {
  readonly name: string
  readonly run: (context: C, arg: number, caller: Process) => number
}

/** A command: its structure, the bytes every caller must know, and what it does. */
export function command<C, M extends Members>(
  name: string,
  type: StructType<M>,
  minimum: number,
  run: (context: C, call: Call<M>) => void,
): Command<C> {
  // Calls do not nest, so each command has one structure, written anew by every call.
  const cmd = type()
  return {
    name,
    run(context, arg, caller) {
      const size = readSized(name, cmd.bytes, minimum, arg, caller.memory)
      const respond = () => {
        if (!caller.memory.copyOut(arg, cmd.bytes, Math.min(size, cmd.bytes.length)))
          throw new ErrnoError('EFAULT', `${name}: the structure is not writable`)
      }
      run(context, { name, cmd, caller, respond })
      return 0
    },
  }
}

/** The first member of a structure, while it is read. */
const first = new Uint32Array(1)
const firstBytes = new Uint8Array(first.buffer)

/** Reads a structure that begins with its size. EFAULT, EINVAL below `minimum`, E2BIG; answers the caller's size. */
export function readSized(
  name: string,
  into: Uint8Array,
  minimum: number,
  arg: number,
  memory: ProcessMemory,
): number {
  if (!memory.copyIn(arg, firstBytes))
    throw new ErrnoError('EFAULT', `${name}: argument at ${hex(arg)} is not readable`)
  const size = first[0]!
  if (size < minimum) throw new ErrnoError('EINVAL', `${name}: size ${size} < ${minimum}`)
  readGrown(name, into, size, arg, memory)
  return size
}

const CHUNK = 4096

/**
 * Reads `size` bytes of a structure of which `into` is known: what is missing is zero, what is more must be. The
 * tail is looked at before anything is taken. EFAULT, E2BIG.
 */
export function readGrown(
  name: string,
  into: Uint8Array,
  size: number,
  arg: number,
  memory: ProcessMemory,
): void {
  const known = into.length
  if (size > known) checkTail(name, known, size, arg, memory)
  if (size < known) into.fill(0)
  if (!memory.copyIn(arg, into, Math.min(size, known)))
    throw new ErrnoError('EFAULT', `${name}: argument at ${hex(arg)} is not readable`)
}

function checkTail(
  name: string,
  known: number,
  size: number,
  arg: number,
  memory: ProcessMemory,
): void {
  const tail = new Uint8Array(Math.min(CHUNK, size - known))
  for (let at = known; at < size; at += CHUNK) {
    const n = Math.min(CHUNK, size - at)
    // Up to where memory ends, a byte that is set comes before the fault.
    if (!memory.copyIn(arg + at, tail, n)) {
      for (let i = 0; i < n && memory.copyIn(arg + at + i, tail, 1); i++)
        if (tail[0] !== 0) throw tooBig(name, size, known)
      throw new ErrnoError('EFAULT', `${name}: ${size} bytes are not readable`)
    }
    for (let i = 0; i < n; i++) if (tail[i] !== 0) throw tooBig(name, size, known)
  }
}

const tooBig = (name: string, size: number, known: number) =>
  new ErrnoError('E2BIG', `${name}: size ${size}, and what lies behind ${known} bytes is not zero`)

/** Refuses flags and reserved members that nobody defined. */
export function unsupported(name: string, what: Readonly<Record<string, number>>): void {
  for (const member in what)
    if (what[member] !== 0)
      throw new ErrnoError('EOPNOTSUPP', `${name}: ${member} ${hex(what[member]!)}`)
}

/** A pointer member as a number; what is above 2^53 faults whichever its low bits are. */
export const pointer = (value: bigint): number => Number(value)
