// Guest instructions a second of the x86-64 evaluator, on the instruction mix of the main job's guest.

import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { DEFAULT_MACHINE } from '../src/cli/machine-file.js'
import { createMachine } from '../src/machine.js'
import { Vmm } from '../src/vmm/vmm.js'
import { plainMips, type Row } from './harness.js'

const nowNs = () => Number(process.hrtime.bigint())

/** The guest once from power-on to exit: instructions retired (1 ns of virtual time each) and time taken. */
function once(image: Uint8Array): { instructions: number; ns: number } {
  const machine = createMachine(DEFAULT_MACHINE)
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const device = '0000:01:00.0'
  const vmm = new Vmm({
    sys,
    trace: machine.trace,
    ramBytes: 64 * 2 ** 20,
    image,
    group: machine.groupOf(device),
    device,
  })
  const start = nowNs()
  const end = vmm.run()
  const ns = nowNs() - start
  if (end.kind !== 'exit' || end.code !== 0)
    throw new Error(`guest ended with ${JSON.stringify(end)}`)
  vmm.close()
  return { instructions: machine.clock.now, ns }
}

export function cpuRows(): Row[] {
  const image = readFileSync(resolve(import.meta.dirname, '../../../guests/built/sva-x86_64.elf'))
  once(image)
  const runs = [once(image), once(image), once(image)].sort(
    (a, b) => a.ns / a.instructions - b.ns / b.instructions,
  )
  const { instructions, ns } = runs[1]!
  const value = (instructions * 1000) / ns
  const baseline = plainMips()
  return [
    {
      id: 'cpu-x86',
      what: `x86-64 evaluator on the main job's guest: ${instructions} instructions, memory fill and CRC loops, system calls, MMIO exits`,
      value,
      unit: 'MIPS',
      baseline,
      ratio: value / baseline,
      target: null,
      targetOf: 'value',
      pass: true,
    },
  ]
}
