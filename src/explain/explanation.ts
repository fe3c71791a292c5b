/**
 * An explanation: what was asked, what was read on the way, which bit refused it, and what to do. As data for
 * programs, and as text for people. Who makes them: vtd.ts, smmu.ts, dma.ts.
 */
import type { ExplainedField } from '../base/explain.js'

/** One thing on the way: a structure, a paging entry, a stage. */
export interface ExplainedNode {
  readonly text: string
  /** Raw 64-bit words. */
  readonly words?: readonly bigint[]
  /** Decoded fields that are not zero; of what refused the request, all. */
  readonly fields?: readonly ExplainedField[]
  /** The bit or field that refused the request. */
  readonly refused?: string
  readonly children?: readonly ExplainedNode[]
}

/** A fault, event or refused completion, explained. */
export interface Explanation {
  /** Name and number. */
  readonly title: string
  /** What happened, in a few sentences. */
  readonly summary: string
  /** The request as name and value. */
  readonly request: readonly (readonly [name: string, value: string])[]
  readonly tree: readonly ExplainedNode[]
  /** Heading of the tree. Default: What was read. */
  readonly heading?: string
  /** Where the specification says so. */
  readonly section: string
  readonly cause: string
  readonly cure: string
}

const WIDTH = 100

/** An explanation as text. */
export function explanationText(e: Explanation): string {
  const name = Math.max(0, ...e.request.map(([n]) => n.length))
  const lines = [e.title, '', ...wrap(e.summary, '')]
  if (e.request.length > 0) {
    lines.push('', 'Request')
    for (const [n, v] of e.request) lines.push(`  ${n.padEnd(name)}  ${v}`)
  }
  if (e.tree.length > 0)
    lines.push('', e.heading ?? 'What was read', ...e.tree.flatMap(n => nodeLines(n, '  ')))
  lines.push('', ...labelled('Section', e.section), ...labelled('Likely cause', e.cause))
  lines.push(...labelled('What to do', e.cure))
  return lines.join('\n')
}

/** A node and what is below it, as lines. */
export function nodeLines(n: ExplainedNode, indent: string): string[] {
  const lines = [`${indent}${n.text}`]
  for (const row of wordRows(n.words ?? [])) lines.push(`${indent}    ${row}`)
  const { fields = [] } = n
  if (n.refused !== undefined && fields.length > 0) lines.push(...fieldTable(fields, indent))
  else if (fields.length > 0) lines.push(...pairs(fields, `${indent}    `))
  if (n.refused !== undefined) lines.push(`${indent}  ✗ ${n.refused}`)
  for (const child of n.children ?? []) lines.push(...nodeLines(child, `${indent}  `))
  return lines
}

/** Names and values on as few lines as they take; a pair stays together. */
const pairs = (fields: readonly ExplainedField[], indent: string): string[] =>
  wrap(fields.map(f => `${f.name} ${f.value}`.replaceAll(' ', TIE)).join('  '), indent).map(line =>
    line.replaceAll(TIE, ' '),
  )
/** No-break space: `wrap` does not part what it joins. */
const TIE = '\u00a0'

function fieldTable(fields: readonly ExplainedField[], indent: string): string[] {
  const width = (of: (f: ExplainedField) => string) => Math.max(...fields.map(f => of(f).length))
  const [p, n, v] = [width(f => f.position), width(f => f.name), width(f => f.value)]
  return fields.map(f =>
    `${indent}    ${f.position.padStart(p)}  ${f.name.padEnd(n)}  ${f.value.padEnd(v)}  ${f.doc}`.trimEnd(),
  )
}

/** Raw words, four a row; rows of zeros at the end are left out. */
function wordRows(words: readonly bigint[]): string[] {
  if (words.length < 2) return []
  const rows: string[] = []
  for (let i = 0; i < words.length; i += 4)
    rows.push(
      words
        .slice(i, i + 4)
        .map(w => w.toString(16).padStart(16, '0'))
        .join(' '),
    )
  while (rows.length > 1 && /^[0 ]*$/.test(rows.at(-1)!)) rows.pop()
  return rows
}

const labelled = (label: string, text: string): string[] =>
  wrap(text, ' '.repeat(14)).map((line, i) =>
    i === 0 ? `${label.padEnd(14)}${line.trimStart()}` : line,
  )

/** Words of a text in lines of at most WIDTH columns. */
export function wrap(text: string, indent: string): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(/ (?! )/)) {
    if (line !== '' && indent.length + line.length + 1 + word.length > WIDTH) {
      lines.push(`${indent}${line.trimEnd()}`)
      line = word.trimStart()
    } else line = line === '' ? word : `${line} ${word}`
  }
  return line === '' ? lines : [...lines, `${indent}${line.trimEnd()}`]
}
