// A software-protected VM (private memory) over memory of a process: what becomes private, and what then happens to it.
import { FALLOC_FL_KEEP_SIZE } from '../../src/sys/open-file.js'
import type { Sys } from '../../src/sys/sys.js'
import * as uapi from '../../src/uapi.js'

const PAGE = 4096

/** A software-protected VM over memory of a process. */
export class ProtectedVm {
  readonly #sys: Sys
  readonly kvm: number
  readonly vm: number
  readonly memfd: number

  constructor(sys: Sys, gpa: number, vaddr: bigint, pages: number) {
    this.#sys = sys
    this.kvm = sys.open('/dev/kvm')
    this.vm = sys.ioctl(this.kvm, uapi.KVM_CREATE_VM, uapi.KVM_X86_SW_PROTECTED_VM)
    const size = BigInt(pages * PAGE)
    const create = uapi.kvm_create_guest_memfd({ size })
    this.memfd = sys.ioctl(this.vm, uapi.KVM_CREATE_GUEST_MEMFD, create)
    const region = uapi.kvm_userspace_memory_region2({
      flags: uapi.KVM_MEM_GUEST_MEMFD,
      guest_phys_addr: BigInt(gpa),
      memory_size: size,
      userspace_addr: vaddr,
      guest_memfd: this.memfd,
    })
    sys.ioctl(this.vm, uapi.KVM_SET_USER_MEMORY_REGION2, region)
    sys.fallocate(this.memfd, FALLOC_FL_KEEP_SIZE, 0, pages * PAGE)
  }

  set(gpa: number, pages: number, isPrivate: boolean): void {
    const call = uapi.kvm_memory_attributes({
      address: BigInt(gpa),
      size: BigInt(pages * PAGE),
      attributes: isPrivate ? BigInt(uapi.KVM_MEMORY_ATTRIBUTE_PRIVATE) : 0n,
    })
    this.#sys.ioctl(this.vm, uapi.KVM_SET_MEMORY_ATTRIBUTES, call)
  }
}
