import { bench, install } from 'vfio-emu/testing'
import { afterEach, expect, it } from 'vitest'

install({ afterEach, expect })

it.each([
  ['V7R', 'hello'],
  ['V7', undefined],
] as const)('a second BIND is EBUSY; under %s the page then reads %s', (profile, text) => {
  const b = bench({ profile })
  const space = b.bind(7)
  space.map(0x1000n, b.page('hello'))

  expect(() => space.bind()).toRefuse('EBUSY')
  if (text) expect(b.dmaRead(0x1000n, { pasid: 7 })).toEqual({ text })
  else expect(b.dmaRead(0x1000n, { pasid: 7 })).toFaultWith('pasidEntryNotPresent', { pasid: 7 })
})
