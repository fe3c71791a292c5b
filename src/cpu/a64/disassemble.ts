// Instructions as text, spelled as binutils spells them, from the same table that decodes them.

import { decode } from './decode.js'

/** One instruction; `pc` is its address, for branches and literals. UNDEFINED words are `.inst 0x…`. */
export function disassemble(word: number, pc = 0n): string {
  const insn = decode(word)
  if (!insn) return `.inst 0x${(word >>> 0).toString(16).padStart(8, '0')}`
  return insn.encoding.print(insn.fields, pc)
}
