/**
 * A guest's SMMUv3 over one domain (iommufd's vIOMMU): the STEs it writes, as tables that functions are put on;
 * its StreamIDs; its invalidation commands, confined to the domain's VMID and to its own streams. What a guest
 * may say: uapi linux/iommufd.h, iommu_hwpt_arm_smmuv3 and iommu_viommu_arm_smmuv3_invalidate. Next:
 * driver-entries.ts (the STE that comes of it), driver-domain.ts.
 */
import { halves, join, split } from '../../base/addr.js'
import { ErrnoError } from '../../base/errno.js'
import { NO_PASID } from '../../pci/request.js'
import type { NestedTable, VirtualIommu } from '../user-tables.js'
import { ATC_INV_COMMAND, CMD, COMMAND_SIZE, CONFIG_COMMAND, TLBI_COMMAND } from './commands.js'
import type { SmmuDevice } from './driver-device.js'
import type { DomainUnit, SmmuDomain } from './driver-domain.js'
import type { GuestStage } from './driver-nesting.js'
import { type EventName, FAULT_RECORD } from './events.js'
import { EATS, STE, STE_CONFIG } from './ste.js'

/** Fields of an STE that a guest may fill in: V, Config, S1Fmt, S1ContextPtr, S1CDMax; S1DSS to S1CSH, S1STALLD, EATS. */
const ALLOWED = [0xf80f_ffff_ffff_ffffn, 0x3800_00ffn] as const
/** log2 of granules by TLBI.TG. */
const GRANULES = [12, 12, 14, 16] as const
/** ATC_INV.Size of the whole address space. */
const WHOLE_SIZE = 52

/** What a guest's tables and requests can cause. */
const GUESTS_EVENTS: readonly EventName[] = [
  'C_BAD_STE',
  'F_STREAM_DISABLED',
  'C_BAD_SUBSTREAMID',
  'C_BAD_CD',
  'F_TRANSLATION',
  'F_ADDR_SIZE',
  'F_ACCESS',
  'F_PERMISSION',
]

const refused = (what: string) => new ErrnoError('EIO', `virtual SMMUv3: ${what}`)

/** A guest's SMMUv3. */
export class SmmuVirtual implements VirtualIommu {
  onEvent: ((record: Uint8Array) => void) | undefined = undefined
  readonly #unit: DomainUnit
  readonly #domain: SmmuDomain
  readonly #streams = new Map<bigint, number>()
  readonly #config = CONFIG_COMMAND.create()
  readonly #tlbi = TLBI_COMMAND.at(this.#config.bytes)
  readonly #atc = ATC_INV_COMMAND.at(this.#config.bytes)

  constructor(unit: DomainUnit, domain: SmmuDomain) {
    this.#unit = unit
    this.#domain = domain
  }

  nest(words: readonly [bigint, bigint]): SmmuNested {
    return new SmmuNested(this.#unit, this.#domain, this, stageOf(words))
  }

  /** Whether the guest has a StreamID for a function. */
  knows(bdf: number): boolean {
    return [...this.#streams.values()].includes(bdf)
  }

  link(virtualId: bigint, bdf: number): void {
    this.#streams.set(virtualId, bdf)
  }

  unlink(virtualId: bigint): void {
    this.#streams.delete(virtualId)
  }

  execute([low, high]: readonly [bigint, bigint]): void {
    const { commands } = this.#unit
    const { id } = this.#domain
    const view = new DataView(
      this.#config.bytes.buffer,
      this.#config.bytes.byteOffset,
      COMMAND_SIZE,
    )
    view.setBigUint64(0, low, true)
    view.setBigUint64(8, high, true)
    const { OPCODE, SubstreamID } = this.#config
    switch (OPCODE) {
      case CMD.TLBI_NSNH_ALL:
      case CMD.TLBI_NH_ALL:
        commands.stage1(id)
        return
      case CMD.TLBI_NH_ASID:
        commands.asid(id, this.#tlbi.ASID)
        return
      case CMD.TLBI_NH_VA:
      case CMD.TLBI_NH_VAA:
        this.#byAddress(OPCODE === CMD.TLBI_NH_VA ? this.#tlbi.ASID : undefined)
        return
      case CMD.CFGI_CD:
        commands.context(this.#stream(), SubstreamID)
        return
      case CMD.CFGI_CD_ALL:
        commands.contexts(this.#stream())
        return
      case CMD.ATC_INV:
        this.#deviceTlb(this.#stream())
        return
      default:
        throw refused(`command 0x${OPCODE.toString(16)}`)
    }
  }

  finish(): void {
    this.#unit.commands.complete()
  }

  /** An event of a function, in the guest's words; its own, or nobody's. */
  report(bdf: number, record: Uint8Array): void {
    for (const [virtualId, known] of this.#streams) {
      if (known !== bdf) continue
      const own = record.slice()
      FAULT_RECORD.at(own).StreamID = Number(BigInt.asUintN(32, virtualId))
      this.onEvent?.(own)
      return
    }
  }

  #byAddress(asid: number | undefined): void {
    const { TG, TTL, SCALE, NUM, ADDR_HI, ADDR_LO, Leaf } = this.#tlbi
    const ranged = TG !== 0 && this.#unit.capabilities.ranges
    if (ranged && TTL === 0 && SCALE === 0 && NUM === 0) throw refused('a range of nothing')
    if (SCALE > 31) throw refused(`a range of 2^${SCALE} granules`)
    const count = ranged ? (NUM + 1) * 2 ** SCALE : 1
    const page = ADDR_HI * 2 ** 20 + ADDR_LO
    this.#unit.commands.va(
      this.#domain.id,
      asid,
      page,
      count,
      ranged ? GRANULES[TG as 1] : 12,
      Leaf,
    )
  }

  /** The stream that the guest's number in the command stands for. */
  #stream(): number {
    const { StreamID } = this.#config
    const bdf = this.#streams.get(BigInt(StreamID))
    if (bdf === undefined) throw refused(`stream ${StreamID}`)
    return bdf
  }

  #deviceTlb(bdf: number): void {
    const { Size, SSV, SubstreamID, G, ADDR_HI, ADDR_LO } = this.#atc
    if (Size > WHOLE_SIZE) throw refused(`2^${Size} pages`)
    const device = this.#domain.device(bdf)
    // A cache that is off holds nothing.
    if (!device?.atsOn) return
    const { commands } = this.#unit
    commands.fence()
    const pasid = SSV ? SubstreamID : undefined
    commands.deviceTlb(device, pasid, join(ADDR_HI | 0, ADDR_LO << 12), Size, SSV && G)
  }
}

/** A guest's STE over a domain. */
export class SmmuNested implements NestedTable {
  takesFaults = false
  readonly stage: GuestStage
  readonly domain: SmmuDomain
  readonly #unit: DomainUnit
  readonly #virtual: SmmuVirtual
  #devices = 0

  constructor(unit: DomainUnit, domain: SmmuDomain, virtual: SmmuVirtual, stage: GuestStage) {
    this.#unit = unit
    this.domain = domain
    this.#virtual = virtual
    this.stage = stage
    domain.nested++
  }

  attach(bdf: number, pasid = NO_PASID): void {
    this.#check(bdf, pasid)
    this.domain.enter(bdf, this)
  }

  replace(bdf: number, pasid = NO_PASID): void {
    this.#check(bdf, pasid)
    const device = this.#unit.device(bdf)
    if (device === undefined) this.domain.enter(bdf, this)
    else this.domain.take(device, this)
  }

  detach(bdf: number, pasid = NO_PASID): void {
    if (pasid === NO_PASID && this.domain.device(bdf)?.nested === this) this.domain.detach(bdf)
  }

  /** An event of a function on it. Those of stage 2 are the host's matter. */
  report(bdf: number, name: EventName, record: Uint8Array): void {
    if (!GUESTS_EVENTS.includes(name) || FAULT_RECORD.at(record).S2) return
    this.#virtual.report(bdf, record)
  }

  joined(_device: SmmuDevice): void {
    this.#devices++
  }

  left(_device: SmmuDevice): void {
    this.#devices--
  }

  free(): void {
    if (this.#devices > 0) throw new Error('a nested SMMUv3 table has devices attached')
    this.domain.nested--
  }

  /** EINVAL PASIDs; ENOENT: commands about what a table has cached need a StreamID of the guest's. */
  #check(bdf: number, pasid: number): void {
    if (pasid !== NO_PASID) throw new ErrnoError('EINVAL', 'PASIDs below a guest’s STE are its own')
    if (typeof this.stage === 'object' && !this.#virtual.knows(bdf))
      throw new ErrnoError('ENOENT', 'the guest has no StreamID for the function')
  }
}

/** What a guest's STE asks for. EIO: more than it may, or what no STE can be. */
function stageOf([low, high]: readonly [bigint, bigint]): GuestStage {
  const ste = STE.create()
  for (const [i, word] of [low, high].entries()) {
    split(word)
    ste.words[i * 2] = halves[0]!
    ste.words[i * 2 + 1] = halves[1]!
  }
  // One that is not valid stands for itself: everything is refused.
  if (!ste.V) return 'abort'
  if ((low & ~ALLOWED[0]) !== 0n || (high & ~ALLOWED[1]) !== 0n) throw refused('fields of an STE')
  const { Config } = ste
  if (Config !== STE_CONFIG.ABORT && Config !== STE_CONFIG.BYPASS && Config !== STE_CONFIG.S1)
    throw refused(`STE.Config ${Config}`)
  if (ste.EATS !== EATS.NONE && ste.EATS !== EATS.FULL) throw refused(`STE.EATS ${ste.EATS}`)
  if (Config === STE_CONFIG.ABORT) return 'abort'
  if (Config === STE_CONFIG.BYPASS) return 'bypass'
  return {
    pointer: ste.S1ContextPtr,
    format: ste.S1Fmt,
    contextBits: ste.S1CDMax,
    dss: ste.S1DSS,
    stallDisabled: ste.S1STALLD,
    deviceTlb: ste.EATS === EATS.FULL,
  }
}
