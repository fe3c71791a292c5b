/**
 * Which bit, field or property of the request refused it: found from the fault's reason and the entry it
 * stopped at. Walks tell theirs in structures.ts; who shows it: vtd.ts.
 */
import { hex } from '../base/addr.js'
import type { Layout } from '../base/fields.js'
import type { FaultName } from '../iommu/vtd/fault-reasons.js'
import type { FaultTrail, FetchedStructure } from '../iommu/vtd/fault-trail.js'
import type { VtdFault } from '../iommu/vtd/faults.js'
import { VTD_REGISTERS } from '../iommu/vtd/registers.js'
import { CONTEXT_ENTRY, PASID_ENTRY, SM_CONTEXT_ENTRY } from '../iommu/vtd/tables.js'
import { ACCESS_WRITE } from '../paging/walk.js'
import type { StageWalk } from '../paging/walk-steps.js'
import type { ExplainedNode } from './explanation.js'
import { bitsOf, bitsOutside, fieldIs, fieldsOf } from './structures.js'

/** Name of a node about the request. */
export const REQUEST = 'the request itself'

/** What refuses without any table saying so. */
export function refusedBeyond(f: VtdFault): ExplainedNode | undefined {
  const request = (refused: string) => ({ text: REQUEST, refused })
  const register = (refused: string) => ({ text: 'RTADDR_REG', refused })
  switch (f.name) {
    case 'hostAddressBeyondWidth':
      return request(`the address ${hex(f.address)} is wider than the host address width`)
    case 'pasidBeyondSize':
      return request(`the PASID ${hex(f.pasid)} has more bits than ECAP_REG.PSS gives`)
    case 'notAnInterrupt':
      return request('only dword writes without a PASID may go to FEEx_xxxxh')
    case 'interruptReserved':
      return request('data bits 31:16 must be zero when SHV is set')
    case 'interruptIndexTooLarge':
      return request(`index ${hex(f.address)} is behind the end of the table (IRTA_REG.S)`)
    case 'compatibilityBlocked':
      return request('address bit 4 is 0: compatibility format, which is blocked')
    case 'abortDmaMode':
      return register('TTM (bits 11:10) is 3: abort-DMA')
    case 'translationModeInvalid':
      return register('TTM (bits 11:10) is a mode that this unit does not have')
    case 'legacyModeWithPasid':
    case 'legacyModePageRequest':
      return register(
        'TTM (bits 11:10) is 0: legacy mode, which knows no PASIDs and no page requests',
      )
    default:
      return undefined
  }
}

/** The tables would allow the request: why was it refused all the same. */
export function afterAll(
  f: VtdFault,
  { structures, walks }: FaultTrail,
): ExplainedNode | undefined {
  const interrupts = f.name === 'outputIsInterruptRange' || f.name === 'smOutputIsInterruptRange'
  const last = walks.at(-1)
  if (interrupts && last === undefined)
    return { text: REQUEST, refused: 'the address lies in FEEx_xxxxh' }
  if (last === undefined)
    return structures.length > 0 && f.name === 'addressBeyondWidth'
      ? { text: REQUEST, refused: 'the address is wider than the host address width' }
      : undefined
  if (last.output === undefined) return undefined
  if (interrupts) return { text: 'the output', refused: `${hex(last.output)} lies in FEEx_xxxxh` }
  return (
    flagsRefused(walks) ??
    flagsNotWritten(f, walks) ?? {
      text: 'the tables as they are now',
      refused: 'nothing refuses the request any more: the unit used what it had cached',
    }
  )
}

/** The second-stage entry that keeps accessed and dirty flags from being written. */
function flagsRefused(walks: readonly StageWalk[]): ExplainedNode | undefined {
  for (const step of walks[0]?.steps ?? []) {
    const entry = step.below?.steps.find(s => !s.flags.includes('W'))
    if (entry)
      return {
        text: `flags of ${step.name} at ${hex(step.at)}`,
        refused: `${entry.name} at ${hex(entry.at)} of the second stage has W (bit 1) 0: they cannot be written`,
      }
  }
  return undefined
}

/** The first entry whose accessed or dirty flag was to be set, where memory did not take it. */
function flagsNotWritten(f: VtdFault, walks: readonly StageWalk[]): ExplainedNode | undefined {
  if (f.name !== 'fsFlagUpdateFailed' && f.name !== 'ssFlagUpdateFailed') return undefined
  const stage = f.name === 'fsFlagUpdateFailed' ? 1 : 2
  const stages = walks.flatMap(w => [...w.steps.flatMap(s => s.below ?? []), w])
  for (const { steps, access } of stages.filter(w => w.stage === stage))
    for (const { name, at, flags, leaf } of steps) {
      const dirties = leaf && (access & ACCESS_WRITE) !== 0
      const flag = (['A', 'D'] as const).find(x => !flags.includes(x) && (x === 'A' || dirties))
      if (flag)
        return {
          text: `flags of ${name} at ${hex(at)}`,
          refused: `${flag} (bit ${FLAG_BITS[stage][flag]}) is 0, and memory did not take the update`,
        }
    }
  return { text: 'accessed and dirty flags', refused: 'memory did not take the update' }
}

const FLAG_BITS = { 1: { A: 5, D: 6 }, 2: { A: 8, D: 9 } } as const

/** Fields whose value refuses, by reason. */
// biome-ignore format: table
const REFUSING: Partial<Record<FaultName, readonly string[]>> = {
  rootEntryNotPresent:      ['P'],
  contextEntryNotPresent:   ['P'],
  translationTypeBlocked:   ['TT'],
  smContextNotPresent:      ['P'],
  deviceTlbDisabled:        ['DTE'],
  pasidDisabled:            ['PASIDE'],
  pasidBeyondDirectory:     ['PDTS'],
  pageRequestDisabled:      ['PRE'],
  pasidIsRidPasid:          ['RID_PASID'],
  pasidDirectoryNotPresent: ['P'],
  pasidEntryNotPresent:     ['P'],
  executeRequestDisabled:   ['ERE'],
  supervisorDisabled:       ['SRE'],
  irteNotPresent:           ['P'],
  sourceIdRefused:          ['SVT', 'SQ', 'SID'],
}

/** What in a structure refused the request. */
export function structureRefusal(
  f: VtdFault,
  s: FetchedStructure,
  layout: Layout,
  words: readonly bigint[],
): string | undefined {
  if (f.name === 'smRootEntryNotPresent')
    return fieldIs(layout, words, (f.requester & 0x80) !== 0 ? 'UP' : 'LP')
  const named = REFUSING[f.name]
  if (named) return named.map(n => fieldIs(layout, words, n)).join(', ')
  if (/Invalid$/.test(f.name))
    return invalidFields(f, words)
      .map(n => (n.includes(' ') ? n : fieldIs(layout, words, n)))
      .join(', ')
  return /Reserved$/.test(f.name) ? reservedRefusal(f, s, layout, words) : undefined
}

/** Fields, or sentences about them, that make an entry unusable: what LCT.4, SCT.4 and SPT.4 check. */
function invalidFields(f: VtdFault, words: readonly bigint[]): readonly string[] {
  const bytes = new Uint8Array(64)
  new BigUint64Array(bytes.buffer).set(words)
  const widths = bitsOf(f.cap)
  const width = (aw: number) => aw > 0 && widths.includes(8 + aw)
  if (f.name === 'smContextInvalid') {
    const { PRE, DTE } = SM_CONTEXT_ENTRY.at(bytes)
    return PRE && !DTE ? ['PRE', 'DTE'] : ['RID_PASID', 'PDTS']
  }
  if (f.name === 'contextEntryInvalid') {
    const { TT, AW } = CONTEXT_ENTRY.at(bytes)
    const modes = ['', 'DT', 'PT']
    if (TT === 3) return ['TT']
    if (TT > 0 && !has(f.ecap, modes[TT]!)) return ['TT', `ECAP_REG.${modes[TT]} is 0`]
    return [width(AW) ? 'SSPTPTR' : 'AW']
  }
  const { PGTT, AW, FSPM } = PASID_ENTRY.at(bytes)
  const needs = ['', 'FSTS', 'SSTS', 'NEST', 'PT'][PGTT]
  if (!needs) return ['PGTT']
  if (!has(f.ecap, needs)) return ['PGTT', `ECAP_REG.${needs} is 0`]
  if ((PGTT & 2) !== 0 && !width(AW)) return ['AW']
  if ((PGTT & 1) !== 0 && FSPM > 0) return FSPM === 1 ? ['FSPM', 'CAP_REG.FS5LP is 0'] : ['FSPM']
  return ['FSPTPTR', 'the second stage does not reach it']
}

/** Fields that are reserved without a capability: field, register, capability. */
// biome-ignore format: table
const NEEDS: Readonly<Record<string, readonly [field: string, capability: string][]>> = {
  context: [['DTE', 'DT'], ['PASIDE', 'PASID'], ['PRE', 'PRS'], ['RID_PASID', 'RPS'], ['RID_PRIV', 'RPRIVS']],
  'pasid-table': [
    ['SSADE', 'SSADS'], ['SSEE', 'ERS'], ['ERE', 'ERS'], ['SRE', 'SRS'], ['WPE', 'SRS'], ['SMEP', 'SRS'],
    ['EAFE', 'EAFS'], ['PWSNP', 'SMPWCS'], ['PGSNP', 'SC'], ['CD', 'MTS'], ['EMTE', 'MTS'], ['EMT', 'MTS'],
    ['PWT', 'MTS'], ['PCD', 'MTS'], ['PAT', 'MTS'],
  ],
}

/** Which bits must be zero: those of no field, those of a missing capability; failing both, a field that is too wide. */
function reservedRefusal(
  f: VtdFault,
  { kind }: FetchedStructure,
  layout: Layout,
  words: readonly bigint[],
): string {
  const outside = bitsOutside(layout, words)
  if (outside.length > 0) return `${outside.join(', ')} must be zero`
  const fields = fieldsOf(layout, words)
  const lacking = (NEEDS[kind] ?? []).filter(
    ([name, capability]) =>
      !has(f.ecap, capability) && !/^0(x0)?$/.test(fields.find(x => x.name === name)?.value ?? '0'),
  )
  if (lacking.length > 0)
    return lacking
      .map(
        ([name, capability]) => `${fieldIs(layout, words, name)}, but ECAP_REG.${capability} is 0`,
      )
      .join('; ')
  return 'a field is wider than the unit: its domain ids (CAP_REG.ND) or its host addresses'
}

function has(ecap: bigint, name: string): boolean {
  const field = VTD_REGISTERS.ECAP_REG.fields[name as keyof typeof VTD_REGISTERS.ECAP_REG.fields]
  return bitsOf(ecap).includes(field.lo)
}
