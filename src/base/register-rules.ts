// What follows from the table of a register bank alone: masks by access, reset values, which register is where, the
// accessors. Worked out once for each bank and shared by all its files. Next: registers.ts.

import { accessor, type Bank, bankInfo, type Field, type Register } from './fields.js'

/** One register of a bank. */
export interface RegisterRow {
  readonly name: string
  readonly register: Register
  /** Makes a live object of it: accessors over `words`; registers narrower than a word share one. */
  readonly live: (words: Uint32Array) => object
}

/** What a bank's table says, by byte and by word. */
export interface BankRules {
  /** Bytes of the bank; the arrays below are a word longer. */
  readonly size: number
  readonly words: number
  /** Bits that a write stores, clears when one, sets when one, and that never read back. */
  readonly rw: Uint32Array
  readonly rw1c: Uint32Array
  readonly rw1s: Uint32Array
  readonly wo: Uint32Array
  /** The same by byte. */
  readonly bytes: Readonly<Record<'rw' | 'rw1c' | 'rw1s' | 'wo', Uint8Array>>
  readonly resetBytes: Uint8Array
  /** Index of the register at each byte, -1 for none. */
  readonly slotAt: Int16Array
  readonly rows: readonly RegisterRow[]
}

const live = Symbol('live')
interface View {
  readonly [live]: Uint32Array
}
const wordsOf = (v: View) => v[live]

const known = new WeakMap<object, BankRules>()

/** The rules of a bank; an Error when it names a register twice. */
export function bankRules(bank: Bank): BankRules {
  let rules = known.get(bank)
  if (rules === undefined) known.set(bank, (rules = workOut(bank)))
  return rules
}

function workOut(bank: Bank): BankRules {
  const { size, name } = bankInfo(bank)
  const words = (size + 3) >> 2
  const mask = () => new Uint32Array(words + 1)
  const masks = { rw: mask(), rw1c: mask(), rw1s: mask(), wo: mask() }
  const rules = {
    size,
    words,
    ...masks,
    bytes: {
      rw: new Uint8Array(masks.rw.buffer),
      rw1c: new Uint8Array(masks.rw1c.buffer),
      rw1s: new Uint8Array(masks.rw1s.buffer),
      wo: new Uint8Array(masks.wo.buffer),
    },
    resetBytes: new Uint8Array(size),
    slotAt: new Int16Array(size).fill(-1),
    rows: [] as RegisterRow[],
  }
  const bytes: Readonly<Record<string, Uint8Array>> = rules.bytes
  for (const [key, r] of Object.entries<Register>(bank)) {
    if (rules.rows.some(row => row.name === key)) throw new Error(`${name}.${key} twice`)
    rules.slotAt.fill(rules.rows.length, r.offset, r.offset + r.size)
    rules.rows.push({ name: key, register: r, live: liveOf(r) })
    for (const f of Object.values<Field>(r.fields)) {
      const masked = bytes[f.access]
      for (let bit = f.lo; masked && bit <= f.hi; bit++)
        masked[r.offset + (bit >> 3)]! |= 1 << (bit & 7)
    }
    for (let i = 0; i < r.size; i++)
      rules.resetBytes[r.offset + i] = Number((r.reset >> BigInt(8 * i)) & 0xffn)
  }
  return rules
}

/** The accessors sit on a prototype of the register's own, so that a file of many registers is soon made. */
function liveOf(r: Register): (words: Uint32Array) => object {
  class Live implements View {
    readonly [live]: Uint32Array
    constructor(words: Uint32Array) {
      this[live] = words
    }
  }
  const base = r.offset >> 2
  const shift = (r.offset & 3) * 8
  const define = (key: string, f: Field) =>
    Object.defineProperty(Live.prototype, key, accessor(f, wordsOf, base))
  for (const [key, f] of Object.entries<Field>(r.fields))
    define(key, shift ? { ...f, hi: f.hi + shift, lo: f.lo + shift } : f)
  const hi = shift + r.size * 8 - 1
  define('$value', { kind: 'u64', hi, lo: shift, access: 'rw', doc: '' })
  return words => new Live(words)
}
