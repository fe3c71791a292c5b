/** A register bank as a reference page in Markdown, from its table alone; and an index of such pages. */
import { type Bank, bankInfo, type Field, type Register } from '../base/fields.js'

const COLUMNS: readonly string[] = ['Offset', 'Register', 'Bits', 'Reset', 'Section']

/** The page of a bank: a table of its registers, then each register with its fields. */
export function registerPage(bank: Bank): string {
  const { name, size } = bankInfo(bank)
  const registers = Object.entries<Register>(bank).sort((a, b) => a[1].offset - b[1].offset)
  const rows = registers.map(([n, r]) => [
    hex(r.offset, 3),
    `[${n}](#${n.toLowerCase()})`,
    `${r.size * 8}`,
    hex(r.reset, 1),
    r.spec,
  ])
  return `${[
    `# Registers: ${name}`,
    '',
    `${registers.length} registers in ${size} bytes. Generated from the table in the source by \`npm run docs:registers\`; do not edit.`,
    'Access: `rw` read and write, `ro` read only, `wo` write only, `rw1c` writing 1 clears, `rw1s` writing 1 sets, `hwinit` set by hardware or firmware. Bits that are not listed are reserved and read zero.',
    '',
    ...table(COLUMNS, rows),
    ...registers.flatMap(([n, r]) => ['', `## ${n}`, '', ...registerLines(r)]),
  ].join('\n')}\n`
}

function registerLines(r: Register): string[] {
  const fields = Object.entries<Field>(r.fields).sort((a, b) => b[1].lo - a[1].lo)
  const where = `Offset ${hex(r.offset, 3)}, ${r.size * 8} bits, reset ${hex(r.reset, 1)}. ${r.spec}.`
  if (fields.length === 0) return [where]
  const rows = fields.map(([name, f]) => [
    f.hi === f.lo ? `${f.hi}` : `${f.hi}:${f.lo}`,
    name,
    f.access,
    meaning(f),
  ])
  return [where, '', ...table(['Bits', 'Field', 'Access', 'Meaning'], rows)]
}

function meaning({ doc, values }: Field): string {
  const named = Object.entries(values ?? {}).map(([name, n]) => `${n} ${name}`)
  return [doc, named.join(', ')].filter(s => s !== '').join(': ')
}

/** A page that leads to others: file names without `.md`, and the banks they show. */
export function registerIndex(pages: ReadonlyMap<string, Bank>): string {
  const rows = [...pages].map(([file, bank]) => [
    `[${bankInfo(bank).name}](${file}.md)`,
    `${Object.keys(bank).length}`,
    `${bankInfo(bank).size}`,
  ])
  return `${[
    '# Registers',
    '',
    'Every register bank of the model, one page each, generated from the tables by `npm run docs:registers`.',
    '',
    ...table(['Bank', 'Registers', 'Bytes'], rows),
  ].join('\n')}\n`
}

/** File name of a bank's page, without `.md`. */
export const pageName = (bank: Bank): string =>
  bankInfo(bank)
    .name.toLowerCase()
    .replace(/[^a-z0-9]+/g, '-')

function table(head: readonly string[], rows: readonly (readonly string[])[]): string[] {
  const line = (cells: readonly string[]) =>
    `| ${cells.map(c => c.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)]
}

const hex = (v: number | bigint, digits: number): string =>
  v === 0 || v === 0n
    ? digits > 1
      ? `0x${'0'.repeat(digits)}`
      : '0'
    : `0x${v.toString(16).padStart(digits, '0')}`
