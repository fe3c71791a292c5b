// `npm run kvm-unit-tests -- FOLDER`: the arm64 flat images of kvm-unit-tests, built elsewhere, on our arm64 KVM.
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { type BoardResult, runBoard } from './board.js'

const HELP = `npm run kvm-unit-tests -- FOLDER [--only TEXT] [--verbose]
  FOLDER          a built checkout of kvm-unit-tests (./configure --arch=arm64 --cross-prefix=... && make)
  --only TEXT     only tests whose name contains TEXT
  --verbose       print what each test says
The exit status is 1 when a test of the list fails, 2 when the folder has no images.`

/** Name, image, arguments, processors. */
type Test = readonly [name: string, image: string, bootargs: string, cpus: number]

// biome-ignore format: table
const TESTS: readonly Test[] = [
  ['selftest-setup',           'selftest', 'setup smp=2 mem=128', 2],
  ['selftest-vectors-kernel',  'selftest', 'vectors-kernel', 1],
  ['selftest-vectors-user',    'selftest', 'vectors-user', 1],
  ['selftest-smp',             'selftest', 'smp', 4],
  ['gicv3-ipi',                'gic',      'ipi', 4],
  ['gicv3-active',             'gic',      'active', 4],
  ['its-introspection',        'gic',      'its-introspection', 4],
  ['its-trigger',              'gic',      'its-trigger', 4],
  ['psci',                     'psci',     '', 4],
  ['timer',                    'timer',    '', 1],
  ['cache',                    'cache',    '', 1],
  ['debug-bp',                 'debug',    'bp', 1],
  ['debug-wp',                 'debug',    'wp', 1],
  ['debug-sstep',              'debug',    'ss', 1],
  ['fpu',                      'fpu',      '', 2],
]

/** Virtual time a test may take. */
const LIMIT_NS = 60e9
const RAM_MIB = 128

/** What a test said of itself: its own summary, and its exit status. */
function verdict({ end, output }: BoardResult): {
  readonly passed: boolean
  readonly words: string
} {
  const status = /EXIT: STATUS=(\d+)/.exec(output)?.[1]
  const summary = /^SUMMARY: (.*)$/m.exec(output)?.[1]
  const lines = output.split('\n').filter(line => /^(PASS|FAIL|SKIP|XFAIL)\b/.test(line))
  const passes = lines.filter(line => line.startsWith('PASS')).length
  const fails = lines.filter(line => line.startsWith('FAIL')).length
  const said = summary ?? `${passes} passed, ${fails} failed`
  const passed = status === '1' && fails === 0
  return { passed, words: passed ? said : `${said}; status ${status ?? 'none'}, ended: ${end}` }
}

function main(): number {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      only: { type: 'string', default: '' },
      verbose: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  })
  const [folder] = positionals
  if (values.help || folder === undefined) {
    console.log(HELP)
    return values.help ? 0 : 2
  }
  const wanted = TESTS.filter(([name]) => name.includes(values.only))
  let failed = 0
  for (const [name, image, bootargs, cpus] of wanted) {
    const path = join(folder, 'arm', `${image}.flat`)
    if (!existsSync(path)) {
      console.error(`${path} is not there: build kvm-unit-tests for arm64 first`)
      return 2
    }
    const result = runBoard({
      image: readFileSync(path),
      bootargs,
      cpus,
      ramMiB: RAM_MIB,
      limitNs: LIMIT_NS,
    })
    const { passed, words } = verdict(result)
    if (!passed) failed++
    console.log(`${passed ? 'PASS' : 'FAIL'}  ${name.padEnd(24)}  ${words}`)
    if (values.verbose || !passed) console.log(result.output.replace(/^/gm, '      '))
  }
  console.log(`${wanted.length - failed} of ${wanted.length} passed`)
  return failed === 0 ? 0 : 1
}

process.exitCode = main()
