// The calls around KVM_RUN: what they answer and refuse, call by call.
import { describe, expect, it } from 'vitest'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import type { IoctlArgument } from '../../../src/sys/sys.js'
import { Guest, host } from './guest.js'

function opened() {
  const { sys, kvm } = host()
  const fd = sys.open('/dev/kvm')
  return { sys, kvm, fd, vm: () => sys.ioctl(fd, uapi.KVM_CREATE_VM, 0) }
}

describe('/dev/kvm', () => {
  it('is API version 12 and says the size of a vCPU mapping', () => {
    const { sys, fd } = opened()
    expect(sys.ioctl(fd, uapi.KVM_GET_API_VERSION)).toBe(12)
    expect(sys.ioctl(fd, uapi.KVM_GET_VCPU_MMAP_SIZE)).toBe(3 * 4096)
  })

  it.each([
    ['KVM_CAP_USER_MEMORY', uapi.KVM_CAP_USER_MEMORY, 1],
    ['KVM_CAP_NR_MEMSLOTS', uapi.KVM_CAP_NR_MEMSLOTS, 32764],
    ['KVM_CAP_IMMEDIATE_EXIT', uapi.KVM_CAP_IMMEDIATE_EXIT, 1],
    ['KVM_CAP_COALESCED_MMIO, which is not offered', uapi.KVM_CAP_COALESCED_MMIO, 0],
    ['a number from the future', 9999, 0],
  ])('CHECK_EXTENSION of %s', (_, n, answer) => {
    const { sys, fd, vm } = opened()
    expect(sys.ioctl(fd, uapi.KVM_CHECK_EXTENSION, n)).toBe(answer)
    expect(sys.ioctl(vm(), uapi.KVM_CHECK_EXTENSION, n)).toBe(answer)
  })

  const refusals: [string, number, IoctlArgument, string][] = [
    ['a version with an argument', uapi.KVM_GET_API_VERSION, 1, 'EINVAL'],
    ['a mapping size with an argument', uapi.KVM_GET_VCPU_MMAP_SIZE, 1, 'EINVAL'],
    ['a VM type that is not there', uapi.KVM_CREATE_VM, 5, 'EINVAL'],
    ['an unknown request', uapi.KVM_RUN, 0, 'EINVAL'],
    [
      'too few CPUID entries',
      uapi.KVM_GET_SUPPORTED_CPUID,
      uapi.kvm_cpuid2({ nent: 2 }, 80),
      'E2BIG',
    ],
    [
      'too few MSR indices',
      uapi.KVM_GET_MSR_INDEX_LIST,
      uapi.kvm_msr_list({ nmsrs: 1 }, 4),
      'E2BIG',
    ],
    ['a bad address', uapi.KVM_GET_SUPPORTED_CPUID, 0x1000, 'EFAULT'],
  ]
  it.each(refusals)('refuses %s', (_, cmd, arg, code) => {
    const { sys, fd } = opened()
    expect(() => sys.ioctl(fd, cmd, arg)).toThrow(code)
  })

  it('a refused MSR list still says how long it is', () => {
    const { sys, fd } = opened()
    const list = uapi.kvm_msr_list({ nmsrs: 0 })
    expect(() => sys.ioctl(fd, uapi.KVM_GET_MSR_INDEX_LIST, list)).toThrow('E2BIG')
    const all = uapi.kvm_msr_list({ nmsrs: list.nmsrs }, 4 * list.nmsrs)
    sys.ioctl(fd, uapi.KVM_GET_MSR_INDEX_LIST, all)
    expect([...all.indices]).toContain(0xd93)
    expect([...all.indices]).not.toContain(0xda0)
  })

  it('offers long mode, NX, SMEP, SMAP, PCID, ENQCMD and the direct stores', () => {
    const { sys, fd } = opened()
    const cpuid = uapi.kvm_cpuid2({ nent: 80 }, 80 * 40)
    sys.ioctl(fd, uapi.KVM_GET_SUPPORTED_CPUID, cpuid)
    const leaf = (n: number) => [...cpuid.entries].find(e => e.function === n)!
    expect(leaf(7).ecx & 0x3800_0000).toBe(0x3800_0000)
    expect(leaf(7).ebx & 0x10_0080).toBe(0x10_0080)
    expect(leaf(0x8000_0001).edx & ((1 << 29) | (1 << 20) | (1 << 11))).toBe(
      (1 << 29) | (1 << 20) | (1 << 11),
    )
    expect(leaf(1).ecx & (1 << 17)).toBe(1 << 17)
    expect(leaf(0).eax).toBe(7)
  })
})

describe('a VM', () => {
  it('lives until its last descriptor and its vCPUs are closed', () => {
    const { sys, kvm, vm } = opened()
    const fd = vm()
    const vcpu = sys.ioctl(fd, uapi.KVM_CREATE_VCPU, 0)
    sys.close(fd)
    expect(kvm.vms.size).toBe(1)
    sys.close(vcpu)
    expect(kvm.vms.size).toBe(0)
  })

  it('leaves nothing pinned or allocated behind when its process exits', () => {
    const g = new Guest({})
    g.code('f4')
    g.enter()
    g.sys.exit()
    expect([g.host.frames.used, g.host.frames.pins, g.host.kvm.vms.size]).toEqual([0, 0, 0])
  })

  it.each([
    ['a vCPU twice', (g: Guest) => g.sys.ioctl(g.vm, uapi.KVM_CREATE_VCPU, 0), 'EEXIST'],
    ['vCPU 16', (g: Guest) => g.sys.ioctl(g.vm, uapi.KVM_CREATE_VCPU, 16), 'EINVAL'],
    ['a second irqchip', (g: Guest) => g.sys.ioctl(g.vm, uapi.KVM_CREATE_IRQCHIP), 'EEXIST'],
    [
      'a TSS above 4 GiB',
      (g: Guest) => g.sys.ioctl(g.vm, uapi.KVM_SET_TSS_ADDR, 0xffff_f000),
      'EINVAL',
    ],
    [
      'an identity map after vCPUs',
      (g: Guest) => g.sys.ioctl(g.vm, uapi.KVM_SET_IDENTITY_MAP_ADDR, new Uint8Array(8)),
      'EINVAL',
    ],
    [
      'an unknown capability',
      (g: Guest) => g.sys.ioctl(g.vm, uapi.KVM_ENABLE_CAP, uapi.kvm_enable_cap({ cap: 1 })),
      'EINVAL',
    ],
    ['an unknown request', (g: Guest) => g.sys.ioctl(g.vm, uapi.KVM_RUN), 'ENOTTY'],
    [
      'a route beyond the last',
      (g: Guest) => g.sys.ioctl(g.vm, uapi.KVM_SET_GSI_ROUTING, uapi.kvm_irq_routing({ nr: 5000 })),
      'EINVAL',
    ],
  ])('refuses %s', (_, call, code) => {
    expect(() => call(new Guest())).toThrow(code)
  })

  it('an irqchip after vCPUs is EINVAL', () => {
    const g = new Guest({ irqchip: false })
    expect(() => g.sys.ioctl(g.vm, uapi.KVM_CREATE_IRQCHIP)).toThrow('EINVAL')
  })

  it('calls from another address space are EIO', () => {
    const g = new Guest()
    const child = g.sys.fork()
    expect(() => child.ioctl(g.vm, uapi.KVM_CHECK_EXTENSION, 0)).toThrow('EIO')
    expect(() => child.ioctl(g.vcpu, uapi.KVM_GET_REGS, uapi.kvm_regs())).toThrow('EIO')
  })
})

describe('a vCPU', () => {
  it('gives back the registers it was given', () => {
    const g = new Guest()
    const regs = uapi.kvm_regs()
    let n = 0x1111_1111_1111_1111n
    for (const name of Object.keys(
      uapi.kvm_regs.offsets,
    ) as (keyof typeof uapi.kvm_regs.offsets)[]) {
      regs[name] = n
      n += 0x0101_0101_0101_0101n
    }
    regs.rflags = 0x246n
    g.setRegs(
      Object.fromEntries(Object.keys(uapi.kvm_regs.offsets).map(k => [k, regs[k as 'rax']])),
    )
    expect(g.regs().bytes).toEqual(regs.bytes)
  })

  it('gives back the system registers it was given', () => {
    const g = new Guest()
    const before = g.sregs()
    g.setSregs(s => Object.assign(s, { cr2: 0x1234_5678_9abcn, cr8: 3n }))
    expect(g.sregs()).toMatchObject({
      cr2: 0x1234_5678_9abcn,
      cr8: 3n,
      efer: 0xd01n,
      apic_base: before.apic_base,
    })
    expect(g.sregs().fs.bytes).toEqual(before.fs.bytes)
  })

  it.each([
    ['PG without PE', { cr0: 0x8000_0000n }],
    ['NW without CD', { cr0: 0xa001_0033n }],
    ['CR0 bits above 31', { cr0: 0x1_8001_0033n }],
    ['reserved CR4 bits', { cr4: 0x8000_0020n }],
    ['long mode without PAE', { cr4: 0n }],
    ['LME and PG without LMA', { efer: 0x100n }],
    ['LMA without paging', { cr0: 0x11n, efer: 0x500n }],
    ['an APIC base with reserved bits', { apic_base: 0xfee0_0801n }],
  ])('SET_SREGS refuses %s and changes nothing', (_, change) => {
    const g = new Guest()
    const before = g.sregs().bytes.slice()
    expect(() => g.setSregs(s => Object.assign(s, change))).toThrow('EINVAL')
    expect(g.sregs().bytes).toEqual(before)
  })

  it('MSRs stop at the first that does not exist, and tell how many were done', () => {
    const g = new Guest()
    const entry = (index: number, data = 0n) => uapi.kvm_msr_entry({ index, data })
    const set = uapi.kvm_msrs({
      nmsrs: 3,
      entries: [entry(0xc0000102, 5n), entry(0xda0, 1n), entry(0xd93, 1n)],
    })
    expect(g.sys.ioctl(g.vcpu, uapi.KVM_SET_MSRS, set)).toBe(1)
    const get = uapi.kvm_msrs({ nmsrs: 2, entries: [entry(0xc0000102), entry(0xd93)] })
    expect(g.sys.ioctl(g.vcpu, uapi.KVM_GET_MSRS, get)).toBe(2)
    expect([...get.entries].map(e => e.data)).toEqual([5n, 0n])
  })

  it('TRANSLATE follows the tables without marking them', () => {
    const g = new Guest()
    g.map(0x3_0000, 0x5_0000n | 7n)
    const t = uapi.kvm_translation({ linear_address: 0x3_0123n })
    g.sys.ioctl(g.vcpu, uapi.KVM_TRANSLATE, t)
    expect([t.physical_address, t.valid]).toEqual([0x5_0123n, 1])
    expect(g.view.getBigUint64(g.entry(0x3_0000), true)).toBe(0x5_0007n)
    t.linear_address = 1n << 60n
    g.sys.ioctl(g.vcpu, uapi.KVM_TRANSLATE, t)
    expect(t.valid).toBe(0)
  })

  it('CPUID comes back as set, and is fixed once the vCPU has run', () => {
    const g = new Guest()
    const cpuid = uapi.kvm_cpuid2({ nent: 100 }, 100 * 40)
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_CPUID2, cpuid)
    g.code('f4')
    g.enter()
    g.sys.ioctl(g.vcpu, uapi.KVM_SET_CPUID2, cpuid)
    cpuid.entries.get(0).eax = 1
    expect(() => g.sys.ioctl(g.vcpu, uapi.KVM_SET_CPUID2, cpuid)).toThrow('EINVAL')
  })

  it('events come back as set, and an injected exception is delivered', () => {
    const g = new Guest()
    g.code('90')
    const events = uapi.kvm_vcpu_events({
      exception: { injected: 1, nr: 13, has_error_code: 1, error_code: 0x18 },
    })
    g.sys.ioctl(g.vcpu, uapi.KVM_SET_VCPU_EVENTS, events)
    const back = uapi.kvm_vcpu_events()
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_VCPU_EVENTS, back)
    expect(back.exception).toMatchObject({ injected: 1, nr: 13, error_code: 0x18 })
    expect(g.trap()).toMatchObject({ vector: 13, error: 0x18 })
  })

  it('FPU state, debug registers and the APIC page come back as set', () => {
    const g = new Guest()
    const fpu = uapi.kvm_fpu({ fcw: 0x27f, xmm: new Uint8Array(256).fill(7) })
    g.sys.ioctl(g.vcpu, uapi.KVM_SET_FPU, fpu)
    const fpuBack = uapi.kvm_fpu()
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_FPU, fpuBack)
    expect(fpuBack.bytes).toEqual(fpu.bytes)

    const debug = uapi.kvm_debugregs({ db: [1n, 2n, 3n, 4n], dr6: 0xffff_0ff1n, dr7: 0x400n })
    g.sys.ioctl(g.vcpu, uapi.KVM_SET_DEBUGREGS, debug)
    const debugBack = uapi.kvm_debugregs()
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_DEBUGREGS, debugBack)
    expect(debugBack.bytes).toEqual(debug.bytes)

    const lapic = uapi.kvm_lapic_state()
    g.sys.ioctl(g.vcpu, uapi.KVM_GET_LAPIC, lapic)
    new DataView(lapic.bytes.buffer).setUint32(0xf0, 0x1ff, true)
    new DataView(lapic.bytes.buffer).setUint32(0x80, 0x35, true)
    g.sys.ioctl(g.vcpu, uapi.KVM_SET_LAPIC, lapic)
    expect(g.sregs().cr8).toBe(3n)
    expect(g.signalMsi(0x41)).toBe(1)
  })

  it.each([
    ['KVM_RUN with an argument', uapi.KVM_RUN, 1, 'EINVAL'],
    ['256 MSRs at once', uapi.KVM_GET_MSRS, uapi.kvm_msrs({ nmsrs: 256 }), 'E2BIG'],
    ['257 CPUID leaves', uapi.KVM_SET_CPUID2, uapi.kvm_cpuid2({ nent: 257 }), 'E2BIG'],
    [
      'a CPUID buffer that is too small',
      uapi.KVM_GET_CPUID2,
      uapi.kvm_cpuid2({ nent: 1 }),
      'E2BIG',
    ],
    [
      'an mp_state that is not there',
      uapi.KVM_SET_MP_STATE,
      uapi.kvm_mp_state({ mp_state: 9 }),
      'EINVAL',
    ],
    [
      'events with unknown flags',
      uapi.KVM_SET_VCPU_EVENTS,
      uapi.kvm_vcpu_events({ flags: 64 }),
      'EINVAL',
    ],
    [
      'exception 2',
      uapi.KVM_SET_VCPU_EVENTS,
      uapi.kvm_vcpu_events({ exception: { injected: 1, nr: 2 } }),
      'EINVAL',
    ],
    ['debug register flags', uapi.KVM_SET_DEBUGREGS, uapi.kvm_debugregs({ flags: 1n }), 'EINVAL'],
    ['a 33-bit DR7', uapi.KVM_SET_DEBUGREGS, uapi.kvm_debugregs({ dr7: 1n << 32n }), 'EINVAL'],
    [
      'guest debug controls that are not there',
      uapi.KVM_SET_GUEST_DEBUG,
      uapi.kvm_guest_debug({ control: 0x20_0001 }),
      'EINVAL',
    ],
    ['an unknown request', uapi.KVM_CREATE_VCPU, 1, 'EINVAL'],
    ['a bad address', uapi.KVM_SET_REGS, 0x1000, 'EFAULT'],
  ])('refuses %s', (_, cmd, arg, code) => {
    const g = new Guest()
    expect(() => g.sys.ioctl(g.vcpu, cmd, arg as IoctlArgument)).toThrow(code)
  })

  it('without an in-kernel APIC has no LAPIC calls and no halted state', () => {
    const g = new Guest({ irqchip: false })
    expect(() => g.sys.ioctl(g.vcpu, uapi.KVM_GET_LAPIC, uapi.kvm_lapic_state())).toThrow('EINVAL')
    const halted = uapi.kvm_mp_state({ mp_state: uapi.KVM_MP_STATE_HALTED })
    expect(() => g.sys.ioctl(g.vcpu, uapi.KVM_SET_MP_STATE, halted)).toThrow('EINVAL')
  })

  it('a second one waits to be started, and gets interrupts by its id', () => {
    const g = new Guest()
    const second = g.sys.ioctl(g.vm, uapi.KVM_CREATE_VCPU, 1)
    const state = uapi.kvm_mp_state()
    g.sys.ioctl(second, uapi.KVM_GET_MP_STATE, state)
    expect(state.mp_state).toBe(uapi.KVM_MP_STATE_UNINITIALIZED)
    expect(() => g.sys.ioctl(second, uapi.KVM_RUN)).toThrow('EINTR')
    const lapic = uapi.kvm_lapic_state()
    g.sys.ioctl(second, uapi.KVM_GET_LAPIC, lapic)
    new DataView(lapic.bytes.buffer).setUint32(0xf0, 0x1ff, true)
    g.sys.ioctl(second, uapi.KVM_SET_LAPIC, lapic)
    expect([g.signalMsi(0x41, 0xfee0_1000), g.signalMsi(0x41, 0xfee0_0000)]).toEqual([1, 0])
  })

  it('maps its run page once however often, and no more than that', () => {
    const g = new Guest()
    const other = g.sys.mmap({ fd: g.vcpu, offset: 0, length: 4096 }).bytes
    other[1] = 1
    expect(g.run.immediate_exit).toBe(1)
    expect(() => g.sys.mmap({ fd: g.vcpu, offset: 8192, length: 8192 })).toThrow('EINVAL')
  })
})
