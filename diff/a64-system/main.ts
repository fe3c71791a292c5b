// Translation, permissions, alignment and the aborts they end in, against qemu-system-aarch64: the same program on both,
// line by line.
//   npm run diff:a64-system -- [--cases N] [--seed N] [--granules 4,64] [--cpu NAME] [--golden]
// Needs qemu-system-aarch64 (QEMU_SYSTEM_AARCH64 names another command, which sees the same files) and the cross
// compiler (AARCH64_GCC). --golden writes what the test replays: test/golden/a64/translation*.txt and the program.

import { execFileSync, spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { patched, printed, type Run } from './board.js'

const root = existsSync(join(import.meta.dirname, 'build.sh'))
  ? resolve(import.meta.dirname, '../..')
  : resolve(import.meta.dirname, '../../../..')

/** What the test replays: a processor of QEMU's for each, the second for 16 KB. */
export const GOLDEN: readonly { readonly file: string; readonly cpu: string; readonly run: Run }[] =
  [
    {
      file: 'translation-cortex-a57',
      cpu: 'cortex-a57',
      run: { seed: 1, cases: 240, granules: [4, 64] },
    },
    {
      file: 'translation-neoverse-n1',
      cpu: 'neoverse-n1',
      run: { seed: 2, cases: 160, granules: [16] },
    },
  ]

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '5000' },
    seed: { type: 'string', default: '1' },
    granules: { type: 'string', default: '4,64' },
    cpu: { type: 'string', default: 'cortex-a57' },
    golden: { type: 'boolean', default: false },
  },
})

const qemu = (process.env['QEMU_SYSTEM_AARCH64'] ?? 'qemu-system-aarch64').split(' ')
const work = mkdtempSync(join(process.env['QEMU_TMPDIR'] ?? tmpdir(), 'a64-system-'))
const program = join(work, 'translation.elf')
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

try {
  execFileSync(join(root, 'diff/a64-system/build.sh'), [program], { stdio: 'inherit' })
  const image = new Uint8Array(readFileSync(program))
  const version = execFileSync(qemu[0]!, [...qemu.slice(1), '--version'], { encoding: 'utf8' })
  if (values.golden) {
    const golden = join(root, 'test/golden/a64')
    copyFileSync(program, join(golden, 'translation.elf'))
    for (const { file, cpu, run } of GOLDEN) {
      const head = `# ${version.split('\n')[0]}, ${cpu}, seed ${run.seed}\n`
      writeFileSync(join(golden, `${file}.txt`), head + underQemu(patched(image, run), cpu))
    }
  }
  const granules = values.granules.split(',').map(Number) as (4 | 16 | 64)[]
  const run = { seed: Number(values.seed), cases: Number(values.cases), granules }
  const wanted = patched(image, run)
  const found = differences(underQemu(wanted, values.cpu), printed(wanted))
  for (const line of found.slice(0, 40)) console.log(line)
  console.log(`${run.cases} cases, seed ${run.seed}, ${values.cpu}: ${found.length} lines differ`)
  process.exitCode = found.length > 0 ? 1 : 0
} finally {
  rmSync(work, { recursive: true })
}
