/**
 * Numbers that the PCI specifications assign: capability ids, class codes, configuration offsets that
 * software uses by name. Only what this project uses; the full lists are PCI Code and ID Assignment.
 */

/** Capability ids of the first 256 bytes (PCI Code and ID Assignment, 2). */
export const CAPABILITY = {
  POWER_MANAGEMENT: 0x01,
  MSI: 0x05,
  PCI_EXPRESS: 0x10,
  MSIX: 0x11,
} as const

/** Extended capability ids (PCI Code and ID Assignment, 3). */
export const EXTENDED = {
  AER: 0x0001,
  ACS: 0x000d,
  ATS: 0x000f,
  SRIOV: 0x0010,
  PRI: 0x0013,
  PASID: 0x001b,
} as const

/** Names for listings, by capability id. */
export const CAPABILITY_NAMES: Readonly<Record<number, string>> = {
  [CAPABILITY.POWER_MANAGEMENT]: 'Power Management',
  [CAPABILITY.MSI]: 'MSI',
  [CAPABILITY.PCI_EXPRESS]: 'PCI Express',
  [CAPABILITY.MSIX]: 'MSI-X',
}

/** Names for listings, by extended capability id. */
export const EXTENDED_NAMES: Readonly<Record<number, string>> = {
  [EXTENDED.AER]: 'Advanced Error Reporting',
  [EXTENDED.ACS]: 'Access Control Services',
  [EXTENDED.ATS]: 'Address Translation Services',
  [EXTENDED.SRIOV]: 'Single Root I/O Virtualization',
  [EXTENDED.PRI]: 'Page Request Interface',
  [EXTENDED.PASID]: 'Process Address Space ID',
}

/** Class codes: base class 23:16, sub-class 15:8, programming interface 7:0. */
export const CLASS_CODE = {
  HOST_BRIDGE: 0x06_0000,
  PCI_BRIDGE: 0x06_0400,
  SYSTEM_PERIPHERAL: 0x08_8000,
  PROCESSING_ACCELERATOR: 0x12_0000,
} as const

/** Names for listings, by the upper 16 bits of the class code. */
export const CLASS_NAMES: Readonly<Record<number, string>> = {
  1536: 'Host bridge',
  1540: 'PCI bridge',
  2176: 'System peripheral',
  4608: 'Processing accelerators',
  255: 'Unclassified device',
}

/** Offset of the Command register, PCIe 7.5.1.1.3. */
export const PCI_COMMAND = 0x04
/** Command: Memory Space Enable. */
export const PCI_COMMAND_MEMORY = 0x2
/** Command: Bus Master Enable. */
export const PCI_COMMAND_MASTER = 0x4
/** Command: Interrupt Disable. */
export const PCI_COMMAND_INTX_DISABLE = 0x400
/** Offset of the first Base Address Register. */
export const PCI_BASE_ADDRESS_0 = 0x10
/** Bytes of a function's configuration space. */
export const CONFIG_SIZE = 4096
/** Where the extended capabilities start. */
export const EXTENDED_START = 0x100
