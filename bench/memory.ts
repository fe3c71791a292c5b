// What a mapping and a PASID cost in memory: JavaScript's own, buffers beside it, and host frames for tables.

import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { bytes, type Row } from './harness.js'
import { type Caller, holdMappings, holdPasids, open } from './ioctl.js'

setFlagsFromString('--expose-gc')
const collect: () => void = runInNewContext('gc')

/** A present entry of the second stage is 8 bytes; mappings lie every other page, so that half of them are unused. */
const TABLE_BYTES = 16
/** Owner, references and set-private id of a PASID, as small as they can be. */
const PASID_BYTES = 12

/** Bytes in use by the program and by the machine's page frames. */
function used({ machine }: Caller): number {
  collect()
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external + machine.kernel.frames.used * 4096
}

function row(
  id: string,
  what: string,
  held: number,
  baseline: number,
  hold: (caller: Caller, held: number) => unknown,
): Row {
  const caller = open()
  hold(caller, 1000)
  const before = used(caller)
  hold(caller, held)
  return bytes({ id, what, target: null }, (used(caller) - before) / (held - 1000), baseline)
}

export function* memoryRows(): Generator<Row> {
  yield row(
    'memory-mapping',
    'bytes a mapping of 4 KiB, tables included, 1,000,000 held',
    1_000_000,
    TABLE_BYTES,
    holdMappings,
  )
  yield row('memory-pasid', 'bytes a PASID, 1,048,574 held', 2 ** 20 - 2, PASID_BYTES, holdPasids)
}
