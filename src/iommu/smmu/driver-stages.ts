/**
 * Stage 1 and stage 2 tables (Arm ARM D8.3, 4 KB granule) as the driver writes them: accessed flags set, inner
 * shareable, write-back. How tables are kept: ../stage-tables.ts.
 */
import type { FrameAllocator } from '../../mem/frames.js'
import { type EntryFormat, type StageShape, StageTables } from '../stage-tables.js'

const VALID = 1 << 0
/** A table above the last level, a page at it; clear: a block. */
const TABLE = 1 << 1
const AF = 1 << 10
const INNER_SHAREABLE = 3 << 8
// Stage 1.
const AP_UNPRIVILEGED = 1 << 6
const AP_READ_ONLY = 1 << 7
const NOT_GLOBAL = 1 << 11
// Stage 2.
const S2AP_READ = 1 << 6
const S2AP_WRITE = 1 << 7
const WRITE_BACK = 0xf << 2

const COMMON = VALID | AF | INNER_SHAREABLE
const ONE = COMMON | NOT_GLOBAL | AP_UNPRIVILEGED
const TWO = COMMON | WRITE_BACK

function format(blocks: readonly number[], accessBits: number): EntryFormat {
  return {
    present: VALID,
    table: VALID | TABLE,
    page: blocks.map(b => b | TABLE),
    large: blocks,
    largeMask: TABLE,
    largeValue: 0,
    accessMask: VALID | accessBits,
  }
}

/** By IOMMU_READ and IOMMU_WRITE. Stage 1 has no pages that can only be written: they can be read too. */
const STAGE_1 = format([0, ONE | AP_READ_ONLY, ONE, ONE], AP_READ_ONLY)
const STAGE_2 = format(
  [0, TWO | S2AP_READ, TWO | S2AP_WRITE, TWO | S2AP_READ | S2AP_WRITE],
  S2AP_READ | S2AP_WRITE,
)

/** A stage 1 or stage 2 address space. ENOMEM. */
export const stageTables = (frames: FrameAllocator, stage: 1 | 2, shape: StageShape): StageTables =>
  new StageTables(frames, stage === 1 ? STAGE_1 : STAGE_2, shape)
