// The table language: registers (`bank`) and structures in memory (`layout`) written once, as the
// specification prints them. Positions are explicit, high bit first; everything else derives from them.

/** What software's write does to a field: PCIe 7.4 and VT-d 10.1 words. */
export const ACCESS = ['rw', 'ro', 'wo', 'rw1c', 'rw1s', 'hwinit'] as const
export type Access = (typeof ACCESS)[number]

export type FieldKind = 'flag' | 'bits' | 'page' | 'u64' | 'oneOf'

/** One field of a register or structure. `T` is the type its accessor reads and writes. */
export interface Field<T = unknown> {
  readonly kind: FieldKind
  readonly hi: number
  readonly lo: number
  readonly access: Access
  readonly doc: string
  /** Names of values, for `oneOf`. */
  readonly values?: Readonly<Record<string, number>>
  /** Never set: it carries the accessor's type. */
  readonly type?: T
}

export type Fields = Readonly<Record<string, Field>>
type ValueOf<F> = F extends Field<infer T> ? T : never
/** The accessors that a set of fields gives. */
export type FieldValues<F> = { -readonly [K in keyof F]: ValueOf<F[K]> }

const isAccess = (s: string | undefined): s is Access => ACCESS.includes(s as Access)

function field<T>(kind: FieldKind, hi: number, lo: number, a?: string, b?: string): Field<T> {
  if (hi < lo || lo < 0) throw new Error(`field ${hi}:${lo} is upside down`)
  const access = isAccess(a) ? a : 'rw'
  return { kind, hi, lo, access, doc: (isAccess(a) ? b : a) ?? '' }
}

type FlagArgs = [doc?: string] | [access: Access, doc?: string]

/** One bit, read as a boolean. */
export const flag = (bit: number, ...a: FlagArgs): Field<boolean> =>
  field('flag', bit, bit, a[0], a[1])
/** Up to 32 bits, read as an unsigned number. */
export function bits(hi: number, lo: number, ...a: FlagArgs): Field<number> {
  if (hi - lo > 31) throw new Error(`field ${hi}:${lo} is wider than 32 bits: use page or u64`)
  return field('bits', hi, lo, a[0], a[1])
}
/** An address field kept in place: read as the number with the bits below `lo` zero and those above 51 dropped. */
export const page = (hi: number, lo: number, ...a: FlagArgs): Field<number> =>
  field('page', hi, lo, a[0], a[1])
/** Up to 64 bits, read as a bigint (shifted down to bit 0). */
export const u64 = (hi: number, lo: number, ...a: FlagArgs): Field<bigint> =>
  field('u64', hi, lo, a[0], a[1])
/** An enumeration: read as a number; `values` names the legal ones. */
export function oneOf<const V extends Readonly<Record<string, number>>>(
  hi: number,
  lo: number,
  values: V,
  ...a: FlagArgs
): Field<number> & { readonly values: V } {
  return { ...field<number>('oneOf', hi, lo, a[0], a[1]), values }
}

/** A register of a bank. */
export interface Register<F extends Fields = Fields> {
  readonly offset: number
  /** Bytes: 1, 2, 4 or 8. */
  readonly size: number
  /** Section of the specification. */
  readonly spec: string
  readonly fields: F
  /** Value after reset. */
  readonly reset: bigint
}

const register =
  (size: number) =>
  <F extends Fields>(offset: number, spec: string, fields: F, reset = 0n): Register<F> => {
    const top = size * 8
    for (const [name, f] of Object.entries<Field>(fields))
      if (f.hi >= top) throw new Error(`${spec}: field ${name} ${f.hi}:${f.lo} leaves ${top} bits`)
    refuseOverlap(spec, fields)
    return { offset, size, spec, fields, reset }
  }

/** An 8-, 16-, 32- or 64-bit register: offset, section, fields, reset value. */
export const r8 = register(1)
export const r16 = register(2)
export const r32 = register(4)
export const r64 = register(8)

function refuseOverlap(where: string, fields: Fields): void {
  const sorted = Object.entries<Field>(fields).sort((a, b) => a[1].lo - b[1].lo)
  for (let i = 1; i < sorted.length; i++) {
    const [below, above] = [sorted[i - 1]!, sorted[i]!]
    if (above[1].lo <= below[1].hi) throw new Error(`${where}: ${above[0]} overlaps ${below[0]}`)
  }
}

export type Registers = Readonly<Record<string, Register>>
const bankMeta = Symbol('bank')
/** A named set of registers; each register is a member under the specification's name. */
export type Bank<R extends Registers = Registers> = R & {
  readonly [bankMeta]: { readonly name: string; readonly size: number }
}

/** A register bank. Refuses registers that collide or are not aligned to their own size. */
export function bank<const R extends Registers>(
  name: string,
  registers: R,
  size?: number,
): Bank<R> {
  const sorted = Object.entries(registers).sort((a, b) => a[1].offset - b[1].offset)
  let end = 0
  let last = ''
  for (const [key, r] of sorted) {
    if (r.offset % r.size)
      throw new Error(`${name}.${key} at 0x${r.offset.toString(16)} is misaligned`)
    if (r.offset < end) throw new Error(`${name}.${key} collides with ${last}`)
    end = r.offset + r.size
    last = key
  }
  if (size !== undefined && size < end) throw new Error(`${name}: ${last} leaves ${size} bytes`)
  return Object.freeze({ ...registers, [bankMeta]: { name, size: size ?? (end + 7) & ~7 } })
}

/** Name and size in bytes of a bank. */
export const bankInfo = (b: Bank): { readonly name: string; readonly size: number } => b[bankMeta]

/** A structure in memory: a fixed number of bytes with named fields. */
export interface Layout<F extends Fields = Fields> {
  readonly name: string
  /** Bytes. */
  readonly size: number
  readonly fields: F
  /** A live view of the structure at `offset` (a multiple of 4 from the buffer's start) of existing bytes. */
  at(bytes: Uint8Array, offset?: number): LayoutValue<F>
  /** A new structure with bytes of its own, zero except for `init`. */
  create(init?: Partial<FieldValues<F>>): LayoutValue<F>
}
/** Field accessors over bytes; `bytes` and `words` are the same memory. */
export type LayoutValue<F> = FieldValues<F> & {
  readonly bytes: Uint8Array
  readonly words: Uint32Array
}

const layoutOf = new WeakMap<object, Layout>()
/** The layout that a value was made by, for explain. */
export const layoutFor = (value: object): Layout | undefined => layoutOf.get(value)

/** Declares a structure in memory of `size` bytes. Refuses fields that overlap or leave it. */
export function layout<const F extends Fields>(name: string, size: number, fields: F): Layout<F> {
  for (const [key, f] of Object.entries<Field>(fields))
    if (f.hi >= size * 8) throw new Error(`${name}.${key} ${f.hi}:${f.lo} leaves ${size} bytes`)
  refuseOverlap(name, fields)
  class View {
    readonly bytes: Uint8Array
    readonly words: Uint32Array
    constructor(bytes: Uint8Array, offset: number) {
      this.bytes = bytes.subarray(offset, offset + size)
      this.words = new Uint32Array(bytes.buffer, bytes.byteOffset + offset, size >> 2)
    }
  }
  for (const [key, f] of Object.entries<Field>(fields))
    Object.defineProperty(
      View.prototype,
      key,
      accessor(f, (v: View) => v.words, 0),
    )
  const self: Layout<F> = {
    name,
    size,
    fields,
    at(bytes, offset = 0) {
      const view = new View(bytes, offset) as unknown as LayoutValue<F>
      layoutOf.set(view, self as unknown as Layout)
      return view
    },
    create(init) {
      return Object.assign(self.at(new Uint8Array(size)), init)
    },
  }
  return self
}

const HI = 0x1_0000_0000
const mask32 = (width: number) => (width >= 32 ? 0xffff_ffff : (1 << width) - 1) >>> 0

/** A bit field of at most 32 bits starting at bit `lo` of `words`, which may cross one word boundary. */
export function getBits(words: Uint32Array, base: number, hi: number, lo: number): number {
  const i = base + (lo >> 5)
  const s = lo & 31
  let v = words[i]! >>> s
  if (s !== 0 && hi >> 5 !== lo >> 5) v |= words[i + 1]! << (32 - s)
  return (v & mask32(hi - lo + 1)) >>> 0
}

/** Stores a bit field of at most 32 bits; bits of `value` above its width are dropped. */
export function setBits(words: Uint32Array, base: number, hi: number, lo: number, value: number) {
  const i = base + (lo >> 5)
  const s = lo & 31
  const m = mask32(hi - lo + 1)
  const v = (value & m) >>> 0
  words[i] = (words[i]! & ~(m << s)) | (v << s)
  if (s !== 0 && hi >> 5 !== lo >> 5)
    words[i + 1] = (words[i + 1]! & ~(m >>> (32 - s))) | (v >>> (32 - s))
}

/** A getter and setter for `f` over the words that `of` finds in an object. */
export function accessor<O>(
  f: Field,
  of: (owner: O) => Uint32Array,
  base: number,
): PropertyDescriptor & ThisType<O> {
  const { hi, lo } = f
  const mid = Math.min(hi, lo + 31)
  switch (f.kind) {
    case 'flag': {
      const i = base + (lo >> 5)
      const m = 1 << (lo & 31)
      return {
        enumerable: true,
        get() {
          return (of(this)[i]! & m) !== 0
        },
        set(v: boolean) {
          const w = of(this)
          w[i] = v ? w[i]! | m : w[i]! & ~m
        },
      }
    }
    case 'bits':
    case 'oneOf':
      return {
        enumerable: true,
        get() {
          return getBits(of(this), base, hi, lo)
        },
        set(v: number) {
          setBits(of(this), base, hi, lo, v)
        },
      }
    case 'page': {
      // The field sits in a 64-bit (or 32-bit) word and keeps its place there.
      const start = lo & ~63
      const top = Math.min(hi - start, 51)
      const low = lo - start
      const lowMask = low > 31 ? 0 : ~0 << low
      const highMask = top < 32 ? 0 : mask32(top - 31)
      const i = base + (start >> 5)
      const single = hi - start < 32
      const keepLow = single ? (lowMask & mask32(top + 1)) >>> 0 : lowMask >>> 0
      return {
        enumerable: true,
        get() {
          const w = of(this)
          const l = (w[i]! & keepLow) >>> 0
          return single ? l : (w[i + 1]! & highMask) * HI + l
        },
        set(v: number) {
          const w = of(this)
          w[i] = (w[i]! & ~keepLow) | (v & keepLow)
          if (!single) w[i + 1] = (w[i + 1]! & ~highMask) | (Math.floor(v / HI) & highMask)
        },
      }
    }
    case 'u64':
      return {
        enumerable: true,
        get() {
          const w = of(this)
          const l = BigInt(getBits(w, base, mid, lo))
          return hi > mid ? (BigInt(getBits(w, base, hi, mid + 1)) << 32n) | l : l
        },
        set(v: bigint) {
          const w = of(this)
          setBits(w, base, mid, lo, Number(v & 0xffff_ffffn))
          if (hi > mid) setBits(w, base, hi, mid + 1, Number((v >> 32n) & 0xffff_ffffn))
        },
      }
  }
}
