// Comparison: NZCV of FCMP and FCCMP, and the answers of FCMEQ to FACGT (FPCompare, FPCompareEQ, GE, GT).

import { compareUnpacked } from './float-arithmetic.js'
import {
  type Format,
  FPSR,
  type FpEnvironment,
  isAnyNaN,
  type Unpacked,
  unpack,
} from './float-format.js'

/** NZCV in bits 3:0. */
export const NZCV = { LESS: 0b1000, EQUAL: 0b0110, GREATER: 0b0010, UNORDERED: 0b0011 } as const

const UNORDERED = 2

/** -1, 0, 1, or `UNORDERED`; a quiet NaN raises IOC only when `signal`. */
function relation(
  f: Format,
  a: bigint,
  b: bigint,
  signal: boolean,
  env: FpEnvironment,
): -1 | 0 | 1 | 2 {
  const x: Unpacked = unpack(f, a, env)
  const y: Unpacked = unpack(f, b, env)
  if (!isAnyNaN(x) && !isAnyNaN(y)) return compareUnpacked(f, x, y)
  if (signal || x.kind === 'signalling' || y.kind === 'signalling') env.raise(FPSR.IOC)
  return UNORDERED
}

/** FPCompare: the NZCV nibble. */
export function compare(
  f: Format,
  a: bigint,
  b: bigint,
  signal: boolean,
  env: FpEnvironment,
): number {
  switch (relation(f, a, b, signal, env)) {
    case -1:
      return NZCV.LESS
    case 0:
      return NZCV.EQUAL
    case 1:
      return NZCV.GREATER
    default:
      return NZCV.UNORDERED
  }
}

/** FPCompareEQ. */
export function isEqual(f: Format, a: bigint, b: bigint, env: FpEnvironment): boolean {
  return relation(f, a, b, false, env) === 0
}

/** FPCompareGE. */
export function isGreaterOrEqual(f: Format, a: bigint, b: bigint, env: FpEnvironment): boolean {
  const r = relation(f, a, b, true, env)
  return r === 0 || r === 1
}

/** FPCompareGT. */
export function isGreater(f: Format, a: bigint, b: bigint, env: FpEnvironment): boolean {
  return relation(f, a, b, true, env) === 1
}
