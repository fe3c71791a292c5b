// Asks a C compiler where it puts things: one small program prints sizeof, offsetof and constants. Lines that
// a header edition cannot answer (a member it lacks) are dropped by a first, syntax-only pass.
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { AnyStruct } from '../../src/base/struct.js'

/** What one header edition says. */
export interface Answers {
  edition: string
  headers: string[]
  structs: Record<string, { size: number; members: Record<string, number> }>
  constants: Record<string, number>
}

/** Where headers come from: the system, a directory given by LINUX_HEADERS, or a file of ours. */
export interface Source {
  include: string[]
  directories?: string[]
  /** The compiler's name and what runs its programs, where that is not this machine. */
  target?: { compiler: string; run: string[] }
}

const compiler = ['gcc', 'cc', 'clang'].find(c => spawnSync(c, ['--version']).status === 0)

/** True when the compiler and every header of `source` were found. */
export function canAsk(source: Source): boolean {
  const { target } = source
  if (!compiler && !target) return false
  if (target && spawnSync(target.compiler, ['--version']).status !== 0) return false
  if (target && spawnSync(target.run[0]!, ['--version']).status !== 0) return false
  const program = source.include.map(h => `#include <${h}>\n`).join('')
  return run(source, ['-fsyntax-only'], program).status === 0
}

const compilerOf = ({ target }: Source) => target?.compiler ?? compiler!

function run(source: Source, flags: string[], program: string) {
  const directories = (source.directories ?? []).map(d => `-I${d}`)
  return spawnSync(compilerOf(source), [...directories, '-w', '-xc', ...flags, '-'], {
    input: program,
    encoding: 'utf8',
  })
}

/** The edition as the headers themselves state it. */
export function editionOf(source: Source): string {
  const { stdout } = run(source, ['-E', '-dM'], '#include <linux/version.h>\n')
  const code = Number(evaluate(/LINUX_VERSION_CODE (.*)/.exec(stdout)?.[1] ?? '0'))
  return `Linux ${code >> 16}.${(code >> 8) & 255}`
}

// `394427` or `((7 << 16) | (2 << 8) | 13)`
function evaluate(text: string): number {
  const terms = text.replace(/[()\s]/g, '').split('|')
  return terms.reduce((sum, term) => {
    const [value, shift = '0'] = term.split('<<')
    return sum | (Number(value) << Number(shift))
  }, 0)
}

/** How a header may call a member: by our name, or, where C has an anonymous union, by the union's members. */
function namesOf(s: AnyStruct, member: string): string[] {
  const type: unknown = s.members[member]
  if (typeof type !== 'function') return [member]
  const inner = Object.entries((type as AnyStruct).offsets)
  const isUnion = inner.length > 1 && inner.every(([, offset]) => offset === 0)
  return isUnion ? [member, inner[0]![0]] : [member]
}

/** Sizes, offsets and values of everything named that the headers know. */
export function ask(source: Source, structs: AnyStruct[], constants: string[]): Answers {
  const head = [
    '#include <stdio.h>',
    '#include <stddef.h>',
    ...source.include.map(h => `#include <${h}>`),
    'int main(void) {',
  ]
  const body = [
    ...structs.flatMap(s => [
      `printf("%s||%zu\\n", "${s.ctype}", sizeof(${s.ctype}));`,
      ...Object.keys(s.offsets).flatMap(m =>
        namesOf(s, m).map(
          n => `printf("%s|%s|%zu\\n", "${s.ctype}", "${m}", offsetof(${s.ctype}, ${n}));`,
        ),
      ),
    ]),
    ...constants.map(c => `printf("|%s|%lld\\n", "${c}", (long long)(${c}));`),
  ]
  const text = (lines: string[]) => [...head, ...lines, 'return 0; }', ''].join('\n')
  // A name that is unknown is reported once, however often it is used: what is left is asked about again.
  let known = body
  for (;;) {
    const { stderr } = run(source, ['-fsyntax-only', '-fmax-errors=0'], text(known))
    const unknown = new Set([...stderr.matchAll(/^<stdin>:(\d+):\d+: error/gm)].map(m => +m[1]!))
    if (unknown.size === 0) break
    known = known.filter((_, i) => !unknown.has(head.length + 1 + i))
  }

  const dir = mkdtempSync(join(tmpdir(), 'abi-'))
  try {
    const program = join(dir, 'probe.c')
    const binary = join(dir, 'probe')
    writeFileSync(program, text(known))
    const directories = (source.directories ?? []).map(d => `-I${d}`)
    const [command, ...rest] = source.target ? [...source.target.run, binary] : [binary]
    execFileSync(compilerOf(source), [...directories, '-w', '-o', binary, program])
    const answers: Answers = {
      edition: editionOf(source),
      headers: source.include,
      structs: {},
      constants: {},
    }
    const said = execFileSync(command!, rest, { encoding: 'utf8' })
    for (const line of said.trim().split('\n')) {
      const [ctype, member, value] = line.split('|') as [string, string, string]
      if (!ctype) answers.constants[member] = Number(value)
      else if (!member) answers.structs[ctype] = { size: Number(value), members: {} }
      else answers.structs[ctype]!.members[member] = Number(value)
    }
    return answers
  } finally {
    rmSync(dir, { recursive: true })
  }
}

/** A committed answer; undefined when the file does not exist. */
export const readGolden = (path: string): Answers | undefined =>
  existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Answers) : undefined
export const writeGolden = (path: string, answers: Answers): void =>
  writeFileSync(path, JSON.stringify(answers, undefined, 1) + '\n')
