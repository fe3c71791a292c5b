// What a launch needs to know, from the group `[sev-launch]` of a configuration file (rules C-5 to C-11).

import { parseConfigFile } from './config-file.js'
import { ABSENT, type OptionSet, SevConfigError } from './options.js'

/** Parameters of a launch. Byte strings have their field's full length, zeros behind what was given. */
export interface LaunchConfig {
  readonly flags: number
  readonly policy: number
  readonly dhPubQx: Uint8Array
  readonly dhPubQy: Uint8Array
  readonly nonce: Uint8Array
  readonly vcpuCount: number
  /** Bytes of one vCPU's state. */
  readonly vcpuLength: number
  /** As long as it was given. */
  readonly vcpuMask: Uint8Array
  /** Bytes that were given of each byte string. */
  readonly given: Readonly<Record<ByteKey, number>>
}

/** Byte strings and the room for each. */
export const BYTE_KEYS = { dh_pub_qx: 32, dh_pub_qy: 32, nonce: 16 } as const
type ByteKey = keyof typeof BYTE_KEYS

/** `compatible`: an absent number is 0xffffffff, absent bytes are zeros, as ever. `strict`: both are errors. */
export type ConfigVariant = 'compatible' | 'strict'

/** The one group of a file. */
export const LAUNCH_GROUP = 'sev-launch'
// biome-ignore format: table
const KEYS = ['flags', 'policy', 'dh_pub_qx', 'dh_pub_qy', 'nonce', 'vcpu_count', 'vcpu_length', 'vcpu_mask']
const REQUIRED = KEYS.filter(key => key !== 'vcpu_mask')

/** Reads a file's launch groups in order; the last one wins. SevConfigError when there is none, or one is wrong. */
export function parseLaunchConfig(
  text: string,
  file: string,
  variant: ConfigVariant = 'compatible',
): LaunchConfig {
  let config: LaunchConfig | undefined
  for (const group of parseConfigFile(text, file, [LAUNCH_GROUP])) {
    config = readLaunchGroup(group, variant)
  }
  if (config === undefined) throw new SevConfigError(`${file}: there is no [${LAUNCH_GROUP}] group`)
  return config
}

/** Reads one group. Numbers are taken out of it as they are read. */
export function readLaunchGroup(group: OptionSet, variant: ConfigVariant): LaunchConfig {
  group.refuseUnknown(KEYS)
  if (variant === 'strict') {
    const missing = REQUIRED.find(key => group.text(key) === undefined)
    if (missing !== undefined) throw group.wrong(missing, 'is required', group.where)
  }
  const flags = group.takeNumber('flags')
  const policy = group.takeNumber('policy')
  const bytes = (key: ByteKey) => group.bytes(key, BYTE_KEYS[key]) ?? new Uint8Array(0)
  const [nonce, qx, qy] = [bytes('nonce'), bytes('dh_pub_qx'), bytes('dh_pub_qy')]
  const vcpuCount = group.takeNumber('vcpu_count')
  const vcpuLength = group.takeNumber('vcpu_length')
  const vcpuMask = group.bytes('vcpu_mask', ABSENT) ?? new Uint8Array(0)
  if (vcpuMask.length > vcpuLength)
    throw group.wrong('vcpu_mask', `${vcpuMask.length} bytes mask ${vcpuLength} bytes of state`)
  return {
    flags,
    policy,
    dhPubQx: padded(qx, BYTE_KEYS.dh_pub_qx),
    dhPubQy: padded(qy, BYTE_KEYS.dh_pub_qy),
    nonce: padded(nonce, BYTE_KEYS.nonce),
    vcpuCount,
    vcpuLength,
    vcpuMask,
    given: { nonce: nonce.length, dh_pub_qx: qx.length, dh_pub_qy: qy.length },
  }
}

/** Bytes with zeros behind them up to a length. */
export function padded(bytes: Uint8Array, length: number): Uint8Array {
  const out = new Uint8Array(length)
  out.set(bytes)
  return out
}
