// The ioctls of the emulated kernel: name, number, which file takes it, and the structure its argument
// points at. `vfio-emu abi` prints from here.

import type { AnyStruct } from '../base/struct.js'
import * as arm64 from '../cpu/kvm/uapi/arm64.js'
import * as kvm from '../cpu/kvm/uapi.js'
import * as iommu from '../iommu/uapi.js'
import * as vfio from '../vfio/uapi/vfio.js'

/** One ioctl. `argument` is undefined where it takes a number, nothing, or a plain C type named in `note`. */
export interface Call {
  readonly name: string
  readonly number: number
  readonly file: 'container' | 'group' | 'device' | 'kvm' | 'vm' | 'vcpu' | 'kvm device'
  readonly argument?: AnyStruct
  readonly note?: string
}

type Row = readonly [name: string, file: Call['file'], argument?: AnyStruct | string]

// biome-ignore format: table
const ROWS: readonly Row[] = [
  ['VFIO_GET_API_VERSION',             'container'],
  ['VFIO_CHECK_EXTENSION',             'container', 'extension id'],
  ['VFIO_SET_IOMMU',                   'container', 'IOMMU type'],
  ['VFIO_IOMMU_GET_INFO',              'container', vfio.vfio_iommu_type1_info],
  ['VFIO_IOMMU_MAP_DMA',               'container', vfio.vfio_iommu_type1_dma_map],
  ['VFIO_IOMMU_UNMAP_DMA',             'container', vfio.vfio_iommu_type1_dma_unmap],
  ['VFIO_IOMMU_DIRTY_PAGES',           'container', vfio.vfio_iommu_type1_dirty_bitmap],
  ['VFIO_IOMMU_PASID_REQUEST',         'container', vfio.vfio_iommu_type1_pasid_request],
  ['VFIO_IOMMU_NESTING_OP',            'container', vfio.vfio_iommu_type1_nesting_op],
  ['VFIO_GROUP_GET_STATUS',            'group',     vfio.vfio_group_status],
  ['VFIO_GROUP_SET_CONTAINER',         'group',     'pointer to s32: container fd'],
  ['VFIO_GROUP_UNSET_CONTAINER',       'group'],
  ['VFIO_GROUP_GET_DEVICE_FD',         'group',     'pointer to string: 0000:bb:dd.f'],
  ['VFIO_DEVICE_GET_INFO',             'device',    vfio.vfio_device_info],
  ['VFIO_DEVICE_GET_REGION_INFO',      'device',    vfio.vfio_region_info],
  ['VFIO_DEVICE_GET_IRQ_INFO',         'device',    vfio.vfio_irq_info],
  ['VFIO_DEVICE_SET_IRQS',             'device',    vfio.vfio_irq_set],
  ['VFIO_DEVICE_RESET',                'device'],
  ['VFIO_DEVICE_GET_PCI_HOT_RESET_INFO', 'device',  vfio.vfio_pci_hot_reset_info],
  ['VFIO_DEVICE_PCI_HOT_RESET',        'device',    vfio.vfio_pci_hot_reset],
  ['VFIO_DEVICE_IOEVENTFD',            'device',    vfio.vfio_device_ioeventfd],
  ['VFIO_DEVICE_FEATURE',              'device',    vfio.vfio_device_feature],
  ['KVM_GET_API_VERSION',              'kvm'],
  ['KVM_CREATE_VM',                    'kvm',       'VM type'],
  ['KVM_CHECK_EXTENSION',              'kvm',       'capability'],
  ['KVM_GET_VCPU_MMAP_SIZE',           'kvm'],
  ['KVM_GET_SUPPORTED_CPUID',          'kvm',       kvm.kvm_cpuid2],
  ['KVM_CREATE_VCPU',                  'vm',        'vCPU id'],
  ['KVM_SET_USER_MEMORY_REGION',       'vm',        kvm.kvm_userspace_memory_region],
  ['KVM_CREATE_IRQCHIP',               'vm'],
  ['KVM_SIGNAL_MSI',                   'vm',        kvm.kvm_msi],
  ['KVM_RUN',                          'vcpu'],
  ['KVM_GET_REGS',                     'vcpu',      kvm.kvm_regs],
  ['KVM_SET_REGS',                     'vcpu',      kvm.kvm_regs],
  ['KVM_GET_SREGS',                    'vcpu',      kvm.kvm_sregs],
  ['KVM_SET_SREGS',                    'vcpu',      kvm.kvm_sregs],
  ['KVM_INTERRUPT',                    'vcpu',      kvm.kvm_interrupt],
  ['KVM_GET_MSRS',                     'vcpu',      kvm.kvm_msrs],
  ['KVM_SET_MSRS',                     'vcpu',      kvm.kvm_msrs],
  ['KVM_SET_CPUID2',                   'vcpu',      kvm.kvm_cpuid2],
  ['KVM_GET_LAPIC',                    'vcpu',      kvm.kvm_lapic_state],
  ['KVM_SET_LAPIC',                    'vcpu',      kvm.kvm_lapic_state],
  ['KVM_GET_MP_STATE',                 'vcpu',      kvm.kvm_mp_state],
  ['KVM_SET_MP_STATE',                 'vcpu',      kvm.kvm_mp_state],
  ['KVM_ARM_PREFERRED_TARGET',         'vm',        arm64.kvm_vcpu_init],
  ['KVM_IRQ_LINE',                     'vm',        arm64.kvm_irq_level],
  ['KVM_CREATE_DEVICE',                'vm',        arm64.kvm_create_device],
  ['KVM_SET_DEVICE_ATTR',              'kvm device', arm64.kvm_device_attr],
  ['KVM_GET_DEVICE_ATTR',              'kvm device', arm64.kvm_device_attr],
  ['KVM_HAS_DEVICE_ATTR',              'kvm device', arm64.kvm_device_attr],
  ['KVM_ARM_VCPU_INIT',                'vcpu',      arm64.kvm_vcpu_init],
  ['KVM_GET_ONE_REG',                  'vcpu',      arm64.kvm_one_reg],
  ['KVM_SET_ONE_REG',                  'vcpu',      arm64.kvm_one_reg],
  ['KVM_GET_REG_LIST',                 'vcpu',      arm64.kvm_reg_list],
]

const exported: Readonly<Record<string, unknown>> = { ...arm64, ...vfio, ...iommu, ...kvm }

/** Every ioctl with its number. */
export const CALLS: readonly Call[] = ROWS.map(([name, file, argument]) => {
  const number = exported[name]
  if (typeof number !== 'number') throw new Error(`${name} is no ioctl of the uapi modules`)
  if (argument === undefined) return { name, number, file }
  return typeof argument === 'string'
    ? { name, number, file, note: argument }
    : { name, number, file, argument }
})

/** Every uapi structure, by its C name without `struct`. */
export const STRUCTS: ReadonlyMap<string, AnyStruct> = new Map(
  Object.values(exported).flatMap(value =>
    typeof value === 'function' && 'ctype' in value
      ? [[(value as AnyStruct).ctype.replace(/^(struct|union) /, ''), value as AnyStruct] as const]
      : [],
  ),
)
