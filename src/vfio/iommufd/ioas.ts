// I/O address spaces as objects, and the calls on them: allocate, ranges, map, copy, unmap. Members of 64 bits are
// read as halves. What an address space does: io-pagetable.ts. uapi linux/iommufd.h, IOMMU_IOAS_*.
import { ErrnoError } from '../../base/errno.js'
import { IOMMU_READ, IOMMU_WRITE } from '../../iommu/domain.js'
import type { ProcessMemory } from '../../mem/process-memory.js'
import {
  IOMMU_IOAS_MAP_FIXED_IOVA,
  IOMMU_IOAS_MAP_READABLE,
  IOMMU_IOAS_MAP_WRITEABLE,
  iommu_destroy,
  iommu_ioas_alloc,
  iommu_ioas_allow_iovas,
  iommu_ioas_change_process,
  iommu_ioas_copy,
  iommu_ioas_iova_ranges,
  iommu_ioas_map,
  iommu_ioas_map_file,
  iommu_ioas_unmap,
  iommu_iova_range,
} from '../uapi/iommufd.js'
import { command, pointer, unsupported } from './commands.js'
import type { IommufdContext } from './context.js'
import type { HwptPaging } from './hwpt.js'
import { IoPageTable } from './io-pagetable.js'
import type { IommufdObject } from './objects.js'
import { type AccountMode, UserPages } from './pages.js'
import {
  between,
  EVERYTHING,
  length64,
  overlap,
  type Span,
  spanOf,
  start64,
  startsBefore,
} from './span.js'

const MAP_FLAGS = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_WRITEABLE | IOMMU_IOAS_MAP_READABLE
const ALL_ONES = 0xffff_ffff

/** An address space of one iommufd. */
export class Ioas implements IommufdObject {
  readonly kind = 'ioas'
  id = 0
  users = 0
  readonly table = new IoPageTable()
  /** The page tables over it, in order of making. */
  readonly hwpts = new Set<HwptPaging>()
  readonly #context: IommufdContext

  constructor(context: IommufdContext) {
    this.#context = context
  }

  destroy(): void {
    this.table.clear()
    if (this.#context.compat === this) this.#context.compat = undefined
  }
}

/** Unsigned halves of a 64-bit member, high first. */
const halves = (view: DataView, at: number): readonly [number, number] => [
  view.getUint32(at + 4, true),
  view.getUint32(at, true),
]

/** Refuses members that no range can have: 2^64-1. */
function tooFar(name: string, view: DataView, ...members: number[]): void {
  for (const at of members)
    if (view.getUint32(at, true) === ALL_ONES && view.getUint32(at + 4, true) === ALL_ONES)
      throw new ErrnoError('EOVERFLOW', `${name}: 2^64-1`)
}

function protection(name: string, flags: number): number {
  const prot =
    (flags & IOMMU_IOAS_MAP_READABLE ? IOMMU_READ : 0) |
    (flags & IOMMU_IOAS_MAP_WRITEABLE ? IOMMU_WRITE : 0)
  if (prot === 0) throw new ErrnoError('EINVAL', `${name}: neither READABLE nor WRITEABLE`)
  return prot
}

/** A mapping of a process's memory. */
export interface UserMapping {
  readonly memory: ProcessMemory
  readonly vaddr: readonly [hi: number, lo: number]
  readonly length: readonly [hi: number, lo: number]
  /** Undefined: where there is room. */
  readonly iova: readonly [hi: number, lo: number] | undefined
  readonly prot: number
  readonly mode: AccountMode
}

/** Maps a process's memory and answers where. EINVAL, EOVERFLOW, EEXIST, ENOSPC, EFAULT, ENOMEM. */
export function mapUser(name: string, context: IommufdContext, ioas: Ioas, m: UserMapping): Span {
  const { table } = ioas
  const [lhi, llo] = m.length
  if ((lhi | llo) === 0) throw new ErrnoError('EINVAL', `${name}: length 0`)
  const [vhi, vlo] = m.vaddr
  if (spanOf(vhi, vlo, lhi, llo) === undefined)
    throw new ErrnoError('EOVERFLOW', `${name}: the user address wraps`)
  const length = spanOf(0, 0, lhi, llo)!
  table.checkLength(length)
  const at = m.iova && placeOf(name, table, m.iova, m.length)
  const vaddrPage = vhi * 0x10_0000 + (vlo >>> 12)
  const account = m.mode === 'user' ? context.env.account : undefined
  const pages = new UserPages(m.memory, vaddrPage, (m.prot & IOMMU_WRITE) !== 0, account)
  return table.map([{ pages, vaddrPage, vaddrSkip: vlo & 4095, span: length }], at, length, m.prot)
}

function placeOf(
  name: string,
  table: IoPageTable,
  [hi, lo]: readonly [number, number],
  [lhi, llo]: readonly [number, number],
): Span {
  if (lo & (table.alignment - 1))
    throw new ErrnoError('EINVAL', `${name}: the IOVA is no multiple of ${table.alignment}`)
  const span = spanOf(hi, lo, lhi, llo)
  if (span === undefined) throw new ErrnoError('EOVERFLOW', `${name}: the IOVA range wraps`)
  return span
}

/** Bytes of areas together. */
export const total = (areas: readonly { readonly span: Span }[]): bigint =>
  areas.reduce((sum, a) => sum + length64(a.span), 0n)

export const destroy = command<IommufdContext, typeof iommu_destroy.members>(
  'IOMMU_DESTROY',
  iommu_destroy,
  8,
  (context, { cmd }) => context.objects.destroy(cmd.id),
)

export const ioasAlloc = command<IommufdContext, typeof iommu_ioas_alloc.members>(
  'IOMMU_IOAS_ALLOC',
  iommu_ioas_alloc,
  12,
  (context, call) => {
    const { cmd, name } = call
    unsupported(name, { flags: cmd.flags })
    const ioas = new Ioas(context)
    context.publish(ioas, call, () => {
      cmd.out_ioas_id = ioas.id
    })
  },
)

export const ioasIovaRanges = command<IommufdContext, typeof iommu_ioas_iova_ranges.members>(
  'IOMMU_IOAS_IOVA_RANGES',
  iommu_ioas_iova_ranges,
  32,
  (context, { cmd, name, caller, respond }) => {
    unsupported(name, { __reserved: cmd.__reserved })
    const { table } = context.object(Ioas, cmd.ioas_id, name)
    const room = cmd.num_iovas
    const ranges = table.ranges()
    cmd.num_iovas = ranges.length
    cmd.out_iova_alignment = BigInt(table.alignment)
    ranges.slice(0, room).forEach(({ startPage, endPage }, i) => {
      const range = iommu_iova_range({
        start: BigInt(startPage) << 12n,
        last: (BigInt(endPage + 1) << 12n) - 1n,
      })
      if (!caller.memory.copyOut(pointer(cmd.allowed_iovas) + i * range.bytes.length, range.bytes))
        throw new ErrnoError('EFAULT', `${name}: the ranges are not writable`)
    })
    respond()
    if (ranges.length > room)
      throw new ErrnoError('EMSGSIZE', `${name}: room for ${room} of ${ranges.length} ranges`)
  },
)

export const ioasAllowIovas = command<IommufdContext, typeof iommu_ioas_allow_iovas.members>(
  'IOMMU_IOAS_ALLOW_IOVAS',
  iommu_ioas_allow_iovas,
  24,
  (context, { cmd, name, caller }) => {
    unsupported(name, { __reserved: cmd.__reserved })
    const { table } = context.object(Ioas, cmd.ioas_id, name)
    const spans: Span[] = []
    const range = iommu_iova_range()
    for (let i = 0; i < cmd.num_iovas; i++) {
      if (!caller.memory.copyIn(pointer(cmd.allowed_iovas) + i * range.bytes.length, range.bytes))
        throw new ErrnoError('EFAULT', `${name}: the ranges are not readable`)
      if (range.start >= range.last) throw new ErrnoError('EINVAL', `${name}: range ${i} is empty`)
      const [hi, lo] = halves(range.view, 0)
      const [lastHi, lastLo] = halves(range.view, 8)
      spans.push(between(hi, lo, lastHi, lastLo))
    }
    spans.sort((a, b) => (startsBefore(a, b) ? -1 : 1))
    if (spans.some((s, i) => i > 0 && overlap(spans[i - 1]!, s)))
      throw new ErrnoError('EINVAL', `${name}: two ranges overlap`)
    table.allow(spans)
  },
)

const MAP = iommu_ioas_map.offsets
export const ioasMap = command<IommufdContext, typeof iommu_ioas_map.members>(
  'IOMMU_IOAS_MAP',
  iommu_ioas_map,
  40,
  (context, { cmd, name, caller, respond }) => {
    const { view, flags } = cmd
    unsupported(name, { flags: flags & ~MAP_FLAGS, __reserved: cmd.__reserved })
    tooFar(name, view, MAP.iova, MAP.length)
    const prot = protection(name, flags)
    const ioas = context.object(Ioas, cmd.ioas_id, name)
    const span = mapUser(name, context, ioas, {
      memory: caller.memory,
      vaddr: halves(view, MAP.user_va),
      length: halves(view, MAP.length),
      iova: flags & IOMMU_IOAS_MAP_FIXED_IOVA ? halves(view, MAP.iova) : undefined,
      prot,
      mode: context.accountMode,
    })
    cmd.iova = start64(span)
    undoUnless(respond, () => ioas.table.unmap(span))
  },
)

const FILE = iommu_ioas_map_file.offsets
export const ioasMapFile = command<IommufdContext, typeof iommu_ioas_map_file.members>(
  'IOMMU_IOAS_MAP_FILE',
  iommu_ioas_map_file,
  40,
  (context, { cmd, name, caller }) => {
    tooFar(name, cmd.view, FILE.iova, FILE.length)
    unsupported(name, { flags: cmd.flags & ~MAP_FLAGS })
    protection(name, cmd.flags)
    context.object(Ioas, cmd.ioas_id, name)
    const file = caller.fds.get(cmd.fd)
    if (file === undefined) throw new ErrnoError('EBADF', `${name}: fd ${cmd.fd} is not open`)
    throw new ErrnoError('EINVAL', `${name}: fd ${cmd.fd}, a ${file.kind}, has no pages of memory`)
  },
)

const COPY = iommu_ioas_copy.offsets
export const ioasCopy = command<IommufdContext, typeof iommu_ioas_copy.members>(
  'IOMMU_IOAS_COPY',
  iommu_ioas_copy,
  40,
  (context, { cmd, name, respond }) => {
    const { view, flags } = cmd
    unsupported(name, { flags: flags & ~MAP_FLAGS })
    tooFar(name, view, COPY.length, COPY.src_iova, COPY.dst_iova)
    const prot = protection(name, flags)
    const from = context.object(Ioas, cmd.src_ioas_id, name)
    const length = halves(view, COPY.length)
    if ((length[0] | length[1]) === 0) throw new ErrnoError('EINVAL', `${name}: length 0`)
    const source = spanOf(...halves(view, COPY.src_iova), ...length)
    if (source === undefined) throw new ErrnoError('EOVERFLOW', `${name}: the source range wraps`)
    const pieces = from.table.pieces(source)
    const to = context.object(Ioas, cmd.dst_ioas_id, name)
    const size = spanOf(0, 0, ...length)!
    to.table.checkLength(size)
    const fixed = (flags & IOMMU_IOAS_MAP_FIXED_IOVA) !== 0
    const at = fixed ? placeOf(name, to.table, halves(view, COPY.dst_iova), length) : undefined
    const span = to.table.map(pieces, at, size, prot)
    cmd.dst_iova = start64(span)
    undoUnless(respond, () => to.table.unmap(span))
  },
)

const UNMAP = iommu_ioas_unmap.offsets
export const ioasUnmap = command<IommufdContext, typeof iommu_ioas_unmap.members>(
  'IOMMU_IOAS_UNMAP',
  iommu_ioas_unmap,
  24,
  (context, { cmd, name, respond }) => {
    const { table } = context.object(Ioas, cmd.ioas_id, name)
    const { view } = cmd
    const [hi, lo] = halves(view, UNMAP.iova)
    const [lhi, llo] = halves(view, UNMAP.length)
    if ((hi | lo) === 0 && lhi === ALL_ONES && llo === ALL_ONES) {
      cmd.length = total(table.unmap(EVERYTHING))
      respond()
      return
    }
    tooFar(name, view, UNMAP.iova, UNMAP.length)
    if ((lhi | llo) === 0) throw new ErrnoError('EINVAL', `${name}: length 0`)
    const span = spanOf(hi, lo, lhi, llo)
    if (span === undefined) throw new ErrnoError('EOVERFLOW', `${name}: the range wraps`)
    const removed = table.unmap(span)
    if (removed.length === 0) throw new ErrnoError('ENOENT', `${name}: nothing is mapped there`)
    cmd.length = total(removed)
    respond()
  },
)

export const ioasChangeProcess = command<IommufdContext, typeof iommu_ioas_change_process.members>(
  'IOMMU_IOAS_CHANGE_PROCESS',
  iommu_ioas_change_process,
  8,
  (context, { cmd, name }) => {
    unsupported(name, { __reserved: cmd.__reserved })
    if (context.objects.all().some(o => o instanceof Ioas && o.table.areas.size > 0))
      throw new ErrnoError('EINVAL', `${name}: a mapping is not of a file`)
  },
)

/** A mapping that the caller cannot be told of is not made. */
function undoUnless(respond: () => void, undo: () => void): void {
  try {
    respond()
  } catch (error) {
    undo()
    throw error
  }
}
