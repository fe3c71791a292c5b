// A guest of a few hundred bytes under SEV: the guest of the KVM tests, its tables under the C-bit, and the commands
// of both interfaces as a program would issue them.

import { ErrnoError } from '../../../src/base/errno.js'
import type { StructBytes } from '../../../src/base/struct.js'
import { nodeCrypto } from '../../../src/cli/node-crypto.js'
import * as sev from '../../../src/cpu/kvm/uapi/sev.js'
import * as sev2016 from '../../../src/cpu/kvm/uapi/sev-2016.js'
import type { SevOptions } from '../../../src/cpu/sev/platform.js'
import type { Sys } from '../../../src/sys/sys.js'
import { AT, Guest, type GuestOptions, host } from '../kvm/guest.js'

export { AT, hex, RAM_BYTES } from '../kvm/guest.js'

/** What a call came to: 0 or an errno, and the firmware's code. */
export interface Outcome {
  readonly errno: string
  /** The code as it was left; `UNTOUCHED` when no firmware was asked. */
  readonly code: number
}

/** What tests put where the firmware's code goes. */
export const UNTOUCHED = 0xdead

const places = new WeakMap<Sys, ReturnType<Sys['mmap']>>()

/** Puts a command's structure in memory for a call, and reads it back. */
function withArgument(sys: Sys, data: StructBytes | bigint, call: (pointer: bigint) => void): void {
  if (typeof data === 'bigint') {
    call(data)
    return
  }
  const place = places.get(sys) ?? sys.mmap(4096)
  places.set(sys, place)
  place.bytes.set(data.bytes)
  try {
    call(place.vaddr)
  } finally {
    data.bytes.set(place.bytes.subarray(0, data.bytes.length))
  }
}

const errnoOf = (call: () => void): string => {
  try {
    call()
    return ''
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}

/** KVM_MEMORY_ENCRYPT_OP. */
export function command(
  sys: Sys,
  vm: number,
  fd: number,
  id: number,
  data: StructBytes | bigint = 0n,
): Outcome {
  const cmd = sev.kvm_sev_cmd({ id, error: UNTOUCHED, sev_fd: fd })
  let errno = ''
  withArgument(sys, data, pointer => {
    cmd.data = pointer
    errno = errnoOf(() => sys.ioctl(vm, sev.KVM_MEMORY_ENCRYPT_OP, cmd))
  })
  return { errno, code: cmd.error }
}

/** KVM_SEV_ISSUE_CMD. */
export function command2016(
  sys: Sys,
  vm: number,
  cmd: number,
  data: StructBytes | bigint = 0n,
): Outcome {
  const issue = sev2016.kvm_sev_issue_cmd_2016({ cmd, ret_code: UNTOUCHED })
  let errno = ''
  withArgument(sys, data, pointer => {
    issue.opaque = pointer
    errno = errnoOf(() => sys.ioctl(vm, sev2016.KVM_SEV_ISSUE_CMD, issue))
  })
  return { errno, code: issue.ret_code }
}

export const OK: Outcome = { errno: '', code: 0 }

/** A VM that is to be an encrypted guest. */
export class SevGuest extends Guest {
  readonly fd: number
  readonly cBit: number

  constructor(options: SevOptions = {}, more: GuestOptions & { init?: boolean } = {}) {
    // Node's crypto gives the same bytes (crypto.test.ts), faster.
    const on = more.host ?? host({}, { crypto: nodeCrypto, ...options })
    const fd = on.sys.open('/dev/sev')
    const type = more.type ?? sev.KVM_X86_SEV_VM
    super({
      irqchip: false,
      ramBytes: 0x8_0000,
      ...more,
      host: on,
      type,
      prepare: (sys, vm) => {
        if (type === 0 || more.init === false) return
        const { errno } = command(sys, vm, fd, sev.KVM_SEV_INIT2, sev.kvm_sev_init())
        if (errno) throw new Error(`INIT2: ${errno}`)
      },
    })
    this.fd = fd
    this.cBit = options.cBit ?? 47
  }

  command(id: number, data?: StructBytes | bigint, fd = this.fd): Outcome {
    return command(this.sys, this.vm, fd, id, data)
  }

  command2016(cmd: number, data?: StructBytes | bigint): Outcome {
    return command2016(this.sys, this.vm, cmd, data)
  }

  /** The platform's firmware. */
  get firmware() {
    return this.host.platform!.firmware
  }

  /** The handle of the VM's guest. */
  get handle(): number {
    return [...this.firmware.save().guests].at(-1)!.handle
  }

  /** The first 2 MiB under the C-bit, page by page, but for the pages named. */
  encryptTables(...shared: readonly number[]): void {
    const c = 1n << BigInt(this.cBit)
    for (let page = 0; page < 512; page++) {
      const at = AT.PT + 8 * page
      const entry = this.view.getBigUint64(at, true)
      this.view.setBigUint64(at, shared.includes(page * 4096) ? entry & ~c : entry | c, true)
    }
  }

  /** LAUNCH_START to LAUNCH_FINISH with the first 256 KiB measured and encrypted. */
  launch(policy = 0, bytes = 0x4_0000): Uint8Array {
    const start = sev.kvm_sev_launch_start({ policy })
    this.must(this.command(sev.KVM_SEV_LAUNCH_START, start))
    this.update(0, bytes)
    const measurement = this.measure()
    this.must(this.command(sev.KVM_SEV_LAUNCH_FINISH))
    return measurement
  }

  /** LAUNCH_UPDATE_DATA of guest memory. */
  update(gpa: number, length: number): void {
    const data = sev.kvm_sev_launch_update_data({ uaddr: this.vaddr + BigInt(gpa), len: length })
    this.must(this.command(sev.KVM_SEV_LAUNCH_UPDATE_DATA, data))
  }

  /** LAUNCH_MEASURE: measurement and nonce. */
  measure(): Uint8Array {
    const room = this.sys.mmap(4096)
    const ask = sev.kvm_sev_launch_measure({ uaddr: room.vaddr, len: 48 })
    this.must(this.command(sev.KVM_SEV_LAUNCH_MEASURE, ask))
    const bytes = room.bytes.slice(0, 48)
    this.sys.munmap(room.vaddr, 4096)
    return bytes
  }

  /** GUEST_STATUS. */
  status() {
    const status = sev.kvm_sev_guest_status()
    const outcome = this.command(sev.KVM_SEV_GUEST_STATUS, status)
    return { ...outcome, policy: status.policy, state: status.state, handle: status.handle }
  }

  /** DBG_DECRYPT or DBG_ENCRYPT between process addresses. */
  debug(id: number, source: bigint, target: bigint, length: number): Outcome {
    const dbg = sev.kvm_sev_dbg({ src_uaddr: source, dst_uaddr: target, len: length })
    return this.command(id, dbg)
  }

  /** Plaintext of guest memory, by DBG_DECRYPT. */
  peek(gpa: number, length: number): Uint8Array {
    const room = this.sys.mmap(Math.max(4096, length))
    this.must(this.debug(sev.KVM_SEV_DBG_DECRYPT, this.vaddr + BigInt(gpa), room.vaddr, length))
    const bytes = room.bytes.slice(0, length)
    this.sys.munmap(room.vaddr, room.bytes.length)
    return bytes
  }

  must({ errno, code }: Outcome): void {
    if (errno) throw new Error(`${errno}, firmware code ${code}`)
  }
}

/** The first bytes of guest memory as the host sees them. */
export const seen = (g: Guest, at: number, length: number): number[] => [
  ...g.ram.subarray(at, at + length),
]
