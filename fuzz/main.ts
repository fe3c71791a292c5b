// `npm run fuzz`: campaigns of the model-based fuzzer and of raw calls, and `npm run fuzz -- merge`.

import { readFileSync, writeFileSync } from 'node:fs'
import { Command, InvalidArgumentError, Option } from 'commander'
import { profileNames, type VfioProfile } from '../src/vfio/index.js'
import { campaign, type Progress } from './campaign.js'
import { CALLS_PER_CASE, ioctlSubject } from './ioctl/subject.js'
import { junit, mergeReports } from './junit.js'
import { privateSubject } from './private/case.js'
import { modelSubject } from './subjects.js'

/** Revisions whose calls the model makes; what V7 does otherwise than V7R is a defect to it. */
const MODELLED: readonly VfioProfile[] = ['V7R', 'V7']

interface Options {
  readonly runs: number
  readonly seed: number
  readonly shard: readonly [number, number]
  readonly junit?: string
  readonly profile: VfioProfile
  readonly commands: number
  readonly failures: number
  readonly path?: string
  readonly replay?: string
  readonly ioctl: boolean
  readonly private: boolean
}

const count = (text: string): number => {
  const n = Number(text.replaceAll('_', ''))
  if (!Number.isSafeInteger(n) || n < 1) throw new InvalidArgumentError('a number from 1 on.')
  return n
}
const whole = (text: string): number => {
  const n = Number(text)
  if (!Number.isSafeInteger(n) || Math.abs(n) >= 2 ** 31)
    throw new InvalidArgumentError('a whole number of 31 bits.')
  return n
}
const shard = (text: string): [number, number] => {
  const [index, of] = (/^(\d+)\/(\d+)$/.exec(text) ?? []).slice(1).map(Number)
  if (index === undefined || of === undefined || index < 1 || index > of)
    throw new InvalidArgumentError('I/N, I from 1 to N.')
  return [index, of]
}

/** Shows progress: one line that changes on a terminal, a line every half minute elsewhere. */
function reporter(unit: string): (p: Progress) => void {
  const { stderr } = process
  let shown = 0
  return p => {
    const last = p.done === p.total
    if (!last && p.seconds - shown < (stderr.isTTY ? 0.1 : 30)) return
    shown = p.seconds
    const rate = p.done / Math.max(p.seconds, 0.001)
    const left = Math.ceil((p.total - p.done) / rate)
    const line = `${p.done}/${p.total} ${unit}, ${p.steps} steps, ${p.failures} failed, ${rate.toFixed(0)}/s, ${left} s left`
    if (stderr.isTTY) stderr.write(`\r\x1b[2K${line}${last ? '\n' : ''}`)
    else if (!last) stderr.write(`${line}\n`)
  }
}

/** What takes the line of progress away. */
const clearLine = () => (process.stderr.isTTY ? '\r\x1b[2K' : '')

function run(o: Options): void {
  if (!o.ioctl && !MODELLED.includes(o.profile))
    program.error(
      `error: the model knows ${MODELLED.join(' and ')} only; --ioctl takes any profile`,
    )
  const subject = o.private
    ? privateSubject({ commands: o.commands })
    : o.ioctl
      ? ioctlSubject({ profile: o.profile })
      : modelSubject({
          profile: o.profile,
          commands: o.commands,
          ...(o.path === undefined ? {} : { path: o.path }),
          ...(o.replay === undefined ? {} : { replayPath: o.replay }),
        })
  const cases = o.ioctl ? Math.ceil(o.runs / CALLS_PER_CASE) : o.runs
  const result = campaign(subject, {
    seed: o.seed,
    cases,
    shard: o.shard,
    failures: o.failures,
    failed: f => console.log(`${clearLine()}${f.report}\n`),
    progress: reporter('cases'),
    now: () => performance.now(),
  })
  console.log(
    `${result.name}: ${result.cases} cases from seed ${result.seed}, shard ${result.shard}, ` +
      `${result.steps} steps, ${result.failures.length} failed, ${result.seconds.toFixed(1)} s`,
  )
  if (o.junit !== undefined) writeFileSync(o.junit, junit(result))
  process.exitCode = result.failures.length > 0 ? 1 : 0
}

const program = new Command('npm run fuzz --')
  .description('Random programs against an abstract model of VFIO, or random bytes as calls.')
  .option('--runs <n>', 'cases, or with --ioctl calls', count, 1000)
  .option('--seed <n>', 'seed of the first case; the next case has the next seed', whole, 1)
  .addOption(
    new Option('--shard <i/n>', 'run every n-th case only, from the i-th on')
      .argParser(shard)
      .default([1, 1], '1/1'),
  )
  .option('--junit <file>', 'also write a report in JUnit XML')
  .addOption(
    new Option('--profile <name>', 'revision of the interface')
      .choices(profileNames)
      .default('V7R'),
  )
  .option('--commands <n>', 'most commands of a case', count, 120)
  .option('--failures <n>', 'stop after this many failures', count, 10)
  .option('--path <path>', 'where the shrunk case is, as a failure printed it')
  .option('--replay <path>', 'the commands of the shrunk case, as a failure printed it')
  .option('--ioctl', 'fuzz numbers and argument bytes of calls instead', false)
  .option('--private', 'private memory of guests against its model, by vCPU and by DMA', false)
  .action(run)

program
  .command('merge <out> <reports...>')
  .description('make one JUnit report of several')
  .action((out: string, reports: string[]) => {
    writeFileSync(out, mergeReports(reports.map(r => readFileSync(r, 'utf8'))))
  })

program.parse()
