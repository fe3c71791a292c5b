// Invalidation on a guest's behalf: an array of entries, carried out one after the other until one is refused; how
// many were is always told. Of a first-stage table: the table is the scope, every device and PASID on it, their own
// caches included. Of a virtual SMMUv3: its commands as they are. uapi linux/iommufd.h, IOMMU_HWPT_INVALIDATE.
import { ErrnoError } from '../../base/errno.js'
import type { ProcessMemory } from '../../mem/process-memory.js'
import {
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
  IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3,
  IOMMU_VTD_INV_FLAGS_LEAF,
  iommu_hwpt_invalidate,
  iommu_hwpt_vtd_s1_invalidate,
  iommu_viommu_arm_smmuv3_invalidate,
} from '../uapi/iommufd.js'
import { type Call, command, pointer, readGrown, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import { HwptNested } from './hwpt.js'
import { Viommu } from './viommu.js'

const LARGEST_ENTRY = 4096
const MOST_ENTRIES = 2 ** 19
const ALL_PAGES = 2n ** 64n - 1n

type InvalidateCall = Call<typeof iommu_hwpt_invalidate.members>

export const hwptInvalidate = command<IommufdContext, typeof iommu_hwpt_invalidate.members>(
  'IOMMU_HWPT_INVALIDATE',
  iommu_hwpt_invalidate,
  32,
  (context, call) => {
    const { cmd } = call
    const done = { entries: 0 }
    try {
      run(context, call, done)
    } finally {
      cmd.entry_num = done.entries
      call.respond()
    }
  },
)

function run(
  context: IommufdContext,
  { cmd, name, caller }: InvalidateCall,
  done: { entries: number },
): void {
  unsupported(name, { __reserved: cmd.__reserved })
  const { entry_num, entry_len, data_uptr } = cmd
  const invalid = (what: string) => new ErrnoError('EINVAL', `${name}: ${what}`)
  if (entry_num > 0 && (data_uptr === 0n || entry_len === 0)) throw invalid('no entries')
  if (entry_num > MOST_ENTRIES || entry_len > LARGEST_ENTRY)
    throw invalid(`${entry_num} entries of ${entry_len} bytes`)
  const hwpt = context.objects.find(cmd.hwpt_id)
  if (hwpt === undefined) throw new ErrnoError('ENOENT', `${name}: no object ${cmd.hwpt_id}`)
  if (hwpt instanceof Viommu) {
    execute(hwpt, { cmd, name, caller }, done)
    return
  }
  if (!(hwpt instanceof HwptNested)) throw invalid(`object ${cmd.hwpt_id} is a ${hwpt.kind}`)
  if (!hwpt.table.invalidate)
    throw new ErrnoError('EOPNOTSUPP', `${name}: a virtual IOMMU invalidates for this table`)
  if (cmd.data_type !== IOMMU_HWPT_INVALIDATE_DATA_VTD_S1)
    throw invalid(`data type ${cmd.data_type}`)
  for (; done.entries < entry_num; done.entries++) {
    const at = pointer(data_uptr) + done.entries * entry_len
    invalidateOne(name, hwpt, at, entry_len, caller.memory)
  }
}

/** Commands of a guest's SMMUv3: read whole, then executed until one is refused. */
function execute(
  viommu: Viommu,
  { cmd, name, caller }: Pick<InvalidateCall, 'cmd' | 'name' | 'caller'>,
  done: { entries: number },
): void {
  const { data_type, entry_num, entry_len, data_uptr } = cmd
  if (data_type !== IOMMU_VIOMMU_INVALIDATE_DATA_ARM_SMMUV3 || entry_num === 0)
    throw new ErrnoError('EINVAL', `${name}: ${entry_num} entries of data type ${data_type}`)
  const commands = Array.from({ length: entry_num }, (_, i) => {
    const entry = iommu_viommu_arm_smmuv3_invalidate()
    readGrown(name, entry.bytes, entry_len, pointer(data_uptr) + i * entry_len, caller.memory)
    const [low, high] = entry.cmd as unknown as readonly [bigint, bigint]
    return [low, high] as const
  })
  try {
    for (const command of commands) {
      viommu.virtual.execute(command)
      done.entries++
    }
  } finally {
    viommu.virtual.finish()
  }
}

function invalidateOne(
  name: string,
  hwpt: HwptNested,
  at: number,
  length: number,
  memory: ProcessMemory,
): void {
  const entry = iommu_hwpt_vtd_s1_invalidate()
  if (length < entry.bytes.length) throw new ErrnoError('EINVAL', `${name}: entry of ${length}`)
  readGrown(name, entry.bytes, length, at, memory)
  unsupported(name, {
    'entry flags': entry.flags & ~IOMMU_VTD_INV_FLAGS_LEAF,
    'entry reserved': entry.__reserved,
  })
  const { addr, npages } = entry
  if (addr & 4095n || (npages === ALL_PAGES && addr !== 0n))
    throw new ErrnoError('EINVAL', `${name}: ${npages} pages at 0x${addr.toString(16)}`)
  hwpt.table.invalidate!(addr, npages, (entry.flags & IOMMU_VTD_INV_FLAGS_LEAF) !== 0)
}
