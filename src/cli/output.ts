// How the command line speaks: aligned lines with restrained colour for people, NDJSON for programs.
// Colour is for terminals: NO_COLOR forbids it, FORCE_COLOR asks for it elsewhere.

import { createColors } from 'picocolors'

/** A mistake of the person at the keyboard, or of a file they named: one line, exit status 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

const { NO_COLOR, FORCE_COLOR } = process.env
const pc = createColors(!NO_COLOR && (Boolean(FORCE_COLOR) || process.stdout.isTTY === true))

export const style = {
  heading: (s: string) => pc.bold(s),
  quiet: (s: string) => pc.dim(s),
  good: (s: string) => pc.green(s),
  bad: (s: string) => pc.red(s),
  guest: (s: string) => pc.yellow(s),
} as const

/** Bytes in the unit that gives the shortest exact figure. */
export function formatBytes(n: number): string {
  for (const [unit, size] of [
    ['GiB', 2 ** 30],
    ['MiB', 2 ** 20],
    ['KiB', 1024],
  ] as const)
    if (n >= size && n % size === 0) return `${n / size} ${unit}`
  return `${n} bytes`
}

/** Virtual time in microseconds, right-aligned to ten columns. */
export const formatTime = (ns: number): string => `${(ns / 1000).toFixed(3)} µs`.padStart(14)

/** Rows as columns padded to the widest cell; the last column is left ragged. */
export function columns(rows: readonly (readonly string[])[], gap = 2): string[] {
  const widths: number[] = []
  for (const row of rows)
    for (const [i, cell] of row.entries()) widths[i] = Math.max(widths[i] ?? 0, cell.length)
  return rows.map(row =>
    row
      .map((cell, i) => (i === row.length - 1 ? cell : cell.padEnd(widths[i]! + gap)))
      .join('')
      .trimEnd(),
  )
}

/** JSON text of a value; bigints become hexadecimal strings and byte arrays plain hex. */
export function toJson(value: unknown): string {
  return JSON.stringify(value, (_, v: unknown) => {
    if (typeof v === 'bigint') return `0x${v.toString(16)}`
    if (v instanceof Uint8Array) return [...v].map(b => b.toString(16).padStart(2, '0')).join('')
    return v
  })
}
