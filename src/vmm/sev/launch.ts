// A VMM's way through a launch, by the interface of 2016 or by today's: start, encrypt memory in place, finish with a
// measurement; then status, debugging and secrets. Every call is an ioctl. Rules C-15 to C-21 as their user sees them;
// C.4 rows 07 to 12.

import { ErrnoError } from '../../base/errno.js'
import type { StructBytes } from '../../base/struct.js'
import * as uapi from '../../cpu/kvm/uapi/sev.js'
import * as old from '../../cpu/kvm/uapi/sev-2016.js'
import {
  GUEST_STATE,
  type GuestState,
  SEV_STATUS,
  type SevEdition,
  sevStatusName,
} from '../../cpu/kvm/uapi/sev-codes.js'
import type { Sys } from '../../sys/sys.js'
import type { LaunchConfig } from './launch-config.js'

/** Memory that a command's structures are put in. */
const SCRATCH = 0x8000
const MEASURE_BYTES = 48

/** A launch that the kernel or the firmware refused. `code` is the firmware's, when it was asked. */
export class SevLaunchError extends Error {
  override readonly name = 'SevLaunchError'
  readonly code: number | undefined
  constructor(what: string, code: number | undefined, options?: ErrorOptions) {
    super(code === undefined ? what : `${what}: firmware code ${sevStatusName(code)}`, options)
    this.code = code
  }
}

/** A secret as its owner packed it for a measured guest. */
export interface SecretPacket {
  readonly header: Uint8Array
  readonly data: Uint8Array
}

/** The commands of one VM, whichever interface it was started by. */
export class SevLaunch {
  readonly edition: SevEdition
  readonly config: LaunchConfig
  readonly #sys: Sys
  readonly #vm: number
  readonly #scratch
  #fd = -1
  #state: GuestState = GUEST_STATE.UNINIT
  #measurement: Uint8Array | undefined
  #handle = 0

  /** `vm` is a VM's descriptor; of type 2 for today's interface, of type 0 for that of 2016. */
  constructor(sys: Sys, vm: number, edition: SevEdition, config: LaunchConfig) {
    this.#sys = sys
    this.#vm = vm
    this.edition = edition
    this.config = config
    this.#scratch = sys.mmap(SCRATCH)
  }

  /** State of the guest as this VMM knows it. */
  get state(): GuestState {
    return this.#state
  }

  get handle(): number {
    return this.#handle
  }

  /** What LAUNCH_FINISH, or LAUNCH_MEASURE, told: 32 bytes, and today 16 of nonce. */
  get measurement(): Uint8Array | undefined {
    return this.#measurement
  }

  /** Today's first step, before there is a vCPU: INIT2. Nothing in 2016. */
  init(): void {
    if (this.edition === '2016') return
    this.#fd = this.#sys.open('/dev/sev')
    this.#current(uapi.KVM_SEV_INIT2, uapi.kvm_sev_init())
  }

  /** LAUNCH_START; again while launching it does nothing (C.4 row 07). */
  start(): void {
    if (this.#state === GUEST_STATE.LAUNCHING) return
    const { flags, policy, nonce, dhPubQx: dh_pub_qx, dhPubQy: dh_pub_qy } = this.config
    if (this.edition === '2016') {
      const members = { flags, policy, nonce, dh_pub_qx, dh_pub_qy }
      const start = old.kvm_sev_launch_start_2016(members)
      this.#handle = this.#issue(old.SEV_2016.LAUNCH_START, start).handle
    } else {
      const start = uapi.kvm_sev_launch_start({ policy })
      this.#handle = this.#current(uapi.KVM_SEV_LAUNCH_START, start).handle
    }
    this.#state = GUEST_STATE.LAUNCHING
  }

  /** LAUNCH_UPDATE: encrypts what lies at process address `vaddr`, both multiples of 16. */
  update(vaddr: bigint, length: number): void {
    this.#need(GUEST_STATE.LAUNCHING, 'encrypt memory')
    if (this.edition === '2016') {
      const update = old.kvm_sev_launch_update_2016({ address: vaddr, length })
      this.#issue(old.SEV_2016.LAUNCH_UPDATE, update)
    } else {
      const update = uapi.kvm_sev_launch_update_data({ uaddr: vaddr, len: length })
      this.#current(uapi.KVM_SEV_LAUNCH_UPDATE_DATA, update)
    }
  }

  /** Measures: today LAUNCH_MEASURE, after which secrets may come; in 2016 a part of `finish`. */
  measure(): void {
    if (this.edition === '2016') return
    this.#need(GUEST_STATE.LAUNCHING, 'measure')
    const uaddr = this.#scratch.vaddr + BigInt(SCRATCH / 2)
    const measure = uapi.kvm_sev_launch_measure({ uaddr, len: MEASURE_BYTES })
    this.#current(uapi.KVM_SEV_LAUNCH_MEASURE, measure)
    this.#measurement = this.#scratch.bytes.slice(SCRATCH / 2, SCRATCH / 2 + MEASURE_BYTES)
    this.#state = GUEST_STATE.SECRET
  }

  /** LAUNCH_SECRET: a packet becomes encrypted memory at process address `vaddr`. Today's interface only. */
  secret({ header, data }: SecretPacket, vaddr: bigint): void {
    this.#need(GUEST_STATE.SECRET, 'take a secret')
    const at = SCRATCH / 2
    this.#scratch.bytes.set(header, at)
    this.#scratch.bytes.set(data, at + 4096)
    const hdr_uaddr = this.#scratch.vaddr + BigInt(at)
    const secret = uapi.kvm_sev_launch_secret({
      hdr_uaddr,
      hdr_len: header.length,
      guest_uaddr: vaddr,
      guest_len: data.length,
      trans_uaddr: hdr_uaddr + 4096n,
      trans_len: data.length,
    })
    this.#current(uapi.KVM_SEV_LAUNCH_SECRET, secret)
  }

  /** LAUNCH_FINISH: the guest may run. The measurement (C.4 row 09). */
  finish(): Uint8Array {
    if (this.edition === '2016') {
      this.#need(GUEST_STATE.LAUNCHING, 'finish')
      this.#measurement = this.#finish2016()
    } else {
      if (this.#state === GUEST_STATE.LAUNCHING) this.measure()
      this.#need(GUEST_STATE.SECRET, 'finish')
      this.#current(uapi.KVM_SEV_LAUNCH_FINISH)
    }
    this.#state = GUEST_STATE.RUNNING
    return this.#measurement!
  }

  /** GUEST_STATUS: policy and state as the firmware has them. */
  status(): { readonly policy: number; readonly state: number } {
    if (this.edition === '2016')
      return this.#issue(old.SEV_2016.GUEST_STATUS, old.kvm_sev_guest_status_2016())
    return this.#current(uapi.KVM_SEV_GUEST_STATUS, uapi.kvm_sev_guest_status())
  }

  /** DBG_DECRYPT of memory at `vaddr`; false when the policy forbids it. */
  debugRead(vaddr: bigint, into: Uint8Array): boolean {
    return this.#debug(vaddr, into.length, false, bytes => into.set(bytes))
  }

  /** DBG_ENCRYPT to memory at `vaddr`; false when the policy forbids it. */
  debugWrite(vaddr: bigint, from: Uint8Array): boolean {
    return this.#debug(vaddr, from.length, true, bytes => bytes.set(from))
  }

  close(): void {
    if (this.#fd >= 0) this.#sys.close(this.#fd)
    this.#sys.munmap(this.#scratch.vaddr, SCRATCH)
  }

  #finish2016(): Uint8Array {
    const { vcpuCount, vcpuLength, vcpuMask } = this.config
    const at = SCRATCH / 2
    if (vcpuMask.length > at) throw new SevLaunchError('the vCPU mask is too long', undefined)
    this.#scratch.bytes.set(vcpuMask, at)
    const finish = old.kvm_sev_launch_finish_2016({
      vcpu_count: vcpuCount,
      vcpu_length: vcpuLength,
      vcpu_mask_addr: this.#scratch.vaddr + BigInt(at),
      vcpu_mask_length: vcpuMask.length,
    })
    return this.#issue(old.SEV_2016.LAUNCH_FINISH, finish).measurement.slice()
  }

  // Piece by piece through the scratch memory: before each call of an encryption `use` fills it, after each decryption
  // it empties it.
  #debug(
    vaddr: bigint,
    length: number,
    encrypt: boolean,
    use: (bytes: Uint8Array) => void,
  ): boolean {
    const all = new Uint8Array(length)
    if (encrypt) use(all)
    const room = SCRATCH / 2
    const buffer = this.#scratch.vaddr + BigInt(room)
    const bytes = this.#scratch.bytes
    try {
      for (let done = 0; done < length; done += room) {
        const piece = Math.min(room, length - done)
        const guest = vaddr + BigInt(done)
        if (encrypt) bytes.set(all.subarray(done, done + piece), room)
        const [from, to] = encrypt ? [buffer, guest] : [guest, buffer]
        this.#debugCall(from, to, piece, encrypt)
        if (!encrypt) all.set(bytes.subarray(room, room + piece), done)
      }
    } catch (error) {
      if (error instanceof SevLaunchError && error.code === SEV_STATUS.POLICY_FAILURE) return false
      throw error
    }
    if (!encrypt) use(all)
    return true
  }

  #debugCall(from: bigint, to: bigint, length: number, encrypt: boolean): void {
    if (this.edition === '2016') {
      const { DBG_ENCRYPT, DBG_DECRYPT } = old.SEV_2016
      const dbg = old.kvm_sev_dbg_2016({ src_addr: from, dst_addr: to, length })
      this.#issue(encrypt ? DBG_ENCRYPT : DBG_DECRYPT, dbg)
    } else {
      const dbg = uapi.kvm_sev_dbg({ src_uaddr: from, dst_uaddr: to, len: length })
      this.#current(encrypt ? uapi.KVM_SEV_DBG_ENCRYPT : uapi.KVM_SEV_DBG_DECRYPT, dbg)
    }
  }

  #need(state: GuestState, what: string): void {
    if (this.#state !== state)
      throw new SevLaunchError(`cannot ${what} in state ${this.#state}`, undefined)
  }

  #current<T extends StructBytes>(id: number, data?: T): T {
    const cmd = uapi.kvm_sev_cmd({ id, data: this.#place(data), sev_fd: this.#fd, error: -1 })
    this.#call(uapi.KVM_MEMORY_ENCRYPT_OP, cmd, () => cmd.error, `SEV command ${id}`)
    return this.#readBack(data)
  }

  #issue<T extends StructBytes>(cmd: number, data: T): T {
    const issue = old.kvm_sev_issue_cmd_2016({ cmd, opaque: this.#place(data), ret_code: -1 })
    this.#call(old.KVM_SEV_ISSUE_CMD, issue, () => issue.ret_code, `SEV command ${cmd} of 2016`)
    return this.#readBack(data)
  }

  #place(data: StructBytes | undefined): bigint {
    if (data === undefined) return 0n
    this.#scratch.bytes.set(data.bytes)
    return this.#scratch.vaddr
  }

  #readBack<T extends StructBytes>(data: T | undefined): T {
    data?.bytes.set(this.#scratch.bytes.subarray(0, data.bytes.length))
    return data as T
  }

  #call(request: number, argument: StructBytes, code: () => number, what: string): void {
    try {
      this.#sys.ioctl(this.#vm, request, argument as Parameters<Sys['ioctl']>[2])
    } catch (error) {
      if (!(error instanceof ErrnoError)) throw error
      const firmware = code()
      const asked = firmware !== 0xffff_ffff
      throw new SevLaunchError(`${what}: ${error.code}`, asked ? firmware : undefined, {
        cause: error,
      })
    }
  }
}
