// Every call of every kind of descriptor: its number, an argument that would do, and the errnos it is documented to
// refuse with. Numbers that are not listed are refused as `unknown` says.
// VFIO: docs of the interface in src/vfio; KVM: its API document.

import * as kvm from '../../src/cpu/kvm/uapi.js'
import * as u from '../../src/uapi.js'
import type { VfioProfile } from '../../src/vfio/index.js'
import { vfioIo } from '../../src/vfio/uapi/common.js'

/** Kinds of descriptors. */
export type Kind = 'container' | 'group' | 'device' | 'kvm' | 'vm' | 'vcpu'

/** What arguments are made of. */
export interface World {
  readonly vaddr: bigint
  readonly fds: Readonly<Record<Kind, number>>
  readonly eventfd: number
  readonly deviceName: string
}

/** One call. */
export interface Call {
  readonly name: string
  readonly number: number
  /** Errnos, separated by blanks; beside EFAULT where there is a pointer. */
  readonly errnos: string
  /** The argument by value, or bytes that it points at; a bigint is always a value. */
  readonly argument?: (w: World) => bigint | Uint8Array | { readonly bytes: Uint8Array }
}

const call = (name: string, number: number, errnos: string, argument?: Call['argument']): Call => ({
  name,
  number,
  errnos,
  ...(argument ? { argument } : {}),
})

const s32 = (v: number) => new Uint8Array(Int32Array.of(v).buffer)
const value = (v: bigint) => () => v
const name = (text: string) => new TextEncoder().encode(`${text}\0`)
const tail = (bytes: number) => ({ argsz: bytes })

/** What attaching a group may refuse with. */
const ATTACH = 'EINVAL EIO ENODEV ENOENT EPERM EBUSY ENOSPC ENOMEM'

const bind = () =>
  u.iommu_gpasid_bind_data({ version: 1, format: 1, addr_width: 48, hpasid: 1n, gpgd: 0x1000n })

function nesting(op: number, payload: { readonly bytes: Uint8Array }) {
  return u.vfio_iommu_type1_nesting_op({ flags: op, data: payload.bytes })
}

function invalidation() {
  const info = u.iommu_cache_invalidate_info({ version: 1, cache: 1, granularity: 1 })
  Object.assign(info.granu.pasid_info, { flags: 1, pasid: 1n })
  return info
}

function dirtyRange(w: World): Uint8Array {
  const get = u.vfio_iommu_type1_dirty_bitmap_get({ iova: 0n, size: 0x4000n })
  Object.assign(get.bitmap, { pgsize: 4096n, size: 8n, data: w.vaddr })
  const bytes = new Uint8Array(8 + get.bytes.length)
  new Uint32Array(bytes.buffer, 0, 2).set([bytes.length, 4])
  bytes.set(get.bytes, 8)
  return bytes
}

const pasids = (flags: number) =>
  u.vfio_iommu_type1_pasid_request({ flags, range: { min: 1, max: 9 } })

const CONTAINER: readonly Call[] = [
  call('GET_API_VERSION', u.VFIO_GET_API_VERSION, ''),
  call('CHECK_EXTENSION', u.VFIO_CHECK_EXTENSION, '', value(6n)),
  call('SET_IOMMU', u.VFIO_SET_IOMMU, ATTACH, value(6n)),
  call('GET_INFO', u.VFIO_IOMMU_GET_INFO, 'EFAULT EINVAL', () =>
    u.vfio_iommu_type1_info(tail(200), 200),
  ),
  call('MAP_DMA', u.VFIO_IOMMU_MAP_DMA, 'EFAULT EINVAL EEXIST ENOSPC ENOMEM', w =>
    u.vfio_iommu_type1_dma_map({ flags: 3, vaddr: w.vaddr, iova: 0n, size: 0x1000n }),
  ),
  call('UNMAP_DMA', u.VFIO_IOMMU_UNMAP_DMA, 'EFAULT EINVAL', () =>
    u.vfio_iommu_type1_dma_unmap({ iova: 0n, size: 0x1000n }),
  ),
  call('DIRTY_PAGES', u.VFIO_IOMMU_DIRTY_PAGES, 'EFAULT EINVAL EACCES', dirtyRange),
  call(
    'DIRTY_PAGES START',
    u.VFIO_IOMMU_DIRTY_PAGES,
    'EFAULT EINVAL EACCES',
    () => new Uint8Array(Uint32Array.of(8, 1).buffer),
  ),
]

const PASIDS = 'EFAULT EINVAL EOPNOTSUPP ENOSPC ENOMEM'
const BIND = 'EFAULT EINVAL EOPNOTSUPP ENODEV ENOTSUPP ENOENT EACCES EPERM EBUSY ENOMEM'

const pasidRequests: readonly Call[] = [
  call('PASID_REQUEST ALLOC', u.VFIO_IOMMU_PASID_REQUEST, PASIDS, () => pasids(1)),
  call('PASID_REQUEST FREE', u.VFIO_IOMMU_PASID_REQUEST, PASIDS, () => pasids(2)),
]
const nestingOps = (number: number): Call[] =>
  [bind(), bind(), invalidation()].map((payload, op) =>
    call(`NESTING_OP ${op}`, number, BIND, () => nesting(op, payload)),
  )

/** A guest's whole PASID table; VT-d takes none (ENODEV). */
const wholeTable: readonly Call[] = [
  call('SET_PASID_TABLE', vfioIo(18), 'EFAULT EINVAL ENODEV EBUSY ENOMEM', () => {
    const config = u.iommu_pasid_table_config({
      version: 1,
      base_ptr: 0n,
      format: 1,
      pasid_bits: 5,
      config: 1,
    })
    return words(1, config.bytes)
  }),
  call('SET_PASID_TABLE UNSET', vfioIo(18), 'EFAULT EINVAL ENODEV', () =>
    words(2, new Uint8Array(32)),
  ),
  call('CACHE_INVALIDATE', vfioIo(19), 'EFAULT EINVAL ENODEV ENOENT EACCES', () =>
    words(0, invalidation().bytes),
  ),
  call('SET_MSI_BINDING', vfioIo(20), 'EFAULT EINVAL ENODEV EBUSY EEXIST ENOMEM', () =>
    words(1, new Uint8Array(BigUint64Array.of(0x1000n, 0x2000n, 0x1000n).buffer)),
  ),
]

/** A structure of argsz, flags and more. */
function words(flags: number, more: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(8 + more.length)
  new Uint32Array(bytes.buffer, 0, 2).set([bytes.length, flags])
  bytes.set(more, 8)
  return bytes
}

/** Container calls that a revision has beyond the stock ones. */
const BEYOND: Readonly<Partial<Record<VfioProfile, readonly Call[]>>> = {
  V7R: [...pasidRequests, ...nestingOps(vfioIo(19))],
  V7: [...pasidRequests, ...nestingOps(vfioIo(19))],
  V8: nestingOps(vfioIo(18)),
  N13: wholeTable,
}

const GROUP: readonly Call[] = [
  call('GET_STATUS', u.VFIO_GROUP_GET_STATUS, 'EFAULT EINVAL', () => u.vfio_group_status()),
  call('SET_CONTAINER', u.VFIO_GROUP_SET_CONTAINER, `EFAULT EBADF ${ATTACH}`, w =>
    s32(w.fds.container),
  ),
  call('UNSET_CONTAINER', u.VFIO_GROUP_UNSET_CONTAINER, 'EINVAL EBUSY'),
  call('GET_DEVICE_FD', u.VFIO_GROUP_GET_DEVICE_FD, 'EFAULT EINVAL ENODEV EMFILE', w =>
    name(w.deviceName),
  ),
]

const INFO = 'EFAULT EINVAL'
const DEVICE: readonly Call[] = [
  call('GET_INFO', u.VFIO_DEVICE_GET_INFO, INFO, () => u.vfio_device_info()),
  call('GET_REGION_INFO', u.VFIO_DEVICE_GET_REGION_INFO, INFO, () =>
    u.vfio_region_info({ ...tail(96), index: 2 }, 64),
  ),
  call('GET_IRQ_INFO', u.VFIO_DEVICE_GET_IRQ_INFO, INFO, () => u.vfio_irq_info({ index: 2 })),
  call('SET_IRQS', u.VFIO_DEVICE_SET_IRQS, 'EFAULT EINVAL ENOTTY EBADF ENOSPC ENOMEM', w =>
    u.vfio_irq_set({ flags: 0x24, index: 2, start: 0, count: 1, data: s32(w.eventfd) }),
  ),
  call('SET_IRQS off', u.VFIO_DEVICE_SET_IRQS, 'EFAULT EINVAL ENOTTY EBADF ENOSPC ENOMEM', () =>
    u.vfio_irq_set({ flags: 0x21, index: 2 }),
  ),
  call('RESET', u.VFIO_DEVICE_RESET, 'EINVAL EAGAIN'),
  call(
    'GET_PCI_HOT_RESET_INFO',
    u.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
    'EFAULT EINVAL ENODEV ENOSPC',
    () => u.vfio_pci_hot_reset_info(tail(64), 52),
  ),
  call('PCI_HOT_RESET', u.VFIO_DEVICE_PCI_HOT_RESET, 'EFAULT EINVAL EBADF ENODEV', w =>
    Object.assign(u.vfio_pci_hot_reset({ count: 1, group_fds: [w.fds.group] })),
  ),
  call('IOEVENTFD', u.VFIO_DEVICE_IOEVENTFD, 'EFAULT EINVAL EEXIST ENODEV ENOSPC EBADF ENOMEM', w =>
    u.vfio_device_ioeventfd({ flags: 4, offset: 0x10n, data: 1n, fd: w.eventfd }),
  ),
  call(
    'FEATURE',
    u.VFIO_DEVICE_FEATURE,
    'EFAULT EINVAL ENOTTY',
    () => new Uint8Array(Uint32Array.of(12, 0x2_000a, 0).buffer),
  ),
]

const KVM: readonly Call[] = [
  call('GET_API_VERSION', kvm.KVM_GET_API_VERSION, 'EINVAL', value(0n)),
  // EBUSY is ours: PASIDs of the process were allocated before KVM could follow them.
  call('CREATE_VM', kvm.KVM_CREATE_VM, 'EINVAL EMFILE ENOMEM EBUSY', value(0n)),
  call('CHECK_EXTENSION', kvm.KVM_CHECK_EXTENSION, '', value(3n)),
  call('GET_VCPU_MMAP_SIZE', kvm.KVM_GET_VCPU_MMAP_SIZE, 'EINVAL', value(0n)),
  call('GET_MSR_INDEX_LIST', kvm.KVM_GET_MSR_INDEX_LIST, 'EFAULT E2BIG', () =>
    kvm.kvm_msr_list({ nmsrs: 200 }, 800),
  ),
  call('GET_SUPPORTED_CPUID', kvm.KVM_GET_SUPPORTED_CPUID, 'EFAULT E2BIG ENOMEM', () =>
    kvm.kvm_cpuid2({ nent: 80 }, 3200),
  ),
]

const VM: readonly Call[] = [
  call('CREATE_VCPU', kvm.KVM_CREATE_VCPU, 'EINVAL EEXIST EMFILE ENOMEM', value(1n)),
  call('SET_USER_MEMORY_REGION', kvm.KVM_SET_USER_MEMORY_REGION, 'EFAULT EINVAL EEXIST ENOMEM', w =>
    kvm.kvm_userspace_memory_region({
      slot: 1,
      guest_phys_addr: 0x10_0000n,
      memory_size: 0x2000n,
      userspace_addr: w.vaddr,
    }),
  ),
  call('GET_DIRTY_LOG', kvm.KVM_GET_DIRTY_LOG, 'EFAULT EINVAL ENOENT', w =>
    kvm.kvm_dirty_log({ slot: 0, dirty_bitmap: w.vaddr }),
  ),
  call('SET_TSS_ADDR', kvm.KVM_SET_TSS_ADDR, 'EINVAL', value(0xfffb_d000n)),
  call(
    'SET_IDENTITY_MAP_ADDR',
    kvm.KVM_SET_IDENTITY_MAP_ADDR,
    'EFAULT EINVAL',
    () => new Uint8Array(8),
  ),
  call('CREATE_IRQCHIP', kvm.KVM_CREATE_IRQCHIP, 'EEXIST EINVAL'),
  call('SET_GSI_ROUTING', kvm.KVM_SET_GSI_ROUTING, 'EFAULT EINVAL ENOMEM', () =>
    kvm.kvm_irq_routing({ nr: 1 }, kvm.kvm_irq_routing_entry.size),
  ),
  call('IRQFD', kvm.KVM_IRQFD, 'EFAULT EINVAL EBADF EBUSY ENOMEM', w =>
    kvm.kvm_irqfd({ fd: w.eventfd, gsi: 3 }),
  ),
  call('SIGNAL_MSI', kvm.KVM_SIGNAL_MSI, 'EFAULT EINVAL', () =>
    kvm.kvm_msi({ address_lo: 0xfee0_0000, data: 0x41 }),
  ),
  call('ENABLE_CAP', kvm.KVM_ENABLE_CAP, 'EFAULT EINVAL', () => kvm.kvm_enable_cap({ cap: 201 })),
  call('CHECK_EXTENSION', kvm.KVM_CHECK_EXTENSION, '', value(3n)),
]

const structs = {
  REGS: [kvm.KVM_GET_REGS, kvm.KVM_SET_REGS, kvm.kvm_regs],
  SREGS: [kvm.KVM_GET_SREGS, kvm.KVM_SET_SREGS, kvm.kvm_sregs],
  FPU: [kvm.KVM_GET_FPU, kvm.KVM_SET_FPU, kvm.kvm_fpu],
  LAPIC: [kvm.KVM_GET_LAPIC, kvm.KVM_SET_LAPIC, kvm.kvm_lapic_state],
  MP_STATE: [kvm.KVM_GET_MP_STATE, kvm.KVM_SET_MP_STATE, kvm.kvm_mp_state],
  VCPU_EVENTS: [kvm.KVM_GET_VCPU_EVENTS, kvm.KVM_SET_VCPU_EVENTS, kvm.kvm_vcpu_events],
  DEBUGREGS: [kvm.KVM_GET_DEBUGREGS, kvm.KVM_SET_DEBUGREGS, kvm.kvm_debugregs],
} as const

const VCPU: readonly Call[] = [
  call('RUN', kvm.KVM_RUN, 'EINVAL EINTR EFAULT', value(0n)),
  ...Object.entries(structs).flatMap(([of, [get, set, type]]) => [
    call(`GET_${of}`, get, 'EFAULT EINVAL', () => type()),
    call(`SET_${of}`, set, 'EFAULT EINVAL', () => type()),
  ]),
  call('TRANSLATE', kvm.KVM_TRANSLATE, 'EFAULT', () => kvm.kvm_translation()),
  call('INTERRUPT', kvm.KVM_INTERRUPT, 'EFAULT EINVAL ENXIO EEXIST', () =>
    kvm.kvm_interrupt({ irq: 32 }),
  ),
  call('NMI', kvm.KVM_NMI, ''),
  call('GET_MSRS', kvm.KVM_GET_MSRS, 'EFAULT E2BIG ENOMEM', () => kvm.kvm_msrs({ nmsrs: 3 }, 48)),
  call('SET_MSRS', kvm.KVM_SET_MSRS, 'EFAULT E2BIG ENOMEM', () => kvm.kvm_msrs({ nmsrs: 3 }, 48)),
  call('GET_CPUID2', kvm.KVM_GET_CPUID2, 'EFAULT E2BIG ENOMEM', () =>
    kvm.kvm_cpuid2({ nent: 80 }, 3200),
  ),
  call('SET_CPUID2', kvm.KVM_SET_CPUID2, 'EFAULT E2BIG EINVAL ENOMEM', () =>
    kvm.kvm_cpuid2({ nent: 2 }, 80),
  ),
  call('SET_GUEST_DEBUG', kvm.KVM_SET_GUEST_DEBUG, 'EFAULT EINVAL', () =>
    kvm.kvm_guest_debug({ control: 1 }),
  ),
  call('GET_TSC_KHZ', kvm.KVM_GET_TSC_KHZ, 'EIO'),
]

/** The stock calls of each kind of descriptor, and what any other number is refused with. */
const CALLS: Readonly<Record<Kind, { readonly calls: readonly Call[]; readonly unknown: string }>> =
  {
    // EINVAL: a container without IOMMU driver takes nothing else.
    container: { calls: CONTAINER, unknown: 'ENOTTY EINVAL' },
    group: { calls: GROUP, unknown: 'ENOTTY' },
    device: { calls: DEVICE, unknown: 'ENOTTY' },
    kvm: { calls: KVM, unknown: 'EINVAL' },
    vm: { calls: VM, unknown: 'ENOTTY' },
    vcpu: { calls: VCPU, unknown: 'EINVAL' },
  }

/** Errnos that a revision adds, by call. */
const MORE: Readonly<Partial<Record<VfioProfile, Readonly<Record<string, string>>>>> = {
  V8: { MAP_DMA: 'ENOENT' },
  L512: { MAP_DMA: 'ENOENT' },
  L72: { MAP_DMA: 'ENOENT EOVERFLOW', UNMAP_DMA: 'EOVERFLOW EBUSY', SET_CONTAINER: 'EBADFD' },
  N13: { MAP_DMA: 'ENOENT' },
}
/** Calls by kind of descriptor in one revision. */
export type Calls = typeof CALLS

/** The calls of a revision. */
export function callsOf(profile: VfioProfile): Calls {
  const more = MORE[profile] ?? {}
  const also = (calls: readonly Call[]) =>
    calls.map(c => ({ ...c, errnos: `${c.errnos} ${more[c.name] ?? ''}` }))
  return {
    ...CALLS,
    container: { ...CALLS.container, calls: [...also(CONTAINER), ...(BEYOND[profile] ?? [])] },
    group: { ...CALLS.group, calls: also(GROUP) },
  }
}
