// The smallest static x86-64 executable around a piece of machine code, for guests of a few bytes.

/** An ELF image with `code` as its one segment at 1 MiB, which is also its entry point. */
export function tinyElf(code: readonly number[] | Uint8Array): Uint8Array {
  const bytes = new Uint8Array(120 + code.length)
  const v = new DataView(bytes.buffer)
  bytes.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  v.setUint16(16, 2, true)
  v.setUint16(18, 62, true)
  v.setBigUint64(24, 0x10_0000n, true)
  v.setBigUint64(32, 64n, true)
  v.setUint16(54, 56, true)
  v.setUint16(56, 1, true)
  v.setUint32(64, 1, true)
  v.setBigUint64(72, 120n, true)
  v.setBigUint64(88, 0x10_0000n, true)
  v.setBigUint64(96, BigInt(code.length), true)
  v.setBigUint64(104, BigInt(code.length), true)
  bytes.set(code, 120)
  return bytes
}
