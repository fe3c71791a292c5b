// F-4: a watchpoint is the processor's: what a device writes to the same memory passes it by.
import { expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { AT, Guest } from './guest.js'

/** DR7: breakpoint 0 on reads and writes of 4 bytes, and on writes. */
const TOUCH = (0x1 | (3 << 16) | (3 << 18)) >>> 0

it.each([
  ["the guest's own", (_: Guest) => {}],
  [
    'one of the owner (KVM_SET_GUEST_DEBUG)',
    (g: Guest) => {
      const control = uapi.KVM_GUESTDBG_ENABLE | uapi.KVM_GUESTDBG_USE_HW_BP
      const registers = [BigInt(AT.DATA), 0n, 0n, 0n, 0n, 0n, 0n, BigInt(TOUCH) | 0x400n]
      const arg = uapi.kvm_guest_debug({ control, arch: { debugreg: registers } })
      g.sys.ioctl(g.vcpu, uapi.KVM_SET_GUEST_DEBUG, arg)
    },
  ],
])('F-4: %s does not fire for DMA, and fires for the processor after it', (_, owner) => {
  const g = new Guest()
  // mov $200,%ecx; 1: dec %ecx; jnz 1b; mov $7,%eax; out %eax,$0x10; mov %eax,AT.DATA
  g.code('b9 c8 00 00 00 ff c9 75 fc b8 07 00 00 00 e7 10 89 04 25 00 00 02 00')
  const regs = uapi.kvm_debugregs({
    db: [BigInt(AT.DATA), 0n, 0n, 0n],
    dr6: 0xffff_0ff0n,
    dr7: BigInt(TOUCH) | 0x400n,
  })
  g.sys.ioctl(g.vcpu, uapi.KVM_SET_DEBUGREGS, regs)
  owner(g)
  // A bus master writes host memory, in the middle of the loop.
  const hpa = g.sys.process.memory.hpaAt(g.vaddr + BigInt(AT.DATA))
  g.host.clock.later(() => g.host.memory.write(hpa, Uint8Array.of(1, 2, 3, 4)), 100)
  expect(g.answer()).toBe(7)
  expect(g.host.clock.now).toBeGreaterThan(100)
  expect([...g.ram.subarray(AT.DATA, AT.DATA + 4)]).toEqual([1, 2, 3, 4])
  const after = uapi.kvm_debugregs()
  g.sys.ioctl(g.vcpu, uapi.KVM_GET_DEBUGREGS, after)
  expect(after.dr6).toBe(0xffff_0ff0n)
  // The processor's own store is seen.
  const reason = g.enter()
  const hit = reason === uapi.KVM_EXIT_DEBUG || g.run.u.io.port === 0x81
  expect(hit).toBe(true)
})
