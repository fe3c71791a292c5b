// `npm run fail-nth`: a table of calls and of their steps, each of which was made to fail.

import { Command } from 'commander'
import { CASES } from './cases.js'
import { type CaseReport, failEach } from './harness.js'

function show(r: CaseReport, quiet: boolean): boolean {
  const bad = r.steps.filter(s => s.wrong.length > 0)
  const steps = `${r.steps.length} ${r.steps.length === 1 ? 'step' : 'steps'}`
  console.log(`${bad.length > 0 ? 'WRONG' : 'ok   '}  ${r.call.padEnd(60)} ${steps}`)
  if (quiet && bad.length === 0) return true
  r.steps.forEach((s, i) => {
    console.log(`         ${String(i + 1).padStart(2)}  ${s.step.padEnd(34)} ${s.answer}`)
    for (const w of s.wrong) console.log(`             ${w}`)
  })
  return bad.length === 0
}

function run(only: string | undefined, { quiet }: { quiet: boolean }): void {
  const cases = CASES.filter(c => only === undefined || c.call.includes(only))
  const reports = cases.map(failEach)
  const good = reports.map(r => show(r, quiet)).filter(Boolean).length
  const steps = reports.reduce((n, r) => n + r.steps.length, 0)
  console.log(
    `\n${reports.length} calls, ${steps} steps made to fail; ${reports.length - good} calls wrong`,
  )
  process.exitCode = good === reports.length ? 0 : 1
}

new Command('npm run fail-nth --')
  .description(
    'Makes every allocation and driver call inside each call fail, one at a time: the call must refuse,\n' +
      'leave everything as it was, work when repeated, and leave nothing behind.',
  )
  .argument('[text]', 'only calls whose name contains this')
  .option('--quiet', 'steps of wrong calls only', false)
  .action(run)
  .parse()
