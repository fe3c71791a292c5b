// linux/ioasid.h as "[RFC PATCH 18/18] ioasid: Add /dev/ioasid for userspace" proposed it; never merged. Used
// with vSVA v8. Who answers: ../ioasid-dev.ts.
import { struct } from '../../base/struct.js'

const IOASID_TYPE = 0x69 // 'i'
const IOASID_BASE = 100
const ioasidIo = (n: number): number => (IOASID_TYPE << 8) | (IOASID_BASE + n)

export const IOASID_API_VERSION = 0
export const IOASID_GET_API_VERSION = ioasidIo(0)

export const ioasid_info = struct('struct ioasid_info', {
  argsz: 'u32',
  flags: 'u32', // 0
  ioasid_bits: 'u32', // out
})
export const IOASID_GET_INFO = ioasidIo(1)

export const ioasid_request_range = struct('struct ioasid_request_range', {
  min: 'u32',
  max: 'u32', // inclusive
})
export const ioasid_request = struct('struct ioasid_request', {
  argsz: 'u32',
  flags: 'u32', // 0
  range: ioasid_request_range,
})
export const IOASID_REQUEST_ALLOC = ioasidIo(2) // the id is the result
export const IOASID_REQUEST_FREE = ioasidIo(3) // pointer to s32: the id
