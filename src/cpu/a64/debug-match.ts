// When breakpoints and watchpoints match (DDI 0487, D2.8 to D2.10): privilege, address, context, and links between them.
// Only the Non-secure EL1&0 view: no EL2, EL3 or AArch32, so types that compare VMIDs or mismatch are reserved.

import { BREAKPOINTS, CONTEXT_BREAKPOINTS, WATCHPOINTS } from './id-registers.js'

/** The numbers of one owner's debug registers. */
export interface DebugValues {
  readonly bvr: BigUint64Array
  readonly bcr: Int32Array
  readonly wvr: BigUint64Array
  readonly wcr: Int32Array
  /** CONTEXTIDR_EL1. */
  context: number
}

/** Debug registers that are all zero. */
export const noDebugValues = (): DebugValues => ({
  bvr: new BigUint64Array(BREAKPOINTS),
  bcr: new Int32Array(BREAKPOINTS),
  wvr: new BigUint64Array(WATCHPOINTS),
  wcr: new Int32Array(WATCHPOINTS),
  context: 0,
})

/** DBGBCR_EL1.BT: address, linked address, context, linked context. */
const TYPE = { ADDRESS: 0, LINKED_ADDRESS: 1, CONTEXT: 2, LINKED_CONTEXT: 3 } as const

/** DBGWCR_EL1.LSC, and what an access is. */
export const LSC = { LOAD: 1, STORE: 2 } as const

const enabled = (control: number): boolean => (control & 1) !== 0
const linkOf = (control: number): number => (control >> 16) & 15
const typeOf = (bcr: number): number => (bcr >> 20) & 15
const isContextAware = (n: number): boolean =>
  n >= BREAKPOINTS - CONTEXT_BREAKPOINTS && n < BREAKPOINTS

/** HMC, SSC and PMC (or PAC): whether they include the exception level. Reserved combinations include none. */
function includes(control: number, el: number): boolean {
  const hmc = (control >> 13) & 1
  const ssc = (control >> 14) & 3
  const pmc = (control >> 1) & 3
  const reserved =
    ssc === 2 || (hmc === 0 ? ssc === 3 : ssc === 3 ? pmc !== 0 : pmc === 0 || pmc === 2)
  return !reserved && ((pmc >> (el === 1 ? 0 : 1)) & 1) !== 0
}

/** Whether breakpoint `n`, as the target of a link, lets its partner match now. */
function linkMatches(v: DebugValues, n: number): boolean {
  const control = v.bcr[n] ?? 0
  return (
    isContextAware(n) &&
    enabled(control) &&
    typeOf(control) === TYPE.LINKED_CONTEXT &&
    Number(v.bvr[n]! & 0xffff_ffffn) === v.context
  )
}

/** Whether any breakpoint matches the instruction at `pc`, which has no tag. */
export function breakpointMatches(v: DebugValues, pc: bigint, el: number): boolean {
  for (let n = 0; n < BREAKPOINTS; n++) {
    const control = v.bcr[n]!
    if (!enabled(control) || !includes(control, el)) continue
    const type = typeOf(control)
    const address =
      type === TYPE.ADDRESS || (type === TYPE.LINKED_ADDRESS && linkMatches(v, linkOf(control)))
    if (address && (v.bvr[n]! & ~3n) === pc) return true
    if (
      type === TYPE.CONTEXT &&
      isContextAware(n) &&
      Number(v.bvr[n]! & 0xffff_ffffn) === v.context
    )
      return true
  }
  return false
}

/**
 * The lowest address that a watchpoint matches in `size` bytes from `address` (without tag), or -1. `what` is LOAD,
 * STORE or both of them, which matches a watchpoint for either.
 */
export function watchpointMatch(
  v: DebugValues,
  address: bigint,
  size: number,
  el: number,
  what: number,
): bigint {
  let lowest = -1n
  for (let n = 0; n < WATCHPOINTS; n++) {
    const control = v.wcr[n]!
    if (!enabled(control) || ((control >> 3) & 3 & what) === 0 || !includes(control, el)) continue
    if ((control & (1 << 20)) !== 0 && !linkMatches(v, linkOf(control))) continue
    const hit = firstWatched(v, n, address, size)
    if (hit >= 0n && (lowest < 0n || hit < lowest)) lowest = hit
  }
  return lowest
}

function firstWatched(v: DebugValues, n: number, address: bigint, size: number): bigint {
  const control = v.wcr[n]!
  const base = v.wvr[n]!
  const select = (control >> 5) & 0xff
  const mask = (control >> 24) & 31
  const end = address + BigInt(size)
  if (mask !== 0) {
    // A range of 2^MASK bytes; 1 and 2 are reserved, and so is a byte selection other than all.
    if (mask < 3 || select !== 0xff) return -1n
    const start = (base >> BigInt(mask)) << BigInt(mask)
    const first = start > address ? start : address
    return first < end && first < start + (1n << BigInt(mask)) ? first : -1n
  }
  // A value that is a multiple of 4 and not of 8 selects among four bytes.
  const bytes = (base & 4n) !== 0n ? 4 : 8
  const start = base & ~3n
  for (let i = 0; i < bytes; i++) {
    const at = start + BigInt(i)
    if ((select & (1 << i)) !== 0 && at >= address && at < end) return at
  }
  return -1n
}

/** Whether any breakpoint, or any watchpoint, is enabled at all. */
export const anyBreakpoint = (v: DebugValues): boolean => v.bcr.some(enabled)
export const anyWatchpoint = (v: DebugValues): boolean => v.wcr.some(enabled)
