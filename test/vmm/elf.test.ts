import { describe, expect, it } from 'vitest'
import { ARM64_IMAGE, loadElf } from '../../src/vmm/elf.js'

/** A minimal executable: one segment of 8 file bytes and 16 memory bytes at 0x1000. */
function tiny(change: (view: DataView) => void = () => {}): Uint8Array {
  const bytes = new Uint8Array(64 + 56 + 8)
  const v = new DataView(bytes.buffer)
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  v.setUint16(16, 2, true)
  v.setUint16(18, 62, true)
  v.setBigUint64(24, 0x1004n, true)
  v.setBigUint64(32, 64n, true)
  v.setUint16(54, 56, true)
  v.setUint16(56, 1, true)
  v.setUint32(64, 1, true)
  v.setBigUint64(72, 120n, true)
  v.setBigUint64(88, 0x1000n, true)
  v.setBigUint64(96, 8n, true)
  v.setBigUint64(104, 16n, true)
  bytes.set([1, 2, 3, 4, 5, 6, 7, 8], 120)
  change(v)
  return bytes
}

describe('loadElf', () => {
  it('copies file bytes, zeroes the rest of the segment and returns the entry point', () => {
    const ram = new Uint8Array(0x2000).fill(0xee)
    expect(loadElf(tiny(), ram)).toBe(0x1004n)
    expect([...ram.subarray(0xfff, 0x1011)]).toEqual([
      0xee, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0xee,
    ])
  })

  const arm64 = (at: bigint, machine = 183) =>
    tiny(v => {
      v.setUint16(18, machine, true)
      v.setBigUint64(24, at + 4n, true)
      v.setBigUint64(88, at, true)
    })

  it('takes an arm64 image for RAM from 1 GiB on', () => {
    const ram = new Uint8Array(0x2000)
    expect(loadElf(arm64(0x4000_1000n), ram, ARM64_IMAGE)).toBe(0x4000_1004n)
    expect([...ram.subarray(0xfff, 0x1009)]).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 0])
  })
  it.each([
    ['below RAM', arm64(0x3fff_fff8n), /does not fit/],
    ['above it', arm64(0x4000_1ff8n), /does not fit/],
    ['of another machine', arm64(0x4000_1000n, 62), /not arm64/],
  ])('refuses an arm64 image %s', (_, image, message) => {
    expect(() => loadElf(image, new Uint8Array(0x2000), ARM64_IMAGE)).toThrow(message)
  })

  // biome-ignore format: table
  const refused: [string, Uint8Array, RegExp][] = [
    ['an empty file',                 new Uint8Array(0),                                /no ELF header/],
    ['a text file',                   new Uint8Array(200).fill(0x41),                   /not an ELF/],
    ['a 32-bit file',                 tiny(v => v.setUint8(4, 1)),                      /64-bit/],
    ['another machine',               tiny(v => v.setUint16(18, 183, true)),            /not x86-64/],
    ['a shared object',               tiny(v => v.setUint16(16, 3, true)),              /static/],
    ['odd program headers',           tiny(v => v.setUint16(54, 32, true)),             /program headers/],
    ['headers past the end',          tiny(v => v.setBigUint64(32, 1n << 40n, true)),   /truncated/],
    ['a truncated segment',           tiny().subarray(0, 124),                          /truncated/],
    ['more file than memory',         tiny(v => v.setBigUint64(104, 4n, true)),         /more file/],
    ['a segment outside RAM',         tiny(v => v.setBigUint64(88, 0x1ff8n, true)),     /does not fit/],
    ['a segment that wraps',          tiny(v => v.setBigUint64(88, 2n ** 64n - 8n, true)), /does not fit/],
    ['an entry point in no segment',  tiny(v => v.setBigUint64(24, 0x3000n, true)),     /entry point/],
    ['no segment at all',             tiny(v => v.setUint16(56, 0, true)),              /no loadable/],
  ]
  it.each(refused)('refuses %s and leaves memory alone', (_, image, message) => {
    const ram = new Uint8Array(0x2000)
    expect(() => loadElf(image, ram)).toThrow(message)
    expect(ram.every(b => b === 0)).toBe(true)
  })
})
