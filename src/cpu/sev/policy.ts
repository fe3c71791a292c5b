// Guest policies: what the owner lets the host do. The word of 2016 grants debugging with bit 0, today's forbids it
// with the same bit (rules C-16, C-17); which of the two is meant is decided by the interface the guest was launched by.

/** Which interface, and so which policy word and which launch, a guest has. */
export type SevEdition = '2016' | 'current'

/** Bits of the 2016 policy word (C-16). */
// biome-ignore format: table
export const POLICY_2016 = {
  DEBUG:    1 << 0, // the host may decrypt and encrypt for debugging
  KS:       1 << 1, // keys may be shared with other guests
  RESERVED: 1 << 2, // must be one
  NOSEND:   1 << 3, // must not leave the platform
  DOMAIN:   1 << 4, // must not leave the domain
  SEV:      1 << 5, // must not go to platforms without SEV
} as const

/** Bits of today's policy word (C-17; SEV API, ch. 2). */
// biome-ignore format: table
export const POLICY = {
  NODBG:  1 << 0, // debugging is forbidden
  NOKS:   1 << 1, // key sharing is forbidden
  ES:     1 << 2, // register state must be encrypted too
  NOSEND: 1 << 3,
  DOMAIN: 1 << 4,
  SEV:    1 << 5,
} as const

/** A policy word in words of its own. */
export interface Policy {
  readonly debug: boolean
  readonly keySharing: boolean
  readonly encryptedState: boolean
  readonly send: boolean
  readonly domainOnly: boolean
  readonly sevOnly: boolean
  /** Least firmware version the guest may go to. */
  readonly firmwareMajor: number
  readonly firmwareMinor: number
}

/** Reads a policy word under the rules of an edition. */
export function decodePolicy(word: number, edition: SevEdition): Policy {
  const old = edition === '2016'
  const bit = (mask: number) => (word & mask) !== 0
  return {
    debug: bit(POLICY_2016.DEBUG) === old,
    keySharing: bit(POLICY_2016.KS) === old,
    encryptedState: !old && bit(POLICY.ES),
    send: !bit(POLICY.NOSEND),
    domainOnly: bit(POLICY.DOMAIN),
    sevOnly: bit(POLICY.SEV),
    firmwareMajor: (word >>> 16) & 0xff,
    firmwareMinor: word >>> 24,
  }
}

/** Bit 0 as the word has it, for printing: `debug` or `no debug`, and so on. */
export function policyText(word: number, edition: SevEdition): string {
  const p = decodePolicy(word, edition)
  return [
    p.debug ? 'debug' : 'no debug',
    p.keySharing ? 'key sharing' : 'no key sharing',
    ...(p.encryptedState ? ['encrypted state'] : []),
    p.send ? 'send' : 'no send',
    ...(p.domainOnly ? ['domain'] : []),
    ...(p.sevOnly ? ['SEV only'] : []),
  ].join(', ')
}
