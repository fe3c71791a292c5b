// Loads a static 64-bit ELF executable into guest memory. Relocation, dynamic linking and
// section headers are left out: a guest image has only program headers that matter (ELF gABI 5).

import { hex } from '../base/addr.js'
import { struct } from '../base/struct.js'

// biome-ignore format: table
const Elf64_Ehdr = struct('Elf64_Ehdr', {
  e_ident:     ['u8', 16],
  e_type:      'u16',
  e_machine:   'u16',
  e_version:   'u32',
  e_entry:     'u64',
  e_phoff:     'u64',
  e_shoff:     'u64',
  e_flags:     'u32',
  e_ehsize:    'u16',
  e_phentsize: 'u16',
  e_phnum:     'u16',
  e_shentsize: 'u16',
  e_shnum:     'u16',
  e_shstrndx:  'u16',
})
// biome-ignore format: table
const Elf64_Phdr = struct('Elf64_Phdr', {
  p_type:   'u32',
  p_flags:  'u32',
  p_offset: 'u64',
  p_vaddr:  'u64',
  p_paddr:  'u64',
  p_filesz: 'u64',
  p_memsz:  'u64',
  p_align:  'u64',
})

const PT_LOAD = 1
const ET_EXEC = 2

/** What a guest machine wants of an image. */
export interface ElfTarget {
  /** e_machine, and what it is called. */
  readonly machine: number
  readonly name: string
  /** Guest physical address of the first byte of RAM. */
  readonly ramBase: number
}
/** RAM from 0 on. */
export const X86_64_IMAGE: ElfTarget = { machine: 62, name: 'x86-64', ramBase: 0 }
/** RAM from 1 GiB on. */
export const ARM64_IMAGE: ElfTarget = { machine: 183, name: 'arm64', ramBase: 0x4000_0000 }

/** A guest image that cannot be loaded; the message says what is wrong with it. */
export class ImageError extends Error {
  override readonly name = 'ImageError'
}

/**
 * Copies the loadable segments of `image` to their physical addresses in `ram` (guest RAM from the target's
 * base) and returns the entry point. Throws ImageError as `readElf` does; then `ram` is untouched.
 */
export function loadElf(image: Uint8Array, ram: Uint8Array, target = X86_64_IMAGE): bigint {
  const { entry, segments } = readElf(image, ram.length, target)
  for (const p of segments) {
    const to = Number(p.p_paddr) - target.ramBase
    const file = image.subarray(Number(p.p_offset), Number(p.p_offset + p.p_filesz))
    ram.fill(0, to, to + Number(p.p_memsz))
    ram.set(file, to)
  }
  return entry
}

/**
 * Entry point and loadable segments of `image`. Throws ImageError for anything that is no whole static
 * executable for the target or does not fit into `ramBytes`.
 */
export function readElf(
  image: Uint8Array,
  ramBytes: number,
  target = X86_64_IMAGE,
): { readonly entry: bigint; readonly segments: readonly ReturnType<typeof Elf64_Phdr.at>[] } {
  if (image.length < Elf64_Ehdr.size)
    throw new ImageError(`${image.length} bytes are no ELF header`)
  const header = Elf64_Ehdr.at(image)
  const [m0, m1, m2, m3, kind, order] = header.e_ident
  if (m0 !== 0x7f || m1 !== 0x45 || m2 !== 0x4c || m3 !== 0x46)
    throw new ImageError('not an ELF file')
  if (kind !== 2 || order !== 1) throw new ImageError('not a 64-bit little-endian ELF file')
  if (header.e_machine !== target.machine)
    throw new ImageError(`machine ${header.e_machine} is not ${target.name} (${target.machine})`)
  if (header.e_type !== ET_EXEC)
    throw new ImageError('not a static executable: link with -static -no-pie')
  if (header.e_phentsize !== Elf64_Phdr.size)
    throw new ImageError(`program headers of ${header.e_phentsize} bytes`)

  const segments = []
  for (let i = 0; i < header.e_phnum; i++) {
    const at = header.e_phoff + BigInt(i * Elf64_Phdr.size)
    if (at + BigInt(Elf64_Phdr.size) > BigInt(image.length))
      throw new ImageError(`truncated: program header ${i} lies past the end of the file`)
    const p = Elf64_Phdr.at(image, Number(at))
    if (p.p_type !== PT_LOAD || p.p_memsz === 0n) continue
    const what = `segment ${i} (${hex(p.p_memsz)} bytes at ${hex(p.p_paddr)})`
    if (p.p_filesz > p.p_memsz) throw new ImageError(`${what} has more file than memory`)
    if (p.p_offset + p.p_filesz > BigInt(image.length))
      throw new ImageError(`truncated: ${what} lies past the end of the file`)
    const base = BigInt(target.ramBase)
    if (p.p_paddr < base || p.p_paddr + p.p_memsz > base + BigInt(ramBytes))
      throw new ImageError(`${what} does not fit into ${ramBytes >> 20} MiB of guest RAM`)
    segments.push(p)
  }
  if (segments.length === 0) throw new ImageError('no loadable segment')
  const inside = segments.some(
    p => header.e_entry >= p.p_paddr && header.e_entry < p.p_paddr + p.p_memsz,
  )
  if (!inside)
    throw new ImageError(`entry point ${hex(header.e_entry)} lies in no loadable segment`)

  return { entry: header.e_entry, segments }
}
