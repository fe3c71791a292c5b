/**
 * The words of a walk: what was asked for (ACCESS_*), what the tables grant (PERM_*), how it ended
 * (FAILURE), and the `Walk` a caller lends to hold the answer and the place where it stopped.
 * What a format is: format.ts. Who walks: walker.ts, nested.ts.
 */

/** The access needs read permission. */
export const ACCESS_READ = 0x001
/** The access needs write permission, and sets the dirty flag where the format keeps one. */
export const ACCESS_WRITE = 0x002
/** The access is an instruction fetch, or a device's execute request. */
export const ACCESS_EXECUTE = 0x004
/** The access is made with user privilege; without it, supervisor privilege is meant. */
export const ACCESS_USER = 0x008
/** x86: CR0.WP, or WPE of a PASID entry: supervisor writes honour R/W. */
export const ACCESS_WP = 0x010
/** x86: CR4.SMEP: supervisor fetches from user pages are refused. VMSA: SCTLR.WXN. */
export const ACCESS_SMEP = 0x020
/** x86: CR4.SMAP: supervisor reads and writes of user pages are refused unless ACCESS_AC. VMSA: PSTATE.PAN. */
export const ACCESS_SMAP = 0x040
/** x86: EFLAGS.AC, for an access that SMAP lets it excuse (not an implicit one). */
export const ACCESS_AC = 0x080
/** x86: EFER.NXE: bit 63 of an entry is XD; without it the bit is reserved. */
export const ACCESS_NXE = 0x100
/** VT-d: EAFE of the PASID entry: first-stage entries also get the extended-accessed flag. */
export const ACCESS_EXTENDED = 0x200
/** VMSA stage 1: the walker sets the access flag (TCR.HA) rather than faulting. x86 first stages always set theirs. */
export const ACCESS_FLAGS1 = 0x400
/** Second stage: the walker sets accessed and dirty flags (VT-d SSADE, VMSA VTCR.HA). */
export const ACCESS_FLAGS2 = 0x800
/** Leaves no trace: accessed and dirty flags stay as they are, `dirty` tells what a write would still have to set. */
export const ACCESS_PROBE = 0x1000

/** Supervisor may read. Second stages and IOVA tables know one privilege and grant both. */
export const PERM_READ = 0x01
/** Supervisor may write. */
export const PERM_WRITE = 0x02
/** Supervisor may execute. */
export const PERM_EXECUTE = 0x04
/** User may read. The user bits are the supervisor bits shifted by 3. */
export const PERM_USER_READ = 0x08
/** User may write. */
export const PERM_USER_WRITE = 0x10
/** User may execute. */
export const PERM_USER_EXECUTE = 0x20
/** The translation belongs to all address spaces (x86 G set, VMSA nG clear). */
export const PERM_GLOBAL = 0x40
/** Read and write for both privileges. */
export const PERM_RW = PERM_READ | PERM_WRITE | PERM_USER_READ | PERM_USER_WRITE
/** Everything but PERM_GLOBAL. */
export const PERM_ALL = 0x3f

/** How a walk ended. `Walk.stage` tells whose entry or permission it was, `Walk.during` for whose sake. */
export const FAILURE = {
  none: 0,
  /** An entry is not present: P, or R and W, or the valid bit, is clear. */
  notPresent: 1,
  /** An entry has a reserved bit set, or is a large page where there is none. */
  reserved: 2,
  /** No read permission. */
  read: 3,
  /** No write permission. */
  write: 4,
  /** No execute permission. */
  execute: 5,
  /** A user access to what only a supervisor may use. */
  user: 6,
  /** A supervisor fetch from a user page under SMEP. */
  smep: 7,
  /** A supervisor read or write of a user page under SMAP. */
  smap: 8,
  /** The address is not canonical. */
  nonCanonical: 9,
  /** The address, or one read from an entry of the other stage, is wider than this stage's input. */
  addressSize: 10,
  /** An entry could not be read: nothing is at its address. */
  unreadable: 11,
  /** VMSA: the access flag is clear and nobody sets it. */
  accessFlag: 12,
  /** Accessed or dirty flags could not be written: nothing is at the entry's address. */
  flagUpdate: 13,
  /** A first-stage table lies in the interrupt address range (VT-d SFS.9). */
  interruptRange: 14,
} as const
export type FailureName = keyof typeof FAILURE
export type FailureCode = (typeof FAILURE)[FailureName]

const names = Object.keys(FAILURE) as FailureName[]
/** The name of a failure code. */
export const failureName = (code: FailureCode): FailureName => names[code]!

/** For whose sake the failing (or last) step was made. */
export const DURING = {
  /** The walk of the address asked for, or the second stage of its final page. */
  page: 0,
  /** The second stage of a first-stage paging entry, to read it. */
  entry: 1,
  /** The second stage of a first-stage paging entry, to set its accessed or dirty flag. */
  flags: 2,
} as const
export type During = (typeof DURING)[keyof typeof DURING]

/** The answer of a walk and where it stopped. Lent by the caller, rewritten by every walk. */
export class Walk {
  /** FAILURE.none when there is a translation; `output` to `dirty` count only then. */
  failure: FailureCode = FAILURE.none
  /** Physical address, page offset included. */
  output = -1.5
  /** log2 of the size of the page that the translation holds for; nested: of the smaller one. */
  pageBits = 12
  /** PERM_* of the translation under the modes asked with; nested: what both stages grant. */
  permissions = 0
  /** True when a write needs no further flag: what caches it may grant writes without a new walk. */
  dirty = true

  /** The stage that failed. This and the rest count only with a failure. */
  stage: 1 | 2 = 1
  /** For whose sake that stage was walked. */
  during: During = DURING.page
  /** Entries walked before the failing one in that stage: 0 at the root's table, -1 when none was reached. */
  depth = -1
  /** Number of that level in the specification's counting; the root's level when none was reached. */
  level = 0
  /** Address of the failing entry, -1 when none was reached, in the space its stage's tables live in (nested first stage: a GPA). */
  entryAt = -1.5
  /** Raw value of that entry; 0 when it was not read. */
  entryLo = 0
  entryHi = 0

  /** Nested, when `stage` is 2: depth and level of the first stage at that moment. */
  firstDepth = -1
  firstLevel = 0
  /** Nested: the first stage's output that the second stage was asked for (final page, or a first-stage entry). */
  intermediate = -1.5

  /** The permissions a cache may hold: without writes while the dirty flag is still to be set. */
  get cacheable(): number {
    return this.dirty ? this.permissions : this.permissions & ~(PERM_WRITE | PERM_USER_WRITE)
  }
}

/** Where a walker reads its entries. `mem/address-space.ts` is one. */
export interface EntrySource {
  /** Reads an 8-byte aligned entry into two halves; false where there is no home. */
  readEntry(at: number, into: EntryInto): boolean
  /** Sets bits of an entry in one step; false where there is no home. */
  orEntry(at: number, lo: number, hi: number): boolean
  /** Offered: the RAM around an address, so that its entries can be read at the price of an array index. */
  ramAt?(addr: number): EntryWindow | undefined
  /** Changes whenever an answer of `ramAt` may. */
  readonly generation?: number
}

/** Where `readEntry` leaves the halves. */
export interface EntryInto {
  entryLo: number
  entryHi: number
}

/** RAM as a walker sees it: `words` are the little-endian 32-bit words from `base` on. */
export interface EntryWindow {
  readonly base: number
  readonly size: number
  readonly words: Int32Array
}
