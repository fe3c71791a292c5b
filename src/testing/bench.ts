// A bench: a small machine for a test, the programs that use it, and what they leave behind. Two levels meet
// here: `process` for the calls (program.ts), `bind` and `dmaRead` for address spaces (spaces.ts).
import { formatBdf } from '../base/addr.js'
import type { IommuDriver } from '../iommu/domain.js'
import type { SmmuUnit } from '../iommu/smmu/unit.js'
import type { VtdUnit } from '../iommu/vtd/unit.js'
import {
  createMachine,
  type DevicePlace,
  type Holdings,
  type IommuUnit,
  type Machine,
  type MachineDescription,
  type SmmuMachineDescription,
} from '../machine.js'
import type { DeviceModel } from '../pci/function.js'
import type { ProcessOptions } from '../sys/process.js'
import type { Mdev } from '../vfio/index.js'
import { testDevice } from './devices.js'
import { type BenchFunction, callNumbers, Program, type ProgramMachine } from './program.js'
import { type DmaOptions, type DmaOutcome, type Page, type Space, Spaces } from './spaces.js'
import { standIn } from './stand-in.js'

/** How a bench differs from the usual one: VT-d, profile V7R, two test devices, each in a group of its own. */
export interface BenchOptions
  extends Pick<
    MachineDescription,
    | 'iommu'
    | 'profile'
    | 'parameters'
    | 'vtd'
    | 'acs'
    | 'pasidCapacity'
    | 'pageResponseTimeoutNs'
    | 'namespaceDevices'
    | 'ramBytes'
    | 'detectStaleUse'
    | 'detectConfidentialDma'
    | 'guestMemfd'
    | 'record'
  > {
  /** The model of both functions. */
  readonly device?: DeviceModel
  /** Models by bus instead; each inner list is the functions of one device below a root port. */
  readonly devices?: readonly (readonly DeviceModel[])[]
  /** Virtual functions of the first function of each bus; its model must have them. */
  readonly vfs?: number
  /** Stands in front of the IOMMU's driver, to make calls of it fail; `standIn` helps. */
  readonly wrapDriver?: (driver: IommuDriver) => IommuDriver
  /** Each bus seems to have an IOMMU unit of its own, so that containers need a domain for each. */
  readonly unitPerBus?: boolean
}

/** A bench with an SMMUv3. Its profile is N13 unless told otherwise: the one that nests there. */
export interface SmmuBenchOptions
  extends Omit<BenchOptions, 'iommu' | 'vtd'>,
    Pick<SmmuMachineDescription, 'iommu' | 'smmu' | 'stalling'> {}

/** Options of a bench with this IOMMU. */
type OptionsOf<Unit extends IommuUnit> =
  | (VtdUnit extends Unit ? BenchOptions : never)
  | (SmmuUnit extends Unit ? SmmuBenchOptions : never)

/** Everything that users of a machine can hold, in numbers. */
export interface BenchHoldings extends Holdings {
  /** PASIDs that quotas have reserved, the host's own included. */
  readonly pasidsReserved: number
  /** Frames of host memory beyond those that processes have mapped: tables, queues. */
  readonly frames: number
  /** Interrupt vectors. */
  readonly vectors: number
  /** Guest tables bound to PASIDs of devices. */
  readonly bindings: number
  /** Page requests that wait for an answer. */
  readonly pageRequests: number
}

/** A machine for a test. */
export class Bench<Unit extends IommuUnit = VtdUnit> {
  readonly machine: Machine<Unit>
  /** Functions in order of the tree. */
  readonly functions: readonly BenchFunction[]
  readonly #on: ProgramMachine
  readonly #spaces: Spaces
  readonly #start: BenchHoldings
  #mdevs = 0

  constructor(options?: OptionsOf<Unit>) {
    // The options decide which unit there is, as the type does.
    this.machine = createMachine(describe(options ?? {})) as Machine<IommuUnit> as Machine<Unit>
    const { fabric, iommu } = this.machine
    this.functions = fabric.functions().map(f => ({
      name: formatBdf(f.bdf),
      group: iommu.groups.of(f.bdf)!.id,
      bdf: f.bdf,
    }))
    this.#on = {
      machine: this.machine,
      functions: this.functions,
      calls: callNumbers(this.machine),
    }
    this.#spaces = new Spaces(this.#on, () => this.process())
    this.#start = this.holdings()
  }

  /** Starts a process. It may lock 64 MiB unless told otherwise. */
  process(options: ProcessOptions = {}): Program {
    return new Program(this.machine.spawn({ memlock: 64 * 2 ** 20, ...options }), this.#on)
  }

  /** Makes a mediated device with a group of its own: software only, or backed by function `backing`. */
  mdev(backing?: number): Mdev {
    const name = `00000000-0000-4000-8000-${(this.#mdevs++).toString(16).padStart(12, '0')}`
    const { vfio } = this.machine
    if (backing === undefined) return vfio.createMdev({ name })
    return vfio.createMdev({ name, backing: this.functions[backing]!.bdf })
  }

  /** Runs everything that is due. */
  settle(): void {
    this.machine.settle()
  }

  // ---- address spaces ----

  /** A page of guest memory with this content. */
  page(content: string | Uint8Array = ''): Page {
    return this.#spaces.page(content)
  }

  /**
   * An address space of the guest under that PASID, on function `device`'s group: an empty table, bound. VT-d:
   * PASID_REQUEST and BIND_PGTBL. SMMUv3: a context descriptor in the table that SET_PASID_TABLE showed the host.
   */
  bind(pasid: number, device = 0): Space {
    return this.#spaces.bind(pasid, device)
  }

  /** Lets a function read memory; at most to the end of the page unless a length is given. */
  dmaRead(iova: bigint, options: DmaOptions = {}): DmaOutcome {
    return this.#spaces.read(iova, options)
  }

  /** Lets a function write memory. */
  dmaWrite(iova: bigint, content: string | Uint8Array, options: DmaOptions = {}): DmaOutcome {
    return this.#spaces.write(iova, content, options)
  }

  // ---- what is held ----

  /** What is held now. */
  holdings(): BenchHoldings {
    const { machine } = this
    const { kernel, ioasid, interrupts, iommu } = machine
    return {
      ...machine.holdings(),
      pasidsReserved: ioasid.capacity - ioasid.available,
      frames: kernel.frames.used - kernel.processes.reduce((n, p) => n + p.memory.mappedPages, 0),
      vectors: interrupts.used,
      bindings: iommu.bindingCount,
      pageRequests: iommu.pendingPageRequests(),
    }
  }

  /** What is held beyond what the machine itself holds, as `name now (start)`; empty when there is nothing. */
  leaks(): string[] {
    return Object.entries(this.holdings())
      .map(([what, now]) => [what, now, this.#start[what as keyof BenchHoldings]] as const)
      .filter(([, now, start]) => now !== start)
      .map(([what, now, start]) => `${what} ${now} (${start})`)
  }

  /** Ends every process and lets time pass. An Error when something is held even then. */
  check(): void {
    for (const p of this.machine.kernel.processes) p.exit()
    this.settle()
    const leaks = this.leaks()
    if (leaks.length > 0) throw new Error(`the bench leaks: ${leaks.join(', ')}`)
  }
}

const benches: Bench<IommuUnit>[] = []

/** Builds a bench that `checkBenches` looks at when the test is over. */
export function bench(options?: BenchOptions): Bench
export function bench(options: SmmuBenchOptions): Bench<SmmuUnit>
export function bench(options: BenchOptions | SmmuBenchOptions): Bench<IommuUnit>
export function bench(options: BenchOptions | SmmuBenchOptions = {}): Bench<IommuUnit> {
  const made = new Bench<IommuUnit>(options)
  benches.push(made)
  return made
}

/** Ends every process of the benches made since the last call; an Error when one of them leaks. For `afterEach`. */
export function checkBenches(): void {
  const made = benches.splice(0)
  for (const b of made) b.check()
}

function describe(
  options: BenchOptions | SmmuBenchOptions,
): MachineDescription | SmmuMachineDescription {
  const { device = testDevice(), devices = [[device], [device]], ...rest } = options
  const { wrapDriver = (driver: IommuDriver) => driver, unitPerBus, vfs = 0, ...description } = rest
  const places: DevicePlace[] = devices.flatMap((functions, bus) =>
    functions.map((model, fn) => ({
      at: formatBdf(((bus + 1) << 8) | fn),
      model,
      vfs: fn === 0 ? vfs : 0,
    })),
  )
  return {
    ramBytes: 16 * 2 ** 20,
    ...(options.iommu === 'smmuv3' ? { profile: 'N13' } : {}),
    ...description,
    devices: places,
    drivers: driver => {
      const front = wrapDriver(driver)
      if (!unitPerBus) return [{ driver: front }]
      return devices.map((_, i) => ({ driver: standIn(front), covers: bdf => bdf >> 8 === i + 1 }))
    },
  }
}
