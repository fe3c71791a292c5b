// SEV state saved and restored (F-6): the firmware's as plain data at each state of a guest, and a whole machine's.
import { describe, expect, it } from 'vitest'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import * as old from '../../../src/cpu/kvm/uapi/sev-2016.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import type { X86Vm } from '../../../src/cpu/kvm/x86/vm.js'
import { type SavedPlatform, SevFirmware } from '../../../src/cpu/sev/firmware.js'
import { createMachine } from '../../../src/machine.js'
import { AddressSpace } from '../../../src/mem/address-space.js'
import type { Sys } from '../../../src/sys/sys.js'
import { command, SevGuest } from './guest.js'

const seed = new TextEncoder().encode('a seed')

function platform(memory: AddressSpace) {
  return new SevFirmware({ memory, crypto: nodeCrypto, seed, asids: 4 })
}
function host() {
  const memory = new AddressSpace()
  memory.addRam(0, new Uint8Array(0x4000))
  return memory
}
const through = (saved: SavedPlatform): SavedPlatform =>
  JSON.parse(JSON.stringify(saved)) as SavedPlatform

/** The rest of a launch after `done` steps, as what it answers. */
function launch(firmware: SevFirmware, from: number, to: number): unknown[] {
  const steps: (() => unknown)[] = [
    () => firmware.launchStart({ edition: 'current', policy: 0 }),
    () => firmware.activate(1, firmware.asids.take('plain')!),
    () => firmware.launchUpdate(1, 0x1000, 32),
    () => firmware.launchUpdate(1, 0x2000, 16),
    () => firmware.launchMeasure(1),
    () => firmware.launchFinish(1),
    () => [...firmware.load(firmware.guest(1)!, 0x1000, 32)],
    () => firmware.framesOf(1),
    () => firmware.deactivate(1),
    () => firmware.decommission(1),
  ]
  return steps.slice(from, to).map(step => step())
}

describe('F-6 the firmware', () => {
  it.each([0, 1, 2, 3, 4, 5, 6, 7, 8, 9])(
    'saved as plain data after %i steps of a launch, it goes on the same',
    steps => {
      const first = host()
      first.write(
        0x1000,
        Uint8Array.from({ length: 32 }, (_, i) => i),
      )
      const one = platform(first)
      one.init()
      launch(one, 0, steps)
      const second = host()
      const bytes = new Uint8Array(0x4000)
      first.read(0, bytes)
      second.write(0, bytes)
      const other = platform(second)
      other.restore(through(one.save()))
      expect(launch(other, steps, 10)).toEqual(launch(one, steps, 10))
      expect(other.save()).toEqual(one.save())
      expect([...other.draw(8)]).toEqual([...one.draw(8)])
    },
  )

  it('what does not fit is refused', () => {
    const one = platform(host())
    one.init()
    launch(one, 0, 3)
    const saved = through(one.save())
    const small = new SevFirmware({ memory: host(), crypto: nodeCrypto, seed, asids: 1 })
    expect(() => small.restore({ ...saved, asids: [3] })).toThrow(RangeError)
    const guest = saved.guests[0]!
    for (const wrong of [{ state: 9 }, { key: 'zz' }, { key: '00' }, { tik: '0' }])
      expect(() => small.restore({ ...saved, guests: [{ ...guest, ...wrong }] })).toThrow(
        RangeError,
      )
    expect(small.status().guests).toBe(0)
  })
})

describe('F-6 a machine', () => {
  const description = {
    ramBytes: 32 << 20,
    record: true,
    sev: { crypto: nodeCrypto, asids: 4, seed: 'machine' },
  } as const

  function use(sys: Sys) {
    const fd = sys.open('/dev/sev')
    const vm = sys.ioctl(sys.open('/dev/kvm'), uapi.KVM_CREATE_VM, 2)
    command(sys, vm, fd, uapi.KVM_SEV_INIT2, uapi.kvm_sev_init())
    command(sys, vm, fd, uapi.KVM_SEV_LAUNCH_START, uapi.kvm_sev_launch_start())
    const page = sys.mmap(4096)
    page.bytes.fill(7)
    const update = uapi.kvm_sev_launch_update_data({ uaddr: page.vaddr, len: 4096 })
    command(sys, vm, fd, uapi.KVM_SEV_LAUNCH_UPDATE_DATA, update)
  }

  it('that is saved in the middle of a launch comes back with its keys, states and ciphertext', () => {
    const machine = createMachine(description)
    use(machine.sys)
    const saved = machine.save()
    const again = createMachine(description)
    again.restore(saved)
    expect(again.sev!.firmware.save()).toEqual(machine.sev!.firmware.save())
    expect(again.digest()).toBe(machine.digest())
  })

  it('tells of a guest what RAM does not', () => {
    const g = new SevGuest({}, { type: 0 })
    const vm = [...g.host.kvm.vms][0] as X86Vm
    const told = () => new TextDecoder().decode(vm.digest())
    const before = told()
    g.command2016(old.SEV_2016.GUEST_STATUS, old.kvm_sev_guest_status_2016())
    expect(told()).toBe(before)
    g.must(g.command2016(old.SEV_2016.LAUNCH_START, old.kvm_sev_launch_start_2016({ policy: 5 })))
    const launching = told()
    expect(launching).not.toBe(before)
    const finish = old.kvm_sev_launch_finish_2016({ vcpu_count: 1, vcpu_length: 8 })
    g.must(g.command2016(old.SEV_2016.LAUNCH_FINISH, finish))
    expect(told()).not.toBe(launching)
  })

  it('with other SEV is another machine', () => {
    const machine = createMachine(description)
    const saved = machine.save()
    for (const sev of [undefined, true, { ...description.sev, seed: 'other' }]) {
      const other = createMachine({
        ramBytes: description.ramBytes,
        record: true,
        ...(sev && { sev }),
      })
      expect(() => other.restore(saved)).toThrow()
    }
    const { crypto, ...rest } = description.sev
    createMachine({ ...description, sev: rest }).restore(saved)
  })

  it('whose SEV options contradict each other is refused', () => {
    expect(() => createMachine({ sev: { cBit: 47, reduction: 1 } })).toThrow(RangeError)
    expect(() => createMachine({ cpu: 'arm64', sev: true })).toThrow(RangeError)
    expect(createMachine({ ramBytes: 4 << 20 }).sev).toBeUndefined()
  })
})
