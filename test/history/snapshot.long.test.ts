// Machines saved and restored: half-done work goes on, a fault is answered in two ways, and what does not fit is refused.
import { describe, expect, it } from 'vitest'
import {
  Diverged,
  formatHistory,
  HistoryError,
  parseHistory,
  type Snapshot,
} from '../../src/history/index.js'
import { RecordingSys } from '../../src/history/recording-sys.js'
import { createMachine, type MachineDescription } from '../../src/machine.js'
import { Sys } from '../../src/sys/sys.js'
import { IOMMU_PAGE_RESP_INVALID, IOMMU_PAGE_RESP_SUCCESS } from '../../src/uapi.js'
import {
  answer,
  begin,
  DONE,
  description,
  FAILED,
  PENDING,
  reader,
  recorded,
  result,
  type Scene,
  sysOf,
} from './scene.js'

function pending(): { machine: ReturnType<typeof recorded>; scene: Scene; saved: Snapshot } {
  const machine = recorded()
  const scene = begin(machine)
  expect(result(machine, scene)[0]).toBe(PENDING)
  return { machine, scene, saved: machine.save() }
}

const restored = (saved: Snapshot, from: MachineDescription = description) => {
  const machine = createMachine(from)
  machine.restore(saved)
  return machine
}

describe('a snapshot', () => {
  it('F-6 keeps a page request that waits: forked there, it is answered in two ways', () => {
    const { machine, scene, saved } = pending()
    const yes = restored(saved)
    const no = restored(saved)
    answer(yes, scene, IOMMU_PAGE_RESP_SUCCESS)
    answer(no, scene, IOMMU_PAGE_RESP_INVALID)
    expect(result(yes, scene)).toEqual([DONE, 0x1234_5678n])
    expect(result(no, scene)[0]).toBe(FAILED)
    expect(result(machine, scene)[0]).toBe(PENDING)
  })

  it('F-6 keeps PASIDs, bindings, mappings and pins: what is held and the whole state are the same', () => {
    const { machine, saved } = pending()
    const again = restored(saved)
    expect(again.holdings()).toEqual(machine.holdings())
    expect(again.holdings()).toMatchObject({ pasids: 1, containers: 1, mappings: 1, pins: 16 })
    expect(again.digest()).toBe(machine.digest())
    expect(again.clock.now).toBe(machine.clock.now)
  })

  it('leads to the same end as the machine that went on', () => {
    const { machine, scene, saved } = pending()
    const again = restored(saved)
    for (const m of [machine, again]) {
      answer(m, scene, IOMMU_PAGE_RESP_SUCCESS)
      sysOf(m, scene).exit()
      m.settle()
    }
    expect(again.digest()).toBe(machine.digest())
    expect(Object.values(again.holdings()).every(n => n === 0)).toBe(true)
  })

  it('survives the way through a file', () => {
    const { scene, saved } = pending()
    const again = restored(parseHistory(formatHistory(saved)))
    answer(again, scene, IOMMU_PAGE_RESP_SUCCESS)
    expect(result(again, scene)).toEqual([DONE, 0x1234_5678n])
  })

  it('of a restored machine that is recorded itself is another snapshot of the whole', () => {
    const { scene, saved } = pending()
    const second = restored(saved, { ...description, record: true })
    answer(second, scene, IOMMU_PAGE_RESP_SUCCESS)
    const third = restored(second.save())
    expect(result(third, scene)).toEqual([DONE, 0x1234_5678n])
    expect(third.digest()).toBe(second.digest())
  })

  it('tells its progress', () => {
    const { saved } = pending()
    const told: number[] = []
    createMachine(description).restore(saved, (done, of) => {
      expect(of).toBe(saved.inputs.length)
      told.push(done)
    })
    expect(told).toEqual(saved.inputs.map((_, i) => i + 1))
  })
})

describe('what does not fit is refused', () => {
  it.each<[string, MachineDescription, RegExp]>([
    [
      'another size',
      { ...description, ramBytes: 2 ** 25 },
      /its ramBytes is 16777216, here it is 33554432/,
    ],
    [
      'another profile',
      { ...description, profile: 'V7' },
      /its profile is the default, here it is "V7"/,
    ],
    ['other devices', { ...description, devices: [] }, /its devices is \[\{"at":"0000:01:00.0"/],
  ])('%s', (_, other, message) => {
    const { saved } = pending()
    expect(() => restored(saved, other)).toThrow(HistoryError)
    expect(() => restored(saved, other)).toThrow(message)
  })

  it('another version', () => {
    const { saved } = pending()
    expect(() => restored({ ...saved, version: 9 })).toThrow('the snapshot has version 9, not 1')
    const text = formatHistory({ ...saved, version: 9 })
    expect(() => parseHistory(text)).toThrow('replay it with the program that wrote it')
  })

  it('a machine that is in use', () => {
    const { saved } = pending()
    const used = createMachine(description)
    used.spawn()
    expect(() => used.restore(saved)).toThrow('into a machine that nobody has used yet')
    const called = recorded()
    called.sys.eventfd()
    expect(() => called.restore(saved)).toThrow('into a machine that nobody has used yet')
  })

  it('a machine that is not recorded has nothing to save', () => {
    expect(() => createMachine(description).save()).toThrow('createMachine({ ..., record: true })')
  })

  it('a machine inside a call of its own', () => {
    const machine = recorded()
    const fd = machine.sys.eventfd()
    let said: unknown
    machine.sys.eventfdOf(fd).onSignal(() => {
      try {
        machine.save()
      } catch (error) {
        said = error
      }
    })
    machine.sys.write(fd, new Uint8Array(new BigUint64Array([1n]).buffer))
    expect(said).toBeInstanceOf(HistoryError)
  })

  it('a device that is not deterministic: the input where it shows is named', () => {
    let runs = 0n
    const odd = { ...description, devices: [{ at: '0000:01:00.0', model: reader(() => runs) }] }
    const machine = createMachine({ ...odd, record: true })
    const scene = begin(machine)
    answer(machine, scene, IOMMU_PAGE_RESP_SUCCESS)
    result(machine, scene)
    runs++
    const saved = machine.save()
    const input = saved.inputs.length - 1
    expect(() => restored(saved, odd)).toThrow(Diverged)
    expect(() => restored(saved, odd)).toThrow(
      `input ${input + 1} of the history went another way: pread answered`,
    )
  })

  it('memory that was written where the recorder does not look', () => {
    const large = { ...description, ramBytes: 64 * 2 ** 20 }
    const machine = createMachine({ ...large, record: true })
    const big = machine.sys.mmap(20 * 2 ** 20)
    machine.sys.close(machine.sys.eventfd())
    big.bytes[123] = 1
    const saved = machine.save()
    expect(() => restored(saved, large)).toThrow(
      'memory was written where the recorder does not look',
    )
  })

  it('a call from inside the machine that no replay could make', () => {
    const machine = recorded()
    const fd = machine.sys.eventfd()
    machine.sys.eventfdOf(fd).onSignal(() => machine.sys.eventfd())
    machine.sys.write(fd, new Uint8Array(new BigUint64Array([1n]).buffer))
    expect(() => machine.save()).toThrow('other than those of `Sys.onReadable`')
  })
})

describe('what comes in', () => {
  it('is every system call: none of Sys goes by unrecorded', () => {
    const calls = Object.getOwnPropertyNames(Sys.prototype)
    const kept = Object.getOwnPropertyNames(RecordingSys.prototype)
    expect(kept).toEqual(expect.arrayContaining(calls))
  })

  it('is what listeners do in the middle of a call', () => {
    const machine = recorded()
    const fd = machine.sys.eventfd()
    const other = machine.sys.eventfd()
    const note = machine.sys.mmap(4096)
    const stop = machine.sys.onReadable(fd, () => {
      machine.sys.write(other, new Uint8Array(new BigUint64Array([5n]).buffer))
      note.bytes[7] = 9
    })
    machine.sys.write(fd, new Uint8Array(new BigUint64Array([1n]).buffer))
    stop()
    machine.sys.write(fd, new Uint8Array(new BigUint64Array([1n]).buffer))
    const again = restored(machine.save())
    expect(again.sys.read(other, 8)[0]).toBe(5)
    expect(again.sys.read(fd, 8)[0]).toBe(2)
    expect(again.sys.process.memory.bytesAt(note.vaddr, 8)![7]).toBe(9)
  })

  it('is memory of a parent, seen by a forked child, and what is left of a mapping', () => {
    const machine = recorded()
    const page = machine.sys.mmap(3 * 4096)
    page.bytes[0] = 1
    machine.sys.munmap(page.vaddr + 4096n, 4096)
    page.bytes[2 * 4096] = 2
    const child = machine.sys.fork()
    const again = restored(machine.save())
    const { memory } = again.process(child.process.pid)!.process
    expect(memory.bytesAt(page.vaddr, 1)![0]).toBe(1)
    expect(memory.bytesAt(page.vaddr + 8192n, 1)![0]).toBe(2)
  })

  it('is the image put into a large mapping before it is used', () => {
    const machine = recorded()
    const big = machine.sys.mmap(4 * 2 ** 20)
    big.bytes[0x123456] = 0x77
    const again = restored(machine.save())
    expect(again.sys.process.memory.bytesAt(big.vaddr + 0x123456n, 1)![0]).toBe(0x77)
  })

  it('is a refusal too', () => {
    const machine = recorded()
    expect(() => machine.sys.open('/dev/nothing')).toThrow('ENOENT')
    expect(machine.save().inputs).toMatchObject([{ op: 'call', name: 'open', answer: 'ENOENT' }])
    restored(machine.save())
  })
})

describe('a history as a file', () => {
  it.each([
    ['', /this is not a history|no JSON object/],
    ['hello', /line 1 of the history is no JSON object/],
    ['{"a":1}', /first line is no head/],
    ['{"history":1,"machine":"{}"}', /cut short/],
    ['{"history":1,"machine":"{}"}\n{"op":"settle"}\n{"end":2,"state":""}', /cut short/],
    [
      '{"history":1,"machine":"{}"}\n{"op":"dance"}\n{"end":1,"state":""}',
      /line 2 of the history: no input is called "dance"/,
    ],
    [
      '{"history":1,"machine":"{}"}\n{"op":"call","pid":1}\n{"end":1,"state":""}',
      /line 2 of the history: call has no name/,
    ],
    [
      '{"history":1,"machine":"{}"}\n{"op":"write","pid":1,"at":0,"bytes":{"x":"0g"}}\n{"end":1,"state":""}',
      /a value is written as/,
    ],
  ])('%j is refused', (text, message) => {
    expect(() => parseHistory(text)).toThrow(HistoryError)
    expect(() => parseHistory(text)).toThrow(message)
  })

  it('damaged anywhere is refused, or leads to a machine that says so: never anything else (seed 1)', () => {
    const rounds = process.env.VFIO_EMU_LONG ? 500 : 15
    const { saved } = pending()
    const lines = formatHistory(saved).split('\n')
    let x = 1
    const chance = (n: number) => {
      x = (Math.imul(x, 1103515245) + 12345) >>> 0
      return (x >>> 8) % n
    }
    for (let i = 0; i < rounds; i++) {
      const damaged = [...lines]
      const at = chance(lines.length - 1)
      const line = damaged[at]!
      const place = chance(line.length)
      damaged[at] =
        `${line.slice(0, place)}${'0123456789"{}[]x'[chance(16)]}${line.slice(place + 1)}`
      try {
        createMachine(description).restore(parseHistory(damaged.join('\n')))
      } catch (error) {
        expect(error, damaged[at]).toBeInstanceOf(HistoryError)
      }
    }
  })
})
