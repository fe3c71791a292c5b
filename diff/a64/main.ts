// `npm run diff:a64 [-- OPTIONS]`: random instruction cases on our A64 core and on qemu-aarch64, compared.

import { writeFileSync } from 'node:fs'
import { disassemble } from '../../src/cpu/a64/disassemble.js'
import { Draw } from '../random.js'
import {
  type Case,
  caseRunner,
  codeAddress,
  differences,
  type Outcome,
  SLOT_COUNT,
  toLine,
} from './cases.js'
import { drawCase, type Kind, kinds } from './generate.js'
import { PROCESSORS, QemuRunner } from './qemu.js'
import { coreSubject, flatSubject } from './subjects.js'

const HELP = `npm run diff:a64 [-- OPTIONS]
  --cases N      cases a group (default 20000)
  --seed N       of the draws (default 1)
  --group TEXT   only groups whose name contains TEXT; --list names them
  --row TEXT     only rows whose name contains TEXT
  --core         on the whole core, at EL0 with translation on, instead of the flat machine
  --show N       differences shown a row (default 2)
  --record FILE  write a selection of the cases with QEMU's answers, --each N of a row (default 7)
  --help         this text
QEMU_AARCH64 and AARCH64_GCC name other programs. The exit status is 1 when a case differs, 2 without QEMU.`

/** Cases of one run of the runner program. */
const BATCH = SLOT_COUNT

interface Failure {
  readonly c: Case
  readonly ours: Outcome
  readonly theirs: Outcome
}

const run = caseRunner(process.argv.includes('--core') ? coreSubject() : flatSubject())

function ours(c: Case): Outcome {
  try {
    return run(c)
  } catch (e) {
    throw new Error(`${c.name}, ${c.words.map(w => disassemble(w)).join('; ')}: ${e}`)
  }
}

/** Leaves out words of a failing case as long as it still fails. */
function shrink(failure: Failure, qemu: QemuRunner): Failure {
  let best = failure
  for (;;) {
    if (best.c.words.length === 1) return best
    const { c } = best
    const shorter = c.words.map((_, i) => ({ ...c, words: c.words.filter((_, k) => k !== i) }))
    const answers = qemu.run(shorter.map((s, slot) => ({ ...s, slot })))
    const at = shorter.findIndex((s, slot) => differences(ours({ ...s, slot }), answers[slot]!))
    if (at < 0) return best
    const smaller = { ...shorter[at]!, slot: at }
    best = { c: smaller, ours: ours(smaller), theirs: answers[at]! }
  }
}

function show({ c, ours: o, theirs }: Failure): void {
  const pc = codeAddress(c.slot)
  console.log(`  ${c.name}: ${differences(o, theirs)}`)
  c.words.forEach((w, i) => {
    const text = disassemble(w, BigInt(pc + 4 * i))
    console.log(`      ${(w >>> 0).toString(16).padStart(8, '0')}  ${text}`)
  })
  console.log(`      ${toLine(c, theirs)}`)
}

/** Runs one kind; how many cases there were and how many differed, by row. */
function runKind(
  kind: Kind,
  index: number,
  options: Options,
  qemu: QemuRunner,
  record: (c: Case, o: Outcome) => void,
): { cases: number; failures: Map<string, number> } {
  const failures = new Map<string, number>()
  let cases = 0
  for (let batch = 0; cases < options.cases; batch++) {
    const drawn: Case[] = []
    const most = Math.min(BATCH, options.cases - cases)
    for (let i = 0; drawn.length < most && i < 4 * BATCH; i++) {
      const draw = new Draw(options.seed * 1000 + index, batch * 4 * BATCH + i)
      const c = kind.draw(drawn.length, draw)
      if (c) drawn.push(c)
    }
    if (drawn.length === 0) throw new Error(`no case of ${kind.group} can be drawn`)
    const answers = qemu.run(drawn)
    drawn.forEach((c, i) => {
      const theirs = answers[i]!
      const mine = ours(c)
      record(c, theirs)
      if (differences(mine, theirs) === '') return
      const before = failures.get(c.name) ?? 0
      failures.set(c.name, before + 1)
      if (before < options.show) show(shrink({ c, ours: mine, theirs }, qemu))
    })
    cases += drawn.length
  }
  return { cases, failures }
}

interface Options {
  readonly cases: number
  readonly seed: number
  readonly show: number
}

function main(args: readonly string[]): number {
  const after = (flag: string) => {
    const at = args.indexOf(flag)
    return at < 0 ? undefined : args[at + 1]
  }
  const number = (flag: string, otherwise: number) => Number(after(flag) ?? otherwise)
  if (args.includes('--help')) {
    console.log(HELP)
    return 0
  }
  const only = after('--group') ?? ''
  const rowText = after('--row')
  const chosen = kinds()
    .map((kind, index) => ({ kind, index }))
    .filter(({ kind }) => kind.group.includes(only))
    .map(({ kind, index }) => {
      if (rowText === undefined) return { kind, index }
      const rows = kind.rows.filter(e => e.name.includes(rowText))
      const draw: Kind['draw'] = (slot, d) => drawCase(d.pick(rows), slot, d)
      return { kind: { ...kind, rows, draw }, index }
    })
    .filter(({ kind }) => rowText === undefined || kind.rows.length > 0)
  if (args.includes('--list')) {
    for (const { kind } of chosen)
      console.log(`${kind.group.padEnd(24)} ${kind.rows.map(e => e.name).join(', ')}`)
    return 0
  }
  const options = {
    cases: number('--cases', 20_000),
    seed: number('--seed', 1),
    show: number('--show', 2),
  }
  const each = number('--each', 7)
  const kept = new Map<string, string[]>()
  const record = (c: Case, o: Outcome) => {
    const lines = kept.get(c.name) ?? []
    kept.set(c.name, lines)
    // More of what is not one row of the table.
    const most =
      c.name === 'LDXR/STXR' || c.name === c.group || c.group === 'undefined' ? 10 * each : each
    if (lines.length < most) lines.push(toLine(c, o))
  }
  let qemu: QemuRunner
  try {
    qemu = new QemuRunner()
  } catch (e) {
    console.error(`no qemu-aarch64 or cross compiler: ${(e as Error).message}`)
    return 2
  }
  console.log(
    `${qemu.version}, ${PROCESSORS.later} (${PROCESSORS.plain} for undefined), seed ${options.seed}`,
  )
  let total = 0
  let different = 0
  for (const { kind, index } of chosen) {
    const { cases, failures } = runKind(kind, index, options, qemu, record)
    const failed = [...failures.values()].reduce((a, b) => a + b, 0)
    const detail = [...failures].map(([name, n]) => `${name} ${n}`).join(', ')
    console.log(
      `${kind.group.padEnd(24)} ${String(cases).padStart(9)} cases ${String(failed).padStart(7)} different ${detail}`,
    )
    total += cases
    different += failed
  }
  console.log(
    `${'total'.padEnd(24)} ${String(total).padStart(9)} cases ${String(different).padStart(7)} different`,
  )
  qemu.close()
  const file = after('--record')
  if (file !== undefined) {
    const header = `# ${qemu.version}, ${PROCESSORS.later} and ${PROCESSORS.plain}; npm run diff:a64 -- --seed ${options.seed} --cases ${options.cases} --each ${each} --record FILE`
    writeFileSync(file, `${[header, ...[...kept.values()].flat()].join('\n')}\n`)
  }
  return different === 0 ? 0 : 1
}

process.exitCode = main(process.argv.slice(2))
