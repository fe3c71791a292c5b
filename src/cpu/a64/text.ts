// Spellings that instructions share, as binutils prints them.

// biome-ignore format: table
/** Condition names, by number. */
export const CONDITIONS = ['eq', 'ne', 'cs', 'cc', 'mi', 'pl', 'vs', 'vc', 'hi', 'ls', 'ge', 'lt', 'gt', 'le', 'al', 'nv'] as const
export const SHIFTS = ['lsl', 'lsr', 'asr', 'ror'] as const
export const EXTENDS = ['uxtb', 'uxth', 'uxtw', 'uxtx', 'sxtb', 'sxth', 'sxtw', 'sxtx'] as const

/** Wn or Xn, 31 being the zero register. */
export const reg = (sf: number, n: number): string =>
  n === 31 ? (sf ? 'xzr' : 'wzr') : `${sf ? 'x' : 'w'}${n}`

/** Wn or Xn, 31 being the stack pointer. */
export const regsp = (sf: number, n: number): string =>
  n === 31 ? (sf ? 'sp' : 'wsp') : reg(sf, n)

/** `#0x1f`. */
export const hex = (v: number | bigint): string => `#0x${v.toString(16)}`

/** A shift after a register, nothing for LSL #0. */
export const shiftText = (type: number, amount: number): string =>
  type === 0 && amount === 0 ? '' : `, ${SHIFTS[type]!} #${amount}`

/** `[x1]`, `[x1, #8]`. */
export const address = (n: number, offset: number | bigint): string =>
  offset === 0 || offset === 0n ? `[${regsp(1, n)}]` : `[${regsp(1, n)}, #${offset}]`

/** Where a branch goes or a literal lies. */
export const label = (pc: bigint, offset: number | bigint): string =>
  `0x${BigInt.asUintN(64, pc + BigInt(offset)).toString(16)}`
