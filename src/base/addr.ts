// Branded addresses and identifiers: the project never lets one kind of address stand for another.
// Constructors check range. 64-bit values cross into 32-bit halves here and nowhere else on hot paths.

declare const brand: unique symbol
type Brand<T, Name extends string> = T & { readonly [brand]: Name }

/** I/O virtual address: what a device puts on the bus. 64 bits, so a bigint. */
export type Iova = Brand<bigint, 'Iova'>
/** Guest virtual address: what guest code dereferences. 64 bits. */
export type Gva = Brand<bigint, 'Gva'>
/** Guest physical address. At most 52 bits in every format modelled here, so a number. */
export type Gpa = Brand<number, 'Gpa'>
/** Host physical address. At most 52 bits. */
export type Hpa = Brand<number, 'Hpa'>
/** Process address space identifier, 20 bits (PCIe 6.20). */
export type Pasid = Brand<number, 'Pasid'>
/** SMMUv3 SubstreamID, up to 20 bits; the Arm name of a PASID (SMMUv3 3.2). */
export type SubstreamId = Brand<number, 'SubstreamId'>
/** SMMUv3 StreamID, up to 32 bits (SMMUv3 3.2). */
export type StreamId = Brand<number, 'StreamId'>
/** PCIe requester id: bus 15:8, device 7:3, function 2:0 (PCIe 2.2.4.2). */
export type Bdf = Brand<number, 'Bdf'>
/** VT-d domain id, 16 bits (VT-d 9.3). */
export type DomainId = Brand<number, 'DomainId'>

export const PAGE_SHIFT = 12
export const PAGE_SIZE = 4096
export const PAGE_MASK = 4095

const limit52 = 2 ** 52

function unsigned64(kind: string, v: bigint): bigint {
  if (v < 0n || v > 0xffff_ffff_ffff_ffffn) throw new RangeError(`${kind} ${v} is not 64 bits`)
  return v
}

function integerBelow(kind: string, v: number, limit: number): number {
  if (!Number.isInteger(v) || v < 0 || v >= limit) throw new RangeError(`${kind} ${v} out of range`)
  return v
}

export const iova = (v: bigint): Iova => unsigned64('iova', v) as Iova
export const gva = (v: bigint): Gva => unsigned64('gva', v) as Gva
export const gpa = (v: number): Gpa => integerBelow('gpa', v, limit52) as Gpa
export const hpa = (v: number): Hpa => integerBelow('hpa', v, limit52) as Hpa
export const pasid = (v: number): Pasid => integerBelow('pasid', v, 0x10_0000) as Pasid
export const substreamId = (v: number): SubstreamId =>
  integerBelow('substream id', v, 0x10_0000) as SubstreamId
export const streamId = (v: number): StreamId => integerBelow('stream id', v, 2 ** 32) as StreamId
export const domainId = (v: number): DomainId => integerBelow('domain id', v, 0x1_0000) as DomainId

/** Requester id from its three parts, or from a 16-bit value. */
export function bdf(bus: number, device?: number, fn = 0): Bdf {
  if (device === undefined) return integerBelow('bdf', bus, 0x1_0000) as Bdf
  integerBelow('bus', bus, 256)
  integerBelow('device', device, 32)
  integerBelow('function', fn, 8)
  return ((bus << 8) | (device << 3) | fn) as Bdf
}

/** Reads `0000:bb:dd.f` or `bb:dd.f`; undefined when the text is neither or the segment is not 0. */
export function parseBdf(text: string): Bdf | undefined {
  const m = /^(?:([0-9a-f]{4}):)?([0-9a-f]{2}):([0-9a-f]{2})\.([0-7])$/i.exec(text)
  if (!m || (m[1] !== undefined && Number.parseInt(m[1], 16) !== 0)) return undefined
  const device = Number.parseInt(m[3]!, 16)
  return device < 32 ? bdf(Number.parseInt(m[2]!, 16), device, Number(m[4])) : undefined
}

/** Prints a requester id as Linux names PCI devices: `0000:bb:dd.f`. */
export function formatBdf(id: number): string {
  const hex = (v: number) => v.toString(16).padStart(2, '0')
  return `0000:${hex(id >> 8)}:${hex((id >> 3) & 31)}.${id & 7}`
}

const scratch64 = new BigUint64Array(1)
/** The halves of the last `split`: [0] low, [1] high, both as int32. Read them at once. */
export const halves = new Int32Array(scratch64.buffer)

/** Leaves the two 32-bit halves of a 64-bit value in `halves`; wraps modulo 2^64. */
export function split(v: bigint): void {
  scratch64[0] = v
}

/** The low half of a 64-bit value, as int32. */
export function lowHalf(v: bigint): number {
  split(v)
  return halves[0]!
}

/**
 * The high half of a 64-bit value, as int32. Not `v >> 32n`: optimising that on a merged 64-bit value
 * aborts V8 11.3, which is Node 20's.
 */
export function highHalf(v: bigint): number {
  split(v)
  return halves[1]!
}

/** The 64-bit value of two 32-bit halves. */
export function join(hi: number, lo: number): bigint {
  halves[0] = lo
  halves[1] = hi
  return scratch64[0]!
}

/** An address below 2^53 from halves, exactly. */
export const joinNumber = (hi: number, lo: number): number =>
  (hi >>> 0) * 0x1_0000_0000 + (lo >>> 0)

/** Hexadecimal with 0x, the way every message and dump of the project prints a number. */
export function hex(v: number | bigint, digits = 1): string {
  return `0x${(typeof v === 'number' && v < 0 ? v >>> 0 : v).toString(16).padStart(digits, '0')}`
}
