// Little-endian bytes of a number, for programs that poke registers with pwrite.

/** The 2 bytes of a 16-bit value. */
export const le16 = (v: number): Uint8Array => new Uint8Array(Uint16Array.of(v).buffer)
/** The 4 bytes of a 32-bit value. */
export const le32 = (v: number): Uint8Array => new Uint8Array(Uint32Array.of(v).buffer)
/** The 8 bytes of a 64-bit value. */
export const le64 = (v: bigint): Uint8Array => new Uint8Array(BigUint64Array.of(v).buffer)
