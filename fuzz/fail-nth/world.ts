// A machine whose allocations and driver calls can be made to fail one at a time, what it holds written down, and a
// program's way into it. Frames, descriptors and bookkeeping fail by themselves; calls of the IOMMU's driver, of the
// PASID allocator and of the interrupt controller get a step in front.

import { formatBdf } from '../../src/base/addr.js'
import { ErrnoError, type ErrnoName } from '../../src/base/errno.js'
import type { Domain, IommuDriver } from '../../src/iommu/domain.js'
import type { NestedTable, PagingTable } from '../../src/iommu/user-tables.js'
import { createMachine, type Machine, type MachineDescription } from '../../src/machine.js'
import type { DevicePort } from '../../src/pci/device-model.js'
import { type IoctlArgument, type Sys, s32 } from '../../src/sys/sys.js'
import { standIn } from '../../src/testing/stand-in.js'
import {
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_SET_IOMMU,
} from '../../src/uapi.js'
import { PLACES } from '../devices.js'

const MIB = 2 ** 20

/** Puts a step in front of a method of an object; it applies to calls that `when` takes. */
function guard<T extends object>(
  world: World,
  of: T,
  method: keyof T & string,
  code: ErrnoName,
  when: (...args: unknown[]) => boolean = () => true,
): void {
  const original = of[method] as unknown
  if (typeof original !== 'function') return
  Object.defineProperty(of, method, {
    value: (...args: unknown[]) => {
      if (when(...args)) world.machine?.kernel.failures.step(`${method}()`, code)
      return (original as (...a: unknown[]) => unknown).apply(of, args)
    },
  })
}

function guardDomain(world: World, domain: Domain): void {
  for (const method of ['attach', 'attachAux', 'map', 'bindGpasid', 'cacheInvalidate'] as const)
    guard(world, domain, method, 'ENOMEM')
  guard(world, domain, 'nestingInfo', 'ENODEV')
  guard(world, domain, 'setIoasidSet', 'EBUSY', set => set !== undefined)
  const { guestTables } = domain
  if (guestTables === undefined) return
  guard(world, guestTables, 'setPasidTable', 'ENOMEM')
  guard(world, guestTables, 'bindMsi', 'ENOMEM')
}

function guardTable(world: World, table: PagingTable | NestedTable): void {
  for (const method of ['attach', 'replace'] as const) guard(world, table, method, 'ENOMEM')
  if (!('map' in table)) return
  guard(world, table, 'map', 'ENOMEM')
  guard(world, table, 'setDirtyTracking', 'EOPNOTSUPP', on => on === true)
  const nest = table.nest?.bind(table)
  if (nest)
    table.nest = stage1 => {
      world.machine?.kernel.failures.step('nest()', 'ENOMEM')
      const nested = nest(stage1)
      guardTable(world, nested)
      return nested
    }
  const virtual = table.virtual?.bind(table)
  if (virtual)
    table.virtual = () => {
      const made = virtual()
      const over = made.nest.bind(made)
      made.nest = ste => {
        world.machine?.kernel.failures.step('nest()', 'ENOMEM')
        const nested = over(ste)
        guardTable(world, nested)
        return nested
      }
      return made
    }
}

function guardUserTables(world: World, driver: IommuDriver): void {
  const { userTables } = driver
  if (userTables === undefined) return
  const alloc = userTables.alloc.bind(userTables)
  userTables.alloc = options => {
    world.machine?.kernel.failures.step('alloc()', 'ENOMEM')
    const table = alloc(options)
    guardTable(world, table)
    return table
  }
}

function guardDriver(world: World, driver: IommuDriver): IommuDriver {
  guardUserTables(world, driver)
  const front = standIn(driver, domain => guardDomain(world, domain))
  return new Proxy(front, {
    get(target, name) {
      const value = Reflect.get(target, name, target) as unknown
      if (name !== 'domainAlloc' && name !== 'allocateVector') return value
      return (...args: unknown[]) => {
        const code = name === 'domainAlloc' ? 'ENOMEM' : 'ENOSPC'
        world.machine?.kernel.failures.step(`${name}()`, code)
        return (value as (...a: unknown[]) => unknown)(...args)
      }
    },
  })
}

/** One machine with one process, and what a test does with it. */
export class World {
  machine: Machine | undefined = undefined
  readonly sys: Sys
  readonly ports: (DevicePort | undefined)[] = []
  readonly #machine: Machine

  constructor(description: MachineDescription = {}) {
    const machine = createMachine({
      ramBytes: 16 * MIB,
      pasidCapacity: 64,
      parameters: { pasidQuota: 8 },
      devices: PLACES.map(({ name, make }, i) => ({
        at: name,
        model: make(port => {
          this.ports[i] = port
        }),
      })),
      drivers: driver => [{ driver: guardDriver(this, driver) }],
      ...description,
    })
    this.#machine = machine
    this.machine = machine
    const { ioasid, interrupts } = machine
    guard(this, ioasid, 'allocSet', 'ENOMEM')
    guard(this, ioasid, 'get', 'EBUSY')
    guard(this, ioasid, 'attachData', 'ENOMEM')
    guard(this, ioasid, 'attachSpid', 'ENOMEM')
    guard(this, interrupts, 'allocate', 'ENOSPC')
    this.sys = machine.spawn({ memlock: 8 * MIB })
  }

  /** The machine, whole. */
  get host(): Machine {
    return this.#machine
  }

  ioctl(fd: number, cmd: number, arg?: IoctlArgument): number {
    return this.sys.ioctl(fd, cmd, arg)
  }

  /** Opens a container with the groups of these devices in it; the IOMMU type is set where one is named. */
  container(type: number | undefined, ...devices: readonly number[]) {
    const fd = this.sys.open('/dev/vfio/vfio')
    const groups = devices.map(d => this.group(d))
    for (const group of groups) this.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(fd))
    if (type !== undefined) this.ioctl(fd, VFIO_SET_IOMMU, type)
    return { fd, group: groups[0]!, groups }
  }

  group(device: number): number {
    return this.sys.open(this.#machine.groupOf(PLACES[device]!.name))
  }

  /** Opens a device from its group's file, and lets it make requests. */
  device(group: number, device: number): number {
    const fd = this.ioctl(group, VFIO_GROUP_GET_DEVICE_FD, PLACES[device]!.name)
    this.sys.pwrite(fd, Uint8Array.of(6, 0), (7n << 40n) + 4n)
    return fd
  }

  /** Everything that is held, and everything that can be seen of the devices, as one text. */
  state(): string {
    const m = this.#machine
    const devices: Record<string, string> = {}
    for (const f of m.fabric.functions())
      for (let at = 0; at < 0x200; at += 4)
        devices[`${formatBdf(f.bdf as never)} config 0x${at.toString(16)}`] = m.iommu.config
          .read(f.bdf, at, 4)
          .toString(16)
    return JSON.stringify({
      ...m.holdings(),
      frames: m.kernel.frames.used,
      vectors: m.interrupts.used,
      pasidsAvailable: m.ioasid.available,
      pasids: Array.from({ length: 16 }, (_, id) => [
        m.ioasid.state(id),
        m.ioasid.references(id),
        m.ioasid.spidOf(id),
      ]),
      bindings: m.iommu.bindingCount,
      requests: m.iommu.pendingPageRequests(),
      processes: m.kernel.processes.map(p => [
        p.fds.count,
        p.memory.mappedPages,
        p.memory.lockedPages,
        p.memory.pinnedPages,
      ]),
      ...devices,
      iommufd: m.vfio.iommufd?.holdings(),
    })
  }

  /** Ends every process and says what is held then. */
  empty(): string {
    for (const p of this.#machine.kernel.processes) p.exit()
    this.#machine.settle()
    const m = this.#machine
    return JSON.stringify({
      ...m.holdings(),
      frames: m.kernel.frames.used,
      vectors: m.interrupts.used,
      pasidsAvailable: m.ioasid.available,
      bindings: m.iommu.bindingCount,
      requests: m.iommu.pendingPageRequests(),
    })
  }
}

/** What a call comes to: its answer, or its errno. Anything else it throws is a defect. */
export function outcome(call: () => unknown): string {
  try {
    const answer = call()
    return typeof answer === 'number' ? String(answer) : 'done'
  } catch (error) {
    if (error instanceof ErrnoError) return error.code
    throw error
  }
}
