// Model-specific registers (SDM vol. 4). What is not listed does not exist: RDMSR and WRMSR of it are #GP(0).
// IA32_XSS and the x2APIC range are absent on purpose; the TSC counts the machine's nanoseconds.

import { EFER, SEGMENT, type X86State } from './registers.js'

/** Indices, under the manual's names. */
// biome-ignore format: table
export const MSR = {
  IA32_TIME_STAMP_COUNTER: 0x10,
  IA32_APIC_BASE:          0x1b,
  IA32_BIOS_SIGN_ID:       0x8b,
  IA32_SYSENTER_CS:        0x174,
  IA32_SYSENTER_ESP:       0x175,
  IA32_SYSENTER_EIP:       0x176,
  IA32_MISC_ENABLE:        0x1a0,
  IA32_PAT:                0x277,
  IA32_PASID:              0xd93,
  IA32_EFER:               0xc000_0080,
  IA32_STAR:               0xc000_0081,
  IA32_LSTAR:              0xc000_0082,
  IA32_CSTAR:              0xc000_0083,
  IA32_FMASK:              0xc000_0084,
  IA32_FS_BASE:            0xc000_0100,
  IA32_GS_BASE:            0xc000_0101,
  IA32_KERNEL_GS_BASE:     0xc000_0102,
  IA32_TSC_AUX:            0xc000_0103,
} as const

/** SEV_STATUS (APM vol. 2, 15.34.10): bit 0, the guest's memory is encrypted. Read only, and nothing to save. */
export const MSR_SEV_STATUS = 0xc001_0131

/** Indices to save and restore (KVM_GET_MSR_INDEX_LIST). */
export const MSR_INDICES: readonly number[] = Object.values(MSR)

const EFER_WRITABLE = EFER.SCE | EFER.LME | EFER.NXE
const PASID_VALID = 0x8000_0000
const PASID_BITS = 0xf_ffff
const PAT_RESET = 0x0007_0406_0007_0406n
/** Fast strings; no BTS, no PEBS. */
const MISC_ENABLE_RESET = 0x1801n
/** Types a PAT field may have: UC, WC, WT, WP, WB, UC-. */
const PAT_TYPES = new Set([0n, 1n, 4n, 5n, 6n, 7n])

/** What lies outside the MSR file itself. */
export interface MsrSurroundings {
  /** Time-stamp counter without offset. */
  tsc(): bigint
  /** IA32_APIC_BASE; the setter answers false for a value that is #GP. */
  apicBase(): bigint
  setApicBase(value: bigint): boolean
  /** EFER.NXE or another bit that paging uses has changed. */
  pagingChanged(): void
  /** Whether `value` is canonical under the current paging mode. */
  canonical(value: bigint): boolean
  /** SEV_STATUS; undefined where there is no SEV. */
  sevStatus(): bigint | undefined
}

/** The MSRs of one vCPU. `undefined` and `false` mean #GP(0). */
export class MsrFile {
  readonly #state: X86State
  readonly #around: MsrSurroundings
  #tscOffset = 0n
  #sysenterCs = 0n
  #sysenterEsp = 0n
  #sysenterEip = 0n
  #biosSignId = 0n
  #miscEnable = MISC_ENABLE_RESET
  #pat = PAT_RESET

  constructor(state: X86State, around: MsrSurroundings) {
    this.#state = state
    this.#around = around
  }

  /** RDTSC's value. */
  tsc(): bigint {
    return BigInt.asUintN(64, this.#around.tsc() + this.#tscOffset)
  }

  read(index: number): bigint | undefined {
    const s = this.#state
    switch (index) {
      case MSR.IA32_TIME_STAMP_COUNTER:
        return this.tsc()
      case MSR.IA32_APIC_BASE:
        return this.#around.apicBase()
      case MSR.IA32_BIOS_SIGN_ID:
        return this.#biosSignId
      case MSR.IA32_SYSENTER_CS:
        return this.#sysenterCs
      case MSR.IA32_SYSENTER_ESP:
        return this.#sysenterEsp
      case MSR.IA32_SYSENTER_EIP:
        return this.#sysenterEip
      case MSR.IA32_MISC_ENABLE:
        return this.#miscEnable
      case MSR.IA32_PAT:
        return this.#pat
      case MSR.IA32_PASID:
        return BigInt(s.pasid >>> 0)
      case MSR.IA32_EFER:
        return BigInt(s.efer >>> 0)
      case MSR.IA32_STAR:
        return s.star
      case MSR.IA32_LSTAR:
        return s.lstar
      case MSR.IA32_CSTAR:
        return s.cstar
      case MSR.IA32_FMASK:
        return s.sfmask
      case MSR.IA32_FS_BASE:
        return s.segments[SEGMENT.FS]!.base
      case MSR.IA32_GS_BASE:
        return s.segments[SEGMENT.GS]!.base
      case MSR.IA32_KERNEL_GS_BASE:
        return s.kernelGsBase
      case MSR.IA32_TSC_AUX:
        return BigInt(s.tscAux >>> 0)
      case MSR_SEV_STATUS:
        return this.#around.sevStatus()
    }
    return undefined
  }

  /** `host` tells a write by KVM_SET_MSRS, which may set what the guest may not. */
  write(index: number, v: bigint, host = false): boolean {
    const s = this.#state
    const low = Number(v & 0xffff_ffffn)
    switch (index) {
      case MSR.IA32_TIME_STAMP_COUNTER:
        this.#tscOffset = v - this.#around.tsc()
        return true
      case MSR.IA32_APIC_BASE:
        return this.#around.setApicBase(v)
      case MSR.IA32_BIOS_SIGN_ID:
        if (host) this.#biosSignId = v
        return true
      case MSR.IA32_SYSENTER_CS:
        this.#sysenterCs = v
        return true
      case MSR.IA32_SYSENTER_ESP:
        if (!this.#around.canonical(v)) return false
        this.#sysenterEsp = v
        return true
      case MSR.IA32_SYSENTER_EIP:
        if (!this.#around.canonical(v)) return false
        this.#sysenterEip = v
        return true
      case MSR.IA32_MISC_ENABLE:
        this.#miscEnable = v
        return true
      case MSR.IA32_PAT:
        for (let i = 0n; i < 64n; i += 8n) if (!PAT_TYPES.has((v >> i) & 0xffn)) return false
        this.#pat = v
        return true
      case MSR.IA32_PASID:
        if (v >> 32n !== 0n || (low & ~(PASID_VALID | PASID_BITS)) !== 0) return false
        s.pasid = low | 0
        return true
      case MSR.IA32_EFER:
        return this.#writeEfer(v, low, host)
      case MSR.IA32_STAR:
        s.star = v
        return true
      case MSR.IA32_LSTAR:
        if (!this.#around.canonical(v)) return false
        s.lstar = v
        return true
      case MSR.IA32_CSTAR:
        if (!this.#around.canonical(v)) return false
        s.cstar = v
        return true
      case MSR.IA32_FMASK:
        s.sfmask = v & 0xffff_ffffn
        return true
      case MSR.IA32_FS_BASE:
        if (!this.#around.canonical(v)) return false
        s.segments[SEGMENT.FS]!.base = v
        return true
      case MSR.IA32_GS_BASE:
        if (!this.#around.canonical(v)) return false
        s.segments[SEGMENT.GS]!.base = v
        return true
      case MSR.IA32_KERNEL_GS_BASE:
        if (!this.#around.canonical(v)) return false
        s.kernelGsBase = v
        return true
      case MSR.IA32_TSC_AUX:
        if (v >> 32n !== 0n) return false
        s.tscAux = low
        return true
    }
    return false
  }

  // LMA is the processor's to set; LME cannot change while paging is on (SDM vol. 3, 9.8.5).
  #writeEfer(v: bigint, low: number, host: boolean): boolean {
    const s = this.#state
    const allowed = EFER_WRITABLE | EFER.LMA
    if (v >> 32n !== 0n || (low & ~allowed) !== 0) return false
    const paging = (s.cr0 & 0x8000_0000) !== 0
    if (paging && ((low ^ s.efer) & EFER.LME) !== 0) return false
    s.efer = host ? low : (low & EFER_WRITABLE) | (s.efer & EFER.LMA)
    this.#around.pagingChanged()
    return true
  }
}
