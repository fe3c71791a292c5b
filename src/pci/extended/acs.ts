/**
 * Access Control Services (PCIe 7.7.11). All requests of this fabric go through the root complex, as
 * if redirection were always on; the controls are kept for software that groups devices by them, and
 * Translation Blocking acts.
 */
import { bank, bits, flag, r16 } from '../../base/fields.js'
import { RegisterFile } from '../../base/registers.js'
import { type Capability, type CapabilityFactory, extendedHeader } from '../capability.js'
import { EXTENDED } from '../ids.js'

/** The capability structure. Control bits exist where the capability has them. */
export const ACS = bank('ACS capability', {
  Header: extendedHeader(EXTENDED.ACS, 1),
  Capability: r16(0x04, 'PCIe 7.7.11.2', {
    Egress_Control_Vector_Size: bits(15, 8, 'ro', 'no egress control'),
    Direct_Translated_P2P: flag(6, 'ro', 'translated requests could go to peers'),
    P2P_Egress_Control: flag(5, 'ro', 'not supported'),
    Upstream_Forwarding: flag(4, 'ro', 'requests of this link come back through the root'),
    P2P_Completion_Redirect: flag(3, 'ro', 'completions to peers go through the root'),
    P2P_Request_Redirect: flag(2, 'ro', 'requests to peers go through the root'),
    Translation_Blocking: flag(1, 'ro', 'requests with AT other than 0 can be refused'),
    Source_Validation: flag(0, 'ro', 'requester ids are checked against the bus range'),
  }),
  Control: r16(0x06, 'PCIe 7.7.11.3', {
    Direct_Translated_P2P_Enable: flag(6, 'rw', 'no effect: nothing goes to peers directly'),
    P2P_Egress_Control_Enable: flag(5, 'ro', 'not supported'),
    Upstream_Forwarding_Enable: flag(4, 'rw', 'always done'),
    P2P_Completion_Redirect_Enable: flag(3, 'rw', 'always done'),
    P2P_Request_Redirect_Enable: flag(2, 'rw', 'always done'),
    Translation_Blocking_Enable: flag(1, 'rw', 'refuse translated and translation requests'),
    Source_Validation_Enable: flag(0, 'rw', 'requesters here never forge their id'),
  }),
})

const PORT = 0b101_1111
const FUNCTION = 0b100_1100

/** Access control of one port or function. */
export class AcsCapability implements Capability {
  readonly id = EXTENDED.ACS
  readonly extended = true
  readonly file: RegisterFile<typeof ACS>
  /** Whether requests that claim a translation are refused. */
  blocksTranslated = false
  readonly #supported: bigint

  constructor(port: boolean) {
    this.#supported = BigInt(port ? PORT : FUNCTION)
    this.file = new RegisterFile(ACS, {
      onWrite: {
        Control: () => {
          this.file.regs.Control.$value &= this.#supported
          this.restore()
        },
      },
    })
    this.reset()
  }

  link(next: number): void {
    this.file.regs.Header.NEXT = next
  }

  reset(): void {
    this.file.reset()
    this.file.regs.Capability.$value = this.#supported
    this.restore()
  }

  restore(): void {
    this.blocksTranslated = this.file.regs.Control.Translation_Blocking_Enable
  }
}

/** ACS capability: of a port (`port: true`), or of a function of a multi-function device. */
export const acs =
  (options: { port?: boolean } = {}): CapabilityFactory =>
  () =>
    new AcsCapability(options.port === true)
