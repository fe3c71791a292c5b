// Machine descriptions for the command line: the one it uses by default, and JSON files.

import { readFileSync } from 'node:fs'
import { formatBdf, hex } from '../base/addr.js'
import { STALL_MODEL } from '../iommu/smmu/registers.js'
import { SmmuUnit } from '../iommu/smmu/unit.js'
import type { IommuUnit, Machine, MachineDescription, SmmuMachineDescription } from '../machine.js'
import { dmaCopy } from '../pci/devices/dma-copy.js'
import { svaEngine } from '../pci/devices/sva-engine.js'
import type { DeviceModel } from '../pci/function.js'
import { formatBytes, UsageError } from './output.js'

/** Device models that a machine file can name. */
const MODELS: Readonly<Record<string, DeviceModel>> = {
  'sva-engine': svaEngine,
  'dma-copy': dmaCopy,
}

/** The machine of the main job. */
export const DEFAULT_MACHINE: MachineDescription = {
  iommu: 'vt-d',
  devices: [{ at: '0000:01:00.0', model: svaEngine }],
}

/** The machine of the arm64 main job: the first device asks for missing pages, the second's accesses stall. */
export const ARM64_MACHINE: SmmuMachineDescription = {
  iommu: 'smmuv3',
  cpu: 'arm64',
  profile: 'N13',
  devices: [
    { at: '0000:01:00.0', model: svaEngine },
    { at: '0000:02:00.0', model: svaEngine },
  ],
  stalling: ['0000:02:00.0'],
}

/** What the command line can build. */
export type AnyDescription = MachineDescription | SmmuMachineDescription

type Json = null | boolean | number | string | Json[] | { [key: string]: Json }

/** Reads a machine file; without a path, the default machine with that IOMMU. UsageError says what is wrong and where. */
export function loadMachine(
  path: string | undefined,
  iommu: 'vt-d' | 'smmuv3' = 'vt-d',
): AnyDescription {
  if (path === undefined) return iommu === 'smmuv3' ? ARM64_MACHINE : DEFAULT_MACHINE
  let json: Json
  try {
    json = JSON.parse(readFileSync(path, 'utf8')) as Json
  } catch (error) {
    throw new UsageError(`machine file ${path}: ${(error as Error).message}`)
  }
  return parseMachine(json, path)
}

/** Checks a parsed machine file. */
export function parseMachine(json: unknown, path: string): AnyDescription {
  const wrong = (what: string) => new UsageError(`machine file ${path}: ${what}`)
  if (typeof json !== 'object' || json === null || Array.isArray(json))
    throw wrong('an object is needed')
  const { iommu = 'vt-d', ramMiB = 256, devices = [], ...rest } = json as Record<string, unknown>
  const unknown = Object.keys(rest)[0]
  if (unknown !== undefined)
    throw wrong(`unknown key '${unknown}'; known are iommu, ramMiB, devices`)
  if (iommu !== 'vt-d' && iommu !== 'smmuv3')
    throw wrong(`iommu ${JSON.stringify(iommu)}: "vt-d" and "smmuv3" are there`)
  if (
    typeof ramMiB !== 'number' ||
    !Number.isInteger(ramMiB) ||
    ramMiB < 128 ||
    ramMiB > 2048 ||
    ramMiB % 2
  )
    throw wrong(`ramMiB ${JSON.stringify(ramMiB)}: an even number from 128 to 2048 is needed`)
  if (!Array.isArray(devices) || devices.length === 0)
    throw wrong('devices: at least one is needed')
  const ramBytes = ramMiB * 2 ** 20
  const stalling: string[] = []
  const places = devices.map((device: unknown, i) => {
    const { at, model, stalls = false } = (device ?? {}) as Record<string, unknown>
    if (typeof at !== 'string' || !/^0000:[0-9a-f]{2}:00\.[0-7]$/.test(at))
      throw wrong(`devices[${i}].at ${JSON.stringify(at)}: write "0000:bb:00.f"`)
    const found = typeof model === 'string' ? MODELS[model] : undefined
    if (!found)
      throw wrong(
        `devices[${i}].model ${JSON.stringify(model)}: known are ${Object.keys(MODELS).join(', ')}`,
      )
    if (typeof stalls !== 'boolean' || (stalls && iommu !== 'smmuv3'))
      throw wrong(`devices[${i}].stalls ${JSON.stringify(stalls)}: true or false, with an SMMUv3`)
    if (stalls) stalling.push(at)
    return { at, model: found }
  })
  return iommu === 'smmuv3'
    ? { iommu, cpu: 'arm64', profile: 'N13', ramBytes, devices: places, stalling }
    : { iommu, ramBytes, devices: places }
}

/** The description of a recorded machine, from the text its history begins with. UsageError when a program made it of more. */
export function recordedMachine(text: string, path: string): MachineDescription {
  const wrong = (what: string) => new UsageError(`history ${path}: ${what}`)
  let made: unknown
  try {
    made = JSON.parse(text)
  } catch {
    throw wrong('its first line does not describe a machine')
  }
  const { devices, drivers, ...rest } = (made ?? {}) as Record<string, unknown>
  if (!Array.isArray(devices)) throw wrong('its first line does not describe a machine')
  if (drivers)
    throw wrong('its machine has drivers of a program: restore it there, with Machine.restore')
  const places = devices.map((device: unknown) => {
    const { at, model, vfs } = (device ?? {}) as { at: string; model: string; vfs: number }
    const found = Object.values(MODELS).find(m => m.name === model)
    if (!found)
      throw wrong(
        `its device ${JSON.stringify(model)} is a program's: restore it there, with Machine.restore`,
      )
    return { at, model: found, vfs }
  })
  return { ...rest, devices: places } as MachineDescription
}

/** A machine as rows: what the host has, and the functions with their capabilities. */
export function describeMachine(machine: Machine<IommuUnit>): {
  host: string[][]
  functions: string[][]
} {
  const { description, unit, fabric, iommu } = machine
  return {
    host: [
      ['host RAM', formatBytes(description.ramBytes ?? 256 * 2 ** 20)],
      ['IOMMU', describeUnit(unit)],
      ...(description.cpu === 'arm64' ? [['guests', 'arm64']] : []),
      ['VFIO', `profile ${description.profile ?? 'V7R'}`],
    ],
    functions: fabric.nodes().map(node => {
      const group = iommu.groups.of(node.bdf)
      const ids = `${hex(node.identity.vendorId).slice(2)}:${node.identity.deviceId.toString(16).padStart(4, '0')}`
      return [formatBdf(node.bdf), ids, node.name, `group ${group?.id ?? '-'}`]
    }),
  }
}

function describeUnit(unit: IommuUnit): string {
  if (unit instanceof SmmuUnit) {
    const { stage1, stage2, substreamIdBits, pri, stallModel } = unit.config
    const modes = [
      stage1 && stage2 ? 'two stages' : 'one stage',
      ...(substreamIdBits ? [`${substreamIdBits}-bit SubstreamIDs`] : []),
      ...(pri ? ['page requests'] : []),
      ...(stallModel !== STALL_MODEL.TERMINATE ? ['stalls'] : []),
    ]
    return `SMMUv3: ${modes.join(', ')}`
  }
  const { scalableMode, nesting, pasidBits, pageRequests } = unit.config
  const modes = [
    scalableMode ? 'scalable mode' : 'legacy mode',
    ...(nesting ? ['nesting'] : []),
    ...(pasidBits ? [`${pasidBits}-bit PASIDs`] : []),
    ...(pageRequests ? ['page requests'] : []),
  ]
  return `VT-d: ${modes.join(', ')}`
}
