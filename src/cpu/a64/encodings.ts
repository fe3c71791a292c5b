// What one row of the A64 encoding table is, and how rows are written. Decoder, disassembler and the random-test
// generator read the same rows; the tables themselves are encodings-*.ts and fp/encodings-*.ts.

import type { Emitter } from './emitter.js'

/** Where a named field stands in the instruction word. */
export interface Field {
  readonly at: number
  readonly width: number
}

type NameOf<T extends string> = T extends `${infer N}:${string}`
  ? N
  : T extends `${'0' | '1' | 'x'}${string}`
    ? never
    : T

/** Names of the fields in a pattern. */
export type FieldNames<P extends string> = P extends `${infer T} ${infer R}`
  ? NameOf<T> | FieldNames<R>
  : NameOf<P>

/** Values of an instruction's fields, unsigned. */
export type Fields<N extends string = string> = Readonly<Record<N, number>>

/** The memory an instruction touches, for the random generator: base + displacement + index, `bytes` long. */
export interface MemoryUse {
  /** Number of the base register; 31 is SP. */
  readonly base: number
  readonly displacement: number
  /** The index register, extended from its width as `option` says and shifted left. */
  readonly index?: { readonly register: number; readonly option: number; readonly shift: number }
  readonly bytes: number
  /** The access must be aligned to this many bytes, or faults. */
  readonly align?: number
}

/** What a row says beside name, group and pattern. */
export interface RowSpec<N extends string> {
  /** False for reserved combinations of fields: they are UNDEFINED (or belong to a later row). */
  readonly allocated?: (f: Fields<N>) => boolean
  /** What the instruction does. */
  readonly emit: (b: Emitter, f: Fields<N>) => void
  /** The instruction as binutils prints it, with the alias it prefers; one space after the mnemonic. */
  readonly print: (f: Fields<N>, pc: bigint) => string
  /** Ends a block: changes PC, translation, or what may be executed or interrupted next. */
  readonly ends?: boolean
  /** Loads and stores. */
  readonly memory?: (f: Fields<N>) => MemoryUse
  /** The register that holds the target of an indirect branch. */
  readonly target?: (f: Fields<N>) => number
  /** Why random cases of it are not run against another implementation: system state, events. */
  readonly special?: string
  /** Feature beyond Armv8.0-A, as the manual names it. */
  readonly feature?: string
}

/** One row of the table. */
export interface Encoding extends Required<Pick<RowSpec<string>, 'emit' | 'print' | 'allocated'>> {
  /** As the manual's heading, e.g. `ADD (shifted register)`; unique. */
  readonly name: string
  /** Class that the differential runner counts under. */
  readonly group: string
  readonly mask: number
  readonly value: number
  readonly fields: readonly (readonly [string, Field])[]
  readonly ends: boolean
  readonly memory: RowSpec<string>['memory']
  readonly target: RowSpec<string>['target']
  readonly special: string | undefined
  readonly feature: string | undefined
}

/** An instruction after decoding. */
export interface Instruction {
  readonly encoding: Encoding
  readonly fields: Fields
  readonly word: number
}

/**
 * Makes a row. The pattern is the manual's box, bit 31 first: runs of 0 and 1, `x` for bits that are ignored
 * (should-be-one and should-be-zero ones), `name` for one bit, `name:n` for n bits. `emit` and the others are given
 * the fields by these names.
 *
 * @example row('ADR', 'pc-relative', '0 immlo:2 10000 immhi:19 Rd:5', { emit: (b, f) => …, print: (f, pc) => … })
 */
export function row<P extends string>(
  name: string,
  group: string,
  pattern: P,
  spec: RowSpec<FieldNames<P>>,
): Encoding {
  const fields: [string, Field][] = []
  let at = 32
  let mask = 0
  let value = 0
  for (const token of pattern.split(' ')) {
    if (/^[01x]+$/.test(token)) {
      for (const bit of token) {
        at--
        if (bit !== 'x') mask |= 1 << at
        if (bit === '1') value |= 1 << at
      }
    } else {
      const [field, width = '1'] = token.split(':')
      at -= Number(width)
      fields.push([field!, { at, width: Number(width) }])
    }
  }
  if (at !== 0) throw new Error(`${name}: the pattern is ${32 - at} bits`)
  // The names in the pattern are the names that the functions take; only the type of the table forgets them.
  const s = spec as unknown as RowSpec<string>
  return {
    name,
    group,
    mask,
    value,
    fields,
    allocated: s.allocated ?? (() => true),
    emit: s.emit,
    print: s.print,
    ends: s.ends ?? false,
    memory: s.memory,
    target: s.target,
    special: s.special,
    feature: s.feature,
  }
}

/** A field's bits as a number with its sign. */
export const signed = (v: number, width: number): number => (v << (32 - width)) >> (32 - width)
