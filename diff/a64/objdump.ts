// Instructions as binutils spells them: the disassembler's other implementation.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Address of the first word. */
export const BASE = 0x4000_0000n

const command = () => process.env['AARCH64_OBJDUMP'] ?? 'aarch64-linux-gnu-objdump'

/** What `--version` says, or undefined when it is not installed. */
export function objdumpVersion(): string | undefined {
  try {
    return execFileSync(command(), ['--version'], { encoding: 'utf8' }).split('\n')[0]
  } catch {
    return undefined
  }
}

/** One text a word: words follow one another from `BASE`. Comments and symbols are left out. */
export function objdump(words: readonly number[]): string[] {
  const folder = mkdtempSync(join(tmpdir(), 'a64-objdump-'))
  const file = join(folder, 'words')
  writeFileSync(file, new Uint8Array(Int32Array.from(words).buffer))
  // -z: runs of zero words too.
  const options = [
    '-D',
    '-z',
    '-b',
    'binary',
    '-m',
    'aarch64',
    `--adjust-vma=0x${BASE.toString(16)}`,
  ]
  const text = execFileSync(command(), [...options, file], { encoding: 'utf8', maxBuffer: 1 << 28 })
  rmSync(folder, { recursive: true })
  const lines = text.split('\n').filter(line => /^ +[0-9a-f]+:\t/.test(line))
  return lines.map(line => plainText(line.split('\t').slice(2).join(' ')))
}

/** Without `// …` and `<…>`. */
export const plainText = (text: string): string =>
  text
    .replace(/\s*\/\/.*$/, '')
    .replace(/\s*<[^>]*>/g, '')
    .replace(/\s+/g, ' ')
    .trim()
