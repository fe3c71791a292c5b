/**
 * Isolation groups: functions that can reach each other's memory without asking an IOMMU share one.
 * Decided by topology and Access Control Services as an operating system reads them from configuration
 * space; numbered in enumeration order. Conventional buses and requester aliases are not modelled.
 */
import {
  acsEnabled,
  enableAcs,
  type FoundFunction,
  type PciConfig,
  portType,
} from './pci-config.js'

/** One isolation group. */
export interface IommuGroup {
  readonly id: number
  /** Requester ids of all members, bridges included, ascending. */
  readonly members: readonly number[]
  /** Members that are no bridges: the ones a user can own. */
  readonly endpoints: readonly number[]
}

/** A device with a requester id that is no PCI function, and the function whose group it is in. */
export interface NamespaceDevice {
  readonly requester: number
  readonly function: number
}

const PORT_TYPE = { ROOT_PORT: 4, DOWNSTREAM: 6, PCIE_TO_PCI: 7, PCI_TO_PCIE: 8 }

/** The groups of a machine, as found when it was built. */
export class IommuGroups {
  readonly all: readonly IommuGroup[]
  readonly #byBdf = new Map<number, IommuGroup>()
  readonly #functions = new Map<number, FoundFunction>()

  /**
   * Scans the buses, turns ACS on where it exists, and groups what was found; devices that are no PCI functions
   * join the group of the function they share their way to memory with.
   */
  constructor(config: PciConfig, beside: readonly NamespaceDevice[] = []) {
    const functions = config.scan()
    for (const f of functions) enableAcs(config, f.bdf)
    const groups: { id: number; members: number[]; endpoints: number[] }[] = []
    const of = new Map<number, (typeof groups)[number]>()
    for (const f of functions) {
      let group = groupAbove(config, f, of) ?? groupBeside(config, f, functions, of)
      if (group === undefined) {
        group = { id: groups.length, members: [], endpoints: [] }
        groups.push(group)
      }
      group.members.push(f.bdf)
      if (f.secondaryBus === undefined) group.endpoints.push(f.bdf)
      of.set(f.bdf, group)
      this.#functions.set(f.bdf, f)
    }
    for (const { requester, function: bdf } of beside) {
      const group = of.get(bdf)
      if (group === undefined)
        throw new Error(`no function at requester id ${bdf} to share a group with`)
      group.members.push(requester)
      group.endpoints.push(requester)
      of.set(requester, group)
    }
    this.all = groups
    for (const [bdf, group] of of) this.#byBdf.set(bdf, group)
  }

  /** The group of a function; undefined for one that was not there. */
  of(bdf: number): IommuGroup | undefined {
    return this.#byBdf.get(bdf)
  }

  byId(id: number): IommuGroup | undefined {
    return this.all[id]
  }

  /** Where a function sits. */
  found(bdf: number): FoundFunction | undefined {
    return this.#functions.get(bdf)
  }
}

/** The nearest bridge above that does not isolate what is below shares its group. */
function groupAbove<G>(config: PciConfig, f: FoundFunction, of: Map<number, G>): G | undefined {
  let shared: FoundFunction | undefined
  for (let node = f.parent; node; node = node.parent) if (!isolates(config, node)) shared = node
  return shared && of.get(shared.bdf)
}

/** Functions of one device share a group unless each of the two keeps requests from its siblings. */
function groupBeside<G>(
  config: PciConfig,
  f: FoundFunction,
  functions: readonly FoundFunction[],
  of: Map<number, G>,
): G | undefined {
  if (!f.multiFunction || isolates(config, f)) return undefined
  const sibling = functions.find(
    o => o !== f && o.bdf >> 3 === f.bdf >> 3 && of.has(o.bdf) && !isolates(config, o),
  )
  return sibling && of.get(sibling.bdf)
}

/** Whether requests that pass or leave this function cannot turn round before the root. */
function isolates(config: PciConfig, f: FoundFunction): boolean {
  const type = portType(config, f.bdf)
  switch (type) {
    case undefined:
    case PORT_TYPE.PCIE_TO_PCI:
    case PORT_TYPE.PCI_TO_PCIE:
      return false
    case PORT_TYPE.ROOT_PORT:
    case PORT_TYPE.DOWNSTREAM:
      return acsEnabled(config, f.bdf)
    default:
      return !f.multiFunction || acsEnabled(config, f.bdf)
  }
}
