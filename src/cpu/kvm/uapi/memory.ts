// uapi linux/kvm.h, 6.8 and later: private memory of guests. Slots with a guest_memfd, the file itself, attributes of
// guest-physical pages, the exit for a fault that the owner must settle, and faulting in without running.

import { struct } from '../../../base/struct.js'
import { _IOW, _IOWR } from '../../../sys/ioctl.js'

const KVMIO = 0xae

export const kvm_userspace_memory_region2 = struct('struct kvm_userspace_memory_region2', {
  slot: 'u32', // low 16 bits the slot, high 16 the address space
  flags: 'u32',
  guest_phys_addr: 'u64',
  memory_size: 'u64', // bytes; 0 deletes
  userspace_addr: 'u64', // start of the user's memory: what the guest shares
  guest_memfd_offset: 'u64', // bytes into the file: what the guest keeps private
  guest_memfd: 'u32', // descriptor
  pad1: 'u32',
  pad2: ['u64', 14],
})
export const KVM_MEM_GUEST_MEMFD = 1 << 2

export const KVM_MEMORY_EXIT_FLAG_PRIVATE = 1 << 3
export const KVM_EXIT_MEMORY_FAULT = 39

export const kvm_memory_attributes = struct('struct kvm_memory_attributes', {
  address: 'u64', // guest-physical
  size: 'u64', // bytes
  attributes: 'u64', // all of them, as they shall be
  flags: 'u64', // none is defined
})
export const KVM_MEMORY_ATTRIBUTE_PRIVATE = 1 << 3

export const kvm_create_guest_memfd = struct('struct kvm_create_guest_memfd', {
  size: 'u64', // bytes, for good
  flags: 'u64',
  reserved: ['u64', 6],
})
export const GUEST_MEMFD_FLAG_MMAP = 1 << 0
export const GUEST_MEMFD_FLAG_INIT_SHARED = 1 << 1

export const kvm_pre_fault_memory = struct('struct kvm_pre_fault_memory', {
  gpa: 'u64', // in, and what is left out
  size: 'u64', // in, and what is left out
  flags: 'u64', // none is defined
  padding: ['u64', 5],
})

// biome-ignore format: table
export const
  KVM_CAP_USER_MEMORY2      = 231,
  KVM_CAP_MEMORY_FAULT_INFO = 232,
  KVM_CAP_MEMORY_ATTRIBUTES = 233,
  KVM_CAP_GUEST_MEMFD       = 234,
  KVM_CAP_VM_TYPES          = 235,
  KVM_CAP_PRE_FAULT_MEMORY  = 236,
  KVM_CAP_GUEST_MEMFD_FLAGS = 244

export const KVM_SET_USER_MEMORY_REGION2 = _IOW(KVMIO, 0x49, kvm_userspace_memory_region2.size)
export const KVM_SET_MEMORY_ATTRIBUTES = _IOW(KVMIO, 0xd2, kvm_memory_attributes.size)
export const KVM_CREATE_GUEST_MEMFD = _IOWR(KVMIO, 0xd4, kvm_create_guest_memfd.size)
export const KVM_PRE_FAULT_MEMORY = _IOWR(KVMIO, 0xd5, kvm_pre_fault_memory.size)
