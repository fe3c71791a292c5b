// Options of an iommufd and of an address space, and which address space VFIO's own calls use. uapi
// linux/iommufd.h, IOMMU_OPTION and IOMMU_VFIO_IOAS.
import { ErrnoError } from '../../base/errno.js'
import {
  IOMMU_OPTION_HUGE_PAGES,
  IOMMU_OPTION_OP_GET,
  IOMMU_OPTION_OP_SET,
  IOMMU_OPTION_RLIMIT_MODE,
  IOMMU_VFIO_IOAS_CLEAR,
  IOMMU_VFIO_IOAS_GET,
  IOMMU_VFIO_IOAS_SET,
  iommu_option,
  iommu_vfio_ioas,
} from '../uapi/iommufd.js'
import { type Call, command, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import { Ioas } from './ioas.js'

type OptionCall = Call<typeof iommu_option.members>

export const option = command<IommufdContext, typeof iommu_option.members>(
  'IOMMU_OPTION',
  iommu_option,
  24,
  (context, call) => {
    const { cmd, name } = call
    unsupported(name, { __reserved: cmd.__reserved })
    if (cmd.option_id === IOMMU_OPTION_RLIMIT_MODE) rlimitMode(context, call)
    else if (cmd.option_id === IOMMU_OPTION_HUGE_PAGES) hugePages(context, call)
    else throw new ErrnoError('EOPNOTSUPP', `${name}: option ${cmd.option_id}`)
    call.respond()
  },
)

function rlimitMode(context: IommufdContext, { cmd, name, caller }: OptionCall): void {
  unsupported(name, { object_id: cmd.object_id })
  if (cmd.op === IOMMU_OPTION_OP_GET) cmd.val64 = context.accountMode === 'process' ? 1n : 0n
  else if (cmd.op === IOMMU_OPTION_OP_SET) {
    if (!caller.capabilities.has('CAP_SYS_RESOURCE'))
      throw new ErrnoError('EPERM', `${name}: RLIMIT_MODE needs CAP_SYS_RESOURCE`)
    if (context.objects.size > 0)
      throw new ErrnoError('EBUSY', `${name}: RLIMIT_MODE after the first object`)
    if (cmd.val64 > 1n) throw new ErrnoError('EINVAL', `${name}: value ${cmd.val64}`)
    context.accountMode = cmd.val64 === 1n ? 'process' : 'user'
  } else throw new ErrnoError('EOPNOTSUPP', `${name}: operation ${cmd.op}`)
}

function hugePages(context: IommufdContext, { cmd, name }: OptionCall): void {
  const { table } = context.object(Ioas, cmd.object_id, name)
  if (cmd.op === IOMMU_OPTION_OP_GET) cmd.val64 = table.largePages ? 1n : 0n
  else if (cmd.op === IOMMU_OPTION_OP_SET) {
    if (cmd.val64 > 1n) throw new ErrnoError('EINVAL', `${name}: value ${cmd.val64}`)
    table.setLargePages(cmd.val64 === 1n)
  } else throw new ErrnoError('EOPNOTSUPP', `${name}: operation ${cmd.op}`)
}

export const vfioIoas = command<IommufdContext, typeof iommu_vfio_ioas.members>(
  'IOMMU_VFIO_IOAS',
  iommu_vfio_ioas,
  12,
  (context, { cmd, name, respond }) => {
    unsupported(name, { __reserved: cmd.__reserved })
    if (cmd.op === IOMMU_VFIO_IOAS_GET) {
      if (context.compat === undefined) throw new ErrnoError('ENODEV', `${name}: there is none`)
      cmd.ioas_id = context.compat.id
      respond()
    } else if (cmd.op === IOMMU_VFIO_IOAS_SET)
      context.compat = context.object(Ioas, cmd.ioas_id, name)
    else if (cmd.op === IOMMU_VFIO_IOAS_CLEAR) context.compat = undefined
    else throw new ErrnoError('EOPNOTSUPP', `${name}: operation ${cmd.op}`)
  },
)
