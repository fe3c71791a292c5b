import { describe, expect, it } from 'vitest'
import { _IO, _IOR, _IOW, _IOWR, decodeIoctl } from '../../src/sys/ioctl.js'

// Values as a C compiler gives them for asm-generic/ioctl.h.
describe('request numbers', () => {
  it.each([
    ['VFIO_GET_API_VERSION', _IO(';', 100), 0x3b64],
    ['VFIO_IOMMU_MAP_DMA', _IO(0x3b, 113), 0x3b71],
    ['KVM_GET_API_VERSION', _IO(0xae, 0x00), 0xae00],
    ['KVM_SET_USER_MEMORY_REGION', _IOW(0xae, 0x46, { size: 32 }), 0x4020_ae46],
    ['KVM_GET_REGS', _IOR(0xae, 0x81, 0x90), 0x8090_ae81],
    ['KVM_GET_SUPPORTED_CPUID', _IOWR(0xae, 0x05, 8), 0xc008_ae05],
  ])('%s', (_, actual, expected) => {
    expect(actual).toBe(expected)
  })

  it('come apart again', () => {
    expect(decodeIoctl(0xc008_3b05)).toEqual({ direction: 3, size: 8, type: ';', nr: 5 })
    expect(decodeIoctl(0x3b64)).toEqual({ direction: 0, size: 0, type: ';', nr: 100 })
  })

  it.each([
    [0x100, 0, 0],
    [0, 0x100, 0],
    [0, 0, 0x4000],
  ])('do not fit: type %i, number %i, size %i', (type, nr, size) => {
    expect(() => _IOW(type, nr, size)).toThrow(/ioctl/)
  })
})
