// Whatever words a guest is made of, whatever its registers hold and whatever its owner asks, KVM answers in its own
// words: an exit, or an errno.
import { expect, it } from 'vitest'
import { ErrnoError } from '../../../src/base/errno.js'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { xorshift } from '../../support/random.js'
import { AT, Guest, type GuestCpu, REG } from './guest.js'

const REASONS = new Set<number | string>([
  uapi.KVM_EXIT_MMIO,
  uapi.KVM_EXIT_SYSTEM_EVENT,
  uapi.KVM_EXIT_DEBUG,
  'EINTR',
  'EFAULT',
  'ENXIO',
  'EBUSY',
])
const LONG = process.env['VFIO_EMU_LONG'] !== undefined

/** Enters up to `times`, with an alarm after 2000 instructions each. */
function enter(g: Guest, cpu: GuestCpu, times: number): void {
  for (let i = 0; i < times; i++) {
    const alarm = g.host.clock.later(() => {
      cpu.run.immediate_exit = 1
    }, 2000)
    const reason = cpu.enter()
    alarm.cancel()
    cpu.run.immediate_exit = 0
    expect(REASONS).toContain(reason)
  }
}

/** Numbers that mean something more often than noise does. */
function numbers(seed: number) {
  const draw = xorshift(seed)
  const word = () => draw(2 ** 32)
  const wide = () => (BigInt(word()) << 32n) | BigInt(word())
  const value = (): bigint =>
    [
      wide,
      () => BigInt(draw(64)),
      () => BigInt(AT.CODE + draw(0x20_0000)),
      () => 1n << BigInt(draw(64)),
    ][draw(4)]!()
  return { draw, word, value }
}

const seeds = LONG ? Array.from({ length: 20 }, (_, i) => i + 1) : [1, 2]

it.each(seeds)('random words at EL1 and EL0, seed %i', seed => {
  const { draw, word } = numbers(seed)
  const g = new Guest()
  g.gic()
  for (let round = 0; round < 12; round++) {
    for (let i = 0; i < 64; i++) g.view.setUint32(4 * i, word(), true)
    // Half of them system instructions, which random words seldom are.
    for (let i = 0; i < 64; i += 2) g.view.setUint32(4 * i, 0xd500_0000 + draw(0x40_0000), true)
    g.cpu.init(1 << uapi.KVM_ARM_VCPU_PSCI_0_2)
    g.cpu.set(REG.pc, BigInt(AT.CODE))
    g.cpu.set(REG.vbar, BigInt(AT.CODE))
    g.cpu.set(REG.pstate, [0x3c5n, 0n, 0x3c4n][draw(3)]!)
    for (let n = 0; n < 8; n++) g.cpu.set(REG.x(n), BigInt(AT.DATA + 8 * draw(64)))
    enter(g, g.cpu, 3)
  }
})

it.each(seeds)('random values of random registers, seed %i', seed => {
  const { draw, value } = numbers(seed + 1000)
  const g = new Guest()
  const list = g.cpu.list()
  for (let round = 0; round < 20; round++) {
    for (let i = 0; i < 12; i++) g.cpu.trySet(list[draw(list.length)]!, value())
    g.cpu.trySet(REG.pc, BigInt(AT.CODE + 4 * draw(16)))
    g.cpu.debug([0, 1, 2, 3].map(b => draw(2) << [1, 16, 17, 1][b]!).reduce((a, b) => a | b))
    enter(g, g.cpu, 2)
    for (const id of [REG.pc, REG.pstate, REG.oslsr, REG.sctlr]) g.cpu.get(id)
  }
})

it.each(seeds)('random ioctls on VM, vCPU and devices, seed %i', seed => {
  const { draw, word } = numbers(seed + 2000)
  const g = new Guest()
  const { gic, its } = g.gic(draw(2) === 0)
  const attributes = [uapi.KVM_SET_DEVICE_ATTR, uapi.KVM_GET_DEVICE_ATTR, uapi.KVM_HAS_DEVICE_ATTR]
  const calls: Record<number, readonly number[]> = {
    [g.vm]: [
      uapi.KVM_SET_USER_MEMORY_REGION,
      uapi.KVM_SET_USER_MEMORY_REGION2,
      uapi.KVM_GET_DIRTY_LOG,
      uapi.KVM_SIGNAL_MSI,
      uapi.KVM_SET_GSI_ROUTING,
      uapi.KVM_IRQFD,
      uapi.KVM_ENABLE_CAP,
      uapi.KVM_IRQ_LINE,
      uapi.KVM_CREATE_DEVICE,
      uapi.KVM_ARM_PREFERRED_TARGET,
      ...attributes,
    ],
    [g.cpu.fd]: [
      uapi.KVM_ARM_VCPU_INIT,
      uapi.KVM_GET_ONE_REG,
      uapi.KVM_SET_ONE_REG,
      uapi.KVM_GET_REG_LIST,
      uapi.KVM_SET_MP_STATE,
      uapi.KVM_SET_VCPU_EVENTS,
      uapi.KVM_SET_GUEST_DEBUG,
      uapi.KVM_ARM_VCPU_FINALIZE,
      ...attributes,
    ],
    [gic]: attributes,
    ...(its >= 0 && { [its]: attributes }),
  }
  const fds = Object.keys(calls).map(Number)
  for (let round = 0; round < (LONG ? 4000 : 500); round++) {
    const bytes = new Uint8Array(2048)
    for (let i = 0; i < 48; i++) bytes[draw(64)] = draw(3) === 0 ? word() : draw(6)
    // Attributes and registers go through pointers: to the guest's own memory, often.
    if (draw(2) === 0) new DataView(bytes.buffer).setBigUint64([8, 16][draw(2)]!, g.vaddr, true)
    const fd = fds[draw(fds.length)]!
    const cmd = calls[fd]![draw(calls[fd]!.length)]!
    try {
      g.sys.ioctl(fd, cmd, bytes)
    } catch (error) {
      expect(error).toBeInstanceOf(ErrnoError)
    }
  }
  g.sys.ioctl(g.cpu.fd, uapi.KVM_SET_GUEST_DEBUG, uapi.kvm_guest_debug())
  enter(g, g.cpu, 3)
})
