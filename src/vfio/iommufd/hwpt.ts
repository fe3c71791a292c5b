// Hardware page tables: one domain over an address space, or a guest's stage over such a domain: VT-d's first-stage
// table, or an SMMUv3's STE through a virtual IOMMU. Attaching is device.ts. uapi linux/iommufd.h, IOMMU_HWPT_ALLOC.
import { ErrnoError } from '../../base/errno.js'
import type { NestedTable, PagingTable, UserTables } from '../../iommu/user-tables.js'
import type { Process } from '../../sys/process.js'
import {
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_DATA_ARM_SMMUV3,
  IOMMU_HWPT_DATA_NONE,
  IOMMU_HWPT_DATA_VTD_S1,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_VTD_S1_EAFE,
  IOMMU_VTD_S1_SRE,
  IOMMU_VTD_S1_WPE,
  iommu_hwpt_alloc,
  iommu_hwpt_arm_smmuv3,
  iommu_hwpt_vtd_s1,
} from '../uapi/iommufd.js'
import { type Call, command, pointer, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import { BoundDevice } from './device.js'
import { FaultQueue } from './fault.js'
import { Ioas } from './ioas.js'
import type { IommufdObject } from './objects.js'
import { Viommu } from './viommu.js'

const PAGING_FLAGS =
  IOMMU_HWPT_ALLOC_NEST_PARENT |
  IOMMU_HWPT_ALLOC_DIRTY_TRACKING |
  IOMMU_HWPT_FAULT_ID_VALID |
  IOMMU_HWPT_ALLOC_PASID
const NESTED_FLAGS = IOMMU_HWPT_FAULT_ID_VALID | IOMMU_HWPT_ALLOC_PASID

/** What both kinds have. */
export interface Hwpt extends IommufdObject {
  readonly table: PagingTable | NestedTable
  /** The unit's tables: devices below another unit cannot be on it. */
  readonly unit: UserTables
  /** The domain that IOVA of it go through in the end. */
  readonly paging: HwptPaging
  /** Made with ALLOC_PASID. */
  readonly withPasids: boolean
  /** PASIDs of what is on it are the guest's own: it is there for all of them. */
  readonly ownsPasids: boolean
  /** Where page requests of what is on it go. */
  fault: FaultQueue | undefined
}

/** How a paging table is made. */
export interface HwptOptions {
  readonly flags: number
  /** Made by an attach to the address space, and gone with the last device. */
  readonly auto?: boolean
}

/** A domain over an address space. */
export class HwptPaging implements Hwpt {
  readonly kind = 'hwpt-paging'
  id = 0
  users = 0
  readonly ioas: Ioas
  readonly unit: UserTables
  readonly table: PagingTable
  readonly auto: boolean
  readonly nestParent: boolean
  readonly withPasids: boolean
  readonly ownsPasids = false
  fault: FaultQueue | undefined = undefined

  /** EOPNOTSUPP, and what mapping everything into it refuses. */
  constructor(ioas: Ioas, device: BoundDevice, { flags, auto = false }: HwptOptions) {
    const name = 'IOMMU_HWPT_ALLOC'
    unsupported(name, { flags: flags & ~PAGING_FLAGS })
    const nestParent = (flags & IOMMU_HWPT_ALLOC_NEST_PARENT) !== 0
    if (nestParent && flags & IOMMU_HWPT_FAULT_ID_VALID)
      throw new ErrnoError('EOPNOTSUPP', `${name}: page requests of a parent go nowhere`)
    this.withPasids = (flags & IOMMU_HWPT_ALLOC_PASID) !== 0
    if (this.withPasids && !device.unitHasPasids)
      throw new ErrnoError('EOPNOTSUPP', `${name}: the IOMMU has no PASIDs`)
    this.ioas = ioas
    this.unit = device.unit
    this.auto = auto
    this.nestParent = nestParent
    const dirty = (flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING) !== 0
    this.table = device.unit.alloc({ nestParent, dirty })
    try {
      ioas.table.addDomain(this.table)
    } catch (error) {
      this.table.free()
      throw error
    }
    ioas.hwpts.add(this)
    ioas.users++
  }

  get paging(): HwptPaging {
    return this
  }

  destroy(): void {
    this.ioas.hwpts.delete(this)
    this.ioas.users--
    this.ioas.table.removeDomain(this.table)
    this.table.free()
    if (this.fault) this.fault.users--
  }
}

/** A guest's stage over a domain. */
export class HwptNested implements Hwpt {
  readonly kind = 'hwpt-nested'
  id = 0
  users = 0
  readonly paging: HwptPaging
  readonly table: NestedTable
  readonly withPasids: boolean
  readonly ownsPasids: boolean
  fault: FaultQueue | undefined = undefined
  /** What it was made over: the domain itself, or a virtual IOMMU over it. */
  readonly #over: HwptPaging | Viommu

  constructor(over: HwptPaging | Viommu, table: NestedTable, withPasids: boolean) {
    this.paging = over.paging
    this.table = table
    this.withPasids = withPasids
    this.ownsPasids = over instanceof Viommu
    this.#over = over
    over.users++
  }

  get unit(): UserTables {
    return this.paging.unit
  }

  destroy(): void {
    this.#over.users--
    this.table.free()
    if (this.fault) this.fault.users--
  }
}

type AllocCall = Call<typeof iommu_hwpt_alloc.members>

export const hwptAlloc = command<IommufdContext, typeof iommu_hwpt_alloc.members>(
  'IOMMU_HWPT_ALLOC',
  iommu_hwpt_alloc,
  24,
  (context, call) => {
    const { cmd, name } = call
    unsupported(name, { __reserved: cmd.__reserved, __reserved2: cmd.__reserved2 })
    if ((cmd.data_type === IOMMU_HWPT_DATA_NONE) !== (cmd.data_len === 0))
      throw new ErrnoError('EINVAL', `${name}: data type ${cmd.data_type}, ${cmd.data_len} bytes`)
    const device = context.object(BoundDevice, cmd.dev_id, name)
    const hwpt = make(context, call, device)
    if (cmd.flags & IOMMU_HWPT_FAULT_ID_VALID) {
      const fault = context.objects.find(cmd.fault_id)
      if (!(fault instanceof FaultQueue)) {
        hwpt.destroy()
        throw new ErrnoError('ENOENT', `${name}: no fault queue ${cmd.fault_id}`)
      }
      hwpt.fault = fault
      hwpt.table.takesFaults = true
      fault.users++
    }
    context.publish(hwpt, call, () => {
      cmd.out_hwpt_id = hwpt.id
    })
  },
)

function make(
  context: IommufdContext,
  { cmd, name, caller }: AllocCall,
  device: BoundDevice,
): HwptPaging | HwptNested {
  const over = context.objects.find(cmd.pt_id)
  const { flags } = cmd
  if (over instanceof Ioas) {
    if (cmd.data_type !== IOMMU_HWPT_DATA_NONE)
      throw new ErrnoError('EOPNOTSUPP', `${name}: an address space takes no stage-1 data`)
    return new HwptPaging(over, device, { flags })
  }
  if (over instanceof Viommu) return overVirtual(over, device, name, cmd, caller)
  if (!(over instanceof HwptPaging))
    throw new ErrnoError('EINVAL', `${name}: ${cmd.pt_id} is no address space and no parent`)
  unsupported(name, { flags: flags & ~NESTED_FLAGS })
  if (cmd.data_len === 0) throw new ErrnoError('EOPNOTSUPP', `${name}: no stage-1 data`)
  if (over.auto || !over.nestParent || over.unit !== device.unit)
    throw new ErrnoError('EINVAL', `${name}: HWPT ${over.id} cannot be a parent of this`)
  if (!over.table.nest)
    throw new ErrnoError('EOPNOTSUPP', `${name}: the IOMMU nests by virtual ones`)
  const stage1 = readStage1(name, cmd, caller)
  const withPasids = (flags & IOMMU_HWPT_ALLOC_PASID) !== 0
  return new HwptNested(over, over.table.nest(stage1), withPasids)
}

/** A guest's STE, through its virtual IOMMU. */
function overVirtual(
  over: Viommu,
  device: BoundDevice,
  name: string,
  cmd: AllocCall['cmd'],
  { memory }: Process,
): HwptNested {
  const { flags, data_type, data_len } = cmd
  if (over.unit !== device.unit)
    throw new ErrnoError('EINVAL', `${name}: vIOMMU ${over.id} is of another IOMMU`)
  unsupported(name, { flags: flags & ~IOMMU_HWPT_FAULT_ID_VALID })
  if (data_len === 0) throw new ErrnoError('EOPNOTSUPP', `${name}: no STE`)
  const data = iommu_hwpt_arm_smmuv3()
  if (data_type !== IOMMU_HWPT_DATA_ARM_SMMUV3 || data_len !== data.bytes.length)
    throw new ErrnoError('EINVAL', `${name}: data type ${data_type}, ${data_len} bytes`)
  if (!memory.copyIn(pointer(cmd.data_uptr), data.bytes))
    throw new ErrnoError('EFAULT', `${name}: the STE is not readable`)
  const [low, high] = data.ste as unknown as readonly [bigint, bigint]
  return new HwptNested(over, over.virtual.nest([low, high]), false)
}

function readStage1(name: string, cmd: AllocCall['cmd'], { memory }: Process) {
  if (cmd.data_type !== IOMMU_HWPT_DATA_VTD_S1)
    throw new ErrnoError('EOPNOTSUPP', `${name}: data type ${cmd.data_type} over VT-d`)
  const data = iommu_hwpt_vtd_s1()
  if (cmd.data_len !== data.bytes.length)
    throw new ErrnoError('EINVAL', `${name}: ${cmd.data_len} bytes of VT-d stage-1 data`)
  if (!memory.copyIn(pointer(cmd.data_uptr), data.bytes))
    throw new ErrnoError('EFAULT', `${name}: the stage-1 data is not readable`)
  const flags = data.view.getUint32(0, true)
  unsupported(name, {
    'stage-1 flags': flags & ~(IOMMU_VTD_S1_SRE | IOMMU_VTD_S1_EAFE | IOMMU_VTD_S1_WPE),
    'stage-1 flags, high': data.view.getUint32(4, true),
    'stage-1 reserved': data.__reserved,
  })
  return {
    root: data.pgtbl_addr,
    addrWidth: data.addr_width,
    supervisor: (flags & IOMMU_VTD_S1_SRE) !== 0,
    extendedAccess: (flags & IOMMU_VTD_S1_EAFE) !== 0,
    writeProtect: (flags & IOMMU_VTD_S1_WPE) !== 0,
  }
}
