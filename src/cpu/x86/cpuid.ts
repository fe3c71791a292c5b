// CPUID: what this core offers (KVM_GET_SUPPORTED_CPUID), and the answer to the instruction from the leaves its owner
// set (KVM_SET_CPUID2). A bit is offered only when the core has the behaviour. SDM vol. 2, CPUID.

import { CR4, type X86State } from './registers.js'

/** One leaf or subleaf. */
export interface CpuidEntry {
  readonly leaf: number
  readonly subleaf: number
  /** Whether ECX selects it; otherwise the entry answers for every subleaf. */
  readonly indexed: boolean
  readonly eax: number
  readonly ebx: number
  readonly ecx: number
  readonly edx: number
}

const bits = (...numbers: number[]): number => numbers.reduce((v, n) => v | (1 << n), 0) >>> 0
const four = (text: string): number =>
  [...text].reduceRight((v, c) => (v << 8) | c.charCodeAt(0), 0) >>> 0

/** Physical and linear address widths, leaf 0x8000_0008. */
export const PHYSICAL_ADDRESS_BITS = 52
const LINEAR_ADDRESS_BITS = 57

// biome-ignore format: table
const LEAF_1_ECX = bits(13 /* CX16 */, 17 /* PCID */, 22 /* MOVBE */, 23 /* POPCNT */, 31 /* hypervisor */)
// biome-ignore format: table
const LEAF_1_EDX = bits(
  2 /* DE */, 3 /* PSE */, 4 /* TSC */, 5 /* MSR */, 6 /* PAE */, 8 /* CX8 */, 9 /* APIC */,
  13 /* PGE */, 15 /* CMOV */, 16 /* PAT */, 19 /* CLFLUSH */,
)
const LEAF_7_EBX = bits(0 /* FSGSBASE */, 7 /* SMEP */, 10 /* INVPCID */, 20 /* SMAP */)
const LEAF_7_ECX = bits(
  2 /* UMIP */,
  16 /* LA57 */,
  27 /* MOVDIRI */,
  28 /* MOVDIR64B */,
  29 /* ENQCMD */,
)
const EXT_1_ECX = bits(0 /* LAHF */, 5 /* LZCNT */)
const EXT_1_EDX = bits(
  11 /* SYSCALL */,
  20 /* NX */,
  26 /* 1 GiB pages */,
  27 /* RDTSCP */,
  29 /* LM */,
)

const leaf = (n: number, eax: number, ebx = 0, ecx = 0, edx = 0): CpuidEntry => ({
  leaf: n,
  subleaf: 0,
  indexed: false,
  eax,
  ebx,
  ecx,
  edx,
})

const brand = 'vfio-emu x86-64 core'.padEnd(48, '\0')
const brandLeaf = (n: number): CpuidEntry => {
  const at = (i: number) => four(brand.slice(n * 16 + i * 4, n * 16 + i * 4 + 4))
  return leaf(0x8000_0002 + n, at(0), at(1), at(2), at(3))
}

/** Every leaf this core supports, in the order KVM lists them. */
export const SUPPORTED_CPUID: readonly CpuidEntry[] = [
  leaf(0, 0x7, four('Genu'), four('ntel'), four('ineI')),
  // Family 6, model 0x8f: the first with ENQCMD. EBX: CLFLUSH of 64 bytes, one logical processor.
  leaf(1, 0x000806f8, 0x0001_0800, LEAF_1_ECX, LEAF_1_EDX),
  { ...leaf(7, 0, LEAF_7_EBX, LEAF_7_ECX, 0), indexed: true },
  leaf(0x8000_0000, 0x8000_0008),
  leaf(0x8000_0001, 0, 0, EXT_1_ECX, EXT_1_EDX),
  brandLeaf(0),
  brandLeaf(1),
  brandLeaf(2),
  leaf(0x8000_0007, 0, 0, 0, bits(8 /* invariant TSC */)),
  leaf(0x8000_0008, PHYSICAL_ADDRESS_BITS | (LINEAR_ADDRESS_BITS << 8)),
]

/** The leaves of one vCPU. */
export class Cpuid {
  #entries: readonly CpuidEntry[] = []

  /** Leaves in the order they were set. */
  get entries(): readonly CpuidEntry[] {
    return this.#entries
  }

  set(entries: readonly CpuidEntry[]): void {
    this.#entries = entries
  }

  /**
   * Answers the instruction: EAX to EDX into `into`. A basic leaf above the highest one answers as the highest does;
   * what else is not there reads as zero. Bits that follow other state (APIC enabled, OSXSAVE) follow it.
   */
  read(leafNumber: number, subleaf: number, into: Uint32Array, state: X86State, apic: boolean) {
    const entry = this.#find(leafNumber, subleaf) ?? this.#outOfRange(leafNumber, subleaf)
    into[0] = entry?.eax ?? 0
    into[1] = entry?.ebx ?? 0
    into[2] = entry?.ecx ?? 0
    into[3] = entry?.edx ?? 0
    if (entry?.leaf !== 1) return
    const osxsave = (state.cr4 & CR4.OSXSAVE) !== 0
    into[2] = osxsave ? into[2]! | (1 << 27) : into[2]! & ~(1 << 27)
    into[3] = apic ? into[3]! : into[3]! & ~(1 << 9)
  }

  #find(leafNumber: number, subleaf: number): CpuidEntry | undefined {
    return this.#entries.find(
      e => e.leaf === leafNumber && (!e.indexed || e.subleaf === subleaf >>> 0),
    )
  }

  // Intel's rule (SDM vol. 2, CPUID, "If a value entered for CPUID.EAX is higher than the maximum").
  #outOfRange(leafNumber: number, subleaf: number): CpuidEntry | undefined {
    const range = (leafNumber & 0x8000_0000) >>> 0
    const highest = this.#find(range, 0)?.eax ?? 0
    if (leafNumber <= highest) return undefined
    return this.#find(this.#find(0, 0)?.eax ?? 0, subleaf)
  }
}
