// F-6 for guests whose memory is theirs alone: an encrypted guest and one with private pages, recorded while they
// run, saved in the middle, and restored with keys, ASIDs, attributes and files.
import { readFileSync } from 'node:fs'
import { resolve } from 'node:path'
import { describe, expect, it } from 'vitest'
import { readImage } from '../../src/cli/guest.js'
import { nodeCrypto } from '../../src/cli/node-crypto.js'
import * as kvm from '../../src/cpu/kvm/uapi/sev.js'
import type { SevEdition } from '../../src/cpu/kvm/uapi/sev-codes.js'
import { formatHistory, parseHistory, type Snapshot } from '../../src/history/index.js'
import { createMachine, type Machine, type MachineDescription } from '../../src/machine.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import { CopyDevice } from '../../src/vmm/copy-device.js'
import { PrivateGuest } from '../../src/vmm/private-guest.js'
import { parseLaunchConfig } from '../../src/vmm/sev/launch-config.js'
import { SevVmm } from '../../src/vmm/sev/machine.js'
import { command } from '../cpu/sev/guest.js'
import { isLong } from '../support/long.js'

const built = (name: string) => resolve(import.meta.dirname, '../../guests/built', name)
const AT = '0000:01:00.0'

/** Restores into a machine of the same description, by way of a file. */
function restored(saved: Snapshot, description: MachineDescription): Machine {
  const machine = createMachine(description)
  machine.restore(parseHistory(formatHistory(saved)))
  return machine
}

/** What GUEST_STATUS says of the one encrypted guest on a machine. */
function statusOf(machine: Machine, pid: number) {
  const sys = machine.process(pid)!
  const files = [...sys.process.fds.entries()]
  const fdOf = (kind: string) => files.find(({ file }) => file.kind === kind)!.fd
  const status = kvm.kvm_sev_guest_status()
  const outcome = command(sys, fdOf('kvm-vm'), fdOf('sev'), kvm.KVM_SEV_GUEST_STATUS, status)
  const { handle, policy, state } = status
  return { ...outcome, handle, policy, state }
}

describe('an encrypted guest', () => {
  const description = {
    ramBytes: 64 << 20,
    sev: { crypto: nodeCrypto },
    devices: [{ at: AT, model: dmaCopy }],
  } satisfies MachineDescription
  // Bit 0 lets the host debug in 2016 and forbids it today; bit 2 was reserved and one.
  const policies = { '2016': 5, current: 1 }

  function run(machine: Machine, edition: SevEdition) {
    const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
    const image = readImage(built('sev-x86_64.elf'))
    const keys = { flags: '0', policy: `${policies[edition]}`, vcpu_count: '1', vcpu_length: '30' }
    const lines = Object.entries(keys).map(([key, value]) => `${key} = "${value}"`)
    const text = ['[sev-launch]', ...lines, 'vcpu_mask = "00ab"', ''].join('\n')
    const config = parseLaunchConfig(text, 'sev.conf')
    const { trace } = machine
    const group = machine.groupOf(AT)
    const common = { sys, trace, ramBytes: 8 << 20, image, group, device: AT }
    const vmm = new SevVmm({ ...common, edition, config })
    const end = vmm.run()
    return { sys, vmm, end }
  }

  it.each(isLong ? (['2016', 'current'] as const) : [])(
    'F-6 launched by the %s interface is replayed to the same state, ciphertext and all',
    edition => {
      const machine = createMachine({ ...description, record: true })
      const { sys, vmm, end } = run(machine, edition)
      expect(end).toEqual({ kind: 'exit', code: 0 })
      const running = machine.save()
      expect(restored(running, description).digest()).toBe(machine.digest())
      vmm.close()
      sys.exit()
      machine.settle()
      const again = restored(machine.save(), description)
      expect(again.holdings()).toEqual(machine.holdings())
      expect(again.digest()).toBe(machine.digest())
    },
  )

  it.runIf(isLong)('F-6 keeps its handle, policy and state, and with them its ASID and key', () => {
    const machine = createMachine({ ...description, record: true })
    const { sys } = run(machine, 'current')
    const saved = machine.save()
    const status = statusOf(machine, sys.process.pid)
    expect(status).toMatchObject({ errno: '', policy: 1, state: 3 })
    expect(statusOf(restored(saved, description), sys.process.pid)).toEqual(status)
  })

  it('a snapshot of a host without SEV does not fit one with it', () => {
    const saved = createMachine({ ...description, sev: false, record: true }).save()
    expect(() => restored(saved, description)).toThrow('its sev is the default, here it is {}')
  })
})

describe('a guest with private pages', () => {
  const description = {
    ramBytes: 64 << 20,
    devices: [{ at: AT, model: dmaCopy }],
  } satisfies MachineDescription
  const image = new Uint8Array(readFileSync(built('private-x86_64.elf')))

  it('F-6 is saved between two conversions and at its end: attributes, files and slots', () => {
    const machine = createMachine({ ...description, record: true })
    const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
    const device = new CopyDevice(sys, machine.groupOf(AT), AT, () => machine.settle())
    const saved: Snapshot[] = []
    const digests: string[] = []
    const look = () => {
      saved.push(machine.save())
      digests.push(machine.digest())
    }
    let told = 0
    const guest = new PrivateGuest({
      sys,
      image,
      program: 'tour',
      device,
      tell: () => {
        if (++told === 4) look()
      },
    })
    const end = guest.run()
    expect(end.failure).toBeUndefined()
    look()
    guest.close()
    device.close()
    sys.exit()
    machine.settle()
    look()
    expect(saved).toHaveLength(3)
    for (const [i, snapshot] of saved.entries())
      expect(restored(snapshot, description).digest(), `snapshot ${i}`).toBe(digests[i])
    expect(new Set(digests).size).toBe(3)
  })
})
