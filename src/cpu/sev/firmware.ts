// The platform's security processor: guests by handle, their keys and states, which ASID carries whose key, and the
// commands that change them (SEV API, ch. 5 and 6). It works on host physical memory; who may ask, and under which
// numbers, is the kernel's business (kvm/x86/sev*.ts). Every command answers a status code and, refused, changes
// nothing. Left out: certificates, encrypted register state (ES) and nested paging protection (SNP).
// Next: measurement.ts, memory-key.ts; sending and receiving are in migration.ts.

import type { TraceBus } from '../../base/trace.js'
import type { AddressSpace } from '../../mem/address-space.js'
import { ConfidentialPages } from '../../mem/confidential.js'
import { AsidPool } from './asid-pool.js'
import {
  GUEST_STATE,
  type GuestState,
  PLATFORM_STATE,
  SEV_STATUS,
  type SevStatus,
} from './codes.js'
import { type CryptoProvider, nobleCrypto } from './crypto.js'
import { type GuestContext, restoreGuest, type SavedGuest, saveGuest } from './guest-context.js'
import { GuestStore } from './guest-store.js'
import {
  deriveKey,
  equal,
  PlatformSecrets,
  SESSION_BYTES,
  type TransportKeys,
  unwrapSession,
} from './keys.js'
import {
  launchFinish2016,
  launchMeasure,
  MEASURE_BYTES,
  maskedStates,
  PACKET_HEADER_BYTES,
  packetMac,
  SEV_API,
} from './measurement.js'
import { decodePolicy, type SevEdition } from './policy.js'

const S = SEV_STATUS
/** Most guests at a time, and most bytes of one vCPU's state. */
const MOST_GUESTS = 1024
const MOST_STATE = 4096

/** What a platform is made of. */
export interface SevFirmwareOptions {
  /** Host physical memory. */
  readonly memory: AddressSpace
  readonly crypto?: CryptoProvider
  /** For the histories of encrypted pages. */
  readonly clock?: { readonly now: number }
  readonly trace?: TraceBus
  /** Secret that every key comes from; platforms with the same one repeat each other. */
  readonly seed?: Uint8Array
  /** Highest ASID (CPUID 8000_001F ECX). Default 15. */
  readonly asids?: number
  /** Lowest ASID of a plain guest (CPUID 8000_001F EDX). Default 1: none is kept for encrypted state. */
  readonly minPlainAsid?: number
}

/** How LAUNCH_START describes its guest. */
export interface LaunchStart {
  readonly edition: SevEdition
  readonly policy: number
  /** A guest whose key is to be shared; undefined for a key of its own. */
  readonly shareWith?: number
  /** The owner's public key, as the interface has it. */
  readonly owner?: Uint8Array
  /** 2016: the owner's nonce. */
  readonly nonce?: Uint8Array
  /** Current: the owner's wrapped transport keys. */
  readonly session?: Uint8Array
}

/** A status and, on success, what came with it. */
export type Answer<T> = { readonly status: SevStatus } & Partial<T>

/** A platform as plain data. */
export interface SavedPlatform {
  readonly state: number
  readonly nextHandle: number
  readonly drawn: number
  readonly asids: readonly number[]
  readonly guests: readonly SavedGuest[]
  /** Frames with ciphertext, by handle. */
  readonly frames: Readonly<Record<number, readonly number[]>>
}

/** The firmware of one platform. */
export class SevFirmware extends GuestStore {
  readonly asids: AsidPool
  readonly #seed: Uint8Array
  #secrets: PlatformSecrets
  #initialised = false
  #nextHandle = 1

  constructor(options: SevFirmwareOptions) {
    const { memory, crypto = nobleCrypto, asids = 15, minPlainAsid = 1 } = options
    super(memory, ConfidentialPages.of(memory, options.clock, options.trace), crypto)
    this.#seed = options.seed ?? new Uint8Array(32)
    this.#secrets = new PlatformSecrets(crypto, this.#seed)
    this.asids = new AsidPool(asids, minPlainAsid)
  }

  // ---- the platform ----

  /** INIT; doing it again is harmless. */
  init(): SevStatus {
    this.#initialised = true
    return S.SUCCESS
  }

  /** PLATFORM_STATUS. */
  status() {
    const state = !this.#initialised
      ? PLATFORM_STATE.UNINIT
      : this.guests.size > 0
        ? PLATFORM_STATE.WORKING
        : PLATFORM_STATE.INIT
    const { MAJOR: major, MINOR: minor, BUILD: build } = SEV_API
    return { state, major, minor, build, guests: this.guests.size }
  }

  /** The secret that the holder of a public key shares with this platform, for whoever plays that holder. */
  agree(publicKey: Uint8Array): Uint8Array {
    return this.#secrets.agree(publicKey)
  }

  /** Fresh bytes of the platform's generator. */
  draw(length: number): Uint8Array {
    return this.#secrets.draw(length)
  }

  // ---- launch ----

  /** LAUNCH_START: a new guest in LAUNCHING, with keys. */
  launchStart(start: LaunchStart): Answer<{ handle: number }> {
    if (!this.#initialised) return { status: S.INVALID_PLATFORM_STATE }
    const policy = decodePolicy(start.policy, start.edition)
    if (beyondFirmware(policy)) return { status: S.POLICY_FAILURE }
    let shared: Uint8Array | undefined
    if (start.shareWith !== undefined) {
      const other = this.guests.get(start.shareWith)
      if (other === undefined) return { status: S.INVALID_GUEST }
      const both = policy.keySharing && decodePolicy(other.policy, other.edition).keySharing
      if (!both) return { status: S.POLICY_FAILURE }
      shared = other.key
    }
    if (this.guests.size >= MOST_GUESTS) return { status: S.RESOURCE_LIMIT }
    const opened = this.#ownerKeys(start)
    if (typeof opened === 'number') return { status: opened }
    const transport = opened ?? { tek: this.draw(16), tik: this.draw(16) }
    return this.admit(start, GUEST_STATE.LAUNCHING, transport, shared)
  }

  /** Puts a new guest in place. */
  admit(
    { edition, policy }: Pick<LaunchStart, 'edition' | 'policy'>,
    state: GuestState,
    transport: TransportKeys,
    key: Uint8Array = this.draw(32),
  ): Answer<{ handle: number }> {
    const handle = this.#nextHandle++
    const unset = { asid: undefined, measure: undefined, mnonce: undefined }
    const context = { handle, edition, policy, state, key, transport, launched: [], ...unset }
    this.keep(context)
    return { status: S.SUCCESS, handle }
  }

  /** LAUNCH_UPDATE_DATA: measures what lies in `length` bytes and encrypts it in place. */
  launchUpdate(handle: number, address: number, length: number): SevStatus {
    const g = this.#in(handle, GUEST_STATE.LAUNCHING)
    if (typeof g === 'number') return g
    const refused = this.range(address, length)
    if (refused !== S.SUCCESS) return refused
    const bytes = new Uint8Array(length)
    this.memory.read(address, bytes)
    g.launched.push(bytes.slice())
    this.store(g, address, bytes, 'LAUNCH_UPDATE')
    return S.SUCCESS
  }

  /** LAUNCH_MEASURE: no more memory is taken; secrets may come. The measurement and its nonce, 48 bytes. */
  launchMeasure(handle: number): Answer<{ measurement: Uint8Array }> {
    const g = this.#in(handle, GUEST_STATE.LAUNCHING)
    if (typeof g === 'number') return { status: g }
    if (g.edition === '2016') return { status: S.INVALID_COMMAND }
    g.mnonce = this.draw(16)
    g.measure = launchMeasure(this.crypto, g.transport.tik, g.policy, this.#digest(g), g.mnonce)
    g.launched = []
    g.state = GUEST_STATE.SECRET
    const measurement = new Uint8Array(MEASURE_BYTES)
    measurement.set(g.measure)
    measurement.set(g.mnonce, 32)
    return { status: S.SUCCESS, measurement }
  }

  /** LAUNCH_UPDATE_SECRET: a packet that the owner made for this measurement becomes encrypted memory. */
  launchSecret(
    handle: number,
    header: Uint8Array,
    data: Uint8Array,
    address: number,
    length: number,
  ): SevStatus {
    const g = this.#in(handle, GUEST_STATE.SECRET)
    if (typeof g === 'number') return g
    const refused = this.range(address, length)
    if (refused !== S.SUCCESS) return refused
    if (header.length < PACKET_HEADER_BYTES || data.length !== length) return S.INVALID_LENGTH
    const plain = this.openPacket(g, header, data, 1)
    if (plain === undefined) return S.BAD_MEASUREMENT
    this.store(g, address, plain, 'LAUNCH_SECRET')
    return S.SUCCESS
  }

  /** LAUNCH_FINISH of the current interface. */
  launchFinish(handle: number): SevStatus {
    const g = this.#in(handle, GUEST_STATE.SECRET)
    if (typeof g === 'number') return g
    g.state = GUEST_STATE.RUNNING
    return S.SUCCESS
  }

  /** LAUNCH_FINISH of 2016: the vCPUs' states are measured too, and the 32-byte measurement is the answer. */
  launchFinish2016(
    handle: number,
    vcpus: {
      readonly count: number
      readonly length: number
      readonly mask: Uint8Array
      readonly states: readonly Uint8Array[]
    },
  ): Answer<{ measurement: Uint8Array }> {
    const g = this.#in(handle, GUEST_STATE.LAUNCHING)
    if (typeof g === 'number') return { status: g }
    const { count, length, mask, states } = vcpus
    if (count !== states.length) return { status: S.INVALID_PARAM }
    if (length > MOST_STATE || mask.length > length) return { status: S.INVALID_LENGTH }
    const masked = maskedStates(states, length, mask)
    const { tik } = g.transport
    const what = { count, length, masked }
    g.measure = launchFinish2016(this.crypto, tik, g.policy, this.#digest(g), what)
    g.launched = []
    g.state = GUEST_STATE.RUNNING
    return { status: S.SUCCESS, measurement: g.measure }
  }

  // ---- a guest's life ----

  /** ACTIVATE: the guest's key goes to the memory controller, under an ASID. */
  activate(handle: number, asid: number): SevStatus {
    const g = this.guests.get(handle)
    if (g === undefined) return S.INVALID_GUEST
    if (g.asid !== undefined) return S.ACTIVE
    if (!(asid >= 1 && asid <= this.asids.max)) return S.INVALID_ASID
    for (const other of this.guests.values()) if (other.asid === asid) return S.ASID_OWNED
    const plain = asid >= this.asids.minPlain
    if (plain && decodePolicy(g.policy, g.edition).encryptedState) return S.POLICY_FAILURE
    g.asid = asid
    return S.SUCCESS
  }

  /** DEACTIVATE: nothing reads under the guest's key any more. */
  deactivate(handle: number): SevStatus {
    const g = this.guests.get(handle)
    if (g === undefined) return S.INVALID_GUEST
    if (g.asid === undefined) return S.INACTIVE
    g.asid = undefined
    return S.SUCCESS
  }

  /** DECOMMISSION: forgets the guest, keys and all. */
  decommission(handle: number): SevStatus {
    const g = this.guests.get(handle)
    if (g === undefined) return S.INVALID_GUEST
    if (g.asid !== undefined) return S.ACTIVE
    this.forget(g, 'DECOMMISSION')
    return S.SUCCESS
  }

  /** GUEST_STATUS. */
  guestStatus(handle: number): Answer<{ policy: number; asid: number; state: GuestState }> {
    const g = this.guests.get(handle)
    if (g === undefined) return { status: S.INVALID_GUEST }
    return { status: S.SUCCESS, policy: g.policy, asid: g.asid ?? 0, state: g.state }
  }

  // ---- debugging ----

  /** DBG_DECRYPT: plaintext of `length` bytes at `from`, written at `to`. */
  debugDecrypt(handle: number, from: number, to: number, length: number): SevStatus {
    const g = this.#debuggable(handle)
    if (typeof g === 'number') return g
    const refused = this.range(from, length) || this.range(to, length)
    if (refused !== S.SUCCESS) return refused as SevStatus
    this.memory.write(to, this.load(g, from, length))
    return S.SUCCESS
  }

  /** DBG_ENCRYPT: the bytes at `from` become the guest's own at `to`. */
  debugEncrypt(handle: number, from: number, to: number, length: number): SevStatus {
    const g = this.#debuggable(handle)
    if (typeof g === 'number') return g
    const refused = this.range(from, length) || this.range(to, length)
    if (refused !== S.SUCCESS) return refused as SevStatus
    const bytes = new Uint8Array(length)
    this.memory.read(from, bytes)
    this.store(g, to, bytes, 'DBG_ENCRYPT')
    return S.SUCCESS
  }

  /** DBG_DECRYPT into a buffer of the kernel's. */
  debugRead(handle: number, from: number, into: Uint8Array): SevStatus {
    const g = this.#debuggable(handle)
    if (typeof g === 'number') return g
    const refused = this.range(from, into.length)
    if (refused === S.SUCCESS) into.set(this.load(g, from, into.length))
    return refused
  }

  /** DBG_ENCRYPT from a buffer of the kernel's. */
  debugWrite(handle: number, from: Uint8Array, to: number): SevStatus {
    const g = this.#debuggable(handle)
    if (typeof g === 'number') return g
    const refused = this.range(to, from.length)
    if (refused === S.SUCCESS) this.store(g, to, from.slice(), 'DBG_ENCRYPT')
    return refused
  }

  /** The plaintext of a packet under a guest's transport keys; undefined when its MAC does not match. */
  openPacket(
    g: GuestContext,
    header: Uint8Array,
    data: Uint8Array,
    purpose: 1 | 2,
  ): Uint8Array | undefined {
    const view = new DataView(header.buffer, header.byteOffset, header.length)
    const iv = header.subarray(4, 20)
    const mac = packetMac(this.crypto, g.transport.tik, {
      purpose,
      flags: view.getUint32(0, true),
      iv,
      guestLength: data.length,
      data,
      ...(purpose === 1 && g.measure !== undefined ? { measure: g.measure } : {}),
    })
    if (!equal(mac, header.subarray(20, PACKET_HEADER_BYTES))) return undefined
    return this.crypto.aes128ctr(g.transport.tek, iv, data)
  }

  // ---- saved state ----

  /** All of it as plain data. The seed is configuration and not in it. */
  save(): SavedPlatform {
    return {
      state: this.status().state,
      nextHandle: this.#nextHandle,
      drawn: this.#secrets.drawn,
      asids: this.asids.used,
      guests: [...this.guests.values()].map(saveGuest),
      frames: Object.fromEntries([...this.guests.keys()].map(h => [h, this.framesOf(h)])),
    }
  }

  /** Becomes what `save` told of a platform with the same seed. RangeError when that is none, or does not fit. */
  restore(saved: SavedPlatform): void {
    const guests = saved.guests.map(restoreGuest)
    if (saved.asids.some(asid => asid > this.asids.max))
      throw new RangeError(`ASIDs beyond ${this.asids.max} in the saved state`)
    for (const asid of this.asids.used) this.asids.free(asid)
    for (const asid of saved.asids) this.asids.claim(asid)
    for (const g of [...this.guests.values()]) this.forget(g, 'restored')
    for (const g of guests) {
      this.keep(g)
      for (const frame of saved.frames[g.handle] ?? []) this.encrypted(g, frame, 'restored')
    }
    this.#initialised = saved.state !== PLATFORM_STATE.UNINIT
    this.#nextHandle = saved.nextHandle
    this.#secrets = new PlatformSecrets(this.crypto, this.#seed, saved.drawn)
  }

  // ---- inside ----

  // Transport keys of a guest with an owner, undefined for one without, or why they cannot be had.
  #ownerKeys({ edition, policy, owner, nonce, session }: LaunchStart) {
    if (edition === '2016') {
      if (owner === undefined) return undefined
      const secret = this.agree(owner)
      const key = (label: string) => deriveKey(this.crypto, secret, label, 16, nonce)
      return { tek: key('sev-2016-tek'), tik: key('sev-2016-tik') }
    }
    if (owner === undefined && session === undefined) return undefined
    if (owner === undefined || session === undefined) return S.INVALID_PARAM
    if (session.length < SESSION_BYTES) return S.INVALID_LENGTH
    const keys = unwrapSession(this.crypto, this.agree(owner), session, policy)
    return keys ?? S.BAD_MEASUREMENT
  }

  #digest(g: GuestContext): Uint8Array {
    return this.crypto.sha256(...g.launched)
  }

  #in(handle: number, state: GuestState): GuestContext | SevStatus {
    if (!this.#initialised) return S.INVALID_PLATFORM_STATE
    const g = this.guests.get(handle)
    if (g === undefined) return S.INVALID_GUEST
    return g.state === state ? g : S.INVALID_GUEST_STATE
  }

  #debuggable(handle: number): GuestContext | SevStatus {
    if (!this.#initialised) return S.INVALID_PLATFORM_STATE
    const g = this.guests.get(handle)
    if (g === undefined) return S.INVALID_GUEST
    if (!decodePolicy(g.policy, g.edition).debug) return S.POLICY_FAILURE
    return g
  }
}

/** Whether a policy asks for a later firmware than this. */
const beyondFirmware = (p: { firmwareMajor: number; firmwareMinor: number }): boolean =>
  p.firmwareMajor > SEV_API.MAJOR ||
  (p.firmwareMajor === SEV_API.MAJOR && p.firmwareMinor > SEV_API.MINOR)
