// The caller's memory as SEV commands use it: pages pinned while the firmware works on them, blobs copied in, and the
// debug copies, which the kernel makes of whole 16-byte blocks (rule C-21).

import type { Process } from '../../../sys/process.js'
import { SEV_STATUS, type SevStatus } from '../../sev/codes.js'
import { copyInBytes, refuse } from '../arguments.js'
import type { SevVm } from './sev.js'

const PAGE = 4096
const TOP = 1n << 64n
/** Most bytes of a blob that goes to the firmware (SEV_FW_BLOB_MAX_SIZE). */
export const BLOB_MAX = 0x4000

/** Pages of the caller that are pinned. */
export interface UserPages {
  /** Host physical address of each page. */
  readonly addresses: readonly number[]
  release(): void
}

/** A run of physically contiguous bytes. */
export interface Run {
  readonly address: number
  readonly length: number
}

/**
 * Pins the pages of a range. ErrnoError: EINVAL (empty, or it wraps), ENOMEM (beyond the limit of locked memory, or a
 * page that is not there).
 */
export function pinRange(
  sev: SevVm,
  caller: Process,
  at: bigint,
  length: bigint,
  write: boolean,
): UserPages {
  if (length === 0n || at + length > TOP)
    throw refuse('EINVAL', `${length} bytes at 0x${at.toString(16)}`)
  const first = Number(at >> 12n)
  const pages = Number((at + length - 1n) >> 12n) - first + 1
  const { memory } = caller
  const limit = memory.capIpcLock ? Number.POSITIVE_INFINITY : memory.memlockLimitPages
  if (sev.lockedPages + pages > limit)
    throw refuse('ENOMEM', `${pages} pages more than may be locked`)
  caller.kernel.failures.step('page pointers')
  const addresses: number[] = []
  const release = () => {
    for (const address of addresses) memory.unpin(address / PAGE)
    sev.lockedPages -= addresses.length
    addresses.length = 0
  }
  for (let i = 0; i < pages; i++) {
    const frame = memory.pin(first + i, write)
    if (frame < 0) {
      release()
      throw refuse('ENOMEM', `page 0x${((first + i) * PAGE).toString(16)} cannot be pinned`)
    }
    addresses.push(frame * PAGE)
    sev.lockedPages++
  }
  return { addresses, release }
}

/** The physically contiguous runs of a range whose pages are pinned. */
export function runsOf({ addresses }: UserPages, at: bigint, length: number): Run[] {
  const runs: { address: number; length: number }[] = []
  let left = length
  let offset = Number(at & 4095n)
  for (const page of addresses) {
    const piece = Math.min(PAGE - offset, left)
    const last = runs.at(-1)
    if (last !== undefined && last.address + last.length === page + offset) last.length += piece
    else runs.push({ address: page + offset, length: piece })
    left -= piece
    offset = 0
  }
  return runs
}

/** A blob for the firmware. ErrnoError: EINVAL (null, empty or too long), EFAULT. */
export function copyBlob(caller: Process, at: bigint, length: number): Uint8Array {
  if (at === 0n || length === 0 || length > BLOB_MAX)
    throw refuse('EINVAL', `a blob of ${length} bytes at 0x${at.toString(16)}`)
  return copyInBytes(caller, Number(at), length)
}

/** The blocks around [at, at + length), inside one page. */
function blocksAround(at: number, length: number): Run {
  const start = at - (at % 16)
  return { address: start, length: Math.ceil((at + length - start) / 16) * 16 }
}

/** What a debug copy is of. */
export interface DebugCopy {
  readonly source: bigint
  readonly target: bigint
  readonly length: number
}

/**
 * DBG_DECRYPT and DBG_ENCRYPT of any length between any two addresses: page by page, by the firmware where all is
 * aligned, else with the blocks at the edges read, changed and written back. ErrnoError: EFAULT, ENOMEM.
 */
export function debugCopy(
  sev: SevVm,
  caller: Process,
  { source, target, length }: DebugCopy,
  encrypt: boolean,
): SevStatus {
  for (let done = 0; done < length; ) {
    const from = source + BigInt(done)
    const to = target + BigInt(done)
    const fromOffset = Number(from & 4095n)
    const toOffset = Number(to & 4095n)
    const piece = Math.min(length - done, PAGE - fromOffset, PAGE - toOffset)
    const read = pinRange(sev, caller, from - BigInt(fromOffset), 4096n, false)
    try {
      const written = pinRange(sev, caller, to - BigInt(toOffset), 4096n, true)
      try {
        const s = read.addresses[0]! + fromOffset
        const d = written.addresses[0]! + toOffset
        const status = encrypt
          ? encryptPiece(sev, caller, s, d, piece, from)
          : decryptPiece(sev, caller, s, d, piece, to)
        if (status !== SEV_STATUS.SUCCESS) return status
      } finally {
        written.release()
      }
    } finally {
      read.release()
    }
    done += piece
  }
  return SEV_STATUS.SUCCESS
}

const aligned = (...values: readonly number[]) => values.every(v => v % 16 === 0)

function decryptPiece(
  { firmware, handle }: SevVm,
  caller: Process,
  source: number,
  target: number,
  length: number,
  to: bigint,
): SevStatus {
  if (aligned(source, target, length)) return firmware.debugDecrypt(handle, source, target, length)
  const around = blocksAround(source, length)
  const bytes = new Uint8Array(around.length)
  const status = firmware.debugRead(handle, around.address, bytes)
  if (status !== SEV_STATUS.SUCCESS) return status
  const start = source - around.address
  if (!caller.memory.copyOut(Number(to), bytes.subarray(start, start + length)))
    throw refuse('EFAULT', 'the destination cannot be written')
  return status
}

function encryptPiece(
  { firmware, handle }: SevVm,
  caller: Process,
  source: number,
  target: number,
  length: number,
  from: bigint,
): SevStatus {
  if (aligned(source, target, length)) return firmware.debugEncrypt(handle, source, target, length)
  const around = blocksAround(target, length)
  const bytes = new Uint8Array(around.length)
  const status = firmware.debugRead(handle, around.address, bytes)
  if (status !== SEV_STATUS.SUCCESS) return status
  bytes.set(copyInBytes(caller, Number(from), length), target - around.address)
  return firmware.debugWrite(handle, bytes, around.address)
}
