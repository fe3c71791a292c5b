// The arm64 main job: the guest boots on the emulated core, does SVA DMA through the nested SMMUv3, and verifies it.
import { beforeAll, describe, expect, it, vi } from 'vitest'
import { toJson } from '../../../src/cli/output.js'
import { type Step, Story } from '../../../src/cli/story.js'
import type { IommuUnit, Machine } from '../../../src/machine.js'
import { TableContainer } from '../../../src/vmm/arm64/container.js'
import type { GuestEnd } from '../../../src/vmm/vmm.js'
import { monitor, PRI, STALL } from './support.js'

interface Run {
  readonly machine: Machine<IommuUnit>
  readonly end: GuestEnd
  readonly steps: readonly Step[]
  readonly totals: Story['totals']
}

/** From power-on to teardown; `spoil` is called with each DMA that moved data. */
function mainJob(
  spoil?: (machine: Machine<IommuUnit>, output: number, length: number) => void,
): Run {
  const { machine, vmm, end: close } = monitor()
  const steps: Step[] = []
  const story = new Story(machine, step => steps.push(step))
  if (spoil)
    machine.trace.listen('dma', e => {
      if (e.write && e.failure === undefined) spoil(machine, e.output, e.length)
    })
  const end = vmm.run()
  close()
  story.end()
  return { machine, end, steps, totals: story.totals }
}

describe('the arm64 main job', () => {
  let run: Run
  beforeAll(() => {
    run = mainJob()
  }, 60_000)
  const topic = (name: Step['topic']) => run.steps.filter(s => s.topic === name)
  const { bdf: pri, stall } = { bdf: 0x100, stall: 0x200 }

  it('ends with the guest process having verified every byte', () => {
    expect(run.end).toEqual({ kind: 'exit', code: 0 })
    expect(topic('guest').at(-1)!.text).toBe('all verified by the process itself')
  })

  it('puts each device’s whole table of context descriptors in front of it, once', () => {
    expect(topic('bind').map(s => [s.data['stream'], s.data['config']])).toEqual([
      [0x18, 'translate'],
      [0x20, 'translate'],
    ])
  })

  it('translates every DMA in both stages, none of the three addresses being the same', () => {
    const done = topic('dma').filter(s => s.data['outcome'] === 'ok')
    expect(done.length).toBeGreaterThan(40)
    for (const { data } of done) {
      const { pasid, address, gpa, hpa } = data as {
        pasid: number
        address: bigint
        gpa: bigint
        hpa: number
      }
      expect(pasid).toBe(5)
      expect(new Set([address, gpa, BigInt(hpa)]).size).toBe(3)
      expect([address % 4096n, gpa % 4096n]).toEqual([BigInt(hpa) % 4096n, BigInt(hpa) % 4096n])
    }
  })

  it(`${PRI} asks for its pages: two answered and tried again, one refused`, () => {
    const page = topic('page').filter(s => !s.text.startsWith('stall'))
    expect(page.map(s => s.data['code'] ?? 'request')).toEqual([
      'request',
      'success',
      'request',
      'invalid',
      'request',
      'success',
    ])
    const retried = topic('dma').filter(s => s.data['retried'] && s.data['requester'] === pri)
    expect(retried).toHaveLength(2)
  })

  it(`${STALL}'s accesses stall: two resumed and tried again, one aborted`, () => {
    const stalls = topic('page').filter(s => s.text.startsWith('stall'))
    expect(stalls.map(s => s.data['retry'] ?? 'stall')).toEqual([
      'stall',
      true,
      'stall',
      true,
      'stall',
      false,
    ])
    const retried = topic('dma').filter(s => s.data['retried'] && s.data['requester'] === stall)
    expect(retried).toHaveLength(2)
  })

  it('passes the guest’s invalidations on: descriptors, translations, the device’s own', () => {
    const caches = topic('flush').map(s => s.data['cache'])
    expect([...new Set(caches)]).toEqual(['contexts', 'tlb', 'device-tlb'])
    expect(topic('flush').every(s => s.data['refused'] === undefined)).toBe(true)
  })

  it('wakes the guest by messages of both devices through the ITS', () => {
    const requesters = topic('irq').map(s => s.data['requester'])
    expect([...new Set(requesters)].sort()).toEqual([pri, stall])
  })

  it('has no fault, and nothing is left of it', () => {
    expect(topic('fault')).toEqual([])
    expect(run.machine.holdings()).toEqual({
      containers: 0,
      devices: 0,
      mappings: 0,
      pasidContexts: 0,
      pasids: 0,
      pins: 0,
    })
  })

  it('runs the same way every time', () => {
    const text = (steps: readonly Step[]) => steps.map(toJson).join('\n')
    expect(text(mainJob().steps)).toBe(text(run.steps))
  })
})

it('fails when the data is wrong: one flipped bit is caught by the guest process', () => {
  let spoiled = false
  const { end } = mainJob((machine, output, length) => {
    if (spoiled || length < 1024) return
    spoiled = true
    machine.clock.later(() => {
      machine.memory.store(output + 8, 1, machine.memory.load(output + 8, 1) ^ 1n)
    })
  })
  expect(spoiled).toBe(true)
  expect(end).toMatchObject({ kind: 'exit' })
  expect((end as { code: number }).code).toBeGreaterThan(0)
})

it('fails when invalidations are lost: the device writes into the page that was taken away', () => {
  const lost = vi.spyOn(TableContainer.prototype, 'invalidate').mockImplementation(() => {})
  try {
    const { end, steps } = mainJob()
    expect(end).toMatchObject({ kind: 'exit' })
    expect((end as { code: number }).code).toBeGreaterThan(0)
    expect(steps.filter(s => s.topic === 'guest').at(-2)!.text).toMatch(/^take that page away/)
    expect(lost).toHaveBeenCalled()
  } finally {
    lost.mockRestore()
  }
})
