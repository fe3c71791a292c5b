// Values of calls as text: what JSON lacks (bigint, bytes, infinities) is tagged, and answers become short digests.

/** A value that JSON can carry. */
export type Json =
  | string
  | number
  | boolean
  | null
  | readonly Json[]
  | { readonly [key: string]: Json }

/** Bytes as hexadecimal digits. */
export function toHex(bytes: Uint8Array): string {
  let text = ''
  for (const byte of bytes) text += byte.toString(16).padStart(2, '0')
  return text
}

/** The bytes behind hexadecimal digits; undefined when they are none. */
export function fromHex(text: string): Uint8Array | undefined {
  if (text.length % 2 !== 0 || /[^0-9a-f]/.test(text)) return undefined
  return Uint8Array.from({ length: text.length / 2 }, (_, i) =>
    Number.parseInt(text.slice(2 * i, 2 * i + 2), 16),
  )
}

/** A value as JSON: `{"n":"123"}` a bigint, `{"x":"00ff"}` bytes, `{"f":"Infinity"}` a number JSON has no way to write. */
export function encode(value: unknown): Json {
  if (value === undefined || value === null) return null
  switch (typeof value) {
    case 'bigint':
      return { n: String(value) }
    case 'number':
      return Number.isFinite(value) ? value : { f: String(value) }
    case 'string':
    case 'boolean':
      return value
    case 'object':
      break
    default:
      return `[${typeof value}]`
  }
  if (value instanceof Uint8Array) return { x: toHex(value) }
  if (Symbol.iterator in (value as object)) return [...(value as Iterable<unknown>)].map(encode)
  const plain: Record<string, Json> = {}
  for (const [key, member] of Object.entries(value as object)) plain[key] = encode(member)
  return { o: plain }
}

/** What `encode` was given, with objects made plain and iterables made arrays. A tag nobody writes is a TypeError. */
export function decode(json: Json): unknown {
  if (json === null) return undefined
  if (typeof json !== 'object') return json
  if (Array.isArray(json)) return json.map(decode)
  const tagged = json as { readonly [key: string]: Json }
  const [tag] = Object.keys(tagged)
  const body = tag === undefined ? undefined : tagged[tag]
  if (tag === 'n' && typeof body === 'string' && /^-?\d+$/.test(body)) return BigInt(body)
  if (tag === 'f') return Number(body)
  if (tag === 'x' && typeof body === 'string') {
    const bytes = fromHex(body)
    if (bytes !== undefined) return bytes
  }
  if (tag === 'o' && typeof body === 'object' && body !== null) {
    const members = Object.entries(body).map(([key, member]) => [key, decode(member)])
    return Object.fromEntries(members)
  }
  throw new TypeError(`a value is written as ${JSON.stringify(json).slice(0, 40)}`)
}

/** FNV-1a of bytes: enough to notice that an answer is another one. */
export function fingerprint(bytes: Uint8Array): string {
  let hash = 0x811c9dc5
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193)
  return (hash >>> 0).toString(16).padStart(8, '0')
}
