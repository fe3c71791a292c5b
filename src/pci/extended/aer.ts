/**
 * Advanced Error Reporting (PCIe 7.8.4): status, masks and severities, and the first error pointer.
 * The fabric logs what it refuses at a root port; error messages, header logs and root error status
 * are not modelled (they read as zero).
 */
import { bank, bits, flag, r32 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { type Capability, type CapabilityFactory, extendedHeader } from '../capability.js'
import { EXTENDED } from '../ids.js'

/** Bit numbers of the uncorrectable errors that the fabric logs, PCIe 7.8.4.2. */
export const UNCORRECTABLE = {
  UNSUPPORTED_REQUEST: 20,
  ACS_VIOLATION: 21,
  TLP_PREFIX_BLOCKED: 25,
} as const

/** The capability structure. */
export const AER = bank(
  'AER capability',
  {
    Header: extendedHeader(EXTENDED.AER, 2),
    Uncorrectable_Error_Status: r32(0x04, 'PCIe 7.8.4.2', {
      TLP_Prefix_Blocked: flag(25, 'rw1c', 'a port refused a prefix'),
      ACS_Violation: flag(21, 'rw1c', 'access control refused a request'),
      Unsupported_Request: flag(20, 'rw1c', 'a request found no home'),
    }),
    Uncorrectable_Error_Mask: r32(
      0x08,
      'PCIe 7.8.4.3',
      {
        TLP_Prefix_Blocked: flag(25, 'rw', 'do not point at it'),
        Uncorrectable_Internal: flag(22, 'rw', 'set by default'),
        ACS_Violation: flag(21, 'rw', 'do not point at it'),
        Unsupported_Request: flag(20, 'rw', 'do not point at it'),
      },
      0x40_0000n,
    ),
    Uncorrectable_Error_Severity: r32(
      0x0c,
      'PCIe 7.8.4.4',
      {
        TLP_Prefix_Blocked: flag(25, 'rw', 'fatal'),
        Uncorrectable_Internal: flag(22, 'rw', 'fatal'),
        ACS_Violation: flag(21, 'rw', 'fatal'),
        Unsupported_Request: flag(20, 'rw', 'fatal'),
        Malformed_TLP: flag(18, 'rw', 'fatal'),
        Receiver_Overflow: flag(17, 'rw', 'fatal'),
        Flow_Control_Protocol: flag(13, 'rw', 'fatal'),
        Surprise_Down: flag(5, 'rw', 'fatal'),
        Data_Link_Protocol: flag(4, 'rw', 'fatal'),
      },
      0x46_2030n,
    ),
    Correctable_Error_Status: r32(0x10, 'PCIe 7.8.4.5', {
      Advisory_Non_Fatal: flag(13, 'rw1c', 'an uncorrectable error was handled as advice'),
    }),
    Correctable_Error_Mask: r32(
      0x14,
      'PCIe 7.8.4.6',
      {
        Corrected_Internal: flag(14, 'rw', 'set by default'),
        Advisory_Non_Fatal: flag(13, 'rw', 'set by default'),
      },
      0x6000n,
    ),
    Capabilities_and_Control: r32(0x18, 'PCIe 7.8.4.7', {
      First_Error_Pointer: bits(4, 0, 'ro', 'bit number of the first unmasked error'),
    }),
  },
  0x48,
)

/** Error reporting of one node. */
export class AerCapability implements Capability {
  readonly id = EXTENDED.AER
  readonly extended = true
  readonly file = new RegisterFile(AER)

  /** Logs an uncorrectable error; the first unmasked one is pointed at until software clears it. */
  log(bit: number): void {
    const { Uncorrectable_Error_Status: status, Uncorrectable_Error_Mask: mask } = this.file.regs
    const before = status.$value & ~mask.$value
    const error = 1n << BigInt(bit)
    status.$value |= error
    if (before === 0n && !(mask.$value & error))
      this.file.regs.Capabilities_and_Control.First_Error_Pointer = bit
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
  }
}

/** AER capability. */
export const aer = (): CapabilityFactory => () => new AerCapability()
