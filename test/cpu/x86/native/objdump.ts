// Binutils' reading of instruction bytes, for comparison with our disassembler.

import { execFileSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

/** Bytes given to every instruction, so that the next one starts where we know. */
const SPACING = 32

/** What objdump calls each instruction at address 0, or undefined when there is no objdump. */
export function objdump(instructions: readonly Uint8Array[]): string[] | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'x86-objdump-'))
  try {
    const image = new Uint8Array(instructions.length * SPACING).fill(0x90)
    instructions.forEach((code, i) => {
      image.set(code, i * SPACING)
    })
    const file = join(folder, 'code.bin')
    writeFileSync(file, image)
    const text = execFileSync(
      'objdump',
      ['-D', '-b', 'binary', '-m', 'i386:x86-64', '-M', 'intel', '-w', '--no-show-raw-insn', file],
      { encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'ignore'] },
    )
    const found = new Map<number, string>()
    for (const [, at, line] of text.matchAll(/^\s*([0-9a-f]+):\s+(.*)$/gm))
      found.set(Number.parseInt(at!, 16), line!)
    return instructions.map((_, i) => normal(found.get(i * SPACING) ?? '', i * SPACING))
  } catch {
    return undefined
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

/** Single spaces, no comment, branch targets relative to the instruction. */
function normal(line: string, at: number): string {
  const text = line
    .replace(/\s*#.*$/, '')
    .replace(/\s+/g, ' ')
    .trim()
  return text.replace(
    /^((?:j\w+|call|loop\w*) )0x([0-9a-f]+)$/,
    (_, word: string, target: string) => {
      const from = BigInt.asUintN(64, BigInt(`0x${target}`) - BigInt(at))
      return `${word}0x${from.toString(16)}`
    },
  )
}

/** Whether binutils shows what our text leaves out: prefixes without effect, an absent index, reserved ModRM bits. */
export function isBeyondOurText(theirs: string): boolean {
  // The 16-bit MOVSXD reads 16 bits; binutils writes DWORD.
  if (/^movsxd ([a-z]{2}|r\d+w),/.test(theirs)) return true
  return /rex|data16|addr32|riz|eiz|bnd|\(bad|\b(cs|ds|es|ss|fs|gs) /.test(theirs)
}
