// VFIO's container calls on an iommufd: they work on one address space, made when the first group is put into the
// iommufd. Type 1 cuts mappings, so it turns large pages off; pages count for the process, as type1's do. No dirty
// tracking, no nesting, no update of addresses. uapi linux/vfio.h; differences: linux/iommufd.h, IOMMU_VFIO_IOAS.
import { hex } from '../../base/addr.js'
import { ErrnoError } from '../../base/errno.js'
import type { Process } from '../../sys/process.js'
import { answerInfo, CapabilityChain } from '../capability-chain.js'
import type { Group, GroupContainer } from '../group.js'
import {
  VFIO_API_VERSION,
  VFIO_CHECK_EXTENSION,
  VFIO_DMA_CC_IOMMU,
  VFIO_DMA_MAP_FLAG_READ,
  VFIO_DMA_MAP_FLAG_WRITE,
  VFIO_DMA_UNMAP_FLAG_ALL,
  VFIO_GET_API_VERSION,
  VFIO_IOMMU_GET_INFO,
  VFIO_IOMMU_INFO_CAPS,
  VFIO_IOMMU_INFO_PGSIZES,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_IOMMU,
  VFIO_TYPE1v2_IOMMU,
  VFIO_UNMAP_ALL,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_info,
  vfio_iommu_type1_info_cap_iova_range,
  vfio_iommu_type1_info_dma_avail,
  vfio_iova_range,
} from '../uapi/vfio.js'
import type { IommufdContext } from './context.js'
import { BoundDevice, type BoundGroups } from './device.js'
import { Ioas, mapUser, total } from './ioas.js'
import { EVERYTHING, type Span, spanOf } from './span.js'

const READ_WRITE = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE
const ALIGN = 8
const NO_LIMIT = 0xffff_ffff

/** VFIO's calls on an iommufd; ENOTTY for what they do not have. */
export function compatIoctl(
  context: IommufdContext,
  cmd: number,
  arg: number,
  caller: Process,
): number {
  switch (cmd) {
    case VFIO_GET_API_VERSION:
      return VFIO_API_VERSION
    case VFIO_CHECK_EXTENSION:
      return checkExtension(context, arg)
    case VFIO_SET_IOMMU:
      return setIommu(context, arg)
    case VFIO_IOMMU_GET_INFO:
      return getInfo(context, arg, caller)
    case VFIO_IOMMU_MAP_DMA:
      return mapDma(context, arg, caller)
    case VFIO_IOMMU_UNMAP_DMA:
      return unmapDma(context, arg, caller)
    default:
      throw new ErrnoError('ENOTTY', `an iommufd knows no ioctl ${hex(cmd)}`)
  }
}

function addressSpace(context: IommufdContext): Ioas {
  if (context.compat === undefined)
    throw new ErrnoError('ENODEV', 'the iommufd has no address space for VFIO')
  return context.compat
}

function checkExtension(context: IommufdContext, id: number): number {
  switch (id) {
    case VFIO_TYPE1_IOMMU:
    case VFIO_TYPE1v2_IOMMU:
    case VFIO_UNMAP_ALL:
      return 1
    case VFIO_DMA_CC_IOMMU:
      return Number([...addressSpace(context).hwpts].every(h => h.table.coherent))
    default:
      return 0
  }
}

function setIommu(context: IommufdContext, id: number): number {
  if (id !== VFIO_TYPE1_IOMMU && id !== VFIO_TYPE1v2_IOMMU)
    throw new ErrnoError('EINVAL', `VFIO_SET_IOMMU: ${id} is no type of an iommufd`)
  const { table } = addressSpace(context)
  if (id === VFIO_TYPE1_IOMMU) table.setLargePages(false)
  return 0
}

const INFO_MINIMUM = vfio_iommu_type1_info.offsets.cap_offset

function getInfo(context: IommufdContext, arg: number, { memory }: Process): number {
  const call = 'VFIO_IOMMU_GET_INFO'
  const info = vfio_iommu_type1_info({ argsz: 0 })
  if (!memory.copyIn(arg, info.bytes, INFO_MINIMUM))
    throw new ErrnoError('EFAULT', `${call}: unreadable`)
  if (info.argsz < INFO_MINIMUM) throw new ErrnoError('EINVAL', `${call}: argsz ${info.argsz}`)
  const { table } = addressSpace(context)
  const written = Math.min(info.argsz, info.bytes.length)
  info.flags = VFIO_IOMMU_INFO_PGSIZES
  info.iova_pgsizes = table.domains.reduce(
    (sizes, d) => sizes & d.pgsizes.reduce((bits, s) => bits | BigInt(s), 0n),
    0xffff_ffff_ffff_f000n,
  )
  const chain = new CapabilityChain(ALIGN)
  chain.add(vfio_iommu_type1_info_dma_avail({ avail: NO_LIMIT }), VFIO_IOMMU_TYPE1_INFO_DMA_AVAIL)
  const ranges = table.ranges().map(r =>
    vfio_iova_range({
      start: BigInt(r.startPage) << 12n,
      end: (BigInt(r.endPage + 1) << 12n) - 1n,
    }),
  )
  chain.add(
    vfio_iommu_type1_info_cap_iova_range({ nr_iovas: ranges.length, iova_ranges: ranges }),
    VFIO_IOMMU_TYPE1_INFO_CAP_IOVA_RANGE,
  )
  if (!answerInfo(memory, arg, info, chain, VFIO_IOMMU_INFO_CAPS, written))
    throw new ErrnoError('EFAULT', `${call}: not writable`)
  return 0
}

const MAP = vfio_iommu_type1_dma_map.offsets

function mapDma(context: IommufdContext, arg: number, { memory }: Process): number {
  const call = 'VFIO_IOMMU_MAP_DMA'
  const map = vfio_iommu_type1_dma_map({ argsz: 0 })
  if (!memory.copyIn(arg, map.bytes)) throw new ErrnoError('EFAULT', `${call}: unreadable`)
  const { argsz, flags, view } = map
  if (argsz < map.bytes.length || flags & ~READ_WRITE || flags === 0)
    throw new ErrnoError('EINVAL', `${call}: argsz ${argsz}, flags ${hex(flags)}`)
  mapUser(call, context, addressSpace(context), {
    memory,
    vaddr: halves(view, MAP.vaddr),
    length: halves(view, MAP.size),
    iova: halves(view, MAP.iova),
    prot: flags,
    mode: 'process',
  })
  return 0
}

const UNMAP = vfio_iommu_type1_dma_unmap.offsets

function unmapDma(context: IommufdContext, arg: number, { memory }: Process): number {
  const call = 'VFIO_IOMMU_UNMAP_DMA'
  const unmap = vfio_iommu_type1_dma_unmap({ argsz: 0 })
  if (!memory.copyIn(arg, unmap.bytes)) throw new ErrnoError('EFAULT', `${call}: unreadable`)
  const { argsz, flags, view } = unmap
  if (argsz < unmap.bytes.length || flags & ~VFIO_DMA_UNMAP_FLAG_ALL)
    throw new ErrnoError('EINVAL', `${call}: argsz ${argsz}, flags ${hex(flags)}`)
  const { table } = addressSpace(context)
  const [hi, lo] = halves(view, UNMAP.iova)
  const [lhi, llo] = halves(view, UNMAP.size)
  let span: Span | undefined = EVERYTHING
  if (flags & VFIO_DMA_UNMAP_FLAG_ALL) {
    if ((hi | lo | lhi | llo) !== 0)
      throw new ErrnoError('EINVAL', `${call}: ALL with an iova or a size`)
  } else {
    if ((lhi | llo) === 0) throw new ErrnoError('EINVAL', `${call}: size 0`)
    span = spanOf(hi, lo, lhi, llo)
    if (span === undefined) throw new ErrnoError('EOVERFLOW', `${call}: the range wraps`)
    if (!table.largePages) {
      if ((lo | llo) & 4095) throw new ErrnoError('EINVAL', `${call}: no whole pages`)
      table.cut(span)
    }
  }
  unmap.size = total(table.unmap(span))
  if (!memory.copyOut(arg, unmap.bytes)) throw new ErrnoError('EFAULT', `${call}: not writable`)
  return 0
}

const halves = (view: DataView, at: number): readonly [number, number] => [
  view.getUint32(at + 4, true),
  view.getUint32(at, true),
]

/** An iommufd in the place of a group's container: devices are bound and attached as they are opened. */
export class CompatContainer implements GroupContainer {
  readonly #context: IommufdContext
  readonly #groups: BoundGroups

  constructor(context: IommufdContext, groups: BoundGroups) {
    this.#context = context
    this.#groups = groups
  }

  get driver(): { readonly nests: boolean } {
    return { nests: false }
  }

  /** Takes a group in; the address space of VFIO's calls is made when there is none. */
  add(_group: Group): void {
    const context = this.#context
    context.compat ??= context.objects.add(new Ioas(context))
    context.get()
  }

  remove(_group: Group): void {
    this.#context.put()
  }

  /** Binds a device and attaches it to the address space; answers what undoes that. */
  open(bdf: number): () => void {
    const ioas = addressSpace(this.#context)
    const device = new BoundDevice(this.#context, bdf, this.#groups)
    try {
      device.attach(ioas.id)
    } catch (error) {
      device.unbind()
      throw error
    }
    return () => device.unbind()
  }
}
