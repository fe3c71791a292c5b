// Prints any table-declared value field by field, for dumps, faults and golden tests.

import { type Field, type Fields, layoutFor } from './fields.js'

/** One decoded field. */
export interface ExplainedField {
  readonly name: string
  readonly position: string
  readonly value: string
  readonly doc: string
}

/** The fields of a value, high bit first, with names of enumeration values where the table has them. */
export function explainFields(fields: Fields, value: object): ExplainedField[] {
  const from = value as Record<string, unknown>
  return Object.entries<Field>(fields)
    .sort((a, b) => b[1].lo - a[1].lo)
    .map(([name, f]) => ({
      name,
      position: f.hi === f.lo ? `${f.hi}` : `${f.hi}:${f.lo}`,
      value: print(f, from[name]),
      doc: f.doc,
    }))
}

function print(f: Field, v: unknown): string {
  if (typeof v === 'boolean') return v ? '1' : '0'
  if (f.kind === 'oneOf') {
    const name = Object.entries(f.values ?? {}).find(([, n]) => n === v)?.[0]
    return name ?? `${v} (reserved)`
  }
  return `0x${(v as number | bigint).toString(16)}`
}

/** A layout value as aligned lines: position, name, value, meaning. Zero fields are left out unless `all`. */
export function explain(value: object, options: { readonly all?: boolean } = {}): string {
  const layout = layoutFor(value)
  if (!layout) throw new Error('explain: not a value of a declared layout')
  const rows = explainFields(layout.fields, value).filter(
    r => options.all || (r.value !== '0' && r.value !== '0x0'),
  )
  const width = (of: (r: ExplainedField) => string) => Math.max(0, ...rows.map(r => of(r).length))
  const [p, n, v] = [width(r => r.position), width(r => r.name), width(r => r.value)]
  const lines = rows.map(r =>
    `  ${r.position.padStart(p)}  ${r.name.padEnd(n)}  ${r.value.padEnd(v)}  ${r.doc}`.trimEnd(),
  )
  return [layout.name, ...lines].join('\n')
}
