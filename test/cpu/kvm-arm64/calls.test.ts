// Calls of arm64 KVM: VM types, initialisation, registers one by one and in a list, states and events; errno by errno.
import { describe, expect, it } from 'vitest'
import { systemKey } from '../../../src/cpu/a64/ports.js'
import * as uapi from '../../../src/cpu/kvm/uapi/arm64.js'
import { AT, Guest, GuestCpu, host, I, outcome, REG, sysreg } from './guest.js'

const PSCI = 1 << uapi.KVM_ARM_VCPU_PSCI_0_2

describe('VMs', () => {
  it.each([
    [0, 40],
    [32, 32],
    [40, 40],
    [44, 44],
  ])('type %i has %i address bits', (type, bits) => {
    const { sys } = host()
    const vm = sys.ioctl(sys.open('/dev/kvm'), uapi.KVM_CREATE_VM, type)
    const ram = sys.mmap(8192)
    const put = (base: bigint) =>
      outcome(() => {
        const region = { guest_phys_addr: base, memory_size: 8192n, userspace_addr: ram.vaddr }
        const arg = uapi.kvm_userspace_memory_region(region)
        return sys.ioctl(vm, uapi.KVM_SET_USER_MEMORY_REGION, arg)
      })
    expect(put((1n << BigInt(bits)) - 4096n)).toBe('EINVAL')
    expect(put((1n << BigInt(bits)) - 8192n)).toBe(0)
  })

  it.each([1, 31, 45, 48, 256, 0x8000_0000])('type %i is EINVAL', type => {
    const { sys } = host()
    expect(outcome(() => sys.ioctl(sys.open('/dev/kvm'), uapi.KVM_CREATE_VM, type))).toBe('EINVAL')
  })

  it('an x86 program finds nothing: its calls are not those of this KVM', () => {
    const { sys } = host()
    const kvm = sys.open('/dev/kvm')
    expect(outcome(() => sys.ioctl(kvm, 0xc008_ae05, 0x1000))).toBe('EINVAL') // GET_SUPPORTED_CPUID
    const vm = sys.ioctl(kvm, uapi.KVM_CREATE_VM, 0)
    expect(outcome(() => sys.ioctl(vm, 0xae47, 0))).toBe('EINVAL') // SET_TSS_ADDR
    expect(outcome(() => sys.ioctl(vm, uapi.KVM_CREATE_IRQCHIP))).toBe('ENODEV')
    const address = uapi.kvm_arm_device_addr()
    expect(outcome(() => sys.ioctl(vm, uapi.KVM_ARM_SET_DEVICE_ADDR, address))).toBe('ENODEV')
  })

  it.each([
    ['KVM_CAP_ONE_REG', uapi.KVM_CAP_ONE_REG, 1],
    ['KVM_CAP_ARM_PSCI_0_2', uapi.KVM_CAP_ARM_PSCI_0_2, 1],
    ['KVM_CAP_ARM_VM_IPA_SIZE', uapi.KVM_CAP_ARM_VM_IPA_SIZE, 44],
    ['KVM_CAP_GUEST_DEBUG_HW_BPS', uapi.KVM_CAP_GUEST_DEBUG_HW_BPS, 6],
    ['KVM_CAP_GUEST_DEBUG_HW_WPS', uapi.KVM_CAP_GUEST_DEBUG_HW_WPS, 4],
    ['KVM_CAP_SET_GUEST_DEBUG', uapi.KVM_CAP_SET_GUEST_DEBUG, 1],
    ['KVM_CAP_SET_GUEST_DEBUG2', uapi.KVM_CAP_SET_GUEST_DEBUG2, 0x3_0003],
    ['KVM_CAP_ARM_USER_IRQ', uapi.KVM_CAP_ARM_USER_IRQ, 1],
    ['KVM_CAP_ARM_INJECT_SERROR_ESR', uapi.KVM_CAP_ARM_INJECT_SERROR_ESR, 0],
    ['KVM_CAP_ARM_EL1_32BIT', uapi.KVM_CAP_ARM_EL1_32BIT, 0],
    ['KVM_CAP_HLT', uapi.KVM_CAP_HLT, 0],
  ])('CHECK_EXTENSION: %s is %i', (_, cap, value) => {
    const { sys } = host()
    expect(sys.ioctl(sys.open('/dev/kvm'), uapi.KVM_CHECK_EXTENSION, cap)).toBe(value)
  })

  it('memory regions come in both forms; there is no private memory', () => {
    const { sys } = host()
    const vm = sys.ioctl(sys.open('/dev/kvm'), uapi.KVM_CREATE_VM, 0)
    const ram = sys.mmap(4096)
    const set = (flags: number) =>
      outcome(() => {
        const region = { flags, memory_size: 4096n, userspace_addr: ram.vaddr }
        const arg = uapi.kvm_userspace_memory_region2(region)
        return sys.ioctl(vm, uapi.KVM_SET_USER_MEMORY_REGION2, arg)
      })
    expect(set(uapi.KVM_MEM_GUEST_MEMFD)).toBe('EINVAL')
    expect(set(0)).toBe(0)
    const attributes = uapi.kvm_memory_attributes({ size: 4096n })
    expect(outcome(() => sys.ioctl(vm, uapi.KVM_SET_MEMORY_ATTRIBUTES, attributes))).toBe('EINVAL')
  })

  it('PREFERRED_TARGET is the generic one without features', () => {
    const g = new Guest()
    const init = uapi.kvm_vcpu_init({ features: [7, 7] })
    g.sys.ioctl(g.vm, uapi.KVM_ARM_PREFERRED_TARGET, init)
    expect([init.target, ...init.features]).toEqual([5, 0, 0, 0, 0, 0, 0, 0])
  })
})

describe('KVM_ARM_VCPU_INIT', () => {
  const fresh = () => {
    const { sys } = host()
    const vm = sys.ioctl(sys.open('/dev/kvm'), uapi.KVM_CREATE_VM, 0)
    const fd = sys.ioctl(vm, uapi.KVM_CREATE_VCPU, 0)
    const init = (target: number, ...features: number[]) =>
      outcome(() => {
        const arg = uapi.kvm_vcpu_init({ target, features })
        return sys.ioctl(fd, uapi.KVM_ARM_VCPU_INIT, arg)
      })
    return { sys, vm, fd, init }
  }

  it.each([
    ['another target', 2, [0], 'EINVAL'],
    ['a feature that nobody knows', 5, [1 << 9], 'ENOENT'],
    ['a feature in another word', 5, [0, 1], 'ENOENT'],
    ['AArch32', 5, [1 << uapi.KVM_ARM_VCPU_EL1_32BIT], 'EINVAL'],
    ['a PMU', 5, [1 << uapi.KVM_ARM_VCPU_PMU_V3], 'EINVAL'],
    ['SVE', 5, [1 << uapi.KVM_ARM_VCPU_SVE], 'EINVAL'],
    ['PSCI 0.2', 5, [PSCI], 0],
    ['nothing', 5, [0], 0],
    ['off', 5, [1 << uapi.KVM_ARM_VCPU_POWER_OFF], 0],
  ])('%s', (_, target, features, result) => {
    expect(fresh().init(target, ...features)).toBe(result)
  })

  it('features stay as they were first, but for POWER_OFF', () => {
    const { init } = fresh()
    expect(init(5, PSCI)).toBe(0)
    expect(init(5, 0)).toBe('EINVAL')
    expect(init(5, PSCI | 1)).toBe(0)
  })

  it('before it, everything else of the vCPU is ENOEXEC', () => {
    const { sys, fd } = fresh()
    const one = uapi.kvm_one_reg({ id: REG.pc, addr: 0x1000n })
    for (const [cmd, arg] of [
      [uapi.KVM_RUN, 0],
      [uapi.KVM_GET_ONE_REG, one],
      [uapi.KVM_SET_ONE_REG, one],
      [uapi.KVM_GET_REG_LIST, uapi.kvm_reg_list()],
      [uapi.KVM_GET_VCPU_EVENTS, uapi.kvm_vcpu_events()],
      [uapi.KVM_SET_VCPU_EVENTS, uapi.kvm_vcpu_events()],
      [uapi.KVM_ARM_VCPU_FINALIZE, 0],
    ] as const)
      expect(
        outcome(() => sys.ioctl(fd, cmd, arg)),
        `0x${cmd.toString(16)}`,
      ).toBe('ENOEXEC')
  })

  it('a second one resets: registers, PSTATE, MP state', () => {
    const { cpu } = new Guest()
    cpu.set(REG.x(5), 7n)
    cpu.set(REG.sctlr, 0x30d0_0981n)
    cpu.set(REG.pstate, 4n)
    cpu.init(PSCI | 1)
    expect([REG.x(5), REG.pc, REG.pstate].map(id => cpu.get(id))).toEqual([0n, 0n, 0x3c5n])
    expect(cpu.get(REG.sctlr) & 1n).toBe(0n)
    expect(cpu.enter()).toBe('EINTR')
  })

  it.each([
    [0, 0x8000_0000n],
    [15, 0x8000_000fn],
  ])('MPIDR of vCPU %i says its number', (id, mpidr) => {
    const g = new Guest()
    const cpu = id === 0 ? g.cpu : new GuestCpu(g.sys, g.vm, id)
    expect(cpu.get(REG.mpidr)).toBe(mpidr)
  })
})

describe('one register', () => {
  it.each([
    ['X0', REG.x(0), 0x0123_4567_89ab_cdefn],
    ['X30', REG.x(30), 0xffff_ffff_ffff_ffffn],
    ['SP_EL0', REG.sp, 0x8000n],
    ['PC', REG.pc, 0xffff_0000_0000_1000n],
    ['PSTATE', REG.pstate, 0x8000_03c4n],
    ['SP_EL1', REG.spEl1, 0x9000n],
    ['ELR_EL1', REG.elr, 0x1234n],
    ['SPSR_EL1', REG.spsr, 0x6000_0005n],
    ['SPSR_abt', REG.spsr + 2n, 0x77n],
    ['V31', REG.v(31), (0x1122_3344n << 96n) | 0x55n],
    ['FPSR', REG.fpsr, 0x0800_001fn],
    ['FPCR', REG.fpcr, 0x0300_0000n],
    ['TTBR0_EL1', sysreg(3, 0, 2, 0, 0), 0x4000_1000n],
    ['DBGBVR3_EL1', REG.bvr(3), 0x4000_0000n],
    ['DBGBVR15_EL1, which no processor here has', REG.bvr(15), 0x5678n],
    ['FPEXC32_EL2', sysreg(3, 4, 5, 3, 0), 0x700n],
    ['MPIDR_EL1', REG.mpidr, 0x8000_0203n],
    ['CNTV_CVAL_EL0, by the id it got', uapi.KVM_REG_ARM_TIMER_CVAL, 0x1234_5678n],
    ['CNTV_CTL_EL0', uapi.KVM_REG_ARM_TIMER_CTL, 2n],
  ])('%s comes back as set', (_, id, value) => {
    const { cpu } = new Guest()
    cpu.set(id, value)
    expect(cpu.get(id)).toBe(value)
  })

  it('the counter goes on from what it is set to', () => {
    const { cpu } = new Guest()
    cpu.set(uapi.KVM_REG_ARM_TIMER_CNT, 1n << 40n)
    expect(cpu.get(uapi.KVM_REG_ARM_TIMER_CNT)).toBe(1n << 40n)
  })

  const one = (g: Guest, cmd: number, id: bigint, addr: bigint) =>
    outcome(() => g.sys.ioctl(g.cpu.fd, cmd, uapi.kvm_one_reg({ id, addr })))
  const S64 = uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64
  it.each([
    ['an id of x86', 0x2030_0000_0010_0000n, 'EINVAL', 'EINVAL'],
    ['a bit above the kind', REG.pc | (1n << 40n), 'EINVAL', 'EINVAL'],
    ['a core register beyond all', S64 | uapi.KVM_REG_ARM_CORE | 216n, 'ENOENT', 'ENOENT'],
    ['one that would end beyond all', REG.v(0) + 130n, 'ENOENT', 'ENOENT'],
    ['half a core register', REG.x(0) + 1n, 'EINVAL', 'EINVAL'],
    [
      'a core register of 32 bits',
      (REG.x(0) & ~uapi.KVM_REG_SIZE_MASK) | uapi.KVM_REG_SIZE_U32,
      'EINVAL',
      'EINVAL',
    ],
    ['OSLAR_EL1 (B-3)', REG.oslar, 'ENOENT', 'ENOENT'],
    [
      'a system register of 32 bits',
      (REG.sctlr & ~uapi.KVM_REG_SIZE_MASK) | uapi.KVM_REG_SIZE_U32,
      'ENOENT',
      'ENOENT',
    ],
    ['a system register that is none', sysreg(3, 7, 15, 15, 7), 'ENOENT', 'ENOENT'],
    ['the timer value, which is not kept', sysreg(3, 3, 14, 3, 0), 'ENOENT', 'ENOENT'],
    ['a firmware register beyond all', S64 | uapi.KVM_REG_ARM_FW | 9n, 'ENOENT', 'ENOENT'],
    [
      'a cache beyond all',
      uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX | 14n,
      'ENOENT',
      'ENOENT',
    ],
    ['an SVE register', S64 | uapi.KVM_REG_ARM64_SVE, 'ENOENT', 'ENOENT'],
    ['a kind that is none', S64 | 0x00ff_0000n, 'ENOENT', 'ENOENT'],
  ])('%s', (_, id, get, set) => {
    const g = new Guest()
    const { vaddr } = g.sys.mmap(4096)
    expect([
      one(g, uapi.KVM_GET_ONE_REG, id, vaddr),
      one(g, uapi.KVM_SET_ONE_REG, id, vaddr),
    ]).toEqual([get, set])
  })

  it('a bad address is EFAULT, and comes before an unknown system register when setting', () => {
    const g = new Guest()
    expect(one(g, uapi.KVM_GET_ONE_REG, REG.pc, 0x1000n)).toBe('EFAULT')
    expect(one(g, uapi.KVM_SET_ONE_REG, REG.oslar, 0x1000n)).toBe('EFAULT')
    expect(one(g, uapi.KVM_GET_ONE_REG, REG.oslar, 0x1000n)).toBe('ENOENT')
  })

  it.each([0x10n, 0x13n, 8n, 9n, 1n, 12n])(
    'PSTATE with mode %i is EINVAL, and nothing changed',
    mode => {
      const { cpu } = new Guest()
      expect(cpu.trySet(REG.pstate, mode)).toBe('EINVAL')
      expect(cpu.get(REG.pstate)).toBe(0x3c5n)
    },
  )

  it('B-1, B-3: OSLSR is 8; the host may set and clear OSLK, and nothing else', () => {
    const { cpu } = new Guest()
    expect(REG.oslsr).toBe(0x6030_0000_0013_808cn)
    expect(cpu.get(REG.oslsr)).toBe(8n)
    cpu.set(REG.oslsr, 10n)
    expect(cpu.get(REG.oslsr)).toBe(10n)
    for (const value of [0n, 2n, 9n, 12n, 1n << 40n])
      expect(cpu.trySet(REG.oslsr, value), `${value}`).toBe('EINVAL')
    cpu.set(REG.oslsr, 8n)
    expect(cpu.get(REG.oslsr)).toBe(8n)
  })
})

describe('identification', () => {
  it.each([
    ['MIDR_EL1', REG.midr],
    ['CTR_EL0', sysreg(3, 3, 0, 0, 1)],
    ['CLIDR_EL1', sysreg(3, 1, 0, 0, 1)],
    ['an unallocated one', sysreg(3, 0, 0, 7, 7)],
    ['the caches', uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U32 | uapi.KVM_REG_ARM_DEMUX],
  ])('%s takes the value it has and no other', (_, id) => {
    const { cpu } = new Guest()
    const now = cpu.get(id)
    cpu.set(id, now)
    expect(cpu.trySet(id, now ^ 1n)).toBe('EINVAL')
    expect(cpu.get(id)).toBe(now)
  })

  it('features can be taken away, not added, and the guest sees what is left', () => {
    const g = new Guest()
    const most = g.cpu.get(REG.isar0)
    const less = most & ~(0xfn << 20n)
    expect(g.cpu.trySet(REG.isar0, most + (1n << 20n))).toBe('EINVAL')
    expect(g.cpu.trySet(REG.isar0, most | (1n << 4n))).toBe('EINVAL')
    g.cpu.set(REG.isar0, less)
    g.code([0xd538_0600, I.answer]) // mrs x0, id_aa64isar0_el1
    expect(g.cpu.answer()).toBe(less)
    // It is the VM's: a vCPU made later has it too, and after the first run nobody changes it.
    const second = new GuestCpu(g.sys, g.vm, 1)
    expect(second.get(REG.isar0)).toBe(less)
    second.set(REG.isar0, less)
    expect(second.trySet(REG.isar0, most)).toBe('EBUSY')
  })

  it('AArch32 registers take anything and keep nothing: there is no AArch32', () => {
    const { cpu } = new Guest()
    const pfr0 = sysreg(3, 0, 0, 1, 0)
    cpu.set(pfr0, 0x131n)
    expect(cpu.get(pfr0)).toBe(0n)
  })
})

describe('firmware registers', () => {
  it.each([
    ['PSCI 1.0', PSCI, 0x1_0000n, 0],
    ['PSCI 0.2', PSCI, 2n, 0],
    ['PSCI 0.1 with the feature', PSCI, 1n, 'EINVAL'],
    ['PSCI 0.1 without it', 0, 1n, 0],
    ['PSCI 1.0 without it', 0, 0x1_0000n, 'EINVAL'],
    ['a PSCI to come', PSCI, 0x1_0009n, 'EINVAL'],
  ])('%s', (_, features, value, result) => {
    const { sys } = host()
    const vm = sys.ioctl(sys.open('/dev/kvm'), uapi.KVM_CREATE_VM, 0)
    const cpu = new GuestCpu(sys, vm, 0, features)
    expect(cpu.trySet(uapi.KVM_REG_ARM_PSCI_VERSION, value)).toBe(result)
  })

  it.each([
    ['WORKAROUND_1 at more than there is', uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_1, 1n, 'EINVAL'],
    ['WORKAROUND_2 unknown', uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2, 1n, 0],
    ['WORKAROUND_2 enabled', uapi.KVM_REG_ARM_SMCCC_ARCH_WORKAROUND_2, 0x10n, 'EINVAL'],
    ['services that are not there', uapi.KVM_REG_ARM_STD_BMAP, 1n, 'EINVAL'],
    ['none', uapi.KVM_REG_ARM_VENDOR_HYP_BMAP, 0n, 0],
  ])('%s', (_, id, value, result) => {
    const { cpu } = new Guest()
    expect(cpu.trySet(id, value)).toBe(result)
  })
})

describe('KVM_GET_REG_LIST', () => {
  it('is E2BIG with the number written when there is no room', () => {
    const { cpu, sys } = new Guest()
    const list = uapi.kvm_reg_list({ n: 3n }, 24)
    expect(outcome(() => sys.ioctl(cpu.fd, uapi.KVM_GET_REG_LIST, list))).toBe('E2BIG')
    expect(Number(list.n)).toBe(cpu.list().length)
  })

  it('B-3: has OSLSR, has no OSLAR, names nothing twice', () => {
    const list = new Guest().cpu.list()
    expect(list).toContain(REG.oslsr)
    expect(list).not.toContain(REG.oslar)
    expect(new Set(list).size).toBe(list.length)
  })

  it('every register of it can be read, and set to what it reads', () => {
    const { cpu } = new Guest()
    for (const id of cpu.list()) cpu.setBytes(id, cpu.bytes(id))
  })

  it('has what a plain vCPU of Armv8.0 has: core 40 + 32 vectors + 2, firmware 8, caches 14, the rest system registers', () => {
    const list = new Guest().cpu.list()
    const kinds = new Map<bigint, number>()
    for (const id of list) {
      const kind = id & uapi.KVM_REG_ARM_COPROC_MASK
      kinds.set(kind, (kinds.get(kind) ?? 0) + 1)
    }
    expect(kinds.get(uapi.KVM_REG_ARM_CORE)).toBe(31 + 3 + 2 + 5 + 32 + 2)
    expect(kinds.get(uapi.KVM_REG_ARM_FW)).toBe(4)
    expect(kinds.get(uapi.KVM_REG_ARM_FW_FEAT_BMAP)).toBe(4)
    expect(kinds.get(uapi.KVM_REG_ARM_DEMUX)).toBe(14)
    // 64 of debug, 56 of identification, 40 by name.
    expect(kinds.get(uapi.KVM_REG_ARM64_SYSREG)).toBe(160)
    for (const key of [
      systemKey(2, 0, 0, 15, 7),
      systemKey(3, 0, 12, 1, 1),
      systemKey(3, 4, 5, 3, 0),
    ])
      expect(list).toContain(
        uapi.KVM_REG_ARM64 | uapi.KVM_REG_SIZE_U64 | uapi.KVM_REG_ARM64_SYSREG | BigInt(key),
      )
  })

  it('A-34, B-4: a vCPU restored from it goes on as the saved one would, and without OSLSR it is unlocked', () => {
    const from = new Guest()
    from.cpu.set(REG.x(7), 0x77n)
    from.cpu.set(REG.oslsr, 10n)
    from.cpu.set(REG.v(3), 99n)
    const saved = from.cpu.list().map(id => [id, from.cpu.bytes(id)] as const)
    const all = new Guest()
    for (const [id, bytes] of saved) all.cpu.setBytes(id, bytes)
    for (const id of [REG.x(7), REG.oslsr, REG.v(3)]) expect(all.cpu.get(id)).toBe(from.cpu.get(id))
    const older = new Guest()
    for (const [id, bytes] of saved) if (id !== REG.oslsr) older.cpu.setBytes(id, bytes)
    expect(older.cpu.get(REG.oslsr)).toBe(8n)
  })
})

describe('states and events', () => {
  it('MP states that there are come back, the others are EINVAL', () => {
    const { cpu, sys } = new Guest()
    const { KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_STOPPED, KVM_MP_STATE_SUSPENDED } = uapi
    for (const state of [KVM_MP_STATE_STOPPED, KVM_MP_STATE_SUSPENDED, KVM_MP_STATE_RUNNABLE]) {
      sys.ioctl(cpu.fd, uapi.KVM_SET_MP_STATE, uapi.kvm_mp_state({ mp_state: state }))
      const now = uapi.kvm_mp_state()
      sys.ioctl(cpu.fd, uapi.KVM_GET_MP_STATE, now)
      expect(now.mp_state).toBe(state)
    }
    const halted = uapi.kvm_mp_state({ mp_state: uapi.KVM_MP_STATE_HALTED })
    expect(outcome(() => sys.ioctl(cpu.fd, uapi.KVM_SET_MP_STATE, halted))).toBe('EINVAL')
  })

  it('an SError with a syndrome is EINVAL without RAS', () => {
    const { cpu, sys } = new Guest()
    const events = uapi.kvm_vcpu_events({ exception: { serror_pending: 1, serror_has_esr: 1 } })
    expect(outcome(() => sys.ioctl(cpu.fd, uapi.KVM_SET_VCPU_EVENTS, events))).toBe('EINVAL')
  })

  it('guest debug controls that are not there are EINVAL', () => {
    expect(new Guest().cpu.debug(1 << 18)).toBe('EINVAL')
  })

  it('an unknown request is EINVAL, and KVM_GET_REGS is one', () => {
    const { cpu, sys } = new Guest()
    expect(outcome(() => sys.ioctl(cpu.fd, 0x8360_ae81, 0x1000))).toBe('EINVAL')
  })

  it('a PC inside the guest is where KVM_RUN begins', () => {
    const g = new Guest()
    g.code([I.brk, I.one0, I.answer])
    g.cpu.set(REG.pc, BigInt(AT.CODE + 4))
    expect(g.cpu.answer()).toBe(1n)
  })
})
