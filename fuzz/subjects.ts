// What a campaign can be about, with the reports of its failures.

import { profileNames } from '../src/vfio/index.js'
import type { Subject } from './campaign.js'
import { type CaseOptions, type Failure, runCase } from './cases.js'

/** The model against the product, in one profile. */
export function modelSubject(options: CaseOptions): Subject {
  const profile = options.profile ?? profileNames[0]!
  return {
    name: `model ${profile}`,
    run(seed) {
      const { steps, failure } = runCase(seed, options)
      if (failure === undefined) return { steps, failure: undefined }
      const report = describe(failure, profile)
      return { steps, failure: { seed, message: failure.message, report } }
    },
  }
}

function describe(f: Failure, profile: string): string {
  const lines = (of: readonly string[]) => of.map(line => `    ${line}`)
  const path = f.path === '' ? '' : ` --path ${f.path}`
  return [
    `seed ${f.seed}: ${f.message.split('\n')[0]}`,
    `  commands, after ${f.shrinks} shrinks:`,
    ...lines(f.commands),
    '  calls:',
    ...lines(f.calls),
    `  ${f.message.includes('\n') ? 'thrown:' : 'then:'}`,
    ...lines(f.message.split('\n')),
    '  again, from the seed, or the shrunk case alone:',
    `    npm run fuzz -- --profile ${profile} --seed ${f.seed} --runs 1`,
    `    npm run fuzz -- --profile ${profile} --seed ${f.seed} --runs 1${path} --replay ${f.replayPath}`,
  ].join('\n')
}
