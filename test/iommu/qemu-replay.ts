// Recorded answers of QEMU (`npm run diff:qemu -- --record`), answered by our unit without QEMU.
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { Architecture } from '../../diff/architectures.js'
import { decode } from '../../diff/case.js'
import { judge } from '../../diff/compare.js'
import { report } from '../../diff/report.js'

/** Tests of one file of recorded cases: alike, or different for a listed reason. */
export function replay(arch: Architecture, file: URL, unitCount: number): void {
  const [header, ...lines] = readFileSync(file, 'utf8').trimEnd().split('\n')
  const { oracle } = JSON.parse(header!) as { oracle: string }
  const recorded = lines.map(decode)
  const units = [...new Set(recorded.map(r => r.case.unit))].sort()
  const met = new Set<string>()

  describe(`${arch.name} against recorded answers of ${oracle}`, () => {
    it(`has at least 500 cases, of ${unitCount} configurations`, () => {
      expect(recorded.length).toBeGreaterThanOrEqual(500)
      expect(units).toHaveLength(unitCount)
    })

    it.each(units)('%s: answered alike, or different for a known reason', unit => {
      const unexplained: string[] = []
      for (const { case: c, outcome } of recorded) {
        if (c.unit !== unit) continue
        const ours = arch.answer(c)
        for (const { difference, known } of judge(arch, c, ours, outcome)) {
          for (const { name } of known ?? []) met.add(name)
          if (!known) unexplained.push(report(arch, difference, ours))
        }
      }
      expect(unexplained.join('\n\n')).toBe('')
    })

    it.each(arch.deviations.map(d => [d.name, d.reason] as const))(
      'deviation: %s',
      (name, reason) => {
        expect(met.has(name), 'a recorded case shows it').toBe(true)
        expect(reason).toMatch(/^(VT-d|SMMUv3) /)
      },
    )
  })
}
