// The main job recorded, on both machines: two million instructions of guests with DMA, page requests and interrupts, and done
// again without the guest's VMM: the same trace, event for event, and the same state.
import { beforeAll, describe, expect, it } from 'vitest'
import { guestOf, readImage, runGuest } from '../../src/cli/guest.js'
import { loadMachine } from '../../src/cli/machine-file.js'
import { formatHistory, parseHistory, type Snapshot } from '../../src/history/index.js'
import { createMachine, type IommuUnit, type Machine } from '../../src/machine.js'
import { VMM_EVENTS } from '../../src/vmm/trace.js'
import { isLong } from '../support/long.js'

/** Every event of a machine's trace as text. */
function transcript(machine: Machine<IommuUnit>): string[] {
  const lines: string[] = []
  machine.trace.listen('*', (event, name) => {
    const text = JSON.stringify(event, (_, v) => (typeof v === 'bigint' ? `${v}n` : v))
    lines.push(`${machine.clock.now} ${name} ${text}`)
  })
  return lines
}

const RUNS = [
  ['vt-d', 1_000_000],
  ['smmuv3', 900_000],
] as const

describe.each(isLong ? RUNS : RUNS.slice(0, 1))('the main job behind %s', (iommu, leastSteps) => {
  const description = { ...loadMachine(undefined, iommu), ramBytes: 2 ** 27 }
  const image = readImage(guestOf(description), iommu)
  const recorded = createMachine({ ...description, record: true })
  const told = transcript(recorded)
  let saved: Snapshot

  beforeAll(() => {
    recorded.recordRemarks(VMM_EVENTS)
    const end = runGuest(recorded, image)
    expect(end).toEqual({ kind: 'exit', code: 0 })
    saved = recorded.save()
  })

  it(`takes ${leastSteps} steps at least`, () => {
    expect(recorded.clock.now).toBeGreaterThan(leastSteps)
    expect(told.length).toBeGreaterThan(500)
  })

  it('goes the same way when it is recorded as when it is not', () => {
    const plain = createMachine(description)
    const plainTold = transcript(plain)
    runGuest(plain, image)
    expect(plainTold).toEqual(told)
    expect(plain.digest()).toBe(recorded.digest())
  })

  it('is replayed from its file to the same trace and the same state', () => {
    const again = createMachine(description)
    const toldAgain = transcript(again)
    again.restore(parseHistory(formatHistory(saved)))
    expect(toldAgain).toEqual(told)
    expect(again.digest()).toBe(saved.state)
  })

  it('can be saved anywhere: a replay up to any input is a machine that goes on from there', () => {
    const { length } = saved.inputs
    const half = Math.floor(length / 2)
    for (const at of isLong ? [1, 100, half, length - 5] : [half]) {
      const first = createMachine({ ...description, record: true })
      first.restore({ ...saved, inputs: saved.inputs.slice(0, at), state: undefined })
      const second = createMachine(description)
      second.restore(first.save())
      expect(second.digest(), `after ${at} inputs`).toBe(first.digest())
    }
  })
})
