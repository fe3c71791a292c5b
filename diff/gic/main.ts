// `npm run diff:gic`: random operations on QEMU's GICv3 and on ours, by a guest program that looks at everything after each.
import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { MissingQemu, qemuVersion } from '../qtest.js'
import { build, type Parameters, runOurs, withParameters } from './guest.js'

const HELP = `npm run diff:gic -- [OPTIONS]
  --cases N       cases of 48 operations (default 1000)
  --seed S        seed of the first draw (default 1); a case is named SEED/INDEX
  --from N        index of the first case (default 0)
  --show N        differences to print in full (default 3)
  --record FILE   write what QEMU answered, for test/cpu/gic/qemu-recorded.test.ts, and the image beside it
  --help          this text
QEMU is found by QEMU, QEMU_WRAP and QT_TMP in the environment, or on PATH; the compiler by AARCH64_GCC.
The exit status is 1 when a case differs, 2 when QEMU is missing.`

/** Cases that QEMU runs at a time. */
const BATCH = 500

/** The same machine: GICv3 with an ITS where our VMM has them, a processor with five bits of priority. */
const MACHINE = ['-M', 'virt,gic-version=3,its=on', '-cpu', 'cortex-a57', '-m', '128']

/** What the image says on QEMU. */
function runQemu(image: Uint8Array): string[] {
  const { QEMU, QEMU_WRAP, QT_TMP } = process.env
  const folder = mkdtempSync(join(QT_TMP ?? tmpdir(), 'gic-'))
  try {
    writeFileSync(join(folder, 'guest.elf'), image)
    // A wrapper that changes the root sees the folder's name in its own /tmp.
    const path = QEMU_WRAP ? join('/tmp', basename(folder), 'guest.elf') : join(folder, 'guest.elf')
    const [program, ...rest] = [
      ...(QEMU_WRAP ?? '').split(' ').filter(Boolean),
      QEMU ?? 'qemu-system-aarch64',
    ]
    const answer = spawnSync(
      program!,
      [...rest, ...MACHINE, '-display', 'none', '-serial', 'stdio', '-kernel', path],
      { encoding: 'utf8', maxBuffer: 1 << 28, timeout: 600_000 },
    )
    if (answer.error) throw new MissingQemu(`${program}: ${answer.error.message}`)
    const lines = (answer.stdout ?? '').trimEnd().split('\n')
    if (lines.pop() !== 'end') throw new Error(`QEMU did not come to the end: ${answer.stderr}`)
    return lines
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/** The first operation after which the two saw something else. */
function show(image: Uint8Array, seed: number, from: number): void {
  const one = withParameters(image, { seed, from, cases: 1, verbose: true })
  const [theirs, ours] = [runQemu(one), runOurs(one)]
  const at = theirs.findIndex((line, i) => line !== ours[i])
  console.log(`case ${seed}/${from}, operation ${at}`)
  for (const line of theirs.slice(Math.max(0, at - 3), at)) console.log(`  both  ${line}`)
  console.log(`  QEMU  ${theirs[at]}\n  ours  ${ours[at]}`)
}

function main(): number {
  const { values } = parseArgs({
    options: {
      cases: { type: 'string', default: '1000' },
      seed: { type: 'string', default: '1' },
      from: { type: 'string', default: '0' },
      show: { type: 'string', default: '3' },
      record: { type: 'string' },
      help: { type: 'boolean', default: false },
    },
  })
  const [cases, seed, from, shown] = [values.cases, values.seed, values.from, values.show].map(
    Number,
  ) as [number, number, number, number]
  if (values.help || ![cases, seed, from, shown].every(Number.isInteger)) {
    console.log(HELP)
    return 0
  }
  const image = build()
  const different: number[] = []
  const recorded: string[] = []
  for (let at = from; at < from + cases; at += BATCH) {
    const p: Parameters = {
      seed,
      from: at,
      cases: Math.min(BATCH, from + cases - at),
      verbose: false,
    }
    const both = withParameters(image, p)
    const [theirs, ours] = [runQemu(both), runOurs(both)]
    recorded.push(...theirs)
    for (const [i, line] of theirs.entries()) if (line !== ours[i]) different.push(at + i)
  }
  for (const n of different.slice(0, shown)) show(image, seed, n)
  console.log(`${cases} cases of 48 operations, seed ${seed}: ${different.length} differ`)
  if (values.record) {
    const head = `QEMU ${qemuVersion('qemu-system-aarch64')}, cortex-a57, seed ${seed}`
    writeFileSync(values.record, `${head}\n${recorded.join('\n')}\n`)
    writeFileSync(values.record.replace(/\.txt$/, '.elf'), image)
  }
  return different.length > 0 ? 1 : 0
}

try {
  process.exitCode = main()
} catch (error) {
  if (!(error instanceof MissingQemu)) throw error
  console.error(error.message)
  process.exitCode = 2
}
