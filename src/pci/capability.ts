/**
 * The capability contract, and the chains that link capabilities in configuration space. A capability
 * is a register file whose first bytes are its header, plus what it does on reset.
 * Next: capabilities/ (first 256 bytes) and extended/ (from 0x100).
 */
import { bits, r16, r32 } from '../base/fields.js'
import type { BarSpec } from './bar.js'
import type { ConfigPart, ConfigSpace } from './config-space.js'
import { EXTENDED_START } from './ids.js'
import type { PciNode } from './node.js'

/** Header of a capability in the first 256 bytes, PCIe 7.5.3.1; `id` is its reset value. */
export const capabilityHeader = (id: number) =>
  r16(
    0x00,
    'PCIe 7.5.3.1',
    { NEXT: bits(15, 8, 'ro', 'offset of the next capability'), ID: bits(7, 0, 'ro', 'which') },
    BigInt(id),
  )

/** Header of an extended capability, PCIe 7.6.3. */
export const extendedHeader = (id: number, version: number) =>
  r32(
    0x00,
    'PCIe 7.6.3',
    {
      NEXT: bits(31, 20, 'ro', 'offset of the next extended capability'),
      VERSION: bits(19, 16, 'ro', 'version of this layout'),
      ID: bits(15, 0, 'ro', 'which'),
    },
    BigInt((version << 16) | id),
  )

/** One capability of one function. */
export interface Capability {
  readonly id: number
  /** Whether it lives at 0x100 and above. */
  readonly extended: boolean
  /** Its registers; offset 0 is the capability header. */
  readonly file: ConfigPart
  /** The BAR whose space the capability needs, when it needs one. */
  readonly bar?: BarSpec
  /** Sets the header's pointer to the next capability (0 ends the chain). */
  link(next: number): void
  /** Function reset: registers to their defaults, state dropped. */
  reset(): void
  /** State beside the registers, as plain data. */
  save?(): unknown
  restore?(state: unknown): void
}

/** Makes a capability for a function; what a device model lists under `capabilities`. */
export type CapabilityFactory = (node: PciNode) => Capability

/** A capability at its place. */
export interface PlacedCapability {
  readonly offset: number
  readonly capability: Capability
}

/**
 * Places capabilities in the order given, first-256-byte ones from 0x40 and extended ones from 0x100,
 * and links each chain. Throws when the first 256 bytes are too small.
 */
export function placeCapabilities(
  config: ConfigSpace,
  capabilities: readonly Capability[],
): PlacedCapability[] {
  const placed: PlacedCapability[] = []
  for (const extended of [false, true]) {
    let at = extended ? EXTENDED_START : 0x40
    for (const capability of capabilities) {
      if (capability.extended !== extended) continue
      config.place(at, capability.file)
      placed.push({ offset: at, capability })
      at = (at + capability.file.size + 15) & ~15
      if (!extended && at > EXTENDED_START) throw new Error('capabilities leave 256 bytes')
    }
  }
  relink(placed)
  return placed
}

/** Writes every chain pointer again, after a reset has put headers to their defaults. */
export function relink(placed: readonly PlacedCapability[]): void {
  placed.forEach((p, i) => {
    const next = placed[i + 1]
    p.capability.link(next && next.capability.extended === p.capability.extended ? next.offset : 0)
  })
}
