// What a guest's stream table says of one stream, read in guest memory as the hardware would (IHI 0070 3.3.1, 5.1, 5.2).
// An entry that is not there, not valid or asks for what the virtual unit does not have aborts.

import { CD_SIZE } from '../../iommu/smmu/cd.js'
import { STRTAB_FMT } from '../../iommu/smmu/registers.js'
import { L1STD, STE, STE_CONFIG } from '../../iommu/smmu/ste.js'
import type { AddressSpace } from '../../mem/address-space.js'
import type { StreamConfig } from './container.js'

/** STRTAB_BASE and STRTAB_BASE_CFG. */
export interface StreamTable {
  readonly base: number
  readonly format: number
  readonly split: number
  readonly log2size: number
}

const ABORT: StreamConfig = { kind: 'abort' }
const SPLITS: readonly number[] = [6, 8, 10]

/** What the entry of `stream` asks for; `substreamBits` is what the virtual unit has. */
export function readStream(
  memory: AddressSpace,
  table: StreamTable,
  stream: number,
  substreamBits: number,
): StreamConfig {
  const at = entryAddress(memory, table, stream)
  const ste = STE.create()
  if (at < 0 || !memory.read(at, ste.bytes) || !ste.V) return ABORT
  if (ste.Config === STE_CONFIG.BYPASS) return { kind: 'bypass' }
  if (ste.Config !== STE_CONFIG.S1 || ste.S1CDMax > substreamBits) return ABORT
  return {
    kind: 'translate',
    table: ste.S1ContextPtr - (ste.S1ContextPtr % CD_SIZE),
    contextBits: ste.S1CDMax,
    format: ste.S1Fmt,
    dss: ste.S1DSS,
  }
}

function entryAddress(memory: AddressSpace, table: StreamTable, stream: number): number {
  const { base, format, split, log2size } = table
  if (stream >= 2 ** log2size) return -1
  if (format !== STRTAB_FMT.TWO_LEVEL) return aligned(base, 2 ** log2size) + stream * STE.size
  if (!SPLITS.includes(split)) return -1
  const l1 = L1STD.create()
  const index = Math.floor(stream / 2 ** split)
  const first = base - (base % Math.max(64, L1STD.size * 2 ** Math.max(0, log2size - split)))
  if (!memory.read(first + index * L1STD.size, l1.bytes)) return -1
  const within = stream % 2 ** split
  if (l1.Span === 0 || l1.Span > split + 1 || within >= 2 ** (l1.Span - 1)) return -1
  return aligned(l1.L2Ptr, 2 ** (l1.Span - 1)) + within * STE.size
}

/** A table's address without the bits below its size. */
const aligned = (at: number, entries: number): number => at - (at % (entries * STE.size))

/** Whether two configurations are the same stage. */
export const sameStream = (a: StreamConfig, b: StreamConfig): boolean =>
  a.kind === b.kind &&
  (a.kind !== 'translate' ||
    (b.kind === 'translate' &&
      a.table === b.table &&
      a.contextBits === b.contextBits &&
      a.format === b.format &&
      a.dss === b.dss))
