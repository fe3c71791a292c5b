// Whether a machine starts with SEV, and with what: the option group `sev` (rules C-1 to C-5, C-11). Answers 0 and 1 as
// the original does: 1 quietly without options, 1 with a message for a type nobody knows or a file that is not there.

import { GUEST_STATE, type GuestState } from '../../cpu/kvm/uapi/sev-codes.js'
import { type ConfigVariant, type LaunchConfig, parseLaunchConfig } from './launch-config.js'
import type { OptionSet } from './options.js'

/** Where the guest's image is encrypted: at launch (`type=unencrypted`, 1) or already (`type=encrypted`, 0). */
export const GUEST_TYPE = { PRE_ENCRYPTED: 0, UNENCRYPTED: 1 } as const

/** What a machine with SEV keeps: state, type, and the parameters of start, update and finish (rule C-4). */
export interface SevState {
  state: GuestState
  readonly type: (typeof GUEST_TYPE)[keyof typeof GUEST_TYPE]
  readonly launch: LaunchConfig
}

/** What initialisation may use. */
export interface SevSurroundings {
  /** Whether there is KVM; without it SEV is never enabled. */
  readonly kvm: boolean
  /** A file's text; undefined when it cannot be opened. */
  readFile(path: string): string | undefined
  /** A line for the user. */
  message(text: string): void
  readonly variant?: ConfigVariant
}

/** SEV of one machine, as its options have it. */
export class MachineSev {
  #state: SevState | undefined

  /** The state object; cleared when initialisation failed. */
  get state(): SevState | undefined {
    return this.#state
  }

  /** True exactly when initialisation succeeded (rule C-3). */
  get enabled(): boolean {
    return this.#state !== undefined
  }

  /**
   * Initialises from the `sev` group: 0 for success, 1 for failure. SevConfigError, which is fatal, for a file that
   * cannot be parsed.
   */
  init(options: OptionSet | undefined, around: SevSurroundings): 0 | 1 {
    this.#state = undefined
    if (!around.kvm) return 1
    const config = options?.text('config')
    if (config === undefined) return 1
    const type = options?.text('type')
    if (type === undefined) return 1
    if (type !== 'unencrypted' && type !== 'encrypted') {
      around.message(`SEV: unsupported type '${type}'`)
      return 1
    }
    const text = around.readFile(config)
    if (text === undefined) {
      around.message(`SEV: ${config} cannot be opened`)
      return 1
    }
    this.#state = {
      state: GUEST_STATE.UNINIT,
      type: type === 'unencrypted' ? GUEST_TYPE.UNENCRYPTED : GUEST_TYPE.PRE_ENCRYPTED,
      launch: parseLaunchConfig(text, config, around.variant),
    }
    return 0
  }
}
