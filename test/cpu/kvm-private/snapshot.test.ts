// F-6: a machine that is saved and restored has the attributes and the contents of every guest_memfd.
import { expect, it } from 'vitest'
import { describeWorld, PrivateWorld } from '../../../fuzz/private/world.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { createMachine } from '../../../src/machine.js'

const memfd = { order: 2 }
const [READ, BASE, PAGE] = [0x8000, 0x4000_0000, 4096]

function world() {
  const w = new PrivateWorld({ memfd, record: true })
  w.addSlot(0, { first: 0, pages: 8, user: 0, file: 4 })
  w.attributes(1, 3, true)
  for (let i = 0; i < 8; i++) w.guestWrite(i % 2, i, 0x10 + i)
  w.attributes(2, 1, false)
  return w
}

it('F-6: attributes and private contents are those of the machine that was saved', () => {
  const w = world()
  const machine = createMachine(describeWorld(memfd, true))
  machine.restore(w.machine.save())
  expect(machine.digest()).toBe(w.machine.digest())
  const sys = machine.process(w.sys.process.pid)!
  const { fd, map } = w.cpus[0]!
  const run = sys.process.memory.bytesAt(map.vaddr, map.length)!
  const read = (gfn: number) => {
    const regs = { rip: BigInt(READ), rbx: BigInt(BASE + gfn * PAGE), rflags: 2n }
    sys.ioctl(fd, uapi.KVM_SET_REGS, uapi.kvm_regs(regs))
    sys.ioctl(fd, uapi.KVM_RUN)
    return run[PAGE]
  }
  expect([0, 1, 2, 3, 4].map(read)).toEqual([0x10, 0x11, 0, 0x13, 0x14])
  const call = { address: BigInt(BASE + 2 * PAGE), size: BigInt(PAGE), attributes: 8n }
  sys.ioctl(w.vm, uapi.KVM_SET_MEMORY_ATTRIBUTES, uapi.kvm_memory_attributes(call))
  expect(read(2)).toBe(0x12)
})

it('F-6: the digest tells machines apart that differ in an attribute alone', () => {
  const [one, two] = [world(), world()]
  expect(one.machine.digest()).toBe(two.machine.digest())
  two.attributes(7, 1, true)
  expect(one.machine.digest()).not.toBe(two.machine.digest())
})
