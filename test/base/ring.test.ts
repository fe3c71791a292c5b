import { describe, expect, it } from 'vitest'
import { Ring } from '../../src/base/ring.js'

describe('Ring', () => {
  it.each([
    { log2: 4, wrapBit: false, capacity: 15, section: 'VT-d 6.5.2: one slot stays unused' },
    { log2: 4, wrapBit: true, capacity: 16, section: 'SMMUv3 3.5.1: the wrap bit tells' },
    { log2: 0, wrapBit: true, capacity: 1, section: 'SMMUv3 3.5.1: a queue of one entry' },
    { log2: 1, wrapBit: false, capacity: 1, section: 'the least without a wrap bit' },
  ])('fills 2^$log2 slots to $capacity ($section)', ({ log2, wrapBit, capacity }) => {
    const ring = new Ring(log2, wrapBit)
    expect(ring.capacity).toBe(capacity)
    for (let consumer = 0, turn = 0; turn < 3 * ring.entries; turn++) {
      let producer = consumer
      for (let i = 0; i < capacity; i++) {
        expect(ring.isFull(producer, consumer)).toBe(false)
        expect(ring.used(producer, consumer)).toBe(i)
        producer = ring.next(producer)
      }
      expect(ring.isFull(producer, consumer)).toBe(true)
      expect(ring.isEmpty(producer, consumer)).toBe(false)
      consumer = ring.next(consumer)
      expect(ring.used(consumer, consumer)).toBe(0)
    }
  })

  it('tells full from empty by the wrap bit alone', () => {
    const ring = new Ring(3, true)
    expect([ring.slot(0b1010), ring.slot(0b0010)]).toEqual([2, 2])
    expect(ring.isFull(0b1010, 0b0010)).toBe(true)
    expect(ring.isEmpty(0b0010, 0b0010)).toBe(true)
    expect(ring.next(0b1111)).toBe(0)
  })

  it.each([
    [0, false],
    [31, true],
    [-1, true],
  ])('cannot be made of 2^%i entries (wrap bit %s)', (log2, wrapBit) => {
    expect(() => new Ring(log2, wrapBit)).toThrow(/a ring of/)
  })
})
