// What a translation allows, in the TLB's words, and what a page fault's error code says (SDM vol. 3, 4.6 and 4.7).

import {
  ACCESS_NXE,
  ACCESS_SMEP,
  ACCESS_WP,
  FAILURE,
  PERM_EXECUTE,
  PERM_USER_EXECUTE,
  PERM_USER_READ,
  PERM_USER_WRITE,
  PERM_WRITE,
} from '../../paging/walk.js'
import { ACCESS } from './ports.js'
import { ALLOW } from './tlb.js'

/** Bits of a page fault's error code (SDM vol. 3, 4.7). */
export const FAULT = { P: 1, W: 2, U: 4, RSVD: 8, I: 16 } as const

/** Needed `ALLOW` bits by READ, WRITE and FETCH (bits 2:0), user (3), SMAP in force (4). */
export const NEEDS = Uint8Array.from({ length: 32 }, (_, i) => {
  const user = (i & 8) !== 0
  const smap = (i & 16) !== 0 && !user
  let need = 0
  if ((i & ACCESS.FETCH) !== 0) need |= user ? ALLOW.USER_FETCH : ALLOW.SUPERVISOR_FETCH
  if ((i & ACCESS.READ) !== 0)
    need |= user ? ALLOW.USER_READ : smap ? ALLOW.SMAP_READ : ALLOW.SUPERVISOR_READ
  if ((i & ACCESS.WRITE) !== 0)
    need |= user ? ALLOW.USER_WRITE : smap ? ALLOW.SMAP_WRITE : ALLOW.SUPERVISOR_WRITE
  return need
})

/**
 * What an entry allows. PERM_* holds what one access's SMAP situation allows; entries serve accesses in either. `modes`
 * are the walker's words of the control bits.
 */
export function allowed(permissions: number, writes: boolean, modes: number): number {
  const user = (permissions & PERM_USER_READ) !== 0
  const userWrite = (permissions & PERM_USER_WRITE) !== 0
  const supervisorWrite = user
    ? userWrite || (modes & ACCESS_WP) === 0
    : (permissions & PERM_WRITE) !== 0
  let allow: number = ALLOW.SUPERVISOR_READ
  if (!user) allow |= ALLOW.SMAP_READ
  else allow |= ALLOW.USER_READ
  if (writes && supervisorWrite) allow |= ALLOW.SUPERVISOR_WRITE | (user ? 0 : ALLOW.SMAP_WRITE)
  if (writes && userWrite) allow |= ALLOW.USER_WRITE
  if ((permissions & PERM_EXECUTE) !== 0) allow |= ALLOW.SUPERVISOR_FETCH
  if ((permissions & PERM_USER_EXECUTE) !== 0) allow |= ALLOW.USER_FETCH
  return allow
}

/** The error code of a page fault that a walk ended in. */
export function errorCode(failure: number, access: number, user: boolean, modes: number): number {
  const fetch = (access & ACCESS.FETCH) !== 0
  const tellsFetch = (modes & (ACCESS_NXE | ACCESS_SMEP)) !== 0
  // An entry that is nowhere reads as all-ones, which has reserved bits set.
  const reserved =
    failure === FAILURE.reserved ||
    failure === FAILURE.unreadable ||
    failure === FAILURE.flagUpdate ||
    failure === FAILURE.addressSize
  return (
    (failure !== FAILURE.notPresent ? FAULT.P : 0) |
    ((access & ACCESS.WRITE) !== 0 ? FAULT.W : 0) |
    (user ? FAULT.U : 0) |
    (reserved ? FAULT.RSVD : 0) |
    (fetch && tellsFetch ? FAULT.I : 0)
  )
}
