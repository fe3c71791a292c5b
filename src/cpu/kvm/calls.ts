// Tables of ioctls: request number to handler, one table a module. A file's own table is the join of those it offers.

import type { Process } from '../../sys/process.js'

/** What one request does with the file it came to. Returns the ioctl's result; refusals are ErrnoErrors. */
export type Handler<T> = (file: T, arg: number, caller: Process) => number

/** Requests that files of type `T` answer. */
export type Calls<T> = ReadonlyMap<number, Handler<T>>

/** A table from rows of request and handler. */
export const calls = <T>(rows: Iterable<readonly [cmd: number, handler: Handler<T>]>): Calls<T> =>
  new Map(rows)

/** One table of several. A request in two of them is an Error: it would answer by order of import. */
export function joinCalls<T>(...tables: readonly Calls<T>[]): Calls<T> {
  const all = new Map<number, Handler<T>>()
  for (const table of tables)
    for (const [cmd, handler] of table) {
      if (all.has(cmd)) throw new Error(`request 0x${cmd.toString(16)} is in two tables`)
      all.set(cmd, handler)
    }
  return all
}
