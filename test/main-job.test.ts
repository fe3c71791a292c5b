import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { DEFAULT_MACHINE } from '../src/cli/machine-file.js'
import { toJson } from '../src/cli/output.js'
import { type Step, Story } from '../src/cli/story.js'
import { createMachine, type Machine } from '../src/machine.js'
import { type GuestEnd, Vmm } from '../src/vmm/vmm.js'

const image = readFileSync(resolve(import.meta.dirname, '../guests/built/sva-x86_64.elf'))
const AT = '0000:01:00.0'

interface Run {
  readonly machine: Machine
  readonly end: GuestEnd
  readonly steps: readonly Step[]
  readonly usedFrames: readonly [before: number, after: number]
}

/** The main job, from power-on to teardown. */
function mainJob(guest: Uint8Array = image): Run {
  const machine = createMachine(DEFAULT_MACHINE)
  const steps: Step[] = []
  const story = new Story(machine, step => steps.push(step))
  const before = machine.kernel.frames.used
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const vmm = new Vmm({
    sys,
    trace: machine.trace,
    ramBytes: 64 * 2 ** 20,
    image: guest,
    group: machine.groupOf(AT),
    device: AT,
  })
  const end = vmm.run()
  vmm.close()
  sys.exit()
  machine.settle()
  story.end()
  return { machine, end, steps, usedFrames: [before, machine.kernel.frames.used] }
}

describe('the main job (F-1)', () => {
  let run: Run
  beforeAll(() => {
    run = mainJob()
  })
  const topic = (name: Step['topic']) => run.steps.filter(s => s.topic === name)

  it('ends with the guest having verified its data', () => {
    expect(run.end).toEqual({ kind: 'exit', code: 0 })
    expect(topic('guest').at(-1)!.text).toBe('all verified by the process itself')
  })
  it('allocates one PASID through VFIO, binds the process table to it, and gives both back', () => {
    expect(topic('pasid').map(s => s.data['operation'])).toEqual(['alloc', 'free'])
    expect(topic('bind').map(s => s.data['operation'])).toEqual(['bind', 'unbind'])
    expect(topic('bind')[0]!.data['root']).toBeGreaterThan(0)
  })
  it('translates every DMA in both stages, none of the three addresses being the same', () => {
    const done = topic('dma').filter(s => s.data['outcome'] === 'ok')
    expect(done.length).toBeGreaterThan(20)
    for (const { data } of done) {
      const { pasid, address, gpa, hpa } = data as {
        pasid: number
        address: bigint
        gpa: bigint
        hpa: number
      }
      expect(pasid).toBe(1)
      expect(new Set([address, gpa, BigInt(hpa)]).size).toBe(3)
      expect([address % 4096n, gpa % 4096n]).toEqual([BigInt(hpa) % 4096n, BigInt(hpa) % 4096n])
    }
  })
  it('has one page request answered by the guest and its DMA retried, and one refused', () => {
    const page = topic('page').map(s => s.data['code'] ?? 'request')
    expect(page).toEqual(['request', 'success', 'request', 'invalid'])
    expect(topic('dma').filter(s => s.data['retried'])).toHaveLength(1)
  })
  it('wakes the guest by a completion interrupt through remapping', () => {
    expect(topic('irq').length).toBeGreaterThan(0)
  })
  it('leaves nothing behind: no PASID, pin, mapping, container, page frame', () => {
    expect(run.machine.holdings()).toEqual({
      containers: 0,
      devices: 0,
      mappings: 0,
      pasidContexts: 0,
      pasids: 0,
      pins: 0,
    })
    expect(run.machine.unit.lastFault).toBeUndefined()
  })
  it('runs the same way every time', () => {
    const again = mainJob()
    const text = (steps: readonly Step[]) => steps.map(toJson).join('\n')
    expect(text(again.steps)).toBe(text(run.steps))
    expect(again.usedFrames).toEqual(run.usedFrames)
  })
  it('fails when the data is wrong: a device that flips one bit is caught by the guest', () => {
    const { machine, end } = corrupted()
    expect(end).toMatchObject({ kind: 'exit' })
    expect((end as { code: number }).code).toBeGreaterThan(0)
    expect(Object.values(machine.holdings()).every(n => n === 0)).toBe(true)
  })
})

/** The main job with one bit of the first large DMA's target flipped behind the guest's back. */
function corrupted(): { machine: Machine; end: GuestEnd } {
  const machine = createMachine(DEFAULT_MACHINE)
  let spoiled = false
  machine.trace.listen('dma', e => {
    if (spoiled || !e.write || e.length < 1024 || e.failure !== undefined) return
    spoiled = true
    machine.clock.later(() => {
      machine.memory.store(e.output + 8, 1, machine.memory.load(e.output + 8, 1) ^ 1n)
    })
  })
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const vmm = new Vmm({
    sys,
    trace: machine.trace,
    ramBytes: 64 * 2 ** 20,
    image,
    group: machine.groupOf(AT),
    device: AT,
  })
  const end = vmm.run()
  vmm.close()
  sys.exit()
  machine.settle()
  expect(spoiled).toBe(true)
  return { machine, end }
}
