// A recorded machine whose encrypted guest is in the middle of its work, saved and restored whole (F-6).
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import { createMachine } from '../../../src/machine.js'
import { dmaCopy } from '../../../src/pci/devices/dma-copy.js'
import { parseLaunchConfig } from '../../../src/vmm/sev/launch-config.js'
import { SevVmm } from '../../../src/vmm/sev/machine.js'
import { isLong } from '../../support/long.js'

const AT = '0000:01:00.0'
const description = {
  ramBytes: 24 << 20,
  record: true,
  sev: { crypto: nodeCrypto },
  devices: [{ at: AT, model: dmaCopy }],
} as const
const image = readFileSync(join(import.meta.dirname, '../../../guests/built/sev-x86_64.elf'))

const RUNS = [
  ['current', 0, 40],
  ['current', 0, 400],
  ['2016', 5, 40],
  ['2016', 5, 400],
] as const

it.each(isLong ? RUNS : RUNS.slice(0, 1))(
  'F-6 a guest of the %s interface, policy %i, after %i returns from KVM_RUN',
  (edition, policy, pauses) => {
    const machine = createMachine(description)
    const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
    const vmm = new SevVmm({
      sys,
      trace: machine.trace,
      ramBytes: 6 << 20,
      image,
      group: machine.groupOf(AT),
      device: AT,
      edition,
      config: parseLaunchConfig(
        `[sev-launch]\nflags = "0"\npolicy = "${policy}"\nvcpu_count = "1"\nvcpu_length = "8"`,
        'sev.conf',
      ),
    })
    vmm.run(pauses)
    const again = createMachine(description)
    again.restore(machine.save())
    expect(again.digest()).toBe(machine.digest())
    expect(again.sev!.firmware.save()).toEqual(machine.sev!.firmware.save())
    expect(again.clock.now).toBe(machine.clock.now)
  },
)
