// Writes a machine's trace to a file, and reads it back: NDJSON, or the Chrome trace format that Perfetto opens.

import { writeFileSync } from 'node:fs'
import type { IommuUnit, Machine } from '../machine.js'
import { toJson, UsageError } from './output.js'

/** Starts keeping every event; the result writes the file. `.json` means the Chrome format. */
export function startTrace(machine: Machine<IommuUnit>, path: string): () => void {
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
        : toJson({ time: at, event: name, ...(event as object) }),
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

/** An event read back from a trace file. */
export interface TracedEvent {
  /** Virtual time, ns. */
  readonly time: number
  readonly name: string
  readonly event: Readonly<Record<string, unknown>>
}

/** The events of a trace file's text. UsageError names the first line that is none. */
export function readTrace(text: string, path: string): TracedEvent[] {
  if (text.startsWith('{"traceEvents"')) {
    const { traceEvents } = parse(text, `${path}: `) as { traceEvents: unknown[] }
    return traceEvents.map(e => {
      const { name, ts, args } = e as { name: string; ts: number; args: TracedEvent['event'] }
      return { name, time: ts * 1000, event: args }
    })
  }
  return text.split('\n').flatMap((line, i) => {
    if (line.trim() === '') return []
    const event = parse(line, `${path}:${i + 1}: `) as TracedEvent['event']
    const { time, event: name } = event
    if (typeof time !== 'number' || typeof name !== 'string')
      throw new UsageError(`${path}:${i + 1}: no trace event: 'time' and 'event' are needed`)
    return [{ time, name, event }]
  })
}

/** Parses JSON that `toJson` wrote: hexadecimal strings are bigints again. */
function parse(text: string, where: string): unknown {
  try {
    return JSON.parse(text, (_, v: unknown) =>
      typeof v === 'string' && /^0x[0-9a-f]+$/.test(v) ? BigInt(v) : v,
    )
  } catch (error) {
    throw new UsageError(`${where}${(error as Error).message}`)
  }
}
