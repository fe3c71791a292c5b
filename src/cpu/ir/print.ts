// Operations as text, one a line, for tests and for people: `i64.add t0, rax, rbx`.

import { type IrOp, OP_NAMES, OPS } from './ops.js'

/** Prints operations; `nameOf` names slots (registers), which are otherwise `s<number>`. */
export function printOps(ops: readonly IrOp[], nameOf = (slot: number) => `s${slot}`): string {
  return ops
    .map((op, index) => {
      const name = OP_NAMES[op.code]!
      const row = OPS[name]
      const words: string[] = row.result === 'none' ? [] : [nameOf(op.d)]
      for (const letter of row.operands.split(' ')) {
        if (letter === 'a') words.push(nameOf(op.a))
        else if (letter === 'b') words.push(nameOf(op.b))
        else if (letter === 'c') words.push(nameOf(op.c))
        else if (letter === 'd') words.push(nameOf(op.d))
        else if (letter === 'h') words.push(op.routine?.name ?? '?')
        else if (letter === 'k')
          words.push(`#${op.big < 0n ? '-' : ''}0x${abs(op.big).toString(16)}`)
        else if (letter === 'n' && row.effect === 'skip') words.push(`-> ${index + 1 + op.imm}`)
        else if (letter === 'n') words.push(`#${op.imm}`)
      }
      return `${String(index).padStart(3)}  ${name} ${words.join(', ')}`.trimEnd()
    })
    .join('\n')
}

const abs = (v: bigint) => (v < 0n ? -v : v)
