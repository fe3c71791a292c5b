// Status codes of the SEV firmware, the states it keeps of a guest and of the platform (SEV API, ch. 4 to 6;
// uapi linux/psp-sev.h). Rules C-15, C-20, C-22.

/** What a firmware command answers. */
// biome-ignore format: table
export const SEV_STATUS = {
  SUCCESS:                0x00,
  INVALID_PLATFORM_STATE: 0x01, // the platform is not initialised
  INVALID_GUEST_STATE:    0x02, // the guest is not in a state for this command
  INVALID_CONFIG:         0x03,
  INVALID_LENGTH:         0x04,
  POLICY_FAILURE:         0x07, // the guest's policy forbids it
  INACTIVE:               0x08, // no ASID is bound to the guest
  INVALID_ADDRESS:        0x09,
  BAD_MEASUREMENT:        0x0b, // a MAC does not match
  ASID_OWNED:             0x0c, // the ASID belongs to another guest
  INVALID_ASID:           0x0d,
  INVALID_GUEST:          0x10, // no such handle
  INVALID_COMMAND:        0x11, // not a command of this firmware
  ACTIVE:                 0x12, // an ASID is bound already
  INVALID_PARAM:          0x16,
  RESOURCE_LIMIT:         0x17, // no room for another guest
  INVALID_PAGE_SIZE:      0x19,
  INVALID_PAGE_STATE:     0x1a,
  INVALID_PAGE_OWNER:     0x1c,
} as const

/** A status code. */
export type SevStatus = (typeof SEV_STATUS)[keyof typeof SEV_STATUS]

/** Name of a status code, or its number. */
export function sevStatusName(code: number): string {
  for (const [name, value] of Object.entries(SEV_STATUS)) if (value === code) return name
  return `0x${code.toString(16)}`
}

/**
 * States of a guest as GUEST_STATUS tells them. The 2016 interface knows INVALID (0), LAUNCHING, RUNNING, RECEIVING
 * and SENDING; its launch has no SECRET.
 */
// biome-ignore format: table
export const GUEST_STATE = {
  UNINIT:    0,
  LAUNCHING: 1, // launch began; memory may be encrypted in place
  SECRET:    2, // measured; secrets may be injected
  RUNNING:   3,
  SENDING:   4,
  RECEIVING: 5,
  SENT:      6, // its image has left the platform
} as const

/** A guest's state. */
export type GuestState = (typeof GUEST_STATE)[keyof typeof GUEST_STATE]

/** Name of a guest's state, in lower case. */
export function guestStateName(state: number): string {
  for (const [name, value] of Object.entries(GUEST_STATE)) {
    if (value === state) return name.toLowerCase()
  }
  return `state ${state}`
}

/** States of the platform. */
export const PLATFORM_STATE = { UNINIT: 0, INIT: 1, WORKING: 2 } as const
