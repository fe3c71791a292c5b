// A VM's side of SEV: what kind of encrypted guest it is, its ASID and handle, and what its vCPUs see memory through.
// The commands are in sev-current.ts (KVM_MEMORY_ENCRYPT_OP) and sev-2016.ts (KVM_SEV_ISSUE_CMD); either interface may
// start a guest, and the other then refuses it. All calls of a VM are serialised, as the kernel does by the VM's lock.

import type { ProcessMemory } from '../../../mem/process-memory.js'
import type { RamRegion } from '../../../mem/ram.js'
import type { Process } from '../../../sys/process.js'
import { SEV_STATUS, type SevStatus } from '../../sev/codes.js'
import { type Encryption, encryptionOf } from '../../sev/encryption.js'
import type { SevFirmware } from '../../sev/firmware.js'
import type { SevPlatform } from '../../sev/platform.js'
import type { SevEdition } from '../../sev/policy.js'
import { PrivateMemory } from '../../sev/private-memory.js'
import { PHYSICAL_ADDRESS_BITS } from '../../x86/cpuid.js'
import { refuse } from '../arguments.js'
import { KVM_X86_SEV_ES_VM, KVM_X86_SEV_VM, KVM_X86_SNP_VM } from '../uapi/sev.js'
import type { UserPages } from './sev-memory.js'
import type { X86Vm } from './vm.js'

/** What a processor of the VM does when memory gets a key, and when plaintext comes and goes. */
export interface KeyedProcessor {
  encrypt(encryption: Encryption): void
  readonly mmu: {
    plaintextGone(): void
    plaintextMade(page: Parameters<PrivateMemory['onActivate']>[0]): void
  }
}

/** A region that its owner said may be encrypted (KVM_MEMORY_ENCRYPT_REG_REGION). */
interface EncryptedRegion {
  readonly address: bigint
  readonly size: bigint
  readonly pages: UserPages
}

/** The types of encrypted VM that a host has: a bit a type. */
export const sevVmTypes = ({ es, snp }: SevPlatform): number =>
  (1 << KVM_X86_SEV_VM) | (es ? 1 << KVM_X86_SEV_ES_VM : 0) | (snp ? 1 << KVM_X86_SNP_VM : 0)

/** The SEV of one VM. */
export class SevVm {
  readonly platform: SevPlatform
  readonly #vm: X86Vm
  readonly #memory: ProcessMemory
  /** Which interface the guest was started by. */
  edition: SevEdition | undefined
  /** It is an encrypted guest: an ASID is its own. */
  active = false
  /** Register state is encrypted. */
  es = false
  snp = false
  asid = 0
  /** 0: no guest of the firmware yet. */
  handle = 0
  /** Descriptor of /dev/sev that LAUNCH_START named; later commands go by it. None yet: -1. */
  fd = -1
  /** Pages pinned for it. */
  lockedPages = 0
  readonly regions: EncryptedRegion[] = []
  /** The processor whose instructions run. */
  running: KeyedProcessor | undefined
  #encryption: Encryption | undefined
  readonly #stop: () => void

  constructor(vm: X86Vm, platform: SevPlatform, owner: Process) {
    this.#vm = vm
    this.platform = platform
    this.#memory = owner.memory
    this.#stop = owner.memory.onInvalidate((first, pages) => this.#unmapped(first, pages))
  }

  get firmware(): SevFirmware {
    return this.platform.firmware
  }

  /** What its processors work under; undefined until a key is there. */
  get encryption(): Encryption | undefined {
    return this.#encryption
  }

  /** All of it as plain data, the firmware's side of the guest included. */
  get state(): object {
    const { edition, active, es, snp, asid, handle, fd, lockedPages, firmware } = this
    const guest = firmware.save().guests.find(g => g.handle === handle)
    const regions = this.regions.map(({ address, size }) => [Number(address), Number(size)])
    return { edition, active, es, snp, asid, handle, fd, lockedPages, regions, guest }
  }

  /** What SEV_STATUS tells a vCPU: whether its memory is under a key. */
  get status(): bigint {
    return this.#encryption === undefined ? 0n : 1n
  }

  /** Takes an ASID. ErrnoError: ENOTTY (no ASIDs of this kind), EBUSY (all are taken). */
  takeAsid(kind: 'plain' | 'encrypted-state'): void {
    const { asids } = this.firmware
    if (!asids.offers(kind)) throw refuse('ENOTTY', `no ASIDs for ${kind} guests`)
    const asid = asids.take(kind)
    if (asid === undefined) throw refuse('EBUSY', `all ${kind} ASIDs are taken`)
    this.asid = asid
  }

  freeAsid(): void {
    this.firmware.asids.free(this.asid)
    this.asid = 0
  }

  /**
   * Binds a guest of the firmware to the VM's ASID, and its processors to the key. Refused, the guest is decommissioned
   * (rule C-14).
   */
  bind(handle: number): SevStatus {
    const { firmware } = this
    const status = firmware.activate(handle, this.asid)
    if (status !== SEV_STATUS.SUCCESS) {
      firmware.decommission(handle)
      return status
    }
    this.handle = handle
    const memory = new PrivateMemory({
      memory: this.#vm.memory,
      key: firmware.keyOf(handle)!,
      hostAddress: (ram, offset) => this.#hostAddress(ram, offset),
      became: (address, encrypted) => this.#became(address, encrypted),
    })
    memory.onSettle = () => this.running?.mmu.plaintextGone()
    memory.onActivate = page => this.running?.mmu.plaintextMade(page)
    this.#encryption = encryptionOf(memory, this.platform.bit, PHYSICAL_ADDRESS_BITS)
    for (const vcpu of this.#vm.vcpus.values()) vcpu.encrypt(this.#encryption)
    return status
  }

  /** Takes the guest away again. */
  unbind(): void {
    this.settle()
    this.firmware.deactivate(this.handle)
    this.firmware.decommission(this.handle)
    this.handle = 0
  }

  /** Lets everybody see memory as it is: no plaintext is out. */
  settle(): void {
    this.#encryption?.memory.settle()
  }

  /** ErrnoError EINVAL when no vCPU of the VM can run: not initialised, or its register state is to be encrypted. */
  refuseRun(): void {
    if (this.#vm.type >= KVM_X86_SEV_VM && !this.active)
      throw refuse('EINVAL', 'the VM has had no INIT2')
    if (this.es) throw refuse('EINVAL', 'the register state of the vCPUs is not encrypted')
  }

  /** Why the processor refuses to enter the guest; undefined when it does not. */
  entryProblem(): string | undefined {
    const keyless = this.active && this.handle === 0
    return keyless ? `no key is installed for ASID ${this.asid}` : undefined
  }

  /** The VM is gone. */
  release(): void {
    this.#stop()
    for (const { pages } of this.regions) pages.release()
    this.regions.length = 0
    if (this.handle !== 0) this.unbind()
    if (this.asid !== 0) this.freeAsid()
  }

  // RAM that is not of the machine's frames (the kernel's own pages) has no system address; its place is unique too.
  #hostAddress(ram: RamRegion, offset: number): number {
    const { bytes, base } = this.#memory.frames.ram
    const at = ram.bytes.byteOffset + offset
    return ram.bytes.buffer === bytes.buffer ? base + at - bytes.byteOffset : 2 ** 51 + at
  }

  #became(address: number, encrypted: boolean): void {
    const g = this.firmware.guest(this.handle)
    if (g === undefined || address >= 2 ** 51) return
    const frame = Math.floor(address / 4096)
    if (encrypted) this.firmware.encrypted(g, frame, 'a vCPU wrote it with the C-bit')
    else this.firmware.decrypted(g, frame, 'a vCPU writes it without the C-bit')
  }

  // Frames that leave the owner's memory are no longer the guest's. More pages than there are frames: all of them.
  #unmapped(firstPage: number, pages: number): void {
    const { firmware, handle } = this
    const g = firmware.guest(handle)
    const frames = firmware.framesOf(handle)
    if (g === undefined || frames.length === 0) return
    if (pages > this.#memory.frames.total) {
      for (const frame of frames) firmware.decrypted(g, frame, 'its owner is gone')
      return
    }
    for (let page = firstPage; page < firstPage + pages; page++) {
      const address = this.#memory.hpaAt(page * 4096)
      if (address >= 0) firmware.decrypted(g, address / 4096, 'its owner unmapped it')
    }
  }
}
