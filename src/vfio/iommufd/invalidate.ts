// Invalidation of a guest's first-stage table: an array of entries, carried out one after the other until one is
// refused; how many were is always told. The table is the scope: every device and PASID on it, their own caches
// included. uapi linux/iommufd.h, IOMMU_HWPT_INVALIDATE.
import { ErrnoError } from '../../base/errno.js'
import type { ProcessMemory } from '../../mem/process-memory.js'
import {
  IOMMU_HWPT_INVALIDATE_DATA_VTD_S1,
  IOMMU_VTD_INV_FLAGS_LEAF,
  iommu_hwpt_invalidate,
  iommu_hwpt_vtd_s1_invalidate,
} from '../uapi/iommufd.js'
import { type Call, command, pointer, readGrown, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import { HwptNested } from './hwpt.js'

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
  if (!(hwpt instanceof HwptNested)) throw invalid(`object ${cmd.hwpt_id} is a ${hwpt.kind}`)
  if (cmd.data_type !== IOMMU_HWPT_INVALIDATE_DATA_VTD_S1)
    throw invalid(`data type ${cmd.data_type}`)
  for (; done.entries < entry_num; done.entries++) {
    const at = pointer(data_uptr) + done.entries * entry_len
    invalidateOne(name, hwpt, at, entry_len, caller.memory)
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
  hwpt.table.invalidate(addr, npages, (entry.flags & IOMMU_VTD_INV_FLAGS_LEAF) !== 0)
}
