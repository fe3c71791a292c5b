// Registers with one field for each interrupt: GICD_ISENABLER<n> and its like, which the redistributor has for its
// private interrupts at the same offsets of SGI_base (IHI 0069H 12.9, 12.11). Words are 32 bits; IPRIORITYR takes bytes.

import type { InterruptRange } from './interrupts.js'

/** One family. `at` is the offset of the register of interrupt 0, `bits` how many each interrupt has. */
export interface Family {
  readonly name: string
  readonly at: number
  readonly bits: 1 | 2 | 8
  readonly doc: string
  read(range: InterruptRange, word: number): number
  write(range: InterruptRange, word: number, value: number): void
  /** What KVM's attribute calls see and do where that differs from the guest's accesses. */
  readonly user?: {
    read(range: InterruptRange, word: number): number
    write(range: InterruptRange, word: number, value: number): void
  }
}

const nothing = (): void => {}
const zero = (): number => 0

function readPriorities(r: InterruptRange, word: number): number {
  let v = 0
  for (let i = 3; i >= 0; i--) v = (v << 8) | r.priority[word * 4 + i]!
  return v
}

function writePriorities(r: InterruptRange, word: number, value: number): void {
  for (let i = 0; i < 4; i++) r.setPriority(word * 4 + i, value >>> (8 * i))
}

// Two bits for each interrupt, of which the upper is "edge" and the lower RES0.
function readConfig(r: InterruptRange, word: number): number {
  const half = (r.edge[word >> 1]! >>> (16 * (word & 1))) & 0xffff
  let v = 0
  for (let i = 0; i < 16; i++) v |= ((half >> i) & 1) << (2 * i + 1)
  return v
}

function writeConfig(r: InterruptRange, word: number, value: number): void {
  let half = 0
  for (let i = 0; i < 16; i++) half |= ((value >>> (2 * i + 1)) & 1) << i
  const shift = 16 * (word & 1)
  const may = r.configurable[word >> 1]! & (0xffff << shift)
  r.change(r.edge, word >> 1, (half << shift) & may, may)
}

// biome-ignore format: table
export const FAMILIES: readonly Family[] = [
  { name: 'IGROUPR', at: 0x080, bits: 1, doc: 'group 1',
    read: (r, w) => r.group[w]!, write: (r, w, v) => r.change(r.group, w, v, -1) },
  { name: 'ISENABLER', at: 0x100, bits: 1, doc: 'enabled; ones enable',
    read: (r, w) => r.enabled[w]!, write: (r, w, v) => r.change(r.enabled, w, v, 0) },
  { name: 'ICENABLER', at: 0x180, bits: 1, doc: 'enabled; ones disable',
    read: (r, w) => r.enabled[w]!, write: (r, w, v) => r.change(r.enabled, w, 0, v) },
  { name: 'ISPENDR', at: 0x200, bits: 1, doc: 'pending; ones set the latch. KVM sees the latch alone and replaces it',
    read: (r, w) => r.pending(w), write: (r, w, v) => r.change(r.latched, w, v, 0),
    user: { read: (r, w) => r.latched[w]!, write: (r, w, v) => r.change(r.latched, w, v, -1) } },
  { name: 'ICPENDR', at: 0x280, bits: 1, doc: 'pending; ones clear the latch. Nothing to KVM',
    read: (r, w) => r.pending(w), write: (r, w, v) => r.change(r.latched, w, 0, v),
    user: { read: zero, write: nothing } },
  { name: 'ISACTIVER', at: 0x300, bits: 1, doc: 'active; ones activate',
    read: (r, w) => r.active[w]!, write: (r, w, v) => r.change(r.active, w, v, 0) },
  { name: 'ICACTIVER', at: 0x380, bits: 1, doc: 'active; ones deactivate',
    read: (r, w) => r.active[w]!, write: (r, w, v) => r.change(r.active, w, 0, v) },
  { name: 'IPRIORITYR', at: 0x400, bits: 8, doc: 'priority: the upper five bits of eight',
    read: readPriorities, write: writePriorities },
  { name: 'ICFGR', at: 0xc00, bits: 2, doc: '2 edge-triggered, 0 level-sensitive; SGIs and PPIs are fixed',
    read: readConfig, write: writeConfig },
]

/** Where `findWord` leaves what it found: its caller keeps one, so that an access allocates nothing. */
export interface FoundWord {
  family: Family | undefined
  /** Word within the range's part of the family. */
  word: number
}

/** Finds the word of `range` at a 4-byte aligned `offset`; false when none is there. */
export function findWord(range: InterruptRange, offset: number, into: FoundWord): boolean {
  for (const family of FAMILIES) {
    const start = family.at + (range.first * family.bits) / 8
    const bytes = (range.count * family.bits) / 8
    if (offset >= start && offset < start + bytes) {
      into.family = family
      into.word = (offset - start) >> 2
      return true
    }
  }
  return false
}

/** Which interrupt of the range has its byte of priority at `offset`; -1 for none. */
export function priorityIndex(range: InterruptRange, offset: number): number {
  const i = offset - 0x400 - range.first
  return i >= 0 && i < range.count ? i : -1
}
