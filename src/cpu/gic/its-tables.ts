// An ITS's tables in guest memory: devices, collections, and a translation table for each device (IHI 0069H 5.2, 12.19).
// Entries are 8 bytes in the layout that KVM saves (Documentation/virt/kvm/devices/arm-vgic-its, ABI revision 0, `next` unused).
// Nothing is cached: the guest's memory is the state, and whatever it holds is checked at each use.

import { bits, flag, layout, page, u64 } from '../../base/fields.js'
import type { AddressSpace, EntryInto } from '../../mem/address-space.js'

/** Bytes of every entry. */
export const ENTRY_SIZE = 8

// biome-ignore format: table
export const deviceEntry = layout('ITS device table entry', ENTRY_SIZE, {
  V:    flag(63, 'valid'),
  NEXT: bits(62, 49, 'not used here'),
  ITT:  u64(48, 5, 'translation table, address bits 51:8'),
  SIZE: bits(4, 0, 'bits of an event id less one'),
})

// biome-ignore format: table
export const collectionEntry = layout('ITS collection table entry', ENTRY_SIZE, {
  V:      flag(63, 'valid'),
  RDBASE: bits(47, 16, 'number of a processor'),
  ICID:   bits(15, 0, 'collection'),
})

// biome-ignore format: table
export const translationEntry = layout('ITS translation table entry', ENTRY_SIZE, {
  INTID: bits(47, 16, 'the LPI; 0: no entry'),
  ICID:  bits(15, 0, 'collection'),
})

const firstLevelEntry = layout('ITS first-level entry', ENTRY_SIZE, {
  V: flag(63, 'a table is there'),
  ADDR: page(51, 12, 'second-level table'),
})

/** What a GITS_BASER says. */
export interface TableBase {
  readonly VALID: boolean
  readonly INDIRECT: boolean
  readonly ADDR: number
  readonly ADDRLOW: number
  readonly PAGESIZE: number
  readonly SIZE: number
}

/** Address of the entry with this index in the table behind a GITS_BASER, or -1 when it has no room for it. */
export function entryAddress(memory: AddressSpace, base: TableBase, index: number): number {
  if (!base.VALID) return -1
  const pageBytes = base.PAGESIZE === 0 ? 0x1000 : base.PAGESIZE === 1 ? 0x4000 : 0x1_0000
  const large = pageBytes === 0x1_0000
  const high = base.ADDR * 0x1_0000
  const table = large ? base.ADDRLOW * 2 ** 48 + high : high + base.ADDRLOW * 0x1000
  const start = table - (table % pageBytes)
  const entries = ((base.SIZE + 1) * pageBytes) / ENTRY_SIZE
  if (!base.INDIRECT) return index < entries ? start + index * ENTRY_SIZE : -1
  const each = pageBytes / ENTRY_SIZE
  const slot = Math.floor(index / each)
  if (slot >= entries) return -1
  const first = firstLevelEntry.create()
  if (!memory.read(start + slot * ENTRY_SIZE, first.bytes) || !first.V) return -1
  return first.ADDR - (first.ADDR % pageBytes) + (index % each) * ENTRY_SIZE
}

const into: EntryInto = { entryLo: 0, entryHi: 0 }

/** Reads an entry; false, with the entry all zero, where there is no memory. */
export function readEntry(memory: AddressSpace, at: number, words: Uint32Array): boolean {
  const home = at >= 0 && memory.readEntry(at, into)
  words[0] = home ? into.entryLo : 0
  words[1] = home ? into.entryHi : 0
  return home
}
