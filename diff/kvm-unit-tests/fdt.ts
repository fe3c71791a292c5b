// A flattened device tree (Devicetree Specification 0.4, chapter 5): version 17, one memory reservation block, empty.

/** A property: cells, text, several texts, bytes, or nothing but its being there. */
export type FdtValue = readonly number[] | string | readonly string[] | Uint8Array | true

/** A node: properties, and children under their names (`cpu@0`). */
export interface FdtNode {
  readonly properties: Readonly<Record<string, FdtValue>>
  readonly children?: Readonly<Record<string, FdtNode>>
}

const MAGIC = 0xd00d_feed
const HEADER = 40
const [BEGIN_NODE, END_NODE, PROP, END] = [1, 2, 3, 9]
const text = new TextEncoder()

const cells = (values: readonly number[]): Uint8Array => {
  const view = new DataView(new ArrayBuffer(4 * values.length))
  for (const [i, value] of values.entries()) view.setUint32(4 * i, value)
  return new Uint8Array(view.buffer)
}

const isText = (value: readonly number[] | readonly string[]): value is readonly string[] =>
  typeof value[0] === 'string'

function bytesOf(value: FdtValue): Uint8Array {
  if (value === true) return new Uint8Array(0)
  if (typeof value === 'string') return text.encode(`${value}\0`)
  if (value instanceof Uint8Array) return value
  return isText(value) ? text.encode(`${value.join('\0')}\0`) : cells(value)
}

/** The tree below an unnamed root as a blob. */
export function flatten(root: FdtNode): Uint8Array {
  const structure: number[] = []
  const strings = new Map<string, number>()
  let stringBytes = 0
  const put = (bytes: Uint8Array) => {
    structure.push(...bytes)
    while (structure.length % 4 !== 0) structure.push(0)
  }
  const nameOf = (name: string) => {
    const known = strings.get(name)
    if (known !== undefined) return known
    const at = stringBytes
    strings.set(name, at)
    stringBytes += name.length + 1
    return at
  }
  const node = (name: string, { properties, children = {} }: FdtNode) => {
    put(cells([BEGIN_NODE]))
    put(text.encode(`${name}\0`))
    for (const [key, value] of Object.entries(properties)) {
      const bytes = bytesOf(value)
      put(cells([PROP, bytes.length, nameOf(key)]))
      put(bytes)
    }
    for (const [child, below] of Object.entries(children)) node(child, below)
    put(cells([END_NODE]))
  }
  node('', root)
  put(cells([END]))

  const structureAt = HEADER + 16
  const stringsAt = structureAt + structure.length
  const total = stringsAt + stringBytes
  const blob = new Uint8Array(total)
  const header = [
    MAGIC,
    total,
    structureAt,
    stringsAt,
    HEADER,
    17,
    16,
    0,
    stringBytes,
    structure.length,
  ]
  blob.set(cells(header))
  blob.set(structure, structureAt)
  for (const [name, at] of strings) blob.set(text.encode(name), stringsAt + at)
  return blob
}
