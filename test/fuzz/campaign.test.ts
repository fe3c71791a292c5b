// Campaigns: which seeds a shard runs, when one stops, and the reports.
import { describe, expect, it } from 'vitest'
import { type CampaignOptions, campaign, type Subject, seedsOf } from '../../fuzz/campaign.js'
import { junit, mergeReports } from '../../fuzz/junit.js'

const options = (o: Partial<CampaignOptions> = {}): CampaignOptions => ({
  seed: 100,
  cases: 10,
  shard: [1, 1],
  failures: 10,
  now: () => 0,
  ...o,
})
const ran: number[] = []
/** Fails for the seeds given. */
const subject = (...bad: number[]): Subject => ({
  name: 'a < b',
  run(seed) {
    ran.push(seed)
    const failure = { seed, message: `"${seed}" & more`, report: `seed ${seed}\n\u001b[1mbold` }
    return { steps: 3, failure: bad.includes(seed) ? failure : undefined }
  },
})

describe('shards', () => {
  it.each([1, 2, 3, 7, 12])('%d of them run every seed once', n => {
    const all = Array.from({ length: n }, (_, i) => seedsOf(options({ shard: [i + 1, n] }))).flat()
    expect(all.sort((a, b) => a - b)).toEqual(Array.from({ length: 10 }, (_, i) => 100 + i))
  })
})

describe('a campaign', () => {
  it('runs its seeds, counts steps and tells how far it is', () => {
    ran.length = 0
    const told: number[] = []
    const failed: number[] = []
    const result = campaign(
      subject(103),
      options({
        shard: [2, 2],
        progress: p => told.push(p.done),
        failed: f => failed.push(f.seed),
      }),
    )
    expect(failed).toEqual([103])
    expect(ran).toEqual([101, 103, 105, 107, 109])
    expect(result).toMatchObject({ cases: 5, steps: 15, shard: '2/2' })
    expect(result.failures.map(f => f.seed)).toEqual([103])
    expect(result.blocks).toEqual([{ first: 101, last: 109, count: 4, seconds: 0 }])
    expect(told).toEqual([1, 2, 3, 4, 5])
  })
  it('stops after enough failures', () => {
    const result = campaign(subject(101, 102, 103), options({ failures: 2 }))
    expect(result.failures.map(f => f.seed)).toEqual([101, 102])
    expect(result.cases).toBe(3)
  })
})

describe('JUnit reports', () => {
  const report = junit(campaign(subject(103), options()))
  it('hold a case for what held and one for each failure', () => {
    expect(report).toContain('<testsuite name="a &lt; b" tests="2" failures="1"')
    expect(report).toContain('name="9 of seeds 100 to 109"')
    expect(report).toContain(
      '<failure message="&quot;103&quot; &amp; more">seed 103\n[1mbold</failure>',
    )
  })
  it('are merged suite by suite, with the totals added up', () => {
    const merged = mergeReports([report, junit(campaign(subject(), options())), report])
    expect(merged).toContain('<testsuites name="vfio-emu fuzz" tests="5" failures="2"')
    expect(merged.match(/<testsuite /g)).toHaveLength(3)
    expect(mergeReports([merged])).toBe(merged)
  })
  it('are refused when they are something else', () => {
    expect(() => mergeReports([report, '<html/>'])).toThrow('report 2 holds no test suite')
  })
})
