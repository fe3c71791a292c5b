import { afterEach, expect, it } from 'vitest'
import { pasid } from '../../src/base/addr.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { bench, install } from '../../src/testing/index.js'

install({ afterEach, expect })

it.each(['vt-d', 'smmuv3'] as const)(
  '%s: one IOVA, two PASIDs, and no stale entry after free',
  iommu => {
    const b = bench({ iommu, device: dmaCopy })
    const [one, two] = [pasid(1), pasid(2)]
    const spaceOne = b.bind(one)
    spaceOne.map(0x1000n, b.page('first'))
    b.bind(two).map(0x1000n, b.page('second'))

    expect(b.dmaRead(0x1000n, { pasid: one })).toEqual({ text: 'first' })
    expect(b.dmaRead(0x1000n, { pasid: two })).toEqual({ text: 'second' })

    spaceOne.free()
    expect(b.dmaRead(0x1000n, { pasid: one })).toMatchObject({
      pasid: one,
      fault: expect.any(String),
    })
    expect(b.dmaRead(0x1000n, { pasid: two })).toEqual({ text: 'second' })
    expect(b.dmaRead(0x1000n)).toMatchObject({ pasid: undefined, fault: expect.any(String) })
  },
)

it('names the reason that the unit recorded', () => {
  const b = bench()
  const space = b.bind(7)
  space.map(0x1000n, b.page('here'), { writable: false })
  expect(b.dmaRead(0x1000n, { pasid: 7 })).toEqual({ text: 'here' })
  expect(b.dmaRead(0x2000n, { pasid: 7 })).toFaultWith('fsEntryNotPresent', {
    pasid: 7,
    at: 0x2000n,
  })
  expect(b.dmaWrite(0x1000n, 'x', { pasid: 7 })).toFaultWith('smWriteNotPermitted')
  expect(b.dmaRead(0x1000n, { pasid: 8 })).toFaultWith('pasidEntryNotPresent', { pasid: 8 })
  expect(b.dmaRead(0x1000n)).toFaultWith('ssEntryNotPresent', { pasid: undefined })
  expect(b.dmaRead(0x1000n, { pasid: 7, device: 1 })).not.toFaultWith('fsEntryNotPresent')
})

it('names the reason that an SMMUv3 recorded', () => {
  const b = bench({ iommu: 'smmuv3' })
  const space = b.bind(7)
  space.map(0x1000n, b.page('here'), { writable: false })
  expect(b.dmaRead(0x1000n, { pasid: 7 })).toEqual({ text: 'here' })
  expect(b.dmaRead(0x2000n, { pasid: 7 })).toFaultWith('F_TRANSLATION', { pasid: 7, at: 0x2000n })
  expect(b.dmaWrite(0x1000n, 'x', { pasid: 7 })).toFaultWith('F_PERMISSION')
  expect(b.dmaRead(0x1000n, { pasid: 8 })).toFaultWith('C_BAD_CD', { pasid: 8 })
  expect(b.dmaRead(0x1000n, { pasid: 0xf_ffff })).toFaultWith('C_BAD_SUBSTREAMID')
  expect(b.dmaRead(0x1000n)).toFaultWith('F_TRANSLATION', { pasid: undefined })
  expect(b.dmaRead(0x1000n, { pasid: 7, device: 1 })).toMatchObject({ fault: expect.any(String) })
  space.unbind()
  expect(b.dmaRead(0x1000n, { pasid: 7 })).toFaultWith('C_BAD_CD')
  space.bind()
  expect(b.dmaRead(0x1000n, { pasid: 7 })).toEqual({ text: 'here' })
})

it('guests of two devices under SMMUv3 have tables of their own', () => {
  const b = bench({ iommu: 'smmuv3' })
  b.bind(7).map(0x1000n, b.page('of the first'))
  b.bind(7, 1).map(0x1000n, b.page('of the second'))
  expect(b.dmaRead(0x1000n, { pasid: 7 })).toEqual({ text: 'of the first' })
  expect(b.dmaRead(0x1000n, { pasid: 7, device: 1 })).toEqual({ text: 'of the second' })
})
