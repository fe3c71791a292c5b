// What an encrypted guest finds in its memory: the loader's tables with the C-bit on everything that is encrypted, its
// image, its boot information. All of it is made before the launch, in a copy: nothing needs to be written afterwards
// (C.4 row 16). Left out: fw_cfg, whose DMA an encrypted guest could not use (row 20).

import { readElf } from '../elf.js'
import { type BootInfo, type EntryState, prepareGuest } from '../guest-boot.js'

const INFO_BIOS = 0x1820
const ENTRY_ADDRESS = 0xf_ffff_ffff_f000n
const HUGE = 2 ** 21
const PAGE = 4096
/** What the loader leaves below the image: tables, boot information, a stack. */
const LOADER = { FROM: 0x1000, TO: 0xa000 } as const

/** A boot image and how to enter it. */
export interface BootImage {
  readonly entry: EntryState
  /** Guest-physical ranges that the guest expects to find, in order. */
  readonly ranges: readonly { readonly gpa: number; readonly bytes: Uint8Array }[]
}

/** Where the measured BIOS page lies, and what it begins with. */
export const BIOS = { ADDRESS: 0xffff_f000, SIZE: 0x1000, MAGIC: 'SEV-BIOS' } as const

/** Makes tables, image and boot information for `ramBytes` of RAM. ImageError when the image is no good. */
export function encryptedBoot(image: Uint8Array, info: BootInfo, cBit: number): BootImage {
  const { ramBytes } = info
  const ram = new Uint8Array(ramBytes)
  const entry = prepareGuest(ram, image, info)
  const view = new DataView(ram.buffer)
  view.setBigUint64(INFO_BIOS, BigInt(BIOS.ADDRESS), true)
  const c = 1n << BigInt(cBit)
  const at = (table: number, i: number) =>
    Number(view.getBigUint64(table + 8 * i, true) & ENTRY_ADDRESS)
  const pdpt = at(Number(entry.cr3), 0)
  const mark = (address: number) => {
    const directory = at(pdpt, Math.floor(address / 2 ** 30))
    const where = directory + 8 * (Math.floor(address / HUGE) % 512)
    view.setBigUint64(where, view.getBigUint64(where, true) | c, true)
  }
  for (let address = 0; address < ramBytes; address += HUGE) mark(address)
  mark(BIOS.ADDRESS)
  const segments = readElf(image, ramBytes).segments.map(({ p_paddr, p_memsz }) => ({
    from: Math.floor(Number(p_paddr) / PAGE) * PAGE,
    to: Math.ceil(Number(p_paddr + p_memsz) / PAGE) * PAGE,
  }))
  const used = merged([{ from: LOADER.FROM, to: LOADER.TO }, ...segments])
  const bios = new Uint8Array(BIOS.SIZE)
  bios.set(new TextEncoder().encode(BIOS.MAGIC))
  return {
    entry: { ...entry, cr3: entry.cr3 | c },
    ranges: [
      ...used.map(({ from, to }) => ({ gpa: from, bytes: ram.subarray(from, to) })),
      { gpa: BIOS.ADDRESS, bytes: bios },
    ],
  }
}

interface Range {
  readonly from: number
  readonly to: number
}

/** Ranges in order, those that touch joined: memory is encrypted once. */
function merged(ranges: readonly Range[]): readonly Range[] {
  const joined: { from: number; to: number }[] = []
  for (const { from, to } of [...ranges].sort((a, b) => a.from - b.from)) {
    const last = joined.at(-1)
    if (last !== undefined && from <= last.to) last.to = Math.max(last.to, to)
    else joined.push({ from, to })
  }
  return joined
}
