// What the fuzzer believes: processes, files, groups, containers, PASIDs and pages as plain sets and maps.
// Nothing here is shared with the product; the rules of the calls are in calls.ts, those of DMA in dma.ts.

/** Pages of a process that take part. */
export const PAGES = 12
/** PASIDs of one process. */
export const QUOTA = 3
/** PASIDs of the system, 0 included; half of them are the host's. */
export const CAPACITY = 18
/** Mappings of one container. */
export const ENTRY_LIMIT = 6
/** RLIMIT_MEMLOCK of every process, pages. */
export const MEMLOCK = 30
/**
 * Page of the first address that a guest's tables map; they map few. Not among the pages that containers map, so
 * that an invalidation of the one is none of the other.
 */
export const GUEST_PAGE = 128
/** Size of the PASID space the hardware reports. */
export const PASID_LIMIT = 2 ** 20

/** One physical page, known by what it holds: a tag that DMA moves, and entries of a table. */
export interface Page {
  readonly id: number
  tag: number
  /** By index; a frame number, in the guest's view, with flags: see ENTRY. */
  readonly entries: Map<number, number>
}

/** Flags of a table entry beside the frame number, which is above them. */
export const ENTRY = { WRITE: 2, FRAME: 4096 } as const

/** A process, and its address space. */
export interface Process {
  readonly id: number
  alive: boolean
  readonly fds: Map<number, File>
  readonly pages: readonly Page[]
  protection: 'rw' | 'ro' | 'none'
  /** Pages on its locked account. */
  locked: number
}

/** An open file description. */
export interface File {
  readonly kind: 'container' | 'group' | 'device'
  readonly container?: Container
  readonly group?: Group
  readonly device?: Device
  /** Descriptors of all processes. */
  references: number
}

/** A container; `driver` from SET_IOMMU until its last group leaves. */
export interface Container {
  readonly id: number
  readonly groups: Group[]
  driver: Driver | undefined
}

/** What SET_IOMMU makes. */
export interface Driver {
  readonly type: number
  /** By first page of IOVA, ascending. */
  mappings: Mapping[]
  readonly context: Context | undefined
}

/** One DMA mapping. */
export interface Mapping {
  readonly iova: number
  readonly owner: Process
  readonly pages: readonly Page[]
  /** 1 the device may read, 2 it may write. */
  readonly access: number
}

/** The PASIDs of one address space, while a nesting container of it has a group. */
export interface Context {
  readonly process: Process
  references: number
}

/** A PASID that is not in the pool. */
export interface Pasid {
  readonly id: number
  readonly context: Context
  /** Freed, and still bound when it was: it goes when deferred work runs, at some time. */
  pending: boolean
  guest: number | undefined
  /** Devices it is bound on, with the guest's root. */
  readonly bindings: Map<Device, Binding>
}

/** A guest's table on a device. */
export interface Binding {
  readonly container: Container
  readonly root: number
  readonly named: boolean
}

/** A group of devices. */
export interface Group {
  readonly number: number
  readonly devices: Device[]
  open: boolean
  container: Container | undefined
  /** The group file in a container, and device files. */
  users: number
}

/** What a device is. */
export interface DeviceFacts {
  readonly name: string
  readonly group: number
  readonly pasidWidth: number
  readonly pri: boolean
  /** Driven through registers instead of by hand. */
  readonly copies: boolean
}

/** A device and what users made of it. */
export interface Device {
  readonly index: number
  readonly facts: DeviceFacts
  readonly group: Group
  /** Device files. */
  opens: number
  /** Bus mastering. */
  master: boolean
  /** It was opened on a nesting container: faults have somewhere to go. */
  delivers: boolean
  /** A FAILURE response stopped its page requests. */
  stopped: boolean
  requests: PageRequest[]
}

/** A page request of a device. */
export interface PageRequest {
  readonly pasid: number
  readonly page: number
  /** sent: on its way; waiting: the user has it; unclear: one of the others; over: nobody waits for it any more. */
  state: 'sent' | 'waiting' | 'unclear' | 'over'
  /** Something happened that may have answered it, or made the device forget it. */
  disturbed: boolean
  /** The code that the device must see. */
  answer: number | undefined
}

/** What the whole machine may and may not do now. */
export interface State {
  readonly processes: Process[]
  readonly groups: Group[]
  readonly devices: Device[]
  readonly containers: Set<Container>
  readonly contexts: Map<Process, Context>
  readonly pasids: Map<number, Pasid>
  /** Answers that an IOMMU or a device may still remember, by container, PASID and page. */
  readonly remembered: Map<Container, Map<string, Translation[]>>
  /** The last DMA that went through: what comes next is often about it. */
  used: Used | undefined
  /** How many pages and tags there have been, so that each is new. */
  readonly made: { pages: number; tags: number }
}

/** A device's use of an address. */
export interface Used {
  readonly device: Device
  readonly pasid: number | undefined
  readonly page: number
}

/** Where an address leads, and what may be done there. */
export interface Translation {
  readonly page: Page
  readonly access: number
}

/** A machine with nobody in it. */
export function emptyState(facts: readonly DeviceFacts[]): State {
  const groups: Group[] = []
  const devices = facts.map((f, index) => {
    let group = groups.find(g => g.number === f.group)
    if (group === undefined)
      groups.push(
        (group = { number: f.group, devices: [], open: false, container: undefined, users: 0 }),
      )
    const device: Device = {
      index,
      facts: f,
      group,
      opens: 0,
      master: false,
      delivers: false,
      stopped: false,
      requests: [],
    }
    group.devices.push(device)
    return device
  })
  return {
    processes: [],
    groups,
    devices,
    containers: new Set(),
    contexts: new Map(),
    pasids: new Map(),
    remembered: new Map(),
    used: undefined,
    made: { pages: 0, tags: 0 },
  }
}
