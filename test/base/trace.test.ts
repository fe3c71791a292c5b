import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../src/base/clock.js'
import { TraceBus } from '../../src/base/trace.js'

declare module '../../src/base/trace.js' {
  interface TraceEvents {
    'test.count': { n: number }
  }
}

describe('TraceBus', () => {
  it('has its points off until somebody listens, and off again after', () => {
    const bus = new TraceBus()
    const note = bus.point('note')
    const count = bus.point('test.count')
    expect([note.on, count.on]).toEqual([false, false])
    const end = bus.listen('note', () => {})
    expect([note.on, count.on]).toEqual([true, false])
    const endAll = bus.listen('*', () => {})
    expect([note.on, count.on]).toEqual([true, true])
    end()
    end()
    expect([note.on, count.on]).toEqual([true, true])
    endAll()
    expect([note.on, count.on]).toEqual([false, false])
  })

  it('turns a point on that is made after its listener', () => {
    const bus = new TraceBus()
    bus.listen('test.count', () => {})
    expect(bus.point('test.count').on).toBe(true)
    expect(bus.point('note').on).toBe(false)
  })

  it('gives one name one point', () => {
    const bus = new TraceBus()
    expect(bus.point('note')).toBe(bus.point('note'))
  })

  it('delivers events by name and to everybody, with the name', () => {
    const bus = new TraceBus()
    const seen: unknown[] = []
    bus.listen('test.count', (event, name) => seen.push([name, event.n]))
    bus.listen('*', (event, name) => seen.push(['*', name, event]))
    bus.point('test.count').emit({ n: 4 })
    bus.point('note').emit({ text: 'hello' })
    expect(seen).toEqual([
      ['test.count', 4],
      ['*', 'test.count', { n: 4 }],
      ['*', 'note', { text: 'hello' }],
    ])
  })

  it('keeps the last records, oldest first, with their virtual time', () => {
    const clock = new VirtualClock()
    const bus = new TraceBus(clock)
    const count = bus.point('test.count')
    bus.keep(3)
    expect(bus.recent()).toEqual([])
    for (let n = 0; n < 5; n++) {
      clock.advance(10)
      if (count.on) count.emit({ n })
    }
    expect(bus.recent()).toEqual([
      { order: 2, at: 30, name: 'test.count', event: { n: 2 } },
      { order: 3, at: 40, name: 'test.count', event: { n: 3 } },
      { order: 4, at: 50, name: 'test.count', event: { n: 4 } },
    ])
    bus.keep(2)
    expect(bus.recent()).toEqual([])
    count.emit({ n: 9 })
    expect(bus.recent().map(r => r.event)).toEqual([{ n: 9 }])
    bus.keep(0)
    expect(count.on).toBe(false)
  })

  it('keeps a throwing listener away from the model', async () => {
    const bus = new TraceBus()
    const surfaced = new Promise(resolve => {
      const known = process.listeners('unhandledRejection')
      process.removeAllListeners('unhandledRejection')
      process.once('unhandledRejection', reason => {
        for (const listener of known) process.on('unhandledRejection', listener)
        resolve(reason)
      })
    })
    const seen: string[] = []
    bus.listen('note', () => {
      throw new Error('a listener of ill manners')
    })
    bus.listen('note', event => seen.push(event.text))
    bus.point('note').emit({ text: 'still here' })
    expect(seen).toEqual(['still here'])
    expect(await surfaced).toMatchObject({ message: 'a listener of ill manners' })
  })
})
