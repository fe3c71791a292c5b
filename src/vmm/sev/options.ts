// Option sets as a VMM keeps them: keys and texts, read as numbers, byte strings or switches, with errors that say
// which key is wrong and where it was given. Rules C-7 to C-10.

/** Configuration that cannot be used: what is wrong, and where. */
export class SevConfigError extends Error {
  override readonly name = 'SevConfigError'
}

/** One key as it was given. */
interface Given {
  readonly text: string
  /** Where: `sev.conf:3`, or the option's own text. */
  readonly where: string
}

/** What an absent number reads as: minus one, in 32 bits. */
export const ABSENT = 0xffff_ffff
const LARGEST = 2 ** 32 - 1

/**
 * A number as options are written: decimal, 0x and hexadecimal digits, or a leading 0 and octal digits. The number, or
 * what is wrong with the text; more than 32 bits is wrong.
 */
export function parseNumber(text: string): number | string {
  const radix = /^0x/i.test(text) ? 16 : /^0/.test(text) ? 8 : 10
  const digits = radix === 16 ? text.slice(2) : text
  const wanted = { 8: /^[0-7]+$/, 10: /^[0-9]+$/, 16: /^[0-9a-f]+$/i }[radix]
  if (!wanted.test(digits)) {
    const name = { 8: 'octal', 10: 'decimal', 16: 'hexadecimal' }[radix]
    return `'${text}' is no ${name} number`
  }
  // Leading zeros say nothing; what is left of a number of 32 bits has at most 11 digits.
  const significant = digits.replace(/^0+/, '') || '0'
  const value =
    significant.length > 11 ? Number.POSITIVE_INFINITY : Number.parseInt(significant, radix)
  return value > LARGEST ? `'${text}' has more than 32 bits` : value
}

/** Bytes as two hexadecimal digits each, in order; or what is wrong with the text. */
export function parseBytes(text: string, most: number): Uint8Array | string {
  if (!/^[0-9a-f]*$/i.test(text)) return `'${text}' has characters that are not hexadecimal digits`
  if (text.length % 2 !== 0) return `'${text}' has an odd number of digits`
  const length = text.length / 2
  if (length > most) return `${length} bytes do not fit in ${most}`
  return Uint8Array.from({ length }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16))
}

/** Keys of one group or object. */
export class OptionSet {
  /** Its group or type, for messages. */
  readonly group: string
  readonly id: string | undefined
  /** Where it begins. */
  readonly where: string
  readonly #given = new Map<string, Given>()

  constructor(group: string, id: string | undefined, where: string) {
    this.group = group
    this.id = id
    this.where = where
  }

  /** Keys that are there, in the order they were given. */
  get keys(): readonly string[] {
    return [...this.#given.keys()]
  }

  /** Gives a key; the last one counts. */
  set(key: string, text: string, where: string): void {
    this.#given.delete(key)
    this.#given.set(key, { text, where })
  }

  /** The text of a key; undefined: absent. */
  text(key: string): string | undefined {
    return this.#given.get(key)?.text
  }

  /** Reads a number and takes the key away; `ABSENT` when it is not there. */
  takeNumber(key: string): number {
    const given = this.#given.get(key)
    if (given === undefined) return ABSENT
    this.#given.delete(key)
    const value = parseNumber(given.text)
    if (typeof value === 'string') throw this.wrong(key, value, given.where)
    return value
  }

  /** Reads bytes, `most` at most; undefined when the key is not there. */
  bytes(key: string, most: number): Uint8Array | undefined {
    const given = this.#given.get(key)
    if (given === undefined) return undefined
    const value = parseBytes(given.text, most)
    if (typeof value === 'string') throw this.wrong(key, value, given.where)
    return value
  }

  /** Reads a switch: on, off, yes, no, true or false. */
  switch(key: string, otherwise: boolean): boolean {
    const given = this.#given.get(key)
    if (given === undefined) return otherwise
    if (/^(on|yes|true)$/.test(given.text)) return true
    if (/^(off|no|false)$/.test(given.text)) return false
    throw this.wrong(key, `'${given.text}' is neither on nor off`, given.where)
  }

  /** Refuses keys that nobody knows. */
  refuseUnknown(known: readonly string[]): void {
    const unknown = this.keys.find(key => !known.includes(key))
    if (unknown === undefined) return
    const where = this.#given.get(unknown)!.where
    throw this.wrong(unknown, `no such key; known are ${known.join(', ')}`, where)
  }

  /** The error of a key. */
  wrong(
    key: string,
    what: string,
    where = this.#given.get(key)?.where ?? this.where,
  ): SevConfigError {
    return new SevConfigError(`${where}: ${this.group}.${key}: ${what}`)
  }
}
