import { describe, expect, it } from 'vitest'
import { createMachine } from '../src/machine.js'
import { dmaCopy } from '../src/pci/devices/dma-copy.js'

const devices = [{ at: '0000:01:00.0', model: dmaCopy }]

describe('createMachine', () => {
  it.each(['vt-d', 'smmuv3'] as const)(
    'builds a %s machine of default and of largest size',
    iommu => {
      for (const size of [{}, { ramBytes: 2 ** 31 }]) {
        const machine = createMachine({ iommu, devices, ...size })
        expect(machine.groupOf('0000:01:00.0')).toMatch(/^\/dev\/vfio\/\d+$/)
      }
    },
  )
  it.each([
    ['odd RAM', { ramBytes: 12345 }],
    ['too much RAM', { ramBytes: 2 ** 32 }],
    ['a device on bus 0', { devices: [{ at: '0000:00:03.0', model: dmaCopy }] }],
    ['a device number below a root port', { devices: [{ at: '0000:01:02.0', model: dmaCopy }] }],
    ['what is no address', { devices: [{ at: 'somewhere', model: dmaCopy }] }],
  ])('refuses %s', (_, description) => {
    expect(() => createMachine(description)).toThrow(RangeError)
  })
  it('names what is there when asked for what is not', () => {
    expect(() => createMachine({ devices }).function('0000:05:00.0')).toThrow(
      /there is 0000:01:00\.0/,
    )
  })
})
