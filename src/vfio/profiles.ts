// The one table of differences between the revisions of the interface. Behaviour reads a rule by name and
// never asks which profile it is in. Sources: vSVA v7 and its review, v8, Linux 5.9, 5.12
// and 7.2, "SMMUv3 Nested Stage Setup (VFIO part)" v13 (N13: L512 with its calls).

/** Revisions of the interface that can be selected. */
export type ProfileName = 'V7R' | 'V7' | 'V8' | 'L59' | 'L512' | 'L72' | 'N13'

/** Capabilities of GET_INFO that a profile emits, in order. */
export type InfoCapability = 'migration' | 'dma-avail' | 'iova-range' | 'nesting'

/** Container calls that not every profile has. */
export type ContainerCall =
  | 'pasid-request'
  | 'nesting-op'
  | 'set-pasid-table'
  | 'cache-invalidate'
  | 'set-msi-binding'

/** What a profile decides; one row of the table each. */
export interface Rules {
  /** IOMMU type 6 exists. */
  readonly nestingType: boolean
  /** Attach to a nesting container asks the driver for nesting info and refuses what cannot nest. */
  readonly nestingInfo: boolean
  /** Container ioctls beyond the stock ones: number minus VFIO_BASE. */
  readonly calls: Readonly<Partial<Record<ContainerCall, number>>>
  /** Capabilities of GET_INFO, in order. */
  readonly infoCapabilities: readonly InfoCapability[]
  /** Capability id of NESTING. */
  readonly nestingCapability: number
  /** Feature bits and VT-d layout of the nesting info: v8 dropped SYSWIDE_PASID and made the gap explicit. */
  readonly reportedFeatures: 'v7' | 'v8'
  /** PASIDs come from /dev/ioasid, and only their owner may bind them; otherwise containers hand them out. */
  readonly pasidFile: boolean
  /** Capabilities start at multiples of this, bytes. */
  readonly capabilityAlign: number
  /** A range that touches 2^31 itself passes the PASID range check. */
  readonly pasidLimitIncluded: boolean
  /** Requests are clamped to pasid_bits and attach refuses more than 31. */
  readonly pasidBitsHonoured: boolean
  /** A failed bind undoes the devices this call bound, or every device of the group. */
  readonly bindRollback: 'own' | 'all'
  /** PASIDs of unbind and invalidation payloads lose their upper 32 bits. */
  readonly pasidNarrowed: boolean
  /** Nesting info without a format fails the attach, or GET_INFO. */
  readonly noFormat: 'attach' | 'info'
  /** A second group is refused by a nesting container. */
  readonly oneNestedGroup: boolean
  /** DMA-fault and response regions with their interrupt (an extension under V7R: no vSVA call delivers faults). */
  readonly faultRegions: boolean
  /** UNMAP_DMA ALL. */
  readonly unmapAll: boolean
  /** MAP_DMA and UNMAP_DMA VADDR; `after-set`: reported once a driver is set. */
  readonly updateVaddr: false | 'always' | 'after-set'
  /** errno of a range that wraps, and whether that is tested before alignment. */
  readonly wrap: 'EINVAL' | 'EOVERFLOW'
  readonly wrapFirst: boolean
  /** UNMAP_DMA stops, with success, at a mapping that another process made. */
  readonly foreignUnmapStops: boolean
  /** GET_STATUS: CONTAINER_SET only together with VIABLE. */
  readonly containerImpliesViable: boolean
  /** SET_CONTAINER with a descriptor that is negative, and with one that is no container. */
  readonly negativeFd: 'EINVAL' | 'EBADF'
  readonly notContainer: 'EINVAL' | 'EBADFD'
  /** A group that is not viable is refused at SET_CONTAINER (EPERM) rather than at GET_DEVICE_FD. */
  readonly viableAtSetContainer: boolean
  /** GET_DEVICE_FD looks the name up before it asks about container and viability. */
  readonly deviceNameFirst: boolean
  /** GET_INFO of a device knows cap_offset. */
  readonly deviceInfoCapOffset: boolean
  /** The PASID extended capability is visible, read-only. */
  readonly pasidCapability: boolean
  /** MSI-X vectors can be added while others are enabled: no NORESIZE. */
  readonly dynamicMsix: boolean
  /** /dev/iommu, device files, and an iommufd in a container's place. */
  readonly iommufd: boolean
  /** Device feature indices known. */
  readonly features: readonly number[]
}

const V8_CALLS = { 'nesting-op': 18 } as const
const V8_INFO = ['migration', 'dma-avail', 'iova-range', 'nesting'] as const
const V7_CALLS = { 'pasid-request': 18, 'nesting-op': 19 } as const
const N13_CALLS = { 'set-pasid-table': 18, 'cache-invalidate': 19, 'set-msi-binding': 20 } as const
const NESTED = ['migration', 'iova-range', 'nesting'] as const
const STOCK = ['migration', 'dma-avail', 'iova-range'] as const
const EARLY = ['migration', 'iova-range'] as const
// VF token, migration and its state, DMA logging, data size, bus master.
const FEATURES = [0, 1, 2, 6, 7, 8, 9, 10] as const

type Table = {
  readonly [R in keyof Rules]: readonly [
    Rules[R],
    Rules[R],
    Rules[R],
    Rules[R],
    Rules[R],
    Rules[R],
    Rules[R],
  ]
}
const columns: readonly ProfileName[] = ['V7R', 'V7', 'V8', 'L59', 'L512', 'L72', 'N13']
// biome-ignore format: table
const table: Table = {
  //                       V7R        V7         V8         L59        L512       L72           N13
  nestingType:            [true,      true,      true,      true,      true,      false,        true],
  nestingInfo:            [true,      true,      true,      false,     false,     false,        false],
  calls:                  [V7_CALLS,  V7_CALLS,  V8_CALLS,  {},        {},        {},           N13_CALLS],
  infoCapabilities:       [NESTED,    NESTED,    V8_INFO,   EARLY,     STOCK,     STOCK,        STOCK],
  nestingCapability:      [3,         3,         4,         0,         0,         0,            0],
  capabilityAlign:        [1,         1,         1,         1,         1,         8,            1],
  pasidLimitIncluded:     [false,     true,      false,     false,     false,     false,        false],
  pasidBitsHonoured:      [true,      false,     true,      true,      true,      true,         true],
  bindRollback:           ['own',     'all',     'own',     'own',     'own',     'own',        'own'],
  pasidNarrowed:          [false,     true,      false,     false,     false,     false,        false],
  noFormat:               ['attach',  'info',    'attach',  'attach',  'attach',  'attach',     'attach'],
  oneNestedGroup:         [true,      true,      true,      false,     false,     false,        false],
  faultRegions:           [true,      false,     false,     false,     false,     false,        true],
  unmapAll:               [false,     false,     true,      false,     true,      true,         true],
  updateVaddr:            [false,     false,     'always',  false,     'always',  'after-set',  'always'],
  wrap:                   ['EINVAL',  'EINVAL',  'EINVAL',  'EINVAL',  'EINVAL',  'EOVERFLOW',  'EINVAL'],
  wrapFirst:              [false,     false,     false,     false,     false,     true,         false],
  foreignUnmapStops:      [true,      true,      true,      true,      true,      false,        true],
  containerImpliesViable: [false,     false,     false,     false,     false,     true,         false],
  negativeFd:             ['EINVAL',  'EINVAL',  'EINVAL',  'EINVAL',  'EINVAL',  'EBADF',      'EINVAL'],
  notContainer:           ['EINVAL',  'EINVAL',  'EINVAL',  'EINVAL',  'EINVAL',  'EBADFD',     'EINVAL'],
  viableAtSetContainer:   [false,     false,     false,     false,     false,     true,         false],
  deviceNameFirst:        [false,     false,     false,     false,     false,     true,         false],
  deviceInfoCapOffset:    [false,     false,     true,      false,     true,      true,         true],
  pasidCapability:        [true,      true,      true,      false,     false,     false,        false],
  dynamicMsix:            [false,     false,     false,     false,     false,     true,         false],
  iommufd:                [false,     false,     false,     false,     false,     true,         false],
  features:               [[0],       [0],       [0],       [0],       [0],       FEATURES,     [0]],
  reportedFeatures:       ['v7',      'v7',      'v8',      'v7',      'v7',      'v7',         'v7'],
  pasidFile:              [false,     false,     true,      false,     false,     false,        false],
}

/** Names that `rulesOf` knows. */
export const profileNames: readonly ProfileName[] = columns

/** The rules of one profile. */
export function rulesOf(name: ProfileName): Rules {
  const column = columns.indexOf(name)
  if (column < 0) throw new Error(`unknown profile ${name}; known: ${columns.join(', ')}`)
  return Object.freeze(
    Object.fromEntries(
      Object.entries(table).map(([rule, values]) => [rule, values[column]]),
    ) as unknown as Rules,
  )
}
