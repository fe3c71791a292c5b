// A host with an SMMUv3 and two accelerators, of which the second's accesses stall, and the monitor of an arm64 guest.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { expect } from 'vitest'
import type { SmmuUnit } from '../../../src/iommu/smmu/unit.js'
import { createMachine, type Machine, type SmmuMachineDescription } from '../../../src/machine.js'
import { svaEngine } from '../../../src/pci/devices/sva-engine.js'
import { Arm64Vmm } from '../../../src/vmm/arm64/vmm.js'

/** The guest of the arm64 main job. */
export const image = readFileSync(
  resolve(import.meta.dirname, '../../../guests/built/sva-arm64.elf'),
)
export const PRI = '0000:01:00.0'
export const STALL = '0000:02:00.0'

export const DESCRIPTION: SmmuMachineDescription = {
  iommu: 'smmuv3',
  cpu: 'arm64',
  profile: 'N13',
  devices: [
    { at: PRI, model: svaEngine },
    { at: STALL, model: svaEngine },
  ],
  stalling: [STALL],
}

/** A monitor about to run its guest; `end` closes it and sees that nothing is left. */
export function monitor(
  guest: Uint8Array = image,
  changes: Partial<SmmuMachineDescription> = {},
): { machine: Machine<SmmuUnit>; vmm: Arm64Vmm; end: () => void } {
  const machine = createMachine({ ...DESCRIPTION, ...changes })
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const vmm = new Arm64Vmm({
    sys,
    trace: machine.trace,
    ramBytes: 32 * 2 ** 20,
    image: guest,
    devices: [PRI, STALL].map(device => ({
      group: machine.groupOf(device),
      device,
      stalling: device === STALL,
    })),
  })
  return {
    machine,
    vmm,
    end() {
      vmm.close()
      sys.exit()
      machine.settle()
      const held = { ...machine.holdings(), bindings: machine.iommu.bindingCount }
      expect(
        Object.values(held).every(n => n === 0),
        JSON.stringify(held),
      ).toBe(true)
      expect([machine.iommu.pendingPageRequests(), machine.unit.stalled]).toEqual([0, 0])
    },
  }
}
