// What a debugger needs of a processor: registers by gdb's numbers, memory by guest-virtual address, and stops. The two
// kinds are x86.ts and arm64.ts; both reach their vCPU by KVM's ioctls alone.

import type { Sys } from '../../sys/sys.js'

/** A vCPU as its VMM hands it to a debugger. */
export interface DebuggedCpu {
  readonly sys: Sys
  /** The vCPU's descriptor and its mapped pages. */
  readonly fd: number
  readonly page: Uint8Array
  /** Guest-physical memory that a debugger may see and change, and where it begins. */
  readonly ram: Uint8Array
  readonly ramBase: number
}

/** One register as gdb numbers them. */
export interface DebugRegister {
  readonly name: string
  readonly bits: number
  /** gdb's type. */
  readonly type: string
  readonly group?: string
}

/** A set of registers that gdb knows by name. */
export interface DebugFeature {
  readonly name: string
  readonly registers: readonly DebugRegister[]
}

/** Break- and watchpoints that hardware does: of instructions, stores, loads, both. */
export type HardwareKind = 'execute' | 'write' | 'read' | 'access'

/** A hardware break- or watchpoint. */
export interface HardwarePoint {
  readonly kind: HardwareKind
  readonly address: bigint
  readonly length: number
}

/** Why a processor stopped under its debugger. */
export type Stop =
  | { readonly kind: 'step' }
  | { readonly kind: 'software' }
  | { readonly kind: 'hardware' }
  | { readonly kind: 'watch'; readonly point: HardwarePoint; readonly address: bigint }

/** A processor under a debugger. */
export interface DebugTarget {
  /** gdb's name of the architecture. */
  readonly architecture: string
  readonly features: readonly DebugFeature[]
  /** The instruction that Z0 puts in memory. */
  readonly breakpoint: Uint8Array
  /** The bytes of every register, in order. */
  readRegisters(): Uint8Array[]
  /** Sets registers by number; bytes are as long as the register. False: the value cannot be. */
  writeRegisters(values: ReadonlyMap<number, Uint8Array>): boolean
  /** Guest-physical address behind a virtual one; undefined where nothing is mapped. */
  translate(address: bigint): number | undefined
  /** Whether hardware can watch for this, beside what it watches for already. */
  canPlace(point: HardwarePoint, beside: readonly HardwarePoint[]): 'yes' | 'no' | 'unsupported'
  /** Prepares to run: KVM_SET_GUEST_DEBUG. */
  arm(options: ArmOptions): void
  /** What KVM_EXIT_DEBUG was about. */
  reason(points: readonly HardwarePoint[]): Stop
  /** Gives the guest the breakpoint instruction that it stopped at: its own, and its exception. */
  reflect(): void
  /** Gives back what it needed of the VMM's memory. */
  release(): void
}

/** How a processor is to run. */
export interface ArmOptions {
  readonly step: boolean
  /** Whether there are breakpoint instructions of ours in memory. */
  readonly software: boolean
  readonly points: readonly HardwarePoint[]
}

/** Bytes of a little-endian number. */
export function bytesOf(value: bigint, length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn))
}

/** The little-endian number in some bytes. */
export const numberOf = (bytes: Uint8Array): bigint =>
  bytes.reduceRight((v, b) => (v << 8n) | BigInt(b), 0n)

/** target.xml: gdb learns the registers from it. */
export function describeTarget({ architecture, features }: DebugTarget): string {
  let number = 0
  const lines = features.flatMap(({ name, registers }) => [
    `<feature name="${name}">`,
    ...(EXTRA[name]?.() ?? []),
    ...registers.map(r => {
      const group = r.group === undefined ? '' : ` group="${r.group}"`
      return `<reg name="${r.name}" bitsize="${r.bits}" type="${r.type}" regnum="${number++}"${group}/>`
    }),
    '</feature>',
  ])
  return [
    '<?xml version="1.0"?>',
    '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
    `<target version="1.0"><architecture>${architecture}</architecture>`,
    ...lines,
    '</target>',
    '',
  ].join('\n')
}

const vectors = (id: string) => [
  `<vector id="${id}_d" type="ieee_double" count="2"/>`,
  `<vector id="${id}_s" type="ieee_single" count="4"/>`,
  `<vector id="${id}_w" type="int32" count="4"/>`,
  `<vector id="${id}_b" type="uint8" count="16"/>`,
  `<union id="${id}"><field name="d" type="${id}_d"/><field name="s" type="${id}_s"/>`,
  `<field name="w" type="${id}_w"/><field name="b" type="${id}_b"/><field name="q" type="uint128"/></union>`,
]
/** Types that registers of a feature refer to. */
const EXTRA: Readonly<Record<string, () => string[]>> = {
  'org.gnu.gdb.i386.sse': () => vectors('vec128'),
  'org.gnu.gdb.aarch64.fpu': () => vectors('vec128'),
}
