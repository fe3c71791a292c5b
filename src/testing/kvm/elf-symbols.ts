// The symbols of a static 64-bit ELF executable (ELF gABI 4): hosts of guest tests find functions and globals by name.

/** Where something is, and its size in bytes. */
export interface ElfSymbol {
  readonly address: bigint
  readonly size: number
}

const SHT_SYMTAB = 2

/** Global and local symbols by name; of equal names the last. An Error for an image without symbols. */
export function symbolsOf(image: Uint8Array): Map<string, ElfSymbol> {
  const v = new DataView(image.buffer, image.byteOffset, image.byteLength)
  const u64 = (at: number) => Number(v.getBigUint64(at, true))
  const sections = u64(40)
  const section = (n: number) => sections + n * v.getUint16(58, true)
  const found = new Map<string, ElfSymbol>()
  for (let n = 0; n < v.getUint16(60, true); n++) {
    const at = section(n)
    if (v.getUint32(at + 4, true) !== SHT_SYMTAB) continue
    const [offset, size, entry] = [u64(at + 24), u64(at + 32), u64(at + 56)]
    const strings = u64(section(v.getUint32(at + 40, true)) + 24)
    for (let s = offset; s < offset + size; s += entry) {
      const name = textAt(image, strings + v.getUint32(s, true))
      if (name !== '') found.set(name, { address: v.getBigUint64(s + 8, true), size: u64(s + 16) })
    }
  }
  if (found.size === 0) throw new Error('the guest image has no symbols')
  return found
}

/** Bytes up to the first zero, as text. */
export function textAt(bytes: Uint8Array, at: number): string {
  const end = bytes.indexOf(0, at)
  return new TextDecoder().decode(bytes.subarray(at, end < 0 ? bytes.length : end))
}
