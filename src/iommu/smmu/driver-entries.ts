/**
 * What the driver writes into stream table entries and context descriptors: stage 2 under the domain's VMID, a
 * guest's stage 1 on top of it, or stage 1 under an ASID. Walks are write-back, inner shareable.
 * Layouts: ste.ts, cd.ts; where entries are: driver-streams.ts.
 */
import type { StageTables } from '../stage-tables.js'
import { CD } from './cd.js'
import { type SmmuCapabilities, stallsByChoice } from './driver-capabilities.js'
import type { SmmuDevice } from './driver-device.js'
import type { StreamEntry } from './driver-streams.js'
import { STALL_MODEL } from './registers.js'
import { EATS, STE, STE_CONFIG } from './ste.js'

const INNER_SHAREABLE = 3
const WRITE_BACK = 1
/** STE.SHCFG: as the transaction says. */
const USE_INCOMING = 1

/** The STE of an attached device. */
export function streamEntry(caps: SmmuCapabilities, device: SmmuDevice): StreamEntry {
  const { domain, stage } = device
  const ste = STE.create({
    V: true,
    SHCFG: USE_INCOMING,
    EATS: device.atsOn ? EATS.FULL : EATS.NONE,
    S1STALLD: caps.stage1 !== undefined && stallsByChoice(caps) && !device.mayStall,
  })
  if (domain.stage === 1) {
    ste.Config = STE_CONFIG.S1
    ste.S1ContextPtr = domain.context
    return ste
  }
  ste.Config = stage === 'abort' ? STE_CONFIG.ABORT : STE_CONFIG.S2
  ste.S2VMID = domain.id
  ste.S2T0SZ = 64 - domain.addrWidth
  ste.S2SL0 = caps.stage2!.startLevel
  ste.S2SH0 = INNER_SHAREABLE
  ste.S2OR0 = WRITE_BACK
  ste.S2IR0 = WRITE_BACK
  ste.S2PS = caps.outputSize
  ste.S2AA64 = true
  ste.S2AFFD = true
  ste.S2R = true
  ste.S2S = caps.stallModel === STALL_MODEL.STALL
  ste.S2TTB = domain.root
  if (typeof stage === 'object') {
    ste.Config = STE_CONFIG.NESTED
    ste.S1ContextPtr = stage.pointer
    ste.S1Fmt = stage.format
    ste.S1CDMax = stage.contextBits
    ste.S1DSS = stage.dss
    if (stage.stallDisabled && stallsByChoice(caps)) ste.S1STALLD = true
    // A guest must not fill the host's event queue.
    ste.MEV = device.nested !== undefined
  }
  return ste
}

/** The one context descriptor of a stage 1 domain. */
export const contextDescriptor = (caps: SmmuCapabilities, asid: number, table: StageTables) =>
  CD.create({
    V: true,
    AA64: true,
    T0SZ: 64 - table.width,
    EPD1: true,
    SH0: INNER_SHAREABLE,
    OR0: WRITE_BACK,
    IR0: WRITE_BACK,
    IPS: caps.outputSize,
    TTB0: table.root,
    ASID: asid,
    ASET: true,
    AFFD: true,
    R: true,
    A: true,
    S: caps.stallModel === STALL_MODEL.STALL,
  })
