// `npm run bench [-- --json FILE]`: every row of the design's figures, each with its baseline.

import { writeFileSync } from 'node:fs'
import { cpuRows } from './cpu.js'
import { cpuA64Rows } from './cpu-a64.js'
import { dmaRows } from './dma.js'
import type { Row } from './harness.js'
import { invalidateRows } from './invalidate.js'
import { ioctlRows } from './ioctl.js'
import { memoryRows } from './memory.js'
import { scopeRows } from './scopes.js'
import { smmuRows } from './smmu.js'
import { bareReads, translateRows } from './translate.js'
import { wasmLoweringRows } from './wasm-lowering.js'

const HELP = `npm run bench [-- OPTIONS]
  --json FILE   also write the rows as JSON
  --only TEXT   only groups whose name contains TEXT: translate, smmu, dma, ioctl, invalidate,
                scopes, memory, cpu
  --help        this text
The exit status is 1 when a row misses its target.`

const groups: Readonly<Record<string, () => Iterable<Row>>> = {
  translate: translateRows,
  smmu: () => smmuRows(bareReads),
  dma: dmaRows,
  ioctl: ioctlRows,
  invalidate: invalidateRows,
  scopes: scopeRows,
  memory: memoryRows,
  cpu: cpuRows,
  'cpu-a64': cpuA64Rows,
  'wasm-lowering': wasmLoweringRows,
}

function figure(v: number, unit: string): string {
  if (unit === 'ns' || unit === 'bytes') return `${v.toFixed(1)} ${unit}`
  if (unit === 'MIPS') return `${v.toFixed(2)} MIPS`
  return `${Math.round(v).toLocaleString('en-US')} ${unit}`
}

function line(r: Row): string {
  const goal =
    r.target === null
      ? 'no target'
      : r.targetOf === 'ratio'
        ? `ratio ≥ ${r.target}`
        : `${r.unit === 'ns' || r.unit === 'bytes' ? '≤' : '≥'} ${figure(r.target, r.unit)}`
  const cells = [
    r.id.padEnd(21),
    figure(r.value, r.unit).padStart(22),
    `x${r.ratio.toFixed(2)}`.padStart(8),
    `baseline ${figure(r.baseline, r.unit)}`.padEnd(34),
    goal.padEnd(24),
    r.target === null ? '' : r.pass ? 'reached' : 'MISSED',
  ]
  return cells.join('  ').trimEnd()
}

function main(args: readonly string[]): number {
  if (args.includes('--help')) {
    console.log(HELP)
    return 0
  }
  const after = (flag: string) => {
    const at = args.indexOf(flag)
    return at < 0 ? undefined : args[at + 1]
  }
  const only = after('--only')
  const rows: Row[] = []
  for (const [name, run] of Object.entries(groups)) {
    if (only !== undefined && !name.includes(only)) continue
    for (const row of run()) {
      rows.push(row)
      console.log(line(row))
    }
  }
  const file = after('--json')
  if (file !== undefined) writeFileSync(file, `${JSON.stringify(rows, null, 2)}\n`)
  return rows.every(r => r.pass) ? 0 : 1
}

process.exitCode = main(process.argv.slice(2))
