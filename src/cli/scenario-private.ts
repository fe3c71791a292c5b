// `vfio-emu run --guest private-memory`: one page of a guest between shared and private, the host and a device looking
// on; then a VMM that forgets its device, and what the machine and the checker make of that.

import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describeConfidentialDma } from '../confidential-dma.js'
import { createMachine, type Machine } from '../machine.js'
import { dmaCopy } from '../pci/devices/dma-copy.js'
import { CopyDevice } from '../vmm/copy-device.js'
import {
  PrivateGuest,
  type PrivateGuestEnd,
  type PrivateGuestEvent,
  type PrivateProgram,
} from '../vmm/private-guest.js'
import { formatBytes } from './output.js'
import type { Scenario, ScenarioOptions, ScenarioTeller } from './scenarios.js'

const IMAGE = fileURLToPath(new URL('../../guests/built/private-x86_64.elf', import.meta.url))
const DEVICE = '0000:01:00.0'
const HOST_RAM = 64 << 20

const LEGEND = [
  "A shared page is the VMM's own memory. A private one lies in a guest_memfd: the VMM has no address for it.",
  'The guest converts a page by hypercall MAP_GPA_RANGE; its VMM takes the page from the device, then sets the attribute.',
]
const FORGETFUL = [
  'The same guest, and a VMM that leaves its device mapped: kernels so far would let that DMA into the stale copy.',
]

/** The row of the scenario. */
export const privateMemory: Scenario = {
  name: 'private-memory',
  title: 'private memory: guest_memfd, conversions, and a device',
  run,
}

function run({ tell }: ScenarioOptions): boolean {
  const image = new Uint8Array(readFileSync(IMAGE))
  tell.facts('machine', [
    ['host RAM', formatBytes(HOST_RAM)],
    ['IOMMU', 'VT-d'],
    ['VM', 'type 1 (KVM_X86_SW_PROTECTED_VM), 1 vCPU'],
    ['memory', `${formatBytes(4 << 20)} at GPA 0x40000000: shared, and a guest_memfd behind it`],
    [DEVICE, 'dma-copy, passed to the VMM by VFIO type1v2'],
  ])

  tell.section('journey', LEGEND)
  const journey = tour(tell, image, false)
  tell.section('a forgetful VMM', FORGETFUL)
  const forgotten = tour(tell, image, true)

  tell.section('every case')
  const cases = program(tell, image, 'conversions')
  const holes = program(tell, image, 'holes')

  const ends = [journey.end, forgotten.end, cases, holes]
  const { confidentialDmas: quiet } = journey.machine
  const named = forgotten.machine.confidentialDmas.length
  const good =
    ends.every(e => e.failure === undefined && e.done === 1) && quiet.length === 0 && named === 2
  const conversions = ends.reduce((n, e) => n + e.conversions, 0)
  tell.end(
    [
      ['guest', good ? 'every byte verified' : (ends.find(e => e.failure)?.failure ?? 'no')],
      ['conversions', `${conversions}`],
      ['forgotten DMA', `${named} named and refused; ${quiet.length} where the VMM unmapped`],
      [
        'left over',
        `${journey.left + forgotten.left} frames, ${journey.marked + forgotten.marked} marked pages`,
      ],
    ],
    good ? 'private stayed private, nothing leaked' : 'failed',
    good,
    { conversions, named },
  )
  return good
}

/** The tour on a machine of its own. */
function tour(tell: ScenarioTeller, image: Uint8Array, forgetful: boolean) {
  const machine = createMachine({
    devices: [{ at: DEVICE, model: dmaCopy }],
    ramBytes: HOST_RAM,
    detectConfidentialDma: true,
    ...(forgetful && { guestMemfd: { devices: 'owner' } }),
  })
  const { frames } = machine.kernel
  const used = frames.used
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const device = new CopyDevice(sys, machine.groupOf(DEVICE), DEVICE, () => machine.settle())
  machine.trace.listen('confidential-dma', found =>
    tell.step({
      at: found.time,
      topic: 'checker',
      text: describeConfidentialDma(found).replaceAll('\n', `\n${' '.repeat(27)}`),
      data: { found },
      failed: true,
    }),
  )
  const telling = (event: PrivateGuestEvent) => say(tell, machine, event)
  const guest = new PrivateGuest({ sys, image, program: 'tour', device, forgetful, tell: telling })
  const end = guest.run()
  guest.close()
  device.close()
  sys.exit()
  machine.settle()
  const { guard } = machine.memory
  const marked = guard?.plain(0, HOST_RAM) === false ? 1 : 0
  return { machine, end, left: frames.used - used, marked }
}

/** A program that only says how it ended. */
function program(tell: ScenarioTeller, image: Uint8Array, name: PrivateProgram): PrivateGuestEnd {
  const machine = createMachine({ ramBytes: HOST_RAM })
  const sys = machine.spawn()
  const guest = new PrivateGuest({ sys, image, program: name, slots: 2 })
  const end = guest.run()
  guest.close()
  const what =
    name === 'conversions'
      ? 'five ranges of 2 MiB and a page, there and back, odd pages on their own, without and with fallocate'
      : 'holes punched in private memory read zero, their neighbours as before'
  const text = end.failure ?? `${what}: ${end.conversions} conversions, two slots of one file`
  tell.step({
    at: machine.clock.now,
    topic: 'cases',
    text,
    data: { ...end },
    failed: end.failure !== undefined,
  })
  return end
}

function say(tell: ScenarioTeller, machine: Machine, event: PrivateGuestEvent): void {
  const at = machine.clock.now
  const hex = (n: number) => `0x${n.toString(16)}`
  const step = (topic: string, text: string, failed = false) =>
    tell.step({ at, topic, text, data: { event }, failed })
  switch (event.kind) {
    case 'say':
      step('guest', event.text)
      return
    case 'convert':
      step(
        'convert',
        `MAP_GPA_RANGE: GPA ${hex(event.gpa)}, ${formatBytes(event.bytes)}, becomes ${event.toPrivate ? 'private' : 'shared'}`,
      )
      return
    case 'host':
      step('host', `the VMM reads ${hex(event.byte)} at GPA ${hex(event.gpa)}`)
      return
    case 'device':
      step(
        'dma',
        `the device ${event.write ? 'writes' : 'reads'} the page at GPA ${hex(event.gpa)}: ${event.done ? 'ok' : 'refused'}`,
        !event.done,
      )
      return
    case 'punch':
      step('punch', `a hole of ${formatBytes(event.bytes)} in the file, at GPA ${hex(event.gpa)}`)
  }
}
