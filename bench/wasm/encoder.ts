// Just enough of WebAssembly's binary format for one function over an imported memory (WebAssembly 1.0, chapter 5).

/** Opcodes by their names in the text format. */
// biome-ignore format: table
export const OP = {
  block: 0x02, loop: 0x03, if: 0x04, end: 0x0b, br: 0x0c, br_if: 0x0d, return: 0x0f, select: 0x1b,
  'local.get': 0x20, 'local.set': 0x21, 'local.tee': 0x22,
  'i32.load': 0x28, 'i64.load': 0x29, 'i64.load8_u': 0x31, 'i64.load16_u': 0x33, 'i64.load32_u': 0x35,
  'i64.store': 0x37, 'i64.store8': 0x3c, 'i64.store16': 0x3d, 'i64.store32': 0x3e,
  'i32.const': 0x41, 'i64.const': 0x42,
  'i32.eqz': 0x45, 'i32.eq': 0x46, 'i32.lt_s': 0x48, 'i32.lt_u': 0x49, 'i32.gt_s': 0x4a,
  'i64.eqz': 0x50, 'i64.eq': 0x51, 'i64.ne': 0x52, 'i64.lt_s': 0x53, 'i64.lt_u': 0x54,
  'i32.clz': 0x67, 'i32.add': 0x6a, 'i32.sub': 0x6b, 'i32.mul': 0x6c, 'i32.and': 0x71, 'i32.or': 0x72, 'i32.xor': 0x73,
  'i32.shl': 0x74, 'i32.shr_s': 0x75, 'i32.shr_u': 0x76, 'i32.rotr': 0x78,
  'i64.clz': 0x79, 'i64.ctz': 0x7a, 'i64.popcnt': 0x7b, 'i64.add': 0x7c, 'i64.sub': 0x7d, 'i64.mul': 0x7e,
  'i64.and': 0x83, 'i64.or': 0x84, 'i64.xor': 0x85, 'i64.shl': 0x86, 'i64.shr_s': 0x87, 'i64.shr_u': 0x88, 'i64.rotr': 0x8a,
  'i32.wrap_i64': 0xa7, 'i64.extend_i32_s': 0xac, 'i64.extend_i32_u': 0xad, 'i32.extend8_s': 0xc0, 'i32.extend16_s': 0xc1,
} as const

const I32 = 0x7f
const I64 = 0x7e
const VOID = 0x40

/** A function's code as it grows. */
export class Code {
  readonly bytes: number[] = []

  /** An instruction without immediates. */
  op(name: keyof typeof OP): this {
    this.bytes.push(OP[name])
    return this
  }

  get(local: number): this {
    this.bytes.push(OP['local.get'], ...unsigned(local))
    return this
  }

  set(local: number): this {
    this.bytes.push(OP['local.set'], ...unsigned(local))
    return this
  }

  tee(local: number): this {
    this.bytes.push(OP['local.tee'], ...unsigned(local))
    return this
  }

  const32(v: number): this {
    this.bytes.push(OP['i32.const'], ...signed(BigInt(v | 0)))
    return this
  }

  const64(v: bigint): this {
    this.bytes.push(OP['i64.const'], ...signed(BigInt.asIntN(64, v)))
    return this
  }

  /** A load or store with its constant offset, no alignment promised. */
  memory(name: keyof typeof OP, offset: number): this {
    this.bytes.push(OP[name], 0, ...unsigned(offset))
    return this
  }

  /** `block`, `loop` or `if` without a result. */
  open(name: 'block' | 'loop' | 'if'): this {
    this.bytes.push(OP[name], VOID)
    return this
  }

  branch(name: 'br' | 'br_if', depth: number): this {
    this.bytes.push(OP[name], ...unsigned(depth))
    return this
  }
}

function unsigned(value: number): number[] {
  const bytes: number[] = []
  let v = value
  do {
    const more = v > 0x7f
    bytes.push((v & 0x7f) | (more ? 0x80 : 0))
    v >>>= 7
  } while (v !== 0)
  return bytes
}

function signed(value: bigint): number[] {
  const bytes: number[] = []
  for (let v = value; ; ) {
    const low = Number(v & 0x7fn)
    v >>= 7n
    const done = (v === 0n && (low & 0x40) === 0) || (v === -1n && (low & 0x40) !== 0)
    bytes.push(low | (done ? 0 : 0x80))
    if (done) return bytes
  }
}

const section = (id: number, content: readonly number[]) => [
  id,
  ...unsigned(content.length),
  ...content,
]
const name = (text: string) => [text.length, ...Buffer.from(text)]

/** A module with one exported function `run(i32) -> i32` over the memory `m.memory`; local 0 is its argument. */
export function moduleOf(
  code: Code,
  locals: { readonly i32: number; readonly i64: number },
): Uint8Array {
  const body = [
    2,
    ...unsigned(locals.i32),
    I32,
    ...unsigned(locals.i64),
    I64,
    ...code.bytes,
    OP.end,
  ]
  return Uint8Array.from([
    0,
    0x61,
    0x73,
    0x6d,
    1,
    0,
    0,
    0,
    ...section(1, [1, 0x60, 1, I32, 1, I32]),
    ...section(2, [1, ...name('m'), ...name('memory'), 2, 0, 1]),
    ...section(3, [1, 0]),
    ...section(7, [1, ...name('run'), 0, 0]),
    ...section(10, [1, ...unsigned(body.length), ...body]),
  ])
}
