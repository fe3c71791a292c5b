/**
 * Translation tables as an SMMU configures them: VMSAv8-64 (paging/formats-vmsa.ts) with what STEs and CDs
 * add: no access flag faults (AFFD), one privilege (EL2), dirty state. Stage 2 execute control by privilege
 * (XNX) is not modelled: XN[0] of stage 2 is ignored.
 */
import type { Gathered, PageTableFormat } from '../../paging/format.js'
import { stage1Permissions, stage2Permissions, vmsaFormat } from '../../paging/formats-vmsa.js'
import { PERM_EXECUTE, PERM_READ, PERM_USER_EXECUTE, PERM_WRITE } from '../../paging/walk.js'
import { ADDRESS_SIZES } from './registers.js'

/** A granule, by the log2 of its bytes. */
export type Granule = 12 | 14 | 16

/** What PS or IPS comes to with a granule: no more than the unit has, and 48 bits below 64 KB (no DS). */
export const outputWidth = (granule: Granule, size: number, most: number): number =>
  Math.min(ADDRESS_SIZES[size]!, most, granule === 16 ? 52 : 48)

/** What both stages have in common. */
interface Options {
  readonly granule: Granule
  /** Bits of an input address: 64 - TxSZ. */
  readonly inputBits: number
  /** Bits of an output address: a wider one in a descriptor is an address size fault. */
  readonly outputBits: number
  /** Bits 15:12 of a descriptor are address bits 51:48: 64 KB granules of a unit whose output is 52 bits wide. */
  readonly wide?: boolean
  /** False: the access flag is not looked at. With ACCESS_FLAGS1 or 2 the walker sets it. */
  readonly accessFlag: boolean
}

/** What varies between stage 1 tables. */
export interface Stage1Options extends Options {
  /** Tables of the upper range (TTB1). */
  readonly upper: boolean
  /** False in EL2 contexts, which know one privilege. */
  readonly unprivileged: boolean
  /** False: permissions in table descriptors are not looked at (HADx). */
  readonly hierarchical: boolean
  /** Clean pages whose dirty state would be kept (DBM) count as writable; AP[2] is still to be cleared then. */
  readonly writableClean?: boolean
}

/** What varies between stage 2 tables. */
export interface Stage2Options extends Options {
  readonly startLevel: 0 | 1 | 2 | 3
  /** Writes to clean pages set dirty state, under ACCESS_FLAGS2. */
  readonly dirty: boolean
}

const KB = { 12: 4, 14: 16, 16: 64 } as const

/** DBM is bit 51, two below XN[0] or PXN: these permissions take [54, 51] and split it. */
const WITH_DBM = [54, 51] as const
const dbm = (leafHigh: number): boolean => (leafHigh & 1) !== 0
const writable = (low: number): number => low & ~2

/** Stage 1 permissions of a regime with one privilege: AP[1], APTable[0] and PXN mean nothing. */
function onePrivilege({ low, leafHigh, tablesHigh }: Gathered, modes: number): number {
  const bits = { low: low & 2, leafHigh: leafHigh & 2, tablesHigh: tablesHigh & 0b1010 }
  const rights = stage1Permissions(bits, modes) & (PERM_READ | PERM_WRITE)
  // UXN is XN here; with WXN what is writable is not executable.
  const fetch = stage1Permissions({ ...bits, low: bits.low | 1 }, modes) & PERM_USER_EXECUTE
  const all = rights | (fetch !== 0 ? PERM_EXECUTE : 0)
  return all | (all << 3)
}

/** Formats made before: the same options give the same object, which is compiled once. */
const made = new Map<string, PageTableFormat>()
const MOST_MADE = 1024

function once(stage: 1 | 2, options: object, make: () => PageTableFormat): PageTableFormat {
  const key = `${stage} ${Object.entries(options).sort().join(' ')}`
  let format = made.get(key)
  if (!format) {
    if (made.size === MOST_MADE) made.clear()
    format = make()
    made.set(key, format)
  }
  return format
}

/** Stage 1 tables. ACCESS_SMEP stands for WXN, ACCESS_SMAP for PAN, ACCESS_FLAGS1 for HA. */
export const stage1Format = (o: Stage1Options): PageTableFormat => once(1, o, () => stage1(o))

function stage1(o: Stage1Options): PageTableFormat {
  const { flags, ...format } = vmsaFormat({ ...o, stage: 1, granule: KB[o.granule] })
  const plain = o.unprivileged ? stage1Permissions : onePrivilege
  return {
    ...format,
    ...(o.accessFlag && flags && { flags }),
    permissions: {
      ...format.permissions,
      ...(o.writableClean && { leafHigh: WITH_DBM }),
      rule: !o.writableClean
        ? plain
        : ({ low, leafHigh, tablesHigh }, modes) =>
            plain(
              { low: dbm(leafHigh) ? writable(low) : low, leafHigh: leafHigh >> 2, tablesHigh },
              modes,
            ),
    },
  }
}

/** Stage 2 tables: IPA to PA. ACCESS_FLAGS2 stands for S2HA. */
export const stage2Format = (o: Stage2Options): PageTableFormat => once(2, o, () => stage2(o))

function stage2(o: Stage2Options): PageTableFormat {
  const { flags, ...format } = vmsaFormat({ ...o, stage: 2, granule: KB[o.granule] })
  return {
    ...format,
    ...(o.accessFlag && flags && { flags: { ...flags, ...(o.dirty && { dirty: 7 }) } }),
    permissions: {
      ...format.permissions,
      leafHigh: WITH_DBM,
      rule: ({ low, leafHigh, tablesHigh }) =>
        stage2Permissions({
          low: o.dirty && dbm(leafHigh) ? low | 2 : low,
          leafHigh: (leafHigh >> 2) & 2,
          tablesHigh,
        }),
    },
  }
}
