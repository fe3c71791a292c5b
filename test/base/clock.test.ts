import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../src/base/clock.js'

describe('VirtualClock', () => {
  it('runs what is due in order of time, and of starting within one instant', () => {
    const clock = new VirtualClock()
    const seen: string[] = []
    clock.later(() => seen.push('20 a'), 20)
    clock.later(() => seen.push('10 a'), 10)
    clock.later(() => seen.push('0'))
    clock.later(() => seen.push('10 b'), 10)
    clock.later(() => seen.push('20 b'), 20)
    clock.settle()
    expect(seen).toEqual(['0', '10 a', '10 b', '20 a', '20 b'])
    expect(clock.now).toBe(20)
  })

  it('runs nothing until it is stepped', () => {
    const clock = new VirtualClock()
    let runs = 0
    clock.later(() => runs++)
    expect([runs, clock.pending, clock.nextAt]).toEqual([0, 1, 0])
    expect(clock.step()).toBe(true)
    expect([runs, clock.pending, clock.nextAt]).toEqual([1, 0, undefined])
    expect(clock.step()).toBe(false)
  })

  it('advances exactly as far as told, running what falls due on the way and what that starts', () => {
    const clock = new VirtualClock()
    const at: number[] = []
    const note = () => at.push(clock.now)
    clock.later(() => {
      note()
      clock.later(note, 5)
      clock.later(note, 50)
    }, 10)
    clock.advance(20)
    expect(at).toEqual([10, 15])
    expect([clock.now, clock.nextAt]).toEqual([20, 60])
  })

  it('never goes back when work advances the clock itself', () => {
    const clock = new VirtualClock()
    const at: number[] = []
    clock.later(() => clock.advance(100), 10)
    clock.later(() => at.push(clock.now), 50)
    clock.advance(20)
    expect(at).toEqual([50])
    expect(clock.now).toBe(110)
  })

  it('puts zero-delay work behind what is due at the same instant', () => {
    const clock = new VirtualClock()
    const seen: string[] = []
    clock.later(() => {
      seen.push('first')
      clock.later(() => seen.push('third'))
    })
    clock.later(() => seen.push('second'))
    clock.settle()
    expect(seen).toEqual(['first', 'second', 'third'])
  })

  it('forgets a cancelled timer, wherever it stands', () => {
    const clock = new VirtualClock()
    const seen: number[] = []
    const timers = [7, 3, 9, 1, 5, 8, 2].map(n => clock.later(() => seen.push(n), n))
    timers[0]!.cancel()
    timers[3]!.cancel()
    timers[3]!.cancel()
    timers[6]!.cancel()
    clock.settle()
    expect(seen).toEqual([3, 5, 8, 9])
  })

  it('lets one timer be started again and again, restarting it when it is pending', () => {
    const clock = new VirtualClock()
    const at: number[] = []
    const timer = clock.timer(() => at.push(clock.now))
    timer.start(10).start(30)
    expect([timer.pending, clock.pending]).toEqual([true, 1])
    clock.settle()
    expect(timer.pending).toBe(false)
    timer.start(1)
    clock.settle()
    expect(at).toEqual([30, 31])
  })

  it('calls a model that feeds itself by its name', () => {
    const clock = new VirtualClock()
    const again = () => {
      clock.later(again)
    }
    again()
    expect(() => clock.settle(1000)).toThrow(/did not settle in 1000 steps/)
  })

  it.each([-1, Number.NaN])('refuses a delay of %s', delay => {
    expect(() => new VirtualClock().later(() => {}, delay)).toThrow(/cannot be due/)
  })

  it('orders 2000 timers of a seeded draw (seed 7) as a sort would', () => {
    const clock = new VirtualClock()
    let seed = 7
    const draw = (n: number) => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) % n
    const seen: number[] = []
    const expected: { at: number; i: number }[] = []
    for (let i = 0; i < 2000; i++) {
      const at = draw(300)
      const timer = clock.later(() => seen.push(i), at)
      if (draw(4) === 0) timer.cancel()
      else expected.push({ at, i })
    }
    clock.settle()
    expect(seen).toEqual(expected.sort((a, b) => a.at - b.at || a.i - b.i).map(e => e.i))
  })
})
