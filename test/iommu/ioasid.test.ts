import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../src/base/clock.js'
import { TraceBus } from '../../src/base/trace.js'
import {
  INVALID_IOASID,
  IOASID_DEFAULT_CAPACITY,
  IoasidAllocator,
  type IoasidOptions,
} from '../../src/iommu/ioasid.js'
import { IOASID_EVENT, type IoasidPriority } from '../../src/iommu/ioasid-notify.js'
import { IOASID_SET_TYPE, type IoasidSet } from '../../src/iommu/ioasid-set.js'

const { NULL, MM } = IOASID_SET_TYPE
const ALL = 0x7fff_ffff

function setup(options: Partial<IoasidOptions> = {}) {
  const clock = new VirtualClock()
  const ioasid = new IoasidAllocator({ clock, trace: new TraceBus(clock), ...options })
  return { clock, ioasid, mm: {}, newSet: (quota = 1000) => ioasid.allocSet(MM, {}, quota) }
}

const code = (run: () => unknown): string => {
  try {
    run()
    return 'ok'
  } catch (error) {
    return (error as { code?: string }).code ?? String(error)
  }
}

const names = ['', 'ALLOC', 'FREE', 'BIND', 'UNBIND']
/** Writes every event that it hears into `log`. */
const listener = (log: string[], priority: IoasidPriority = 'last', mark = '') => ({
  priority,
  notify(event: number, id: number, spid: number, _set: IoasidSet) {
    log.push(`${mark}${names[event]} ${id}${spid === INVALID_IOASID ? '' : ` as ${spid}`}`)
  },
})

describe('sets and quota', () => {
  it.each([
    [
      'E117 a second set for one address space',
      (i: IoasidAllocator) => {
        const mm = {}
        i.allocSet(MM, mm, 10)
        i.allocSet(MM, mm, 10)
      },
      'EEXIST',
    ],
    ['E118 a NULL set with a token', (i: IoasidAllocator) => i.allocSet(NULL, {}, 10), 'EINVAL'],
    ['E119 type 0', (i: IoasidAllocator) => i.allocSet(0, undefined, 10), 'EINVAL'],
    ['E119 type 3', (i: IoasidAllocator) => i.allocSet(3, {}, 10), 'EINVAL'],
    [
      '3.2 an MM set without a token',
      (i: IoasidAllocator) => i.allocSet(MM, undefined, 10),
      'EINVAL',
    ],
    ['E41 quota 0', (i: IoasidAllocator) => i.allocSet(MM, {}, 0), 'EINVAL'],
    [
      '3.2 a quota beyond the capacity',
      (i: IoasidAllocator) => i.allocSet(MM, {}, 0x10_0001),
      'ENOSPC',
    ],
  ] as const)('refuses %s', (_name, run, errno) => {
    expect(code(() => run(setup().ioasid))).toBe(errno)
  })

  it('reserves the whole quota when the set is made, and gives it back when it dies (E42, E43)', () => {
    const { ioasid } = setup()
    void ioasid.hostSet
    const sets = Array.from({ length: 1015 }, () => ioasid.allocSet(MM, {}, 1000))
    expect(code(() => ioasid.allocSet(MM, {}, 1000))).toBe('ENOSPC')
    expect(ioasid.putSet(sets[3]!)).toBe(true)
    expect(code(() => ioasid.allocSet(MM, {}, 1000))).toBe('ok')
  })

  it('dies only with its last reference, and its token is free at once', () => {
    const { ioasid, mm } = setup()
    const set = ioasid.allocSet(MM, mm, 10)
    ioasid.getSet(set)
    expect(ioasid.putSet(set)).toBe(false)
    expect(ioasid.findMmSet(mm)).toBe(set)
    expect(ioasid.putSet(set)).toBe(true)
    expect(ioasid.findMmSet(mm)).toBeUndefined()
    expect(ioasid.putSet(set)).toBe(false)
    expect(ioasid.alloc(set, 1, 10)).toBe(INVALID_IOASID)
    expect(code(() => ioasid.allocSet(MM, mm, 10))).toBe('ok')
  })

  it('E120: refuses a quota below what is held, and leaves it', () => {
    const { ioasid, newSet } = setup()
    const set = newSet(10)
    for (let i = 0; i < 10; i++) ioasid.alloc(set, 1, ALL)
    expect(code(() => ioasid.adjustSet(set, 9))).toBe('EINVAL')
    expect(set.quota).toBe(10)
  })

  it('E121: an increase is what must be available, not the new value', () => {
    const { ioasid } = setup({ capacity: 15 })
    const set = ioasid.allocSet(MM, {}, 10)
    expect(ioasid.available).toBe(5)
    expect(code(() => ioasid.adjustSet(set, 16))).toBe('ENOSPC')
    expect(code(() => ioasid.adjustSet(set, 15))).toBe('ok')
    expect([set.quota, ioasid.available]).toEqual([15, 0])
    ioasid.adjustSet(set, 4)
    expect(ioasid.available).toBe(11)
  })

  it('takes the capacity of the first driver that installs one', () => {
    const { ioasid } = setup()
    expect(ioasid.capacity).toBe(IOASID_DEFAULT_CAPACITY)
    expect(ioasid.installCapacity(0x8000)).toBe(true)
    expect(ioasid.installCapacity(0x4000)).toBe(false)
    expect(ioasid.capacity).toBe(0x8000)
    expect(ioasid.hostSet.quota).toBe(0x4000)
    const fixed = setup({ capacity: 100 }).ioasid
    expect(fixed.installCapacity(200)).toBe(false)
    expect(fixed.capacity).toBe(100)
  })

  it('no longer takes a capacity once a quota is reserved', () => {
    const { ioasid, newSet } = setup()
    newSet()
    expect(ioasid.installCapacity(0x8000)).toBe(false)
  })
})

describe('alloc', () => {
  it.each([
    ['E22 the whole range', 1, 0xf_ffff, 1],
    ['E23 from 0', 0, 0xf_ffff, 1],
    ['E24 0 alone', 0, 0, INVALID_IOASID],
    ['E25 the last id', 0xf_ffff, 0xf_ffff, 0xf_ffff],
    ['E26 beyond the capacity', 0x10_0000, ALL, INVALID_IOASID],
    ['E27 across the capacity', 0xf_ffff, ALL, 0xf_ffff],
    ['an empty range', 9, 8, INVALID_IOASID],
    ['one id', 7, 7, 7],
  ])('%s', (_name, min, max, id) => {
    const { ioasid, newSet } = setup()
    expect(ioasid.alloc(newSet(), min, max)).toBe(id)
  })

  it('gives the lowest free id, whoever held it before (E31 to E33, E170)', () => {
    const { ioasid, newSet } = setup()
    const one = newSet()
    const two = newSet()
    expect([0, 0, 0].map(() => ioasid.alloc(one, 1, ALL))).toEqual([1, 2, 3])
    expect(ioasid.alloc(two, 3, 3)).toBe(INVALID_IOASID)
    expect(ioasid.alloc(two, 3, 4)).toBe(4)
    ioasid.free(one, 2)
    expect(ioasid.alloc(two, 1, ALL)).toBe(2)
  })

  it('stops at the quota, which ids being freed still count against (E38, E40)', () => {
    const { ioasid, newSet } = setup()
    const set = newSet(2)
    const a = ioasid.alloc(set, 1, ALL)
    ioasid.alloc(set, 1, ALL)
    ioasid.get(set, a)
    expect(ioasid.alloc(set, 1, ALL)).toBe(INVALID_IOASID)
    ioasid.free(set, a)
    expect(ioasid.alloc(set, 1, ALL)).toBe(INVALID_IOASID)
    ioasid.put(set, a)
    expect(ioasid.alloc(set, 1, ALL)).toBe(a)
  })

  it('E169: an exhausted range refuses before the quota does', () => {
    const { ioasid, newSet } = setup()
    const other = newSet()
    for (let i = 1; i <= 100; i++) ioasid.alloc(other, i, i)
    expect(ioasid.alloc(newSet(), 1, 100)).toBe(INVALID_IOASID)
  })
})

describe('free, references and states', () => {
  it('goes through IDLE, ACTIVE, FREE_PENDING and FREE', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const id = ioasid.alloc(set, 1, ALL)
    const seen = [ioasid.state(id)]
    ioasid.get(set, id)
    seen.push(ioasid.state(id))
    ioasid.free(set, id)
    seen.push(ioasid.state(id))
    expect(ioasid.put(set, id)).toBe(true)
    seen.push(ioasid.state(id))
    expect(seen).toEqual(['IDLE', 'ACTIVE', 'FREE_PENDING', 'FREE'])
    expect([ioasid.references(id), ioasid.owner(id), set.count, ioasid.held]).toEqual([
      0,
      undefined,
      0,
      0,
    ])
  })

  it('E122: freed twice with two users, it is reclaimed once, at the last put', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const id = ioasid.alloc(set, 1, ALL)
    ioasid.get(set, id)
    ioasid.get(set, id)
    ioasid.free(set, id)
    ioasid.free(set, id)
    expect(ioasid.references(id)).toBe(2)
    expect([ioasid.put(set, id), ioasid.put(set, id), ioasid.put(set, id)]).toEqual([
      false,
      true,
      false,
    ])
  })

  it.each([
    ['an unknown id', 999, 'EINVAL'],
    ["another set's id", 2, 'EACCES'],
    ['E123 an id being freed', 3, 'EBUSY'],
    ['its own id', 1, 'ok'],
  ])('get of %s', (_name, id, errno) => {
    const { ioasid, set } = three()
    expect(code(() => ioasid.get(set, id))).toBe(errno)
  })

  it('get and put without a set skip the ownership test', () => {
    const { ioasid } = three()
    expect(code(() => ioasid.get(undefined, 2))).toBe('ok')
    expect(ioasid.references(2)).toBe(2)
    expect(ioasid.put(undefined, 2)).toBe(false)
    expect(ioasid.references(2)).toBe(1)
  })

  it.each([
    ['an unknown id', 999],
    ['E124 an id of another set', 2],
    ['an id that nobody uses: only free drops the own reference', 1],
  ])('put refuses %s', (_name, id) => {
    const { ioasid, set } = three()
    const before = ioasid.references(id)
    expect(ioasid.put(set, id)).toBe(false)
    expect(ioasid.references(id)).toBe(before)
  })

  it('E124: an id being freed is not put by a non-member', () => {
    const { ioasid, other } = three()
    expect(ioasid.put(other, 3)).toBe(false)
    expect(ioasid.state(3)).toBe('FREE_PENDING')
  })

  it('free ignores ids of others and unknown ones (E32, E52)', () => {
    const { ioasid, set } = three()
    ioasid.free(set, 2)
    ioasid.free(set, 999)
    ioasid.free(set, 0)
    expect(ioasid.state(2)).toBe('IDLE')
  })

  /** 1: of `set`; 2: of `other`; 3: of `set`, freed while a user holds it. */
  function three() {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const other = newSet()
    ioasid.alloc(set, 1, 1)
    ioasid.alloc(other, 2, 2)
    ioasid.alloc(set, 3, 3)
    ioasid.get(set, 3)
    ioasid.free(set, 3)
    return { ioasid, set, other }
  }

  it.each([
    ['E48 nothing held', [], 1, ALL, []],
    ['E49 a middle part', [3, 9, 500], 4, 499, [3, 500]],
    ['everything', [3, 9, 500], 0, ALL, []],
    ['one id', [3, 9], 9, 9, [3]],
    ['a range without any', [3, 9], 4, 8, [3, 9]],
  ])('freeRange: %s', (_name, held, min, max, left) => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    for (const id of held) ioasid.alloc(set, id, id)
    expect(ioasid.freeRange(set, min, max)).toBe(held.length - left.length)
    expect(visited(ioasid, set)).toEqual(left)
  })

  it('visits ids ascending, whatever the order they came in', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    for (const id of [500, 3, 70_000, 9]) ioasid.alloc(set, id, id)
    expect(visited(ioasid, set)).toEqual([3, 9, 500, 70_000])
    const log: string[] = []
    ioasid.subscribe(listener(log), set)
    ioasid.freeRange(set, 1, ALL)
    expect(log).toEqual(['FREE 3', 'FREE 9', 'FREE 500', 'FREE 70000'])
  })

  it('a dying set frees its ids; those in use outlive it and return when they are put', () => {
    const { ioasid, mm } = setup()
    const set = ioasid.allocSet(MM, mm, 10)
    ioasid.alloc(set, 1, 1)
    ioasid.alloc(set, 2, 2)
    ioasid.get(set, 2)
    ioasid.putSet(set)
    expect([ioasid.state(1), ioasid.state(2)]).toEqual(['FREE', 'FREE_PENDING'])
    const next = ioasid.allocSet(MM, mm, 10)
    expect(ioasid.alloc(next, 2, 2)).toBe(INVALID_IOASID)
    expect(ioasid.put(set, 2)).toBe(true)
    expect(ioasid.alloc(next, 2, 2)).toBe(2)
    expect(ioasid.owner(2)).toBe(next)
  })
})

const visited = (ioasid: IoasidAllocator, set: IoasidSet): number[] => {
  const ids: number[] = []
  ioasid.forEach(set, id => ids.push(id))
  return ids
}

describe('find and private data', () => {
  function one() {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const id = ioasid.alloc(set, 1, ALL)
    return { ioasid, set, id, other: newSet(), data: {} }
  }

  it('finds what was attached, undefined when there is nothing or the getter refuses', () => {
    const { ioasid, set, id, data } = one()
    expect(ioasid.find(set, id)).toBeUndefined()
    ioasid.attachData(id, data)
    expect(ioasid.find(set, id)).toBe(data)
    expect(ioasid.find(undefined, id)).toBe(data)
    expect(ioasid.find(set, id, () => false)).toBeUndefined()
    expect(ioasid.find(set, id, d => d === data)).toBe(data)
    ioasid.detachData(id)
    expect(ioasid.find(set, id)).toBeUndefined()
  })

  it('3.3: unknown ENOENT, wrong set EACCES, being freed ENOENT (E55)', () => {
    const { ioasid, set, id, other } = one()
    expect(code(() => ioasid.find(set, 77))).toBe('ENOENT')
    expect(code(() => ioasid.find(other, id))).toBe('EACCES')
    ioasid.get(set, id)
    ioasid.free(set, id)
    expect(code(() => ioasid.find(set, id))).toBe('ENOENT')
  })

  it('attaches once, and never to an id being freed', () => {
    const { ioasid, set, id, data } = one()
    ioasid.attachData(id, data)
    expect(code(() => ioasid.attachData(id, {}))).toBe('EBUSY')
    expect(code(() => ioasid.attachData(77, {}))).toBe('ENOENT')
    ioasid.get(set, id)
    ioasid.free(set, id)
    ioasid.detachData(id)
    expect(code(() => ioasid.attachData(id, data))).toBe('ENOENT')
  })

  it('forgets the data of a reclaimed id', () => {
    const { ioasid, set, id, data } = one()
    ioasid.attachData(id, data)
    ioasid.free(set, id)
    expect(ioasid.alloc(set, id, id)).toBe(id)
    expect(ioasid.find(set, id)).toBeUndefined()
  })

  it('carries data given at allocation to the handlers', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const data = {}
    const heard: unknown[] = []
    ioasid.subscribe({ priority: 'last', notify: (_e, _i, _s, _set, d) => heard.push(d) }, set)
    ioasid.alloc(set, 1, ALL, data)
    expect(heard).toEqual([data])
  })
})

describe('set-private ids', () => {
  function two() {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const other = newSet()
    ioasid.alloc(set, 1, 1)
    ioasid.alloc(set, 2, 2)
    ioasid.alloc(other, 3, 3)
    return { ioasid, set, other }
  }

  it('are unique in a set, and free for use in another (E91, E92)', () => {
    const { ioasid, set, other } = two()
    ioasid.attachSpid(1, 101)
    expect(code(() => ioasid.attachSpid(2, 101))).toBe('EINVAL')
    expect(code(() => ioasid.attachSpid(1, 102))).toBe('EINVAL')
    expect(code(() => ioasid.attachSpid(3, 101))).toBe('ok')
    expect([ioasid.findBySpid(set, 101), ioasid.findBySpid(other, 101)]).toEqual([1, 3])
  })

  it.each([
    ['an unknown id', 77, 101, 'ENOENT'],
    ['the invalid value', 1, INVALID_IOASID, 'EINVAL'],
    ['a negative value', 1, -1, 'EINVAL'],
  ])('attach refuses %s', (_name, id, spid, errno) => {
    expect(code(() => two().ioasid.attachSpid(id, spid))).toBe(errno)
  })

  it('findBySpid takes a reference (R39)', () => {
    const { ioasid, set } = two()
    ioasid.attachSpid(1, 101)
    expect(ioasid.findBySpid(set, 101)).toBe(1)
    expect(ioasid.references(1)).toBe(2)
  })

  it('E125: an id without one never matches, not even 0', () => {
    const { ioasid, set } = two()
    expect(ioasid.findBySpid(set, 0)).toBe(INVALID_IOASID)
    expect(ioasid.findBySpid(set, INVALID_IOASID)).toBe(INVALID_IOASID)
    expect(ioasid.references(1)).toBe(1)
  })

  it('an id being freed is not found', () => {
    const { ioasid, set } = two()
    ioasid.attachSpid(1, 101)
    ioasid.get(set, 1)
    ioasid.free(set, 1)
    expect(ioasid.findBySpid(set, 101)).toBe(INVALID_IOASID)
  })

  it('can be used again after detach, and after the id was reclaimed', () => {
    const { ioasid, set } = two()
    ioasid.attachSpid(1, 101)
    ioasid.detachSpid(1)
    expect(ioasid.spidOf(1)).toBe(INVALID_IOASID)
    ioasid.attachSpid(2, 101)
    ioasid.free(set, 2)
    expect(code(() => ioasid.attachSpid(1, 101))).toBe('ok')
    ioasid.detachSpid(77)
  })
})

describe('notifications', () => {
  it('E128: one BIND for the first user, one UNBIND for the last', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const id = ioasid.alloc(set, 1, ALL)
    const log: string[] = []
    ioasid.subscribe(listener(log), set)
    ioasid.attachSpid(id, 101)
    ioasid.attachSpid(id, 101)
    ioasid.detachSpid(id)
    expect(log).toEqual(['BIND 1 as 101'])
    ioasid.detachSpid(id)
    ioasid.detachSpid(id)
    expect(log).toEqual(['BIND 1 as 101', 'UNBIND 1 as 101'])
  })

  it('E130: an id being freed announces no UNBIND', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const id = ioasid.alloc(set, 1, ALL)
    ioasid.attachSpid(id, 101)
    ioasid.get(set, id)
    const log: string[] = []
    ioasid.subscribe(listener(log), set)
    ioasid.free(set, id)
    ioasid.free(set, id)
    ioasid.detachSpid(id)
    expect(log).toEqual(['FREE 1 as 101'])
  })

  it('R38: FREE is announced when free is called, not when the id is reclaimed', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const id = ioasid.alloc(set, 1, ALL)
    ioasid.get(set, id)
    const states: string[] = []
    ioasid.subscribe({ priority: 'last', notify: () => states.push(ioasid.state(id)) }, set)
    ioasid.free(set, id)
    ioasid.put(set, id)
    expect(states).toEqual(['FREE_PENDING'])
  })

  it('the global chain hears FREE, and before the set chain; the set chain hears all', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const log: string[] = []
    ioasid.subscribe(listener(log, 'cpu', 'set: '), set)
    ioasid.subscribe(listener(log, 'last', 'global: '))
    ioasid.alloc(set, 1, ALL)
    ioasid.attachSpid(1, 5)
    ioasid.detachSpid(1)
    ioasid.free(set, 1)
    expect(log).toEqual([
      'set: ALLOC 1',
      'set: BIND 1 as 5',
      'set: UNBIND 1 as 5',
      'global: FREE 1',
      'set: FREE 1',
    ])
  })

  it.each([
    ['code', ['cpu', 'iommu', 'device', 'last', 'last 2']],
    ['document', ['cpu', 'device', 'iommu', 'last', 'last 2']],
  ] as const)('E129: handlers of the %s reading run by priority', (order, expected) => {
    const { ioasid, newSet } = setup({ order })
    const set = newSet()
    const ran: string[] = []
    for (const priority of ['last', 'device', 'cpu', 'iommu'] as const)
      ioasid.subscribe({ priority, notify: () => ran.push(priority) }, set)
    ioasid.subscribe({ priority: 'last', notify: () => ran.push('last 2') }, set)
    ioasid.free(set, ioasid.alloc(set, 1, ALL))
    expect(ran).toEqual([...expected, ...expected])
  })

  it('an ended subscription hears nothing more', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    const log: string[] = []
    const end = ioasid.subscribe(listener(log), set)
    ioasid.alloc(set, 1, ALL)
    end()
    ioasid.alloc(set, 1, ALL)
    expect(log).toEqual(['ALLOC 1'])
  })

  it('a handler that causes another notification is our own mistake', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    ioasid.subscribe({ priority: 'last', notify: () => ioasid.alloc(set, 1, ALL) }, set)
    expect(() => ioasid.alloc(set, 1, ALL)).toThrow('another notification')
  })

  it('E126: a subscriber of an address space waits for its set, and hears nothing from before', () => {
    const { ioasid, mm } = setup()
    const log: string[] = []
    ioasid.subscribeMm(mm, listener(log))
    const set = ioasid.allocSet(MM, mm, 10)
    ioasid.alloc(set, 1, ALL)
    expect(log).toEqual(['ALLOC 1'])
    ioasid.putSet(set)
    log.length = 0
    ioasid.alloc(ioasid.allocSet(MM, mm, 10), 5, 5)
    expect(log).toEqual(['ALLOC 5'])
  })

  it('E127: a set that holds ids takes no subscriber by address space; one without does', () => {
    const { ioasid, mm } = setup()
    const set = ioasid.allocSet(MM, mm, 10)
    const block = listener([])
    ioasid.subscribeMm(mm, block)()
    ioasid.alloc(set, 1, ALL)
    expect(code(() => ioasid.subscribeMm(mm, block))).toBe('EBUSY')
    ioasid.free(set, 1)
    expect(code(() => ioasid.subscribeMm(mm, block))).toBe('ok')
  })

  it('the same subscriber twice for one address space is EBUSY, waiting or active', () => {
    const { ioasid, mm } = setup()
    const block = listener([])
    const end = ioasid.subscribeMm(mm, block)
    expect(code(() => ioasid.subscribeMm(mm, block))).toBe('EBUSY')
    ioasid.allocSet(MM, mm, 10)
    expect(code(() => ioasid.subscribeMm(mm, block))).toBe('EBUSY')
    end()
    end()
    expect(code(() => ioasid.subscribeMm(mm, block))).toBe('ok')
  })

  it('runs queued work in order, from the clock', () => {
    const { ioasid, clock } = setup()
    const ran: number[] = []
    ioasid.queueWork(() => ran.push(1))
    ioasid.queueWork(() => ran.push(2))
    expect(ran).toEqual([])
    clock.step()
    expect(ran).toEqual([1])
    clock.settle()
    expect(ran).toEqual([1, 2])
  })

  it('tells the trace what became of ids, refusals included', () => {
    const clock = new VirtualClock()
    const trace = new TraceBus(clock)
    const ioasid = new IoasidAllocator({ clock, trace })
    const seen: string[] = []
    trace.listen('ioasid', e => seen.push(`${e.what} ${e.id}`))
    const set = ioasid.allocSet(MM, {}, 10)
    const other = ioasid.allocSet(MM, {}, 10)
    ioasid.alloc(set, 1, ALL)
    ioasid.attachSpid(1, 9)
    ioasid.detachSpid(1)
    ioasid.free(other, 1)
    ioasid.put(set, 1)
    ioasid.free(set, 1)
    expect(seen).toEqual([
      'alloc 1',
      'bind 1',
      'unbind 1',
      'refused 1',
      'refused 1',
      'free 1',
      'reclaim 1',
    ])
  })
})

describe('outside allocators', () => {
  const outside = (ids: number[], log: string[] = []) => ({
    alloc: () => ids.shift() ?? INVALID_IOASID,
    free: (id: number) => void log.push(`free ${id}`),
  })

  it('E133: are refused while the default one has ids out', () => {
    const { ioasid, newSet } = setup()
    const set = newSet()
    ioasid.alloc(set, 1, ALL)
    expect(code(() => ioasid.registerAllocator(outside([])))).toBe('EAGAIN')
    ioasid.free(set, 1)
    expect(code(() => ioasid.registerAllocator(outside([])))).toBe('ok')
  })

  it('serve ids and get them back when they are reclaimed', () => {
    const { ioasid, newSet } = setup()
    const log: string[] = []
    ioasid.registerAllocator(outside([42, 7], log))
    const set = newSet()
    expect([0, 0, 0].map(() => ioasid.alloc(set, 1, ALL))).toEqual([42, 7, INVALID_IOASID])
    ioasid.get(set, 42)
    ioasid.free(set, 42)
    expect(log).toEqual([])
    ioasid.put(set, 42)
    ioasid.free(set, 7)
    expect(log).toEqual(['free 42', 'free 7'])
    expect(ioasid.held).toBe(0)
  })

  it('E132: do not get an id that another set frees', () => {
    const { ioasid, newSet } = setup()
    const log: string[] = []
    ioasid.registerAllocator(outside([42], log))
    ioasid.alloc(newSet(), 1, ALL)
    ioasid.free(ioasid.hostSet, 42)
    expect([log, ioasid.state(42)]).toEqual([[], 'IDLE'])
  })

  it.each([
    ['in use', 5],
    ['outside the range asked for', 500],
  ])('an id %s is no id', (_name, id) => {
    const { ioasid, newSet } = setup()
    ioasid.registerAllocator(outside([5, id]))
    const set = newSet()
    expect(ioasid.alloc(set, 1, 100)).toBe(5)
    expect(ioasid.alloc(set, 1, 100)).toBe(INVALID_IOASID)
  })

  it('the same object twice is EEXIST; the first stays active, then the next, then the default', () => {
    const { ioasid, newSet } = setup()
    const first = outside([10, 11])
    const second = outside([20])
    ioasid.registerAllocator(first)
    ioasid.registerAllocator(second)
    expect(code(() => ioasid.registerAllocator(first))).toBe('EEXIST')
    const set = newSet()
    const got = [ioasid.alloc(set, 1, ALL)]
    ioasid.unregisterAllocator(first)
    got.push(ioasid.alloc(set, 1, ALL))
    ioasid.unregisterAllocator(second)
    ioasid.unregisterAllocator(second)
    got.push(ioasid.alloc(set, 1, ALL))
    expect(got).toEqual([10, 20, 1])
  })

  it('objects with the same functions share one id space', () => {
    const { ioasid, newSet } = setup()
    const log: string[] = []
    const { alloc, free } = outside([10, 11], log)
    const one = { alloc, free }
    const two = { alloc, free }
    ioasid.registerAllocator(one)
    ioasid.registerAllocator(two)
    const set = newSet()
    ioasid.alloc(set, 1, ALL)
    ioasid.unregisterAllocator(one)
    expect(ioasid.alloc(set, 1, ALL)).toBe(11)
    ioasid.free(set, 10)
    expect(log).toEqual(['free 10'])
  })
})

it('keeps events and their codes', () => {
  expect(IOASID_EVENT).toEqual({ ALLOC: 1, FREE: 2, BIND: 3, UNBIND: 4 })
})
