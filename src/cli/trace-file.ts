// Writes a machine's trace to a file: NDJSON, or the Chrome trace format that Perfetto opens.

import { writeFileSync } from 'node:fs'
import type { Machine } from '../machine.js'
import { toJson, UsageError } from './output.js'

/** Starts keeping every event; the result writes the file. `.json` means the Chrome format. */
export function startTrace(machine: Machine, path: string): () => void {
  const chrome = path.endsWith('.json')
  const lines: string[] = []
  try {
    writeFileSync(path, '')
  } catch (error) {
    throw new UsageError(`cannot write trace ${path}: ${(error as Error).message}`)
  }
  const stop = machine.trace.listen('*', (event, name) => {
    const at = machine.clock.now
    lines.push(
      chrome
        ? toJson({
            name,
            ph: 'i',
            s: 'g',
            ts: at / 1000,
            pid: 1,
            tid: 1,
            cat: name.split('.')[0],
            args: event,
          })
        : toJson({ at, event: name, ...(event as object) }),
    )
  })
  return () => {
    stop()
    writeFileSync(
      path,
      chrome ? `{"traceEvents":[\n${lines.join(',\n')}\n]}\n` : `${lines.join('\n')}\n`,
    )
  }
}
