// What a monitor tells of SEV (C.4 rows 12 and 13): the same facts as text (`info sev`) and for programs (`query-sev`).

import {
  GUEST_STATE,
  guestStateName,
  policyText,
  type SevEdition,
} from '../../cpu/kvm/uapi/sev-codes.js'
import { type SevLaunch, SevLaunchError } from './launch.js'

/** The answer of `query-sev`. */
export interface SevInfo {
  readonly enabled: boolean
  readonly interface?: SevEdition
  readonly state?: string
  readonly policy?: number
  readonly handle?: number
  /** Hexadecimal; after the launch was measured. */
  readonly measurement?: string
}

/** `query-sev`: a machine without SEV is not enabled, and nothing else is told. */
export function querySev(launch: SevLaunch | undefined): SevInfo {
  if (launch === undefined) return { enabled: false }
  const { edition, measurement, handle } = launch
  const { state, policy } = statusOf(launch)
  const hex = measurement && Array.from(measurement, b => b.toString(16).padStart(2, '0')).join('')
  return {
    enabled: true,
    interface: edition,
    state: guestStateName(state),
    policy,
    handle,
    ...(hex !== undefined && { measurement: hex }),
  }
}

// The firmware knows no guest before LAUNCH_START.
function statusOf(launch: SevLaunch): { readonly state: number; readonly policy: number } {
  if (launch.state === GUEST_STATE.UNINIT)
    return { state: launch.state, policy: launch.config.policy }
  try {
    return launch.status()
  } catch (error) {
    if (!(error instanceof SevLaunchError)) throw error
    return { state: launch.state, policy: launch.config.policy }
  }
}

/** `info sev`: rows of name and value. */
export function infoSev(info: SevInfo): readonly (readonly [string, string])[] {
  if (!info.enabled) return [['SEV', 'off']]
  const edition = info.interface ?? 'current'
  const word = `0x${(info.policy ?? 0).toString(16)}`
  return [
    ['SEV', 'on'],
    ['interface', edition === '2016' ? 'KVM_SEV_ISSUE_CMD (2016)' : 'KVM_MEMORY_ENCRYPT_OP'],
    ['handle', `${info.handle}`],
    ['state', `${info.state}`],
    ['policy', `${word}: ${policyText(info.policy ?? 0, edition)}`],
    ...(info.measurement === undefined ? [] : ([['measurement', info.measurement]] as const)),
  ]
}
