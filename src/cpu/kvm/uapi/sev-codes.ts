// Numbers that SEV commands pass through from the firmware: status codes, states of guests, policy words. They are
// declared beside the firmware.

export * from '../../sev/codes.js'
export * from '../../sev/policy.js'
