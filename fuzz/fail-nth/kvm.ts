// The calls of /dev/kvm, of VMs and of vCPUs, for cases.ts.

import * as arm64 from '../../src/cpu/kvm/uapi/arm64.js'
import * as kvm from '../../src/cpu/kvm/uapi.js'
import type { FailCase } from './cases.js'
import { outcome, type World } from './world.js'

function vm(w: World) {
  const fd = w.sys.open('/dev/kvm')
  return { kvm: fd, vm: w.ioctl(fd, kvm.KVM_CREATE_VM, 0) }
}

function slot(w: World, fd: number, change: Parameters<typeof kvm.kvm_userspace_memory_region>[0]) {
  const region = kvm.kvm_userspace_memory_region({ slot: 0, memory_size: 0x4000n, ...change })
  return w.ioctl(fd, kvm.KVM_SET_USER_MEMORY_REGION, region)
}

/** Cases of KVM. */
export const KVM: readonly FailCase[] = [
  {
    call: 'kvm CREATE_VM',
    in(w) {
      const fd = w.sys.open('/dev/kvm')
      return { run: () => w.ioctl(fd, kvm.KVM_CREATE_VM, 0) }
    },
  },
  {
    call: 'kvm GET_SUPPORTED_CPUID',
    in(w) {
      const fd = w.sys.open('/dev/kvm')
      const arg = kvm.kvm_cpuid2({ nent: 80 }, 3200)
      return { run: () => w.ioctl(fd, kvm.KVM_GET_SUPPORTED_CPUID, arg) }
    },
  },
  { call: 'vm CREATE_IRQCHIP', in: w => runOn(w, fd => w.ioctl(fd, kvm.KVM_CREATE_IRQCHIP)) },
  { call: 'vm CREATE_VCPU', in: w => runOn(w, fd => w.ioctl(fd, kvm.KVM_CREATE_VCPU, 0)) },
  {
    call: 'vm SET_USER_MEMORY_REGION, new',
    in(w) {
      const { vaddr } = w.sys.mmap(0x4000)
      return runOn(w, fd => slot(w, fd, { flags: 1, userspace_addr: vaddr }))
    },
  },
  {
    call: 'vm SET_USER_MEMORY_REGION, moved and logged',
    in(w) {
      const { vaddr } = w.sys.mmap(0x4000)
      const made = runOn(w, fd =>
        slot(w, fd, { flags: 1, guest_phys_addr: 0x10_0000n, userspace_addr: vaddr }),
      )
      slot(w, made.fd, { userspace_addr: vaddr })
      return { ...made, probe: () => slotProbe(w, made.fd, vaddr) }
    },
  },
  {
    call: 'vm CREATE_GUEST_MEMFD',
    in(w) {
      const fd = protectedVm(w)
      return { run: () => createMemfd(w, fd) }
    },
  },
  {
    call: 'vm CREATE_GUEST_MEMFD, to be mapped',
    machine: { guestMemfd: { edition: 'mmap' } },
    in(w) {
      const flags = BigInt(kvm.GUEST_MEMFD_FLAG_MMAP | kvm.GUEST_MEMFD_FLAG_INIT_SHARED)
      return runOn(w, fd => createMemfd(w, fd, flags))
    },
  },
  {
    call: 'vm SET_USER_MEMORY_REGION2, with a file',
    in(w) {
      const { vaddr } = w.sys.mmap(0x4000)
      const fd = protectedVm(w)
      const memfd = createMemfd(w, fd)
      return { run: () => slot2(w, fd, memfd, vaddr) }
    },
  },
  {
    call: 'vm SET_MEMORY_ATTRIBUTES',
    in(w) {
      const { vaddr } = w.sys.mmap(0x4000)
      const fd = protectedVm(w)
      slot2(w, fd, createMemfd(w, fd), vaddr)
      const attributes = BigInt(kvm.KVM_MEMORY_ATTRIBUTE_PRIVATE)
      const arg = kvm.kvm_memory_attributes({ size: 0x2000n, attributes })
      return { run: () => w.ioctl(fd, kvm.KVM_SET_MEMORY_ATTRIBUTES, arg) }
    },
  },
  {
    call: 'vm SET_GSI_ROUTING',
    in(w) {
      const arg = kvm.kvm_irq_routing({ nr: 0 })
      const made = runOn(w, fd => w.ioctl(fd, kvm.KVM_SET_GSI_ROUTING, arg))
      w.ioctl(made.fd, kvm.KVM_CREATE_IRQCHIP)
      return made
    },
  },
  {
    call: 'vm IRQFD',
    in(w) {
      const arg = kvm.kvm_irqfd({ fd: w.sys.eventfd(), gsi: 1 })
      const made = runOn(w, fd => w.ioctl(fd, kvm.KVM_IRQFD, arg))
      w.ioctl(made.fd, kvm.KVM_CREATE_IRQCHIP)
      return made
    },
  },
  {
    call: 'vcpu SET_CPUID2',
    in(w) {
      const vcpu = w.ioctl(vm(w).vm, kvm.KVM_CREATE_VCPU, 0)
      return { run: () => w.ioctl(vcpu, kvm.KVM_SET_CPUID2, kvm.kvm_cpuid2({ nent: 1 }, 40)) }
    },
  },
  {
    call: 'vcpu GET_MSRS',
    in(w) {
      const vcpu = w.ioctl(vm(w).vm, kvm.KVM_CREATE_VCPU, 0)
      return { run: () => w.ioctl(vcpu, kvm.KVM_GET_MSRS, kvm.kvm_msrs({ nmsrs: 1 }, 16)) }
    },
  },
]

function protectedVm(w: World): number {
  const fd = w.sys.open('/dev/kvm')
  return w.ioctl(fd, kvm.KVM_CREATE_VM, kvm.KVM_X86_SW_PROTECTED_VM)
}

function createMemfd(w: World, vm: number, flags = 0n): number {
  const create = kvm.kvm_create_guest_memfd({ size: 0x4000n, flags })
  return w.ioctl(vm, kvm.KVM_CREATE_GUEST_MEMFD, create)
}

function slot2(w: World, vm: number, memfd: number, vaddr: bigint): number {
  const region = kvm.kvm_userspace_memory_region2({
    flags: kvm.KVM_MEM_GUEST_MEMFD,
    memory_size: 0x4000n,
    userspace_addr: vaddr,
    guest_memfd: memfd,
  })
  return w.ioctl(vm, kvm.KVM_SET_USER_MEMORY_REGION2, region)
}

const ARM64 = { cpu: 'arm64' } as const
const gic = (flags = 0) => arm64.kvm_create_device({ type: arm64.KVM_DEV_TYPE_ARM_VGIC_V3, flags })

/** Cases of KVM on arm64, where they are not x86's. A device that could not be made is still to be had. */
export const KVM_ARM64: readonly FailCase[] = [
  {
    call: 'arm64 vm CREATE_VCPU',
    machine: ARM64,
    in: w => runOn(w, fd => w.ioctl(fd, kvm.KVM_CREATE_VCPU, 0)),
  },
  {
    call: 'arm64 vm CREATE_DEVICE, GICv3',
    machine: ARM64,
    in(w) {
      const made = runOn(w, fd => w.ioctl(fd, arm64.KVM_CREATE_DEVICE, gic()))
      const test = () =>
        w.ioctl(made.fd, arm64.KVM_CREATE_DEVICE, gic(arm64.KVM_CREATE_DEVICE_TEST))
      return { ...made, probe: () => outcome(test) }
    },
  },
  {
    call: 'arm64 vm IRQFD',
    machine: ARM64,
    in(w) {
      const arg = kvm.kvm_irqfd({ fd: w.sys.eventfd(), gsi: 1 })
      const made = runOn(w, fd => w.ioctl(fd, kvm.KVM_IRQFD, arg))
      w.ioctl(made.fd, arm64.KVM_CREATE_DEVICE, gic())
      return made
    },
  },
]

function runOn(w: World, run: (fd: number) => unknown) {
  const { vm: fd } = vm(w)
  return { fd, run: () => run(fd) }
}

/** Whether the slot is where it was: a slot that overlaps it is refused. */
const slotProbe = (w: World, fd: number, vaddr: bigint): string =>
  outcome(() => slot(w, fd, { slot: 1, userspace_addr: vaddr }))
