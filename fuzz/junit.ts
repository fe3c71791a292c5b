// JUnit XML of campaigns, and one report made of several. Suites are kept as they are; the totals are added up.

import type { CampaignResult } from './campaign.js'

const quoted = (text: string): string =>
  [...text]
    // XML 1.0 has no control characters but tab and line ends.
    .filter(c => c >= ' ' || c === '\n' || c === '\t')
    .join('')
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')

/** One suite: a test case for every thousand seeds that held, and one for each that did not. */
function suite(r: CampaignResult): string {
  const held = r.blocks.map(
    ({ first, last, count, seconds }) =>
      `    <testcase classname="${quoted(r.name)}" name="${count} of seeds ${first} to ${last}" time="${seconds.toFixed(3)}"/>`,
  )
  const failed = r.failures.map(
    ({ seed, message, report }) =>
      `    <testcase classname="${quoted(r.name)}" name="seed ${seed}">\n` +
      `      <failure message="${quoted(message)}">${quoted(report)}</failure>\n    </testcase>`,
  )
  const tests = held.length + failed.length
  const properties = Object.entries({
    cases: r.cases,
    steps: r.steps,
    seed: r.seed,
    shard: r.shard,
  }).map(([name, value]) => `      <property name="${name}" value="${quoted(String(value))}"/>`)
  return [
    `  <testsuite name="${quoted(r.name)}" tests="${tests}" failures="${failed.length}" errors="0" time="${r.seconds.toFixed(3)}">`,
    '    <properties>',
    ...properties,
    '    </properties>',
    ...held,
    ...failed,
    '  </testsuite>',
  ].join('\n')
}

/** A report of one campaign. */
export const junit = (r: CampaignResult): string => document([suite(r)])

/** One report made of several. An Error names a text that is no report. */
export function mergeReports(reports: readonly string[]): string {
  return document(
    reports.flatMap((text, i) => {
      const found = text.match(/^ *<testsuite [\s\S]*?<\/testsuite>/gm)
      if (found === null) throw new Error(`report ${i + 1} holds no test suite`)
      return found
    }),
  )
}

function document(suites: readonly string[]): string {
  const sum = (name: string) =>
    suites.reduce((n, s) => n + Number(new RegExp(` ${name}="([\\d.]+)"`).exec(s)?.[1] ?? 0), 0)
  const totals = `tests="${sum('tests')}" failures="${sum('failures')}" errors="0" time="${sum('time').toFixed(3)}"`
  return `<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="vfio-emu fuzz" ${totals}>\n${suites.join('\n')}\n</testsuites>\n`
}
