/**
 * Reads configuration space the way an operating system does: from its bytes alone, following the
 * chains that are there, trusting nothing. Facts for listings and tests.
 * Next: config-text.ts (prints them).
 */
import { CAPABILITY, EXTENDED, EXTENDED_START } from './ids.js'

/** A function's configuration bytes: 64, 256 or 4096 of them. */
export interface ConfigImage {
  readonly bdf: number
  readonly bytes: Uint8Array
}

/** A BAR as the registers give it. */
export interface BarFacts {
  readonly index: number
  readonly address: number
  readonly wide: boolean
  readonly prefetchable: boolean
}

/** First and last address that a bridge forwards. */
export interface WindowFacts {
  readonly first: number
  readonly last: number
}

/** Bus numbers and windows of a bridge; a window that is closed is undefined. */
export interface BridgeFacts {
  readonly primary: number
  readonly secondary: number
  readonly subordinate: number
  readonly memory: WindowFacts | undefined
  readonly prefetchable: WindowFacts | undefined
}

/** A capability and what its registers say, by the names of the specification. */
export interface CapabilityFacts {
  readonly offset: number
  readonly id: number
  readonly extended: boolean
  readonly version: number | undefined
  readonly values: Readonly<Record<string, number>>
}

/** What configuration bytes say. */
export interface ConfigFacts {
  readonly bdf: number
  readonly vendorId: number
  readonly deviceId: number
  readonly classCode: number
  readonly revision: number
  readonly memoryEnable: boolean
  readonly busMaster: boolean
  readonly bars: readonly BarFacts[]
  readonly bridge: BridgeFacts | undefined
  readonly capabilities: readonly CapabilityFacts[]
}

const HIGH = 2 ** 32
const MIB = 0x10_0000

/** Decodes an image. Bytes that are not there read as zero. */
export function decodeConfig(image: ConfigImage): ConfigFacts {
  const c = reader(image.bytes)
  const bridge = (c.u8(0x0e) & 0x7f) === 1
  return {
    bdf: image.bdf,
    vendorId: c.u16(0),
    deviceId: c.u16(2),
    classCode: c.u32(8) >>> 8,
    revision: c.u8(8),
    memoryEnable: (c.u16(4) & 2) !== 0,
    busMaster: (c.u16(4) & 4) !== 0,
    bars: bars(c, bridge ? 2 : 6),
    bridge: bridge ? bridgeFacts(c) : undefined,
    capabilities: [...capabilities(c), ...extendedCapabilities(c)],
  }
}

interface Reader {
  u8(at: number): number
  u16(at: number): number
  u32(at: number): number
}

function reader(bytes: Uint8Array): Reader {
  const u8 = (at: number) => bytes[at] ?? 0
  const u16 = (at: number) => u8(at) | (u8(at + 1) << 8)
  return { u8, u16, u32: at => (u16(at) | (u16(at + 2) << 16)) >>> 0 }
}

function bars(c: Reader, count: number): BarFacts[] {
  const out: BarFacts[] = []
  for (let index = 0; index < count; index++) {
    const low = c.u32(0x10 + index * 4)
    const wide = (low & 7) === 4
    const high = wide && index + 1 < count ? c.u32(0x14 + index * 4) : 0
    const address = high * HIGH + ((low & -16) >>> 0)
    if (address !== 0 && !(low & 1))
      out.push({ index, address, wide, prefetchable: (low & 8) !== 0 })
    if (wide) index++
  }
  return out
}

function bridgeFacts(c: Reader): BridgeFacts {
  const window = (at: number, upperBase: number, upperLimit: number) => {
    const first = upperBase * HIGH + (c.u16(at) >> 4) * MIB
    const last = upperLimit * HIGH + ((c.u16(at + 2) >> 4) + 1) * MIB - 1
    return last >= first ? { first, last } : undefined
  }
  const wide = (c.u16(0x24) & 0xf) === 1
  return {
    primary: c.u8(0x18),
    secondary: c.u8(0x19),
    subordinate: c.u8(0x1a),
    memory: window(0x20, 0, 0),
    prefetchable: wide ? window(0x24, c.u32(0x28), c.u32(0x2c)) : window(0x24, 0, 0),
  }
}

function capabilities(c: Reader): CapabilityFacts[] {
  const out: CapabilityFacts[] = []
  if (!(c.u16(6) & 0x10)) return out
  const seen = new Set<number>()
  for (let at = c.u8(0x34) & 0xfc; at >= 0x40 && !seen.has(at); at = c.u8(at + 1) & 0xfc) {
    seen.add(at)
    const id = c.u8(at)
    const values = BASIC[id]?.(c, at) ?? {}
    out.push({ offset: at, id, extended: false, version: undefined, values })
  }
  return out
}

function extendedCapabilities(c: Reader): CapabilityFacts[] {
  const out: CapabilityFacts[] = []
  const seen = new Set<number>()
  for (let at = EXTENDED_START; at >= EXTENDED_START && !seen.has(at); ) {
    seen.add(at)
    const header = c.u32(at)
    const id = header & 0xffff
    if (header === 0 || header === 0xffff_ffff) break
    const version = (header >>> 16) & 15
    out.push({
      offset: at,
      id,
      extended: true,
      version,
      values: EXTENDED_VALUES[id]?.(c, at) ?? {},
    })
    at = (header >>> 20) & 0xffc
  }
  return out
}

type Decoder = (c: Reader, at: number) => Record<string, number>

const bit = (value: number, n: number) => (value >>> n) & 1

/** What is worth telling of each capability. */
const BASIC: Readonly<Record<number, Decoder>> = {
  [CAPABILITY.POWER_MANAGEMENT]: (c, at) => ({
    Version: c.u16(at + 2) & 7,
    PowerState: c.u16(at + 4) & 3,
  }),
  [CAPABILITY.MSI]: (c, at) => ({
    Enable: bit(c.u16(at + 2), 0),
    Vectors: 1 << ((c.u16(at + 2) >> 1) & 7),
    Vectors_Enabled: 1 << ((c.u16(at + 2) >> 4) & 7),
    Address_64: bit(c.u16(at + 2), 7),
    Masking: bit(c.u16(at + 2), 8),
  }),
  [CAPABILITY.MSIX]: (c, at) => ({
    Enable: bit(c.u16(at + 2), 15),
    Function_Mask: bit(c.u16(at + 2), 14),
    Vectors: (c.u16(at + 2) & 0x7ff) + 1,
    Table_BAR: c.u32(at + 4) & 7,
    Table_Offset: (c.u32(at + 4) & ~7) >>> 0,
    PBA_BAR: c.u32(at + 8) & 7,
    PBA_Offset: (c.u32(at + 8) & ~7) >>> 0,
  }),
  [CAPABILITY.PCI_EXPRESS]: (c, at) => ({
    Version: c.u16(at + 2) & 15,
    Device_Port_Type: (c.u16(at + 2) >> 4) & 15,
    Max_Payload_Size_Supported: 128 << (c.u32(at + 4) & 7),
    Function_Level_Reset: bit(c.u32(at + 4), 28),
    End_End_TLP_Prefix_Supported: bit(c.u32(at + 0x24), 21),
  }),
}

const EXTENDED_VALUES: Readonly<Record<number, Decoder>> = {
  [EXTENDED.AER]: (c, at) => ({
    Uncorrectable_Error_Status: c.u32(at + 4),
    Correctable_Error_Status: c.u32(at + 0x10),
  }),
  [EXTENDED.ACS]: (c, at) => ({ Capability: c.u16(at + 4) & 0x7f, Control: c.u16(at + 6) & 0x7f }),
  [EXTENDED.ATS]: (c, at) => ({
    Invalidate_Queue_Depth: c.u16(at + 4) & 31,
    Enable: bit(c.u16(at + 6), 15),
    Smallest_Translation_Unit: c.u16(at + 6) & 31,
  }),
  [EXTENDED.PRI]: (c, at) => ({
    Enable: bit(c.u16(at + 4), 0),
    Response_Failure: bit(c.u16(at + 6), 0),
    Unexpected_PRG_Index: bit(c.u16(at + 6), 1),
    Stopped: bit(c.u16(at + 6), 8),
    Outstanding_Capacity: c.u32(at + 8),
    Outstanding_Allocation: c.u32(at + 12),
  }),
  [EXTENDED.PASID]: (c, at) => ({
    Execute_Permission_Supported: bit(c.u16(at + 4), 1),
    Privileged_Mode_Supported: bit(c.u16(at + 4), 2),
    Max_PASID_Width: (c.u16(at + 4) >> 8) & 31,
    PASID_Enable: bit(c.u16(at + 6), 0),
    Execute_Permission_Enable: bit(c.u16(at + 6), 1),
    Privileged_Mode_Enable: bit(c.u16(at + 6), 2),
  }),
}
