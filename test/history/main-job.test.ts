// The main job recorded, over a million instructions of a guest with DMA, page requests and interrupts, and done
// again without the guest's VMM: the same trace, event for event, and the same state.
import { beforeAll, describe, expect, it } from 'vitest'
import { GUEST, readImage, runGuest } from '../../src/cli/guest.js'
import { DEFAULT_MACHINE } from '../../src/cli/machine-file.js'
import { formatHistory, parseHistory, type Snapshot } from '../../src/history/index.js'
import { createMachine, type Machine } from '../../src/machine.js'
import { VMM_EVENTS } from '../../src/vmm/trace.js'

/** Every event of a machine's trace as text. */
function transcript(machine: Machine): string[] {
  const lines: string[] = []
  machine.trace.listen('*', (event, name) => {
    const text = JSON.stringify(event, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))
    lines.push(`${machine.clock.now} ${name} ${text}`)
  })
  return lines
}

describe('the main job', () => {
  const recorded = createMachine({ ...DEFAULT_MACHINE, record: true })
  const told = transcript(recorded)
  let saved: Snapshot

  beforeAll(() => {
    recorded.recordRemarks(VMM_EVENTS)
    const end = runGuest(recorded, readImage(GUEST))
    expect(end).toEqual({ kind: 'exit', code: 0 })
    saved = recorded.save()
  })

  it('takes over a million steps', () => {
    expect(recorded.clock.now).toBeGreaterThan(1e6)
    expect(told.length).toBeGreaterThan(500)
  })

  it('goes the same way when it is recorded as when it is not', () => {
    const plain = createMachine(DEFAULT_MACHINE)
    const plainTold = transcript(plain)
    runGuest(plain, readImage(GUEST))
    expect(plainTold).toEqual(told)
    expect(plain.digest()).toBe(recorded.digest())
  })

  it('is replayed from its file to the same trace and the same state', () => {
    const again = createMachine(DEFAULT_MACHINE)
    const toldAgain = transcript(again)
    again.restore(parseHistory(formatHistory(saved)))
    expect(toldAgain).toEqual(told)
    expect(again.digest()).toBe(saved.state)
  })

  it('can be saved anywhere: a replay up to any input is a machine that goes on from there', () => {
    const { length } = saved.inputs
    for (const at of [1, 100, Math.floor(length / 2), length - 5]) {
      const first = createMachine({ ...DEFAULT_MACHINE, record: true })
      first.restore({ ...saved, inputs: saved.inputs.slice(0, at), state: undefined })
      const second = createMachine(DEFAULT_MACHINE)
      second.restore(first.save())
      expect(second.digest(), `after ${at} inputs`).toBe(first.digest())
    }
  })
})
