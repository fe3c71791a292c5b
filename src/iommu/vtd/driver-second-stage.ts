/**
 * Second-stage tables of VT-d (VT-d 9.8) as the driver writes them. How tables are kept: ../stage-tables.ts.
 */
import type { FrameAllocator } from '../../mem/frames.js'
import { type EntryFormat, type StageShape, StageTables } from '../stage-tables.js'

/** PS: the entry maps a page although it is above the last level. */
const LARGE = 1 << 7

/** D of an entry that maps a page, kept under SSADE. */
export const VTD_DIRTY = 1 << 9

/** R and W of an entry are bits 0 and 1; it is present when it has one of them. */
const SECOND_STAGE: EntryFormat = {
  present: 3,
  table: 3,
  page: [0, 1, 2, 3],
  large: [0, LARGE | 1, LARGE | 2, LARGE | 3],
  largeMask: LARGE,
  largeValue: LARGE,
  accessMask: 3,
}

/** A second-stage address space. ENOMEM. */
export const secondStage = (frames: FrameAllocator, shape: StageShape): StageTables =>
  new StageTables(frames, SECOND_STAGE, shape)
