import { describe, expect, it } from 'vitest'
import { DirtyLog } from '../../src/mem/dirty-log.js'
import { createRam } from '../../src/mem/ram.js'

describe('createRam', () => {
  it.each([1, 0x1_0000, 0x1_0001, 0x20_0000])(
    'gives %i zeroed bytes of a WebAssembly memory',
    n => {
      const ram = createRam(n)
      expect(ram.length).toBe(n)
      expect(ram.every(b => b === 0)).toBe(true)
      // Whole WebAssembly pages behind it.
      expect(ram.buffer.byteLength).toBe(Math.ceil(n / 0x1_0000) * 0x1_0000)
    },
  )
})

describe('DirtyLog', () => {
  it('marks every page that a write touches', () => {
    const log = new DirtyLog(8)
    log.mark(0x1fff, 0x1002)
    expect([0, 1, 2, 3, 4].map(p => log.has(p))).toEqual([false, true, true, true, false])
    log.mark(0x5000, 0)
    expect(log.count).toBe(3)
  })

  it('ignores what lies outside', () => {
    const log = new DirtyLog(2)
    log.mark(0x1800, 0x10_0000)
    log.mark(-0x1000, 0x800)
    expect([log.count, log.has(1), log.has(2)]).toEqual([1, true, false])
  })

  it('prints as the kernel does: bit k of little-endian 64-bit words', () => {
    const log = new DirtyLog(70)
    log.mark(0, 1)
    log.mark(9 * 4096, 1)
    log.mark(69 * 4096, 1)
    const bitmap = log.bitmap()
    expect(bitmap.length).toBe(16)
    const words = new BigUint64Array(bitmap.buffer)
    expect([...words]).toEqual([0x201n, 0x20n])
    log.clear()
    expect(log.bitmap().every(b => b === 0)).toBe(true)
  })
})
