// `vfio-emu abi`: structures and ioctl numbers of the emulated kernel, as a C compiler lays them out.

import { Command } from 'commander'
import { hex } from '../base/addr.js'
import type { AnyStruct, Member } from '../base/struct.js'
import { CALLS, STRUCTS } from './calls.js'
import { columns, style, toJson, UsageError } from './output.js'

/** The `abi` command. */
export function abiCommand(finish: (status: number) => void): Command {
  return new Command('abi')
    .description(
      'Print a uapi structure with offsets, sizes and ioctl numbers; without a name, all of them.',
    )
    .argument('[STRUCT]', 'structure (with or without "struct") or ioctl name')
    .option('--json', 'print as JSON')
    .action((name: string | undefined, options: { json?: boolean }) => {
      if (name === undefined) list(options.json === true)
      else show(name, options.json === true)
      finish(0)
    })
}

const out = (line: string) => process.stdout.write(`${line}\n`)
const number = (n: number) => hex(n, 8)

function list(json: boolean): void {
  if (json) {
    const calls = CALLS.map(c => ({ ...c, argument: c.argument?.ctype ?? c.note }))
    const structs = [...STRUCTS.values()].map(s => ({
      ctype: s.ctype,
      size: s.size,
      align: s.align,
    }))
    out(toJson({ calls, structs }))
    return
  }
  out(style.heading('ioctls'))
  const rows = CALLS.map(c => [c.file, number(c.number), c.name, c.argument?.ctype ?? c.note ?? ''])
  for (const line of columns(rows)) out(`  ${line}`)
  out(`\n${style.heading('structures')}`)
  const sizes = [...STRUCTS.values()].map(s => [`${s.size} bytes`.padStart(10), s.ctype])
  for (const line of columns(sizes)) out(`  ${line}`)
}

function show(name: string, json: boolean): void {
  const plain = name.replace(/^(struct|union)\s+/, '')
  const call = CALLS.find(c => c.name === plain)
  const struct = call ? call.argument : STRUCTS.get(plain)
  if (!call && !struct) throw new UsageError(`no structure or ioctl '${name}'${nearest(plain)}`)
  const used = CALLS.filter(c => c === call || (struct && c.argument === struct))
  if (json) {
    out(
      toJson({
        ctype: struct?.ctype,
        size: struct?.size,
        align: struct?.align,
        members:
          struct &&
          members(struct).map(([offset, size, type, member]) => ({ offset, size, type, member })),
        ioctls: used.map(c => ({ name: c.name, number: c.number, file: c.file })),
      }),
    )
    return
  }
  if (struct) {
    out(`${style.heading(struct.ctype)}  ${struct.size} bytes, aligned to ${struct.align}`)
    const rows = members(struct).map(([offset, size, type, member]) => [
      `${offset}`.padStart(6),
      `${size}`.padStart(6),
      type,
      member,
    ])
    for (const line of columns([['offset', '  size', 'type', 'member'], ...rows])) out(`  ${line}`)
  }
  for (const c of used)
    out(
      `${c.name}  ${number(c.number)} (${c.number})  on a ${c.file}${c.note ? `, ${c.note}` : ''}`,
    )
}

function members(
  struct: AnyStruct,
): [offset: number, size: number, type: string, member: string][] {
  return Object.entries(struct.members as Record<string, Member>).map(([name, m]) => {
    const [element, count, suffix] = Array.isArray(m)
      ? [m[0], m[1] as number, `[${m[1]}]`]
      : typeof m === 'object' && 'flex' in m
        ? [m.flex, 0, '[]']
        : [m as AnyStruct | string, 1, '']
    const [type, size] =
      typeof element === 'string'
        ? [element, Number.parseInt(element.slice(1), 10) / 8]
        : [element.ctype, element.size]
    return [
      (struct.offsets as Record<string, number>)[name]!,
      size * count,
      type,
      `${name}${suffix}`,
    ]
  })
}

/** The names that share most words with what was asked for. */
function nearest(name: string): string {
  const words = name.toLowerCase().split('_')
  const shared = (n: string) => words.filter(w => n.toLowerCase().split('_').includes(w)).length
  const close = [...STRUCTS.keys(), ...CALLS.map(c => c.name)]
    .map(n => ({ n, score: shared(n) - n.split('_').length / 100 }))
    .filter(({ score }) => score > 1)
    .sort((a, b) => b.score - a.score)
    .slice(0, 4)
    .map(({ n }) => n)
  return close.length ? `; did you mean ${close.join(', ')}?` : '; `vfio-emu abi` lists them all'
}
