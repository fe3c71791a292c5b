// The same parameters as ordinary objects with properties, which the review asked for instead of a private file (rule
// C-12): security-policy names a sev-guest-info, that one a sev-launch-info (or sev-receive-info), and that one a
// sev-policy-info, or has the policy as a number. Objects are `type,id=…,key=value` options or `[object "id"]` groups.

import { SEV_2016_FLAG_KS } from '../../cpu/kvm/uapi/sev-2016.js'
import { parseConfigFile, parseOption } from './config-file.js'
import { BYTE_KEYS, type LaunchConfig, padded } from './launch-config.js'
import { ABSENT, OptionSet, parseNumber, SevConfigError } from './options.js'

/** What the objects of a guest come to. */
export interface GuestInfo {
  /** Whether its image is encrypted here, or arrives encrypted. */
  readonly kind: 'launch' | 'receive'
  readonly config: LaunchConfig
  /** The object to send it with, if one is named. */
  readonly send: OptionSet | undefined
}

// biome-ignore format: table
const PROPERTIES: Readonly<Record<string, readonly string[]>> = {
  'security-policy':  ['memory-encryption'],
  'sev-guest-info':   ['launch', 'send', 'receive'],
  'sev-launch-info':  ['flags.ks', 'policy', 'nonce', 'dh-pub-qx', 'dh-pub-qy'],
  'sev-receive-info': ['flags.ks', 'policy', 'nonce', 'dh-pub-qx', 'dh-pub-qy'],
  'sev-send-info':    ['flags.ks', 'policy', 'nonce', 'dh-pub-qx', 'dh-pub-qy'],
  'sev-policy-info':  ['debug', 'ks', 'nosend', 'domain', 'sev', 'fw_major', 'fw_minor'],
}

/** Objects of `type,key=value` options. */
export const objectsOf = (options: readonly string[]): readonly OptionSet[] =>
  options.map(parseOption)

/** Objects of a file's `[object "id"]` groups. */
export function objectsOfFile(text: string, file: string): readonly OptionSet[] {
  return parseConfigFile(text, file, ['object']).map(group => {
    const type = group.text('qom-type')
    if (type === undefined) throw group.wrong('qom-type', 'is required', group.where)
    const object = new OptionSet(type, group.id, group.where)
    for (const key of group.keys) {
      if (key !== 'qom-type') object.set(key, group.text(key)!, group.where)
    }
    return object
  })
}

/**
 * Resolves the guest that the security-policy object names; undefined when there is none, and so no encryption.
 * SevConfigError: a type or property nobody knows, an object without an id, or named and not there.
 */
export function resolveGuest(objects: readonly OptionSet[]): GuestInfo | undefined {
  const byId = new Map<string, OptionSet>()
  for (const object of objects) {
    const known = PROPERTIES[object.group]
    if (known === undefined)
      throw new SevConfigError(`${object.where}: there is no object type '${object.group}'`)
    object.refuseUnknown(known)
    if (object.id === undefined) {
      if (object.group !== 'security-policy') throw object.wrong('id', 'is required', object.where)
    } else if (byId.has(object.id)) throw object.wrong('id', `'${object.id}' is taken`)
    else byId.set(object.id, object)
  }
  const find = (from: OptionSet, key: string, type: string): OptionSet | undefined => {
    const id = from.text(key)
    if (id === undefined) return undefined
    const found = byId.get(id)
    if (found?.group !== type) throw from.wrong(key, `there is no ${type} '${id}'`)
    return found
  }
  const policies = objects.filter(o => o.group === 'security-policy')
  if (policies.length === 0) return undefined
  const guest = find(policies.at(-1)!, 'memory-encryption', 'sev-guest-info')
  if (guest === undefined) return undefined
  const launch = find(guest, 'launch', 'sev-launch-info')
  const receive = find(guest, 'receive', 'sev-receive-info')
  const info = launch ?? receive
  if (info === undefined) throw guest.wrong('launch', 'or receive is required', guest.where)
  return {
    kind: launch === undefined ? 'receive' : 'launch',
    config: configOf(
      info,
      policyOf(info, id => byId.get(id)),
    ),
    send: find(guest, 'send', 'sev-send-info'),
  }
}

function policyOf(info: OptionSet, object: (id: string) => OptionSet | undefined): number {
  const text = info.text('policy')
  if (text === undefined) return ABSENT
  const named = object(text)
  if (named?.group === 'sev-policy-info') return policyWord(named)
  const number = parseNumber(text)
  if (typeof number === 'string')
    throw info.wrong('policy', `${number}, nor is there a sev-policy-info of that name`)
  return number
}

/** The 2016 policy word of a sev-policy-info. */
function policyWord(policy: OptionSet): number {
  const bit = (key: string, n: number) => (policy.switch(key, false) ? 1 << n : 0)
  const byte = (key: string) => {
    if (policy.text(key) === undefined) return 0
    const value = policy.takeNumber(key)
    if (value > 255) throw policy.wrong(key, `${value} has more than 8 bits`, policy.where)
    return value
  }
  const flags = bit('debug', 0) | bit('ks', 1) | bit('nosend', 3) | bit('domain', 4) | bit('sev', 5)
  // Bit 2 is reserved and one.
  return (flags | (1 << 2) | (byte('fw_major') << 16) | (byte('fw_minor') << 24)) >>> 0
}

function configOf(info: OptionSet, policy: number): LaunchConfig {
  const bytes = (key: string, most: number) => info.bytes(key, most) ?? new Uint8Array(0)
  const nonce = bytes('nonce', BYTE_KEYS.nonce)
  const qx = bytes('dh-pub-qx', BYTE_KEYS.dh_pub_qx)
  const qy = bytes('dh-pub-qy', BYTE_KEYS.dh_pub_qy)
  return {
    flags: info.switch('flags.ks', false) ? SEV_2016_FLAG_KS : 0,
    policy,
    dhPubQx: padded(qx, BYTE_KEYS.dh_pub_qx),
    dhPubQy: padded(qy, BYTE_KEYS.dh_pub_qy),
    nonce: padded(nonce, BYTE_KEYS.nonce),
    // Objects say nothing of vCPUs: of the one there is, nothing is measured.
    vcpuCount: 1,
    vcpuLength: 0,
    vcpuMask: new Uint8Array(0),
    given: { nonce: nonce.length, dh_pub_qx: qx.length, dh_pub_qy: qy.length },
  }
}
