import { describe, expect, it } from 'vitest'
import { IdAllocator } from '../../src/base/ids.js'

describe('IdAllocator', () => {
  it('hands out the lowest free id', () => {
    const ids = new IdAllocator(3, 100)
    expect([ids.alloc(), ids.alloc(), ids.alloc()]).toEqual([3, 4, 5])
    ids.free(4)
    expect(ids.alloc()).toBe(4)
    expect(ids.alloc()).toBe(6)
    expect(ids.count).toBe(4)
  })

  it('keeps to the range of a call', () => {
    const ids = new IdAllocator(1, 100)
    expect(ids.alloc(10, 11)).toBe(10)
    expect(ids.alloc(10, 11)).toBe(11)
    expect(ids.alloc(10, 11)).toBe(-1)
    expect(ids.alloc(0, 0)).toBe(-1)
    expect(ids.alloc(101, 200)).toBe(-1)
    expect(ids.alloc(100, 200)).toBe(100)
    expect(ids.alloc(100, 200)).toBe(-1)
  })

  it.each([1, 31, 32, 33, 1024, 1025, 40_000])('runs out after %i ids, and not before', size => {
    const ids = new IdAllocator(5, 4 + size)
    const handed = Array.from({ length: size }, () => ids.alloc())
    expect(handed.every((id, i) => id === 5 + i)).toBe(true)
    expect(ids.alloc()).toBe(-1)
    expect(ids.nextFree(0)).toBe(-1)
    expect(ids.free(4 + size)).toBe(true)
    expect(ids.alloc()).toBe(4 + size)
  })

  it('refuses to take a held id, or to free one that is not held', () => {
    const ids = new IdAllocator(1, 50)
    expect(ids.take(7)).toBe(true)
    expect(ids.take(7)).toBe(false)
    expect(ids.take(0)).toBe(false)
    expect(ids.take(51)).toBe(false)
    expect(ids.take(Number.NaN)).toBe(false)
    expect(ids.free(8)).toBe(false)
    expect(ids.free(0)).toBe(false)
    expect(ids.free(7)).toBe(true)
    expect(ids.free(7)).toBe(false)
    expect([ids.has(7), ids.count]).toEqual([false, 0])
  })

  it('walks held ids of a range, also while they are freed', () => {
    const ids = new IdAllocator(0, 2 ** 20 - 1)
    const held = [0, 1, 31, 32, 1023, 1024, 65_536, 1_048_575]
    for (const id of held) ids.take(id)
    expect([...ids.held()]).toEqual(held)
    expect([...ids.held(2, 65_535)]).toEqual([31, 32, 1023, 1024])
    expect([...ids.held(1, 2 ** 31 - 1)]).toEqual(held.slice(1))
    for (const id of ids.held(1, 2 ** 31 - 1)) ids.free(id)
    expect([...ids.held()]).toEqual([0])
    expect(ids.next(1)).toBe(-1)
  })

  it('finds the one free id among a million', () => {
    const ids = new IdAllocator(0, 2 ** 20 - 1)
    for (let i = 0; i < 2 ** 20; i++) ids.take(i)
    expect(ids.nextFree(0)).toBe(-1)
    ids.free(777_777)
    expect(ids.nextFree(0)).toBe(777_777)
    expect(ids.nextFree(777_778)).toBe(-1)
  })

  it.each([
    [-1, 5],
    [6, 5],
    [0, 2 ** 24],
  ])('cannot be made for %i to %i', (min, max) => {
    expect(() => new IdAllocator(min, max)).toThrow(/ids/)
  })

  it('agrees with a plain set over 20000 drawn steps (seed 11)', () => {
    let seed = 11
    const draw = (n: number) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) % n
    const min = 2
    const max = 3000
    const ids = new IdAllocator(min, max)
    const model = new Set<number>()
    const lowestFree = (from: number) => {
      for (let i = Math.max(from, min); i <= max; i++) if (!model.has(i)) return i
      return -1
    }
    for (let step = 0; step < 20_000; step++) {
      const id = draw(max + 3)
      // Fill in the first half, drain in the second.
      const filling = draw(10) < (step < 10_000 ? 7 : 3)
      if (filling && draw(2) === 0) {
        const expected = lowestFree(id)
        expect(ids.alloc(id)).toBe(expected)
        if (expected >= 0) model.add(expected)
      } else if (filling) {
        expect(ids.take(id)).toBe(id >= min && id <= max && !model.has(id))
        if (id >= min && id <= max) model.add(id)
      } else {
        expect(ids.free(id)).toBe(model.delete(id))
      }
      if (step % 500 === 0) {
        expect([...ids.held()]).toEqual([...model].sort((a, b) => a - b))
        expect(ids.count).toBe(model.size)
      }
    }
  })
})
