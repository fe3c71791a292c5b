// Names of system registers and of cache, TLB and address-translation instructions, as binutils prints them.

import { systemKey } from './ports.js'
import { SYSTEM_REGISTERS } from './system-register-table.js'
import { reg } from './text.js'

interface Operands {
  readonly op1: number
  readonly CRn: number
  readonly CRm: number
  readonly op2: number
  readonly Rt: number
}

// biome-ignore format: table
const REGISTERS: ReadonlyMap<number, string> = new Map([
  ...[...SYSTEM_REGISTERS].filter(([name]) => !name.startsWith('ID_3_')).map(([name, r]) => [r.key, name.toLowerCase()] as const),
  [systemKey(3, 3, 4, 2, 0), 'nzcv'], [systemKey(3, 3, 4, 4, 0), 'fpcr'], [systemKey(3, 3, 4, 4, 1), 'fpsr'],
])

/** Instructions of the SYS space: op1, CRn, CRm, op2; a register operand unless `none`. */
// biome-ignore format: table
const INSTRUCTIONS: readonly (readonly [string, number, number, number, number, 'none'?])[] = [
  ['ic ialluis', 0, 7, 1, 0, 'none'], ['ic iallu', 0, 7, 5, 0, 'none'], ['ic ivau', 3, 7, 5, 1],
  ['dc zva', 3, 7, 4, 1], ['dc ivac', 0, 7, 6, 1], ['dc isw', 0, 7, 6, 2], ['dc cvac', 3, 7, 10, 1],
  ['dc csw', 0, 7, 10, 2], ['dc cvau', 3, 7, 11, 1], ['dc civac', 3, 7, 14, 1], ['dc cisw', 0, 7, 14, 2],
  ['at s1e1r', 0, 7, 8, 0], ['at s1e1w', 0, 7, 8, 1], ['at s1e0r', 0, 7, 8, 2], ['at s1e0w', 0, 7, 8, 3],
  ['tlbi vmalle1is', 0, 8, 3, 0, 'none'], ['tlbi vae1is', 0, 8, 3, 1], ['tlbi aside1is', 0, 8, 3, 2],
  ['tlbi vaae1is', 0, 8, 3, 3], ['tlbi vale1is', 0, 8, 3, 5], ['tlbi vaale1is', 0, 8, 3, 7],
  ['tlbi vmalle1', 0, 8, 7, 0, 'none'], ['tlbi vae1', 0, 8, 7, 1], ['tlbi aside1', 0, 8, 7, 2],
  ['tlbi vaae1', 0, 8, 7, 3], ['tlbi vale1', 0, 8, 7, 5], ['tlbi vaale1', 0, 8, 7, 7],
]

const INSTRUCTION_NAMES = new Map(
  INSTRUCTIONS.map(([name, op1, crn, crm, op2, none]) => [
    systemKey(1, op1, crn, crm, op2),
    { name, operand: none === undefined },
  ]),
)

/** Encodings with a name, for tests: MRS and MSR keys, and those of SYS. */
export const NAMED_SYSTEM_KEYS: readonly number[] = [
  ...REGISTERS.keys(),
  ...INSTRUCTION_NAMES.keys(),
]

const DBGDTRRX = systemKey(2, 3, 0, 5, 0)

/** Spells the operands of MRS, MSR and SYS. */
export const systemText = {
  register(f: Operands & { readonly o0: number }, written: boolean): string {
    const key = systemKey(2 + f.o0, f.op1, f.CRn, f.CRm, f.op2)
    if (key === DBGDTRRX && written) return 'dbgdtrtx_el0'
    const name = REGISTERS.get(key)
    return name ?? `s${2 + f.o0}_${f.op1}_c${f.CRn}_c${f.CRm}_${f.op2}`
  },

  sys(f: Operands): string {
    const known = INSTRUCTION_NAMES.get(systemKey(1, f.op1, f.CRn, f.CRm, f.op2))
    if (known?.operand) return `${known.name}, ${reg(1, f.Rt)}`
    if (known) return known.name
    const register = f.Rt === 31 ? '' : `, ${reg(1, f.Rt)}`
    return `sys #${f.op1}, C${f.CRn}, C${f.CRm}, #${f.op2}${register}`
  },
}
