import { describe, expect, it } from 'vitest'
import { walkTree, walkTreeText } from '../../src/explain/index.js'
import { RW, SID, Bench as SmmuBench } from '../iommu/smmu/bench.js'
import { BDF, Bench, FULL } from '../iommu/vtd/bench.js'
import { first, LEAF, nested, VA } from '../iommu/vtd/fault-stories.js'

describe('walkTree', () => {
  it('prints structures and both stages of a nested VT-d translation', async () => {
    const b = new Bench()
    nested(b, LEAF | FULL)
    const tree = walkTree(b, { bdf: BDF, pasid: 5, iova: VA + 0x123n, full: true })
    expect(tree.output).toBe(Number(LEAF) + 0x123)
    await expect(`${walkTreeText(tree)}\n`).toMatchFileSnapshot('../golden/explain/walk-vtd.txt')
  })
  it('prints structures and both stages of a nested SMMUv3 translation', async () => {
    const b = new SmmuBench().start()
    const n = b.nested()
    b.map(n.first, VA, 0x50_0000n | RW)
    const tree = walkTree(b, { bdf: SID, iova: VA })
    expect(tree.output).toBe(0x50_0000)
    await expect(`${walkTreeText(tree)}\n`).toMatchFileSnapshot('../golden/explain/walk-smmu.txt')
  })
  it('leaves no trace: no flag, no fault, nothing cached', () => {
    const b = new Bench()
    const fs = first(b, LEAF | FULL)
    const before = b.load(fs)
    walkTree(b, { bdf: '0000:01:00.0', pasid: 5, iova: VA, write: true })
    walkTree(b, { bdf: BDF, pasid: 6, iova: VA })
    expect(b.load(fs)).toBe(before)
    expect(b.unit.lastFault).toBeUndefined()
    b.map(fs, VA, 0n)
    expect(b.dma(VA, { pasid: 5 })).toBe('fsEntryNotPresent')
  })
  it('shows how far the tables reach, and what is missing there', () => {
    const b = new Bench()
    first(b, LEAF | FULL)
    const text = walkTreeText(walkTree(b, { bdf: BDF, pasid: 6, iova: VA }))
    expect(text).toMatch(/PASID table entry at .*\n[\s\S]*✗ P \(bit 0\) is 0\nno translation$/)
    const other = walkTreeText(walkTree(b, { bdf: 0x200, pasid: 6, iova: VA }))
    expect(other).toMatch(/scalable-mode root entry[\s\S]*no translation$/)
  })
  it('refuses what is no PCI address', () => {
    expect(() => walkTree(new Bench(), { bdf: 'nowhere', iova: 0n })).toThrow(RangeError)
  })
})
