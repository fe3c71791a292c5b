// C structures of the user API: members in C order with natural alignment, as an LP64 little-endian
// compiler lays them out. A value *is* its bytes; nobody writes an offset.

export type Scalar = 'u8' | 'u16' | 'u32' | 'u64' | 's8' | 's16' | 's32' | 's64'

/** A flexible tail: zero or more elements after the fixed part. */
export interface Flex<E extends Scalar | AnyStruct = Scalar | AnyStruct> {
  readonly flex: E
}
export type Member = Scalar | AnyStruct | Flex | readonly [Scalar | AnyStruct, number]
export type Members = Readonly<Record<string, Member>>

type ScalarValue<S> = S extends 'u64' | 's64' ? bigint : number
type ElementValue<E> = E extends Scalar
  ? ScalarValue<E>
  : E extends StructType<infer M>
    ? StructValue<M>
    : never
type MemberValue<T> = T extends Scalar
  ? ScalarValue<T>
  : T extends readonly [infer E, number]
    ? ArrayValue<E>
    : T extends Flex<infer E>
      ? ArrayValue<E>
      : T extends StructType<infer M>
        ? StructValue<M>
        : never
type ArrayValue<E> = E extends 'u8' ? Uint8Array : ArrayView<ElementValue<E>>
type MemberInit<T> = T extends Scalar
  ? ScalarValue<T>
  : T extends readonly [infer E, number]
    ? Iterable<ElementValue<E>>
    : T extends Flex<infer E>
      ? Iterable<ElementValue<E>>
      : T extends StructType<infer M>
        ? StructInit<M> | StructValue<M>
        : never

/** Initial values by member; what is left out is zero. */
export type StructInit<M> = { readonly [K in keyof M]?: MemberInit<M[K]> }
/** A structure value: one accessor per member over `bytes`. */
export type StructValue<M> = { -readonly [K in keyof M]: MemberValue<M[K]> } & StructBytes
export interface StructBytes {
  readonly bytes: Uint8Array
  readonly view: DataView
}

/** A C structure (or union) type: callable as a constructor. */
export interface StructType<M extends Members = Members> {
  /**
   * A new value. Where the first member is `argsz` or `size` and `init` leaves it out, it becomes the
   * value's length in bytes. `tailBytes` adds room after the fixed part (a flexible tail in `init` sizes itself).
   */
  (init?: StructInit<M>, tailBytes?: number): StructValue<M>
  /** A live view of existing bytes; the tail is what is left of them. */
  at(bytes: Uint8Array, offset?: number): StructValue<M>
  /** The name in C: `struct vfio_device_info`. */
  readonly ctype: string
  /** sizeof, without a flexible tail. */
  readonly size: number
  readonly align: number
  /** offsetof, by member. */
  readonly offsets: { readonly [K in keyof M]: number }
  readonly members: M
}
// biome-ignore lint/suspicious/noExplicitAny: any structure, whatever its members
export type AnyStruct = StructType<any>

const scalarSize: Record<Scalar, number> = {
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
  s8: 1,
  s16: 2,
  s32: 4,
  s64: 8,
}
const isScalar = (m: Member): m is Scalar => typeof m === 'string'
const isArray = (m: Member): m is readonly [Scalar | AnyStruct, number] => Array.isArray(m)
const isFlex = (m: Member): m is Flex => typeof m === 'object' && 'flex' in m

/** Declares a flexible array member; it must come last. */
export const flex = <const E extends Scalar | AnyStruct>(element: E): Flex<E> => ({ flex: element })

const sizeOf = (e: Scalar | AnyStruct) => (typeof e === 'string' ? scalarSize[e] : e.size)
const alignOf = (e: Scalar | AnyStruct) => (typeof e === 'string' ? scalarSize[e] : e.align)

function get(view: DataView, at: number, s: Scalar): number | bigint {
  switch (s) {
    case 'u8':
      return view.getUint8(at)
    case 'u16':
      return view.getUint16(at, true)
    case 'u32':
      return view.getUint32(at, true)
    case 'u64':
      return view.getBigUint64(at, true)
    case 's8':
      return view.getInt8(at)
    case 's16':
      return view.getInt16(at, true)
    case 's32':
      return view.getInt32(at, true)
    case 's64':
      return view.getBigInt64(at, true)
  }
}

function put(view: DataView, at: number, s: Scalar, v: number | bigint): void {
  if (s === 'u64' || s === 's64') view.setBigUint64(at, BigInt.asUintN(64, BigInt(v)), true)
  else if (scalarSize[s] === 4) view.setUint32(at, Number(v), true)
  else if (scalarSize[s] === 2) view.setUint16(at, Number(v), true)
  else view.setUint8(at, Number(v))
}

/** Elements of an array member, over the structure's own bytes. */
export class ArrayView<T> implements Iterable<T> {
  readonly length: number
  readonly #get: (i: number) => T
  readonly #set: (i: number, v: T) => void
  constructor(length: number, get: (i: number) => T, set: (i: number, v: T) => void) {
    this.length = length
    this.#get = get
    this.#set = set
  }
  /** Element `i`; RangeError outside 0..length-1. */
  get(i: number): T {
    return this.#get(this.#in(i))
  }
  set(i: number, v: T): void {
    this.#set(this.#in(i), v)
  }
  *[Symbol.iterator](): Iterator<T> {
    for (let i = 0; i < this.length; i++) yield this.#get(i)
  }
  #in(i: number): number {
    if (!Number.isInteger(i) || i < 0 || i >= this.length)
      throw new RangeError(`element ${i} of ${this.length}`)
    return i
  }
}

function arrayOf(bytes: Uint8Array, at: number, element: Scalar | AnyStruct, length: number) {
  if (element === 'u8') return bytes.subarray(at, at + length)
  const stride = sizeOf(element)
  if (typeof element !== 'string')
    return new ArrayView<StructBytes>(
      length,
      i => element.at(bytes, at + i * stride),
      (i, v) => bytes.set(v.bytes.subarray(0, stride), at + i * stride),
    )
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  return new ArrayView<number | bigint>(
    length,
    i => get(view, at + i * stride, element),
    (i, v) => put(view, at + i * stride, element, v),
  )
}

const part = Symbol('part')
/** A value that keeps the views of its composite members, by the member's number. */
interface Composite extends StructBytes {
  [part](index: number, make: (bytes: Uint8Array) => Part): Part
}
type Part = ReturnType<typeof arrayOf> | StructBytes

function descriptor(
  m: Member,
  at: number,
  index: number,
): PropertyDescriptor & ThisType<Composite> {
  if (isScalar(m))
    return {
      enumerable: true,
      get() {
        return get(this.view, at, m)
      },
      set(v: number | bigint) {
        put(this.view, at, m, v)
      },
    }
  const read = (bytes: Uint8Array): Part => {
    if (isArray(m)) return arrayOf(bytes, at, m[0], m[1])
    if (isFlex(m))
      return arrayOf(bytes, at, m.flex, Math.floor((bytes.length - at) / sizeOf(m.flex)))
    return m.at(bytes, at)
  }
  return {
    enumerable: true,
    get() {
      return this[part](index, read)
    },
    set(v: unknown) {
      const target = this[part](index, read)
      if (target instanceof Uint8Array || target instanceof ArrayView)
        fill(target as Uint8Array | ArrayView<never>, v as Iterable<never>)
      else if (v && typeof v === 'object' && 'bytes' in v && v.bytes instanceof Uint8Array)
        target.bytes.set(v.bytes.subarray(0, target.bytes.length))
      else Object.assign(target, v)
    },
  }
}

function fill(target: Uint8Array | ArrayView<never>, values: Iterable<never>): void {
  let i = 0
  for (const v of values) {
    if (i >= target.length) throw new RangeError(`more than ${target.length} elements`)
    if (target instanceof Uint8Array) target[i++] = v
    else target.set(i++, v)
  }
}

function declare<M extends Members>(ctype: string, members: M, overlap: boolean): StructType<M> {
  const offsets: Record<string, number> = {}
  let end = 0
  let align = 1
  let tail: [string, Scalar | AnyStruct] | undefined
  class Value implements Composite {
    readonly bytes: Uint8Array
    readonly view: DataView
    #parts: Part[] | undefined = undefined
    constructor(bytes: Uint8Array) {
      this.bytes = bytes
      this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    }
    [part](index: number, make: (bytes: Uint8Array) => Part): Part {
      this.#parts ??= []
      return (this.#parts[index] ??= make(this.bytes))
    }
  }
  for (const [index, [name, m]] of Object.entries(members).entries()) {
    if (tail) throw new Error(`${ctype}: ${name} follows the flexible ${tail[0]}`)
    const element = isArray(m) ? m[0] : isFlex(m) ? m.flex : m
    const length = isArray(m) ? m[1] : isFlex(m) ? 0 : 1
    const a = alignOf(element)
    const at = overlap ? 0 : Math.ceil(end / a) * a
    offsets[name] = at
    align = Math.max(align, a)
    end = Math.max(end, at + sizeOf(element) * length)
    if (isFlex(m)) tail = [name, m.flex]
    Object.defineProperty(Value.prototype, name, descriptor(m, at, index))
  }
  const size = Math.ceil(end / align) * align
  const first = Object.keys(members)[0]
  const sized = first === 'argsz' || first === 'size' ? first : undefined

  const make = (init: Record<string, unknown> = {}, tailBytes = 0): Value => {
    let length = size + tailBytes
    const tailInit = tail && init[tail[0]]
    if (tail && tailInit) {
      const elements =
        tailInit instanceof Uint8Array ? tailInit : [...(tailInit as Iterable<unknown>)]
      length = Math.max(length, offsets[tail[0]]! + elements.length * sizeOf(tail[1]))
    }
    const value = new Value(new Uint8Array(length))
    if (sized && init[sized] === undefined) Object.assign(value, { [sized]: length })
    return Object.assign(value, init)
  }
  return Object.freeze(
    Object.assign(make as unknown as StructType<M>, {
      at(bytes: Uint8Array, offset = 0) {
        const stop = tail ? bytes.length : offset + size
        if (offset + size > bytes.length) throw new RangeError(`${ctype} needs ${size} bytes`)
        return new Value(bytes.subarray(offset, stop))
      },
      ctype,
      size,
      align,
      members,
      offsets: offsets as { [K in keyof M]: number },
    }),
  )
}

/** Declares a C structure: members in C order. */
export const struct = <const M extends Members>(ctype: string, members: M): StructType<M> =>
  declare(ctype, members, false)

/** Declares a C union: every member at offset 0. */
export const union = <const M extends Members>(ctype: string, members: M): StructType<M> =>
  declare(ctype, members, true)
