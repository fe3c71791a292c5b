// The A64 core's system side against qemu-system-aarch64: the same program on both, line by line. `translation` draws
// translation regimes and accesses, `debug` debug registers and instructions under them; `registers` tries every encoding.
//   npm run diff:a64-system -- [--program NAME] [--cases N] [--seed N] [--granules 4,64] [--cpu NAME] [--golden]
// Needs qemu-system-aarch64 (QEMU_SYSTEM_AARCH64 names another command, which sees the same files) and the cross
// compiler. --golden writes what the test replays: programs and answers in test/golden/a64.

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { patched, printed, type Run } from './board.js'

const root = existsSync(join(import.meta.dirname, 'build.sh'))
  ? resolve(import.meta.dirname, '../..')
  : resolve(import.meta.dirname, '../../../..')

const PROGRAMS = ['translation', 'debug', 'registers'] as const
type Program = (typeof PROGRAMS)[number]

/** What the test replays: on the processor of QEMU's that has what is needed. */
const GOLDEN: readonly {
  readonly program: Program
  readonly file: string
  readonly cpu: string
  readonly run: Run
}[] = [
  {
    program: 'translation',
    file: 'translation-cortex-a57',
    cpu: 'cortex-a57',
    run: { seed: 1, cases: 160, granules: [4, 64] },
  },
  {
    program: 'translation',
    file: 'translation-neoverse-n1',
    cpu: 'neoverse-n1',
    run: { seed: 2, cases: 96, granules: [16] },
  },
  {
    program: 'debug',
    file: 'debug-cortex-a57',
    cpu: 'cortex-a57',
    run: { seed: 3, cases: 80, granules: [4] },
  },
  {
    program: 'registers',
    file: 'registers-cortex-a57',
    cpu: 'cortex-a57',
    run: { seed: 1, cases: 1, granules: [4] },
  },
]

const { values } = parseArgs({
  options: {
    program: { type: 'string', default: 'translation' },
    cases: { type: 'string', default: '5000' },
    seed: { type: 'string', default: '1' },
    granules: { type: 'string', default: '4,64' },
    cpu: { type: 'string', default: 'cortex-a57' },
    golden: { type: 'boolean', default: false },
  },
})

const qemu = (process.env['QEMU_SYSTEM_AARCH64'] ?? 'qemu-system-aarch64').split(' ')
const work = mkdtempSync(join(process.env['QEMU_TMPDIR'] ?? tmpdir(), 'a64-system-'))
const seen = (path: string) => path.replace(process.env['QEMU_ROOT'] ?? '', '')

function underQemu(image: Uint8Array, cpu: string): string {
  const file = join(work, 'run.elf')
  writeFileSync(file, image)
  const machine = ['-M', 'virt', '-cpu', cpu, '-m', '128', '-nodefaults', '-display', 'none']
  const words = [...qemu.slice(1), ...machine, '-serial', 'stdio', '-kernel', seen(file)]
  const answer = spawnSync(qemu[0]!, words, {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    timeout: 300_000,
  })
  if (answer.status !== 0) throw new Error(`QEMU ended with ${answer.status}: ${answer.stderr}`)
  return answer.stdout.replaceAll('\r', '')
}

/** Lines that differ, each with the regime it belongs to. */
function differences(theirs: string, ours: string): string[] {
  const [a, b] = [theirs.split('\n'), ours.split('\n')]
  let regime = ''
  const found: string[] = []
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    if (a[i]?.startsWith('regime')) regime = a[i]!
    if (a[i] !== b[i]) found.push(`${regime}\n  qemu ${a[i]}\n  ours ${b[i]}`)
  }
  return found
}

function built(program: Program): Uint8Array {
  const file = join(work, `${program}.elf`)
  execFileSync(join(root, 'diff/a64-system/build.sh'), [program, file], { stdio: 'inherit' })
  return new Uint8Array(readFileSync(file))
}

try {
  const version = execFileSync(qemu[0]!, [...qemu.slice(1), '--version'], { encoding: 'utf8' })
  if (values.golden) {
    const golden = join(root, 'test/golden/a64')
    for (const { program, file, cpu, run } of GOLDEN) {
      const image = built(program)
      writeFileSync(join(golden, `${program}.elf`), image)
      const head = `# ${version.split('\n')[0]}, ${cpu}, seed ${run.seed}\n`
      writeFileSync(join(golden, `${file}.txt`), head + underQemu(patched(image, run), cpu))
    }
  }
  const granules = values.granules.split(',').map(Number) as (4 | 16 | 64)[]
  const run = { seed: Number(values.seed), cases: Number(values.cases), granules }
  const wanted = patched(
    built(PROGRAMS.find(name => name === values.program) ?? 'translation'),
    run,
  )
  const found = differences(underQemu(wanted, values.cpu), printed(wanted))
  for (const line of found.slice(0, 40)) console.log(line)
  console.log(`${run.cases} cases, seed ${run.seed}, ${values.cpu}: ${found.length} lines differ`)
  process.exitCode = found.length > 0 ? 1 : 0
} finally {
  rmSync(work, { recursive: true })
}
