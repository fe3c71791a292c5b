import { beforeEach, describe, expect, it } from 'vitest'
import { AddressSpace } from '../../src/mem/address-space.js'
import { FrameAllocator } from '../../src/mem/frames.js'

const BASE = 0x10_0000

describe('FrameAllocator', () => {
  let frames: FrameAllocator

  // 16 frames from 1 MiB on, the first two reserved.
  beforeEach(() => {
    const space = new AddressSpace()
    frames = new FrameAllocator(space, space.addRam(BASE, new Uint8Array(16 * 4096)), 0x1001)
  })

  it('hands out the lowest frames beyond the reserved ones', () => {
    expect(frames.alloc()).toBe(BASE + 0x2000)
    expect(frames.alloc(2)).toBe(BASE + 0x3000)
    expect([frames.used, frames.total]).toEqual([3, 14])
  })

  it('hands out zeroed frames, used before or not', () => {
    const first = frames.alloc()
    frames.bytes(first).fill(0xaa)
    frames.free(first)
    expect(frames.alloc()).toBe(first)
    expect(frames.bytes(first).every(b => b === 0)).toBe(true)
  })

  it('finds a contiguous run between used frames', () => {
    const all = Array.from({ length: 14 }, () => frames.alloc())
    for (const i of [3, 5, 6, 7, 10]) frames.free(all[i]!)
    expect(frames.alloc(3)).toBe(all[5])
    expect(() => frames.alloc(2)).toThrow(expect.objectContaining({ code: 'ENOMEM' }))
    expect(frames.alloc()).toBe(all[3])
  })

  it('aligns to the frame number asked for', () => {
    expect(frames.alloc(2, 4)).toBe(BASE + 0x4000)
    expect(frames.alloc(1, 8)).toBe(BASE + 0x8000)
    expect(() => frames.alloc(1, 256)).toThrow(expect.objectContaining({ code: 'ENOMEM' }))
  })

  it('refuses more than there is and takes nothing', () => {
    expect(() => frames.alloc(15)).toThrow(expect.objectContaining({ code: 'ENOMEM' }))
    expect(frames.used).toBe(0)
    expect(frames.alloc(14)).toBe(BASE + 0x2000)
    expect(() => frames.alloc()).toThrow(expect.objectContaining({ code: 'ENOMEM' }))
  })

  it('keeps a frame until its last reference goes', () => {
    const hpa = frames.alloc(2)
    frames.get(hpa, 2)
    frames.pin(hpa / 4096)
    frames.free(hpa, 2)
    frames.free(hpa, 2)
    expect([frames.used, frames.references(hpa), frames.references(hpa + 4096)]).toEqual([1, 1, 0])
    expect(frames.pins).toBe(1)
    frames.unpin(hpa / 4096)
    expect([frames.used, frames.pins]).toEqual([0, 0])
  })

  it('calls a double free, a free frame and a foreign address our own mistake', () => {
    const hpa = frames.alloc()
    frames.free(hpa)
    expect(() => frames.free(hpa)).toThrow(/freed twice/)
    expect(() => frames.pin(hpa / 4096)).toThrow(/is free/)
    expect(() => frames.free(0)).toThrow(/not in this RAM/)
  })
})
