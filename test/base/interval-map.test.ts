import { describe, expect, it } from 'vitest'
import { IntervalMap } from '../../src/base/interval-map.js'

const listed = <T>(map: IntervalMap<T>, from?: number, to?: number) =>
  [...map.entries(from, to)].map(e => [e.start, e.end, e.value])

describe('IntervalMap', () => {
  it('keeps disjoint ranges in order', () => {
    const map = new IntervalMap<string>()
    expect(map.insert(20, 29, 'b')).toBe(true)
    expect(map.insert(0, 9, 'a')).toBe(true)
    expect(map.insert(30, 30, 'c')).toBe(true)
    expect(listed(map)).toEqual([
      [0, 9, 'a'],
      [20, 29, 'b'],
      [30, 30, 'c'],
    ])
    expect(map.size).toBe(3)
  })

  it.each([
    [10, 20, 'the same range'],
    [0, 10, 'its first point'],
    [20, 30, 'its last point'],
    [12, 13, 'inside it'],
    [0, 100, 'around it'],
  ])('refuses [%i, %i]: %s', (start, end) => {
    const map = new IntervalMap<string>()
    map.insert(10, 20, 'there')
    expect(map.overlaps(start, end)).toBe(true)
    expect(map.insert(start, end, 'new')).toBe(false)
    expect(listed(map)).toEqual([[10, 20, 'there']])
  })

  it.each([
    [0, 9],
    [21, 99],
  ])('accepts [%i, %i] beside [10, 20]', (start, end) => {
    const map = new IntervalMap<string>()
    map.insert(10, 20, 'there')
    expect(map.overlaps(start, end)).toBe(false)
    expect(map.insert(start, end, 'new')).toBe(true)
  })

  it('finds by any point of a range and by none beside it', () => {
    const map = new IntervalMap<string>()
    map.insert(10, 20, 'x')
    expect([9, 10, 15, 20, 21].map(p => map.find(p))).toEqual([undefined, 'x', 'x', 'x', undefined])
  })

  it('removes by the exact start only', () => {
    const map = new IntervalMap<string>()
    map.insert(10, 20, 'x')
    expect(map.remove(11)).toBeUndefined()
    expect(map.remove(10)).toBe('x')
    expect(map.remove(10)).toBeUndefined()
    expect(map.size).toBe(0)
  })

  it('holds page numbers near 2^53 and ranges of a single point', () => {
    const map = new IntervalMap<number>()
    const top = Number.MAX_SAFE_INTEGER - 1
    map.insert(top, top, 1)
    map.insert(top - 1, top - 1, 2)
    expect([map.find(top), map.find(top - 1), map.find(top - 2)]).toEqual([1, 2, undefined])
  })

  it('seeks to the range that holds a point, or the next one', () => {
    const map = new IntervalMap<string>()
    map.insert(10, 20, 'a')
    map.insert(40, 50, 'b')
    const cursor = map.cursor()
    const where = (point: number) => (cursor.seek(point) ? cursor.value : undefined)
    expect([0, 10, 20, 21, 40, 50, 51].map(where)).toEqual([
      'a',
      'a',
      'a',
      'b',
      'b',
      'b',
      undefined,
    ])
    cursor.seek(15)
    expect([cursor.start, cursor.end, cursor.next(), cursor.start, cursor.next()]).toEqual([
      10,
      20,
      true,
      40,
      false,
    ])
  })

  it('is empty after clear, and works on', () => {
    const map = new IntervalMap<number>()
    for (let i = 0; i < 1000; i++) map.insert(i, i, i)
    map.clear()
    expect([map.size, listed(map), map.find(5)]).toEqual([0, [], undefined])
    expect(map.insert(5, 6, 1)).toBe(true)
  })

  it('calls an upside-down range our own mistake', () => {
    expect(() => new IntervalMap<number>().insert(5, 4, 0)).toThrow(/cannot go from 5 to 4/)
  })

  it.each(['upwards', 'downwards'] as const)('fills and drains 20000 ranges %s', order => {
    const map = new IntervalMap<number>()
    const keys = Array.from({ length: 20_000 }, (_, i) => i * 3)
    if (order === 'downwards') keys.reverse()
    expect(keys.every(k => map.insert(k, k + 1, k))).toBe(true)
    expect(map.size).toBe(20_000)
    expect(map.find(30_001)).toBe(30_000)
    expect(map.find(30_002)).toBeUndefined()
    expect(listed(map, 299, 305)).toEqual([
      [300, 301, 300],
      [303, 304, 303],
    ])
    expect(keys.every(k => map.remove(k) === k)).toBe(true)
    expect([map.size, listed(map)]).toEqual([0, []])
  })

  it.each([1, 2, 3, 4])('agrees with a sorted list over drawn steps (seed %i)', start => {
    let seed = start
    const draw = (n: number) => (seed = (Math.imul(seed, 1664525) + 1013904223) >>> 8) % n
    const map = new IntervalMap<number>()
    let model: { start: number; end: number; value: number }[] = []
    const space = 6000
    const cursor = map.cursor()
    for (let step = 0; step < 4000; step++) {
      const at = draw(space)
      const end = at + draw(4)
      const grow = draw(10) < (step % 2000 < 1000 ? 8 : 2)
      if (grow) {
        const free = !model.some(r => r.start <= end && r.end >= at)
        expect(map.overlaps(at, end)).toBe(!free)
        expect(map.insert(at, end, step)).toBe(free)
        if (free) model.push({ start: at, end, value: step })
      } else if (cursor.seek(at)) {
        const first = model.filter(r => r.end >= at).reduce((a, b) => (b.start < a.start ? b : a))
        expect([cursor.start, cursor.end, cursor.value]).toEqual([
          first.start,
          first.end,
          first.value,
        ])
        expect(map.remove(first.start)).toBe(first.value)
        model = model.filter(r => r !== first)
      } else {
        expect(model.some(r => r.end >= at)).toBe(false)
      }
      expect(map.size).toBe(model.length)
      const probe = draw(space)
      expect(map.find(probe)).toBe(model.find(r => r.start <= probe && r.end >= probe)?.value)
      if (step % 250 === 0) {
        expect([...map.entries()]).toEqual([...model].sort((a, b) => a.start - b.start))
      }
    }
  })
})
