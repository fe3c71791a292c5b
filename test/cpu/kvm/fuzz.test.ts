// Whatever bytes a guest is made of and whatever state it is entered with, KVM_RUN returns, and says so in KVM's words.
import { expect, it } from 'vitest'
import { ErrnoError } from '../../../src/base/errno.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { AT, Guest } from './guest.js'

/** A small generator of 32-bit values (mulberry32). */
function random(seed: number): () => number {
  let a = seed
  return () => {
    a = (a + 0x6d2b79f5) | 0
    let t = Math.imul(a ^ (a >>> 15), 1 | a)
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
    return (t ^ (t >>> 14)) >>> 0
  }
}

const REASONS = new Set<number | string>([
  uapi.KVM_EXIT_IO,
  uapi.KVM_EXIT_MMIO,
  uapi.KVM_EXIT_HLT,
  uapi.KVM_EXIT_SHUTDOWN,
  uapi.KVM_EXIT_FAIL_ENTRY,
  uapi.KVM_EXIT_INTERNAL_ERROR,
  'EINTR',
])

/** Enters up to `times`, with an alarm after 3000 instructions each. */
function enter(g: Guest, times: number): void {
  for (let i = 0; i < times; i++) {
    const alarm = g.host.clock.later(() => {
      g.run.immediate_exit = 1
    }, 3000)
    const reason = g.enter()
    alarm.cancel()
    g.run.immediate_exit = 0
    expect(REASONS).toContain(reason)
    if (reason === uapi.KVM_EXIT_SHUTDOWN || reason === uapi.KVM_EXIT_FAIL_ENTRY) return
  }
}

const seeds = [1, 2, 3]

it.each(seeds)('random code at CPL 0 and 3, seed %i', seed => {
  const next = random(seed)
  const g = new Guest()
  for (let round = 0; round < 40; round++) {
    for (let i = 0; i < 256; i++) g.ram[AT.CODE + i] = next()
    if (round % 2 === 0) g.setSregs(() => {})
    else g.toUser()
    g.setRegs({ rip: BigInt(AT.CODE), rsp: BigInt(AT.STACK), rflags: BigInt(next() & 0xdd5) })
    enter(g, 4)
  }
})

it.each(seeds)('random page tables and descriptor tables, seed %i', seed => {
  const next = random(seed + 100)
  const g = new Guest()
  for (let round = 0; round < 40; round++) {
    const at = [AT.GDT, AT.TSS, AT.PML4, AT.PDPT, AT.PD, AT.PT, AT.IDT][next() % 7]!
    for (let i = 0; i < 8; i++) g.ram[at + (next() % 1024)] = next()
    g.setSregs(() => {})
    g.setRegs({ rip: BigInt(AT.CODE), rsp: BigInt(AT.STACK) })
    for (let i = 0; i < 64; i++) g.ram[AT.CODE + i] = next()
    enter(g, 3)
  }
})

it.each(seeds)('random system registers, seed %i', seed => {
  const next = random(seed + 200)
  const g = new Guest()
  g.code('90 90 f4')
  for (let round = 0; round < 120; round++) {
    try {
      g.setSregs(s => {
        for (let i = 0; i <= next() % 3; i++) s.bytes[next() % s.bytes.length] = next()
      })
    } catch (error) {
      expect(error).toBeInstanceOf(ErrnoError)
      continue
    }
    g.setRegs({ rip: BigInt(AT.CODE), rflags: BigInt(next() & 0x3f_ffff) })
    enter(g, 2)
  }
})

it.each(seeds)('random ioctl arguments, seed %i', seed => {
  const next = random(seed + 300)
  const g = new Guest()
  const vm = [
    uapi.KVM_SET_USER_MEMORY_REGION,
    uapi.KVM_GET_DIRTY_LOG,
    uapi.KVM_SIGNAL_MSI,
    uapi.KVM_SET_GSI_ROUTING,
    uapi.KVM_IRQFD,
    uapi.KVM_ENABLE_CAP,
  ]
  const vcpu = [
    uapi.KVM_SET_REGS,
    uapi.KVM_SET_SREGS,
    uapi.KVM_TRANSLATE,
    uapi.KVM_INTERRUPT,
    uapi.KVM_SET_MSRS,
    uapi.KVM_GET_MSRS,
    uapi.KVM_SET_FPU,
    uapi.KVM_SET_LAPIC,
    uapi.KVM_SET_CPUID2,
    uapi.KVM_SET_MP_STATE,
    uapi.KVM_SET_VCPU_EVENTS,
    uapi.KVM_SET_DEBUGREGS,
    uapi.KVM_SET_GUEST_DEBUG,
  ]
  for (let round = 0; round < 400; round++) {
    const bytes = new Uint8Array(2048)
    // Small numbers reach further than noise.
    for (let i = 0; i < 64; i++) bytes[next() % 128] = next() % 3 === 0 ? next() : next() % 4
    const [fd, cmd] =
      next() % 2 === 0 ? [g.vm, vm[next() % vm.length]!] : [g.vcpu, vcpu[next() % vcpu.length]!]
    try {
      g.sys.ioctl(fd, cmd, bytes)
    } catch (error) {
      expect(error).toBeInstanceOf(ErrnoError)
    }
  }
  g.sys.ioctl(g.vcpu, uapi.KVM_SET_GUEST_DEBUG, uapi.kvm_guest_debug())
  enter(g, 3)
})
