/**
 * What usually lies behind each VT-d fault reason, and what to do about it: a row for every reason of
 * iommu/vtd/fault-reasons.ts. Plain words for whoever wrote the driver, the VMM or the device model.
 */
import type { FaultName } from '../iommu/vtd/fault-reasons.js'

/** Likely cause and cure. */
export type CauseAndCure = readonly [cause: string, cure: string]

const LOST_TABLE =
  'The address of the structure points outside memory: it was never set, was freed, or was written as a virtual address.'
const RESERVED_CURE =
  'Write the entry from zero, set only fields whose capability is reported, and compare its size and layout with the edition of the specification that the unit follows.'
const UNREADABLE_CURE =
  'Check the pointer that leads there; it must be a physical address below the host address width, page-aligned where the field says so.'
const UNMAPPED =
  'Map the page before the device is told its address, or give the device page requests (ATS and PRI) so that the fault is handled instead of recorded.'

/** Cause and cure by reason. */
// biome-ignore format: table
export const VTD_CAUSES: Readonly<Record<FaultName, CauseAndCure>> = {
  rootEntryUnreadable:      [LOST_TABLE, UNREADABLE_CURE],
  rootEntryNotPresent:      ['No function of this bus was ever given a translation: the driver built no context table for the bus.', 'Attach the device to a domain before it may master the bus. If it should be quiet, clear its Bus Master Enable.'],
  rootEntryReserved:        ['The entry holds something else than a legacy root entry, often a scalable-mode one while RTADDR_REG.TTM says legacy.', RESERVED_CURE],
  contextEntryUnreadable:   [LOST_TABLE, UNREADABLE_CURE],
  contextEntryNotPresent:   ['The device is not attached to any domain, or was detached while it still had requests under way.', 'Attach it, or stop the device (reset or Bus Master Enable) before detaching it. A requester id of a bridge or a wrong function number gives the same picture: compare the requester with the entry that was set up.'],
  contextEntryReserved:     ['A reserved bit, a domain id wider than CAP_REG.ND allows, or a table address wider than the host address width.', RESERVED_CURE],
  contextEntryInvalid:      ['The entry asks for what this unit lacks: a translation type (TT) without ECAP_REG.DT or PT, or a width (AW) that CAP_REG.SAGAW does not list; or its table lies outside memory.', 'Choose AW from CAP_REG.SAGAW and TT from ECAP_REG.'],
  translationTypeBlocked:   ['The device used ATS, or sent translated requests, although the context entry says TT 0 or 2.', 'Set TT to 1 before ATS is enabled in the device, or leave ATS disabled. A translated request nobody allowed may also be an attack: the unit did its job.'],
  pagingEntryUnreadable:    ['A second-stage table was freed while a paging entry still pointed at it, or the entry holds a wrong address.', 'Clear the entry and invalidate the IOTLB before the table page is freed.'],
  pagingEntryReserved:      ['A bit that must be zero is set: SNP without ECAP_REG.SC, TM without DT, a large page of a size CAP_REG.SSLPS does not list, or an address wider than the host address width.', 'Mask what goes into the entry by the capabilities.'],
  addressBeyondWidth:       ['The device used an address wider than its domain: often a CPU address, or -1, in a register that wants an IOVA.', 'Limit the DMA mask to the domain width (AW, CAP_REG.MGAW); look at the descriptor the device was given.'],
  writeNotPermitted:        ['The page is mapped read-only, or not at all: legacy mode has no separate reason for a missing page.', 'Compare the entry below with the mapping: no R and no W means unmapped (mapped too late, unmapped too early, or the device ran past its buffer); R alone means the mapping lacks the write permission.'],
  readNotPermitted:         ['The page is not mapped, or is write-only: legacy mode has no separate reason for a missing page.', 'Compare the entry below with the mapping: no R and no W means unmapped (mapped too late, unmapped too early, or the device ran past its buffer).'],
  outputIsInterruptRange:   ['A mapping leads to FEEx_xxxxh, which would let a device forge interrupts.', 'Do not map this physical range; reserve it in the IOVA-to-memory map of the domain.'],

  interruptReserved:        ['The message is no well-formed remappable interrupt: data 31:16 must be zero when SHV is set.', 'Program the MSI or MSI-X entry with the address and data that the remapping driver handed out, unchanged.'],
  interruptIndexTooLarge:   ['The handle points behind the table: the vector was programmed by someone who does not know the table, or IRTA_REG.S is too small.', 'Use handles below 2^(S+1), and check who wrote the vector: with passthrough the guest must not program host vectors.'],
  irteNotPresent:           ['The vector was freed while the device still used it, or was never set up.', 'Mask the vector in the device before freeing its IRTE; allocate the IRTE before unmasking.'],
  irteUnreadable:           [LOST_TABLE, UNREADABLE_CURE],
  irteReserved:             ['A reserved bit of the IRTE: IM without CAP_REG.PI, a destination wider than EIME allows, SVT 3.', RESERVED_CURE],
  compatibilityBlocked:     ['The device sent an old-style message (address bit 4 clear) while compatibility format is blocked: its vector was programmed without remapping.', 'Take the vector from the remapping driver. To allow the old format set GCMD_REG.CFI, which gives up isolation.'],
  sourceIdRefused:          ['The message came from a function that the IRTE does not belong to: a wrong SID, a device behind a bridge that takes ownership of messages, or a function forging another one\'s interrupt.', 'Compare the requester with SID, SQ and SVT below; for devices behind a conventional PCI bridge use the bridge\'s id or a bus range.'],
  postedUnreadable:         ['The descriptor address in the IRTE (PDAH, PDAL) points outside memory: the vCPU it belonged to is gone, or the address was written as a virtual one.', 'Turn the IRTE back into a remapped one and invalidate the interrupt entry cache before the descriptor is freed.'],
  postedReserved:           ['Bits 271:258, 287:280 or 511:320 of the posted interrupt descriptor are set, or NDST is wider than IRTA_REG.EIME allows (without it the APIC id is in bits 15:8 of NDST).', 'Write the descriptor from zero, keep nothing of your own in its 64 bytes, and set NDST in the form that EIME says.'],
  notAnInterrupt:           ['A memory request to FEEx_xxxxh that is no dword write: DMA aimed at the interrupt range.', 'Keep FEE0_0000h to FEEF_FFFFh out of the IOVAs the device is given.'],

  translationModeInvalid:   ['RTADDR_REG.TTM names a mode that is reserved or that ECAP_REG.SMTS does not offer.', 'Write TTM from ECAP_REG, then issue SRTP.'],
  legacyModeWithPasid:      ['The device sends PASIDs while the unit runs in legacy mode.', 'Switch the unit to scalable mode (TTM 1, ECAP_REG.SMTS), or disable PASID in the device.'],
  legacyModePageRequest:    ['The device sends page requests while the unit runs in legacy mode.', 'Switch the unit to scalable mode, or disable PRI in the device.'],
  abortDmaMode:             ['RTADDR_REG.TTM is 3: everything is refused, usually from an early boot stage that has not handed over yet.', 'Program the root table and issue SRTP with the wanted mode.'],

  smRootEntryUnreadable:    [LOST_TABLE, UNREADABLE_CURE],
  smRootEntryNotPresent:    ['No function of this half of the bus was ever given a translation. Devices 16 to 31 use the upper half of the entry (UP, UCTP).', 'Attach the device to a domain before it may master the bus.'],
  smRootEntryReserved:      ['The entry holds a reserved bit or an address wider than the host address width.', RESERVED_CURE],
  smContextUnreadable:      [LOST_TABLE, UNREADABLE_CURE],
  smContextNotPresent:      ['The device is not attached, or was detached while it still had requests under way. Also seen when a legacy-mode entry of 16 bytes was written where scalable mode has 32.', 'Attach it; stop the device before detaching it; check the entry\'s index (function number times 32 bytes).'],
  smContextReserved:        ['A reserved bit, or DTE, PASIDE or PRE without the capability for it.', RESERVED_CURE],
  smContextInvalid:         ['PRE is set without DTE, or RID_PASID lies outside the PASID directory.', 'Set DTE with PRE; make PDTS large enough for RID_PASID.'],
  deviceTlbDisabled:        ['The device uses ATS, or sends translated requests, but its context entry has DTE clear.', 'Set DTE (and invalidate the context cache) before enabling ATS in the device; disable ATS in the device before clearing DTE.'],
  pasidDisabled:            ['The device sends a PASID but its context entry has PASIDE clear.', 'Set PASIDE (and invalidate the context cache) before enabling PASID in the device.'],
  pasidBeyondDirectory:     ['The PASID is larger than the directory that the context entry declares: 2^(PDTS+7) entries of 64 PASIDs.', 'Allocate PASIDs below that limit, or build a larger directory. Two allocators (guest and host numbers mixed up) look the same.'],
  pageRequestDisabled:      ['The device sends page requests but its context entry has PRE clear.', 'Set PRE (and invalidate the context cache) before enabling PRI in the device; stop PRI in the device and drain before clearing PRE.'],
  pasidIsRidPasid:          ['The device names, as a PASID, the number that the context entry reserves for requests without one.', 'Keep RID_PASID out of the PASID allocator.'],
  pasidDirectoryUnreadable: [LOST_TABLE, UNREADABLE_CURE],
  pasidDirectoryNotPresent: ['No PASID of this group of 64 was ever bound for this device; most often the PASID is wrong or was never bound.', 'Bind the PASID before the device is told to use it. Compare it with the number the bind returned: under a VMM guest and host PASIDs differ.'],
  pasidDirectoryReserved:   ['A reserved bit is set, or the table address is wider than the host address width.', RESERVED_CURE],
  pasidEntryUnreadable:     [LOST_TABLE, UNREADABLE_CURE],
  pasidEntryNotPresent:     ['Nothing is bound to the PASID on this device: the work was submitted before the bind, after the unbind, or with the wrong PASID. For requests without a PASID it is RID_PASID\'s entry that is missing.', 'Bind first, submit later; before unbinding, have the device finish the PASID\'s work. Bindings belong to a device: a bind on another function does not count.'],
  pasidEntryReserved:       ['A reserved bit, or a field whose capability the unit lacks (SSADE, SRE, WPE, EAFE, PWSNP, …); an address wider than the host address width.', RESERVED_CURE],
  pasidEntryInvalid:        ['PGTT, AW or FSPM ask for a mode the unit lacks, or a nested first-stage root lies outside the second stage.', 'Choose PGTT from ECAP_REG.FSTS, SSTS, NEST and PT, AW from CAP_REG.SAGAW, FSPM from CAP_REG.FS5LP.'],
  executeRequestDisabled:   ['The device asked to execute, but ERE of the PASID entry is clear.', 'Set ERE if the device may execute (ECAP_REG.ERS), or leave Execute Permission off in the device\'s PASID capability.'],
  supervisorDisabled:       ['The request carries Privileged Mode, but SRE of the PASID entry is clear: work of a process was submitted as privileged, or a kernel PASID was bound as a user one.', 'Submit without privilege, or bind with SRE for a kernel address space.'],
  fsEntryUnreadable:        ['A first-stage table page was freed while an entry still pointed at it, or the entry is damaged.', 'Invalidate PASID-based IOTLB entries before page-table pages are freed (mmu notifier order).'],
  fsEntryNotPresent:        ['The process has no page at this address: it was never touched, was unmapped, or was swapped out, and the device did not ask by a page request. A wild pointer in a descriptor looks the same.', UNMAPPED],
  fsEntryReserved:          ['A bit that must be zero is set in a first-stage entry: a large page of a size the unit lacks (CAP_REG.FS1GP), an address wider than the host address width, or XD with NXE clear.', 'Compare the entry with the processor\'s format; set NXE in the PASID entry when the process uses XD.'],
  fsTopEntryUnreadable:     ['FSPTPTR does not point at memory: the process is gone, or a virtual address was written.', 'Write the physical address of the top table (CR3 without its low bits); unbind before the process\'s tables are freed.'],
  fsAddressBeyondWidth:     ['A guest table entry leads to a guest-physical address that the second stage cannot express.', 'Check the guest\'s table; make AW wide enough for the guest\'s memory map.'],
  fsTopEntryNotReadable:    ['The guest bound a page-table root whose guest-physical address the host has not mapped.', 'Map all guest memory into the second stage (VFIO MAP_DMA) before binding; check that the guest\'s root is a guest-physical address.'],
  fsEntryNotReadable:       ['A guest page-table page lies at a guest-physical address the host has not mapped readable: ballooned away, never mapped, or a damaged entry.', 'Map all guest memory into the second stage; unmap nothing that a bound PASID\'s tables use.'],
  fsEntryNotWritable:       ['The unit must set accessed or dirty flags in the guest\'s table, but the second stage maps that page read-only.', 'Map guest memory read-write in the second stage, page-table pages included.'],
  fsFlagUpdateFailed:       ['The entry\'s flags could not be written: its page vanished under the walk.', 'Invalidate before page-table pages are freed.'],
  ssEntryUnreadable:        ['A second-stage table was freed while an entry still pointed at it.', 'Clear the entry and invalidate the IOTLB before the table page is freed.'],
  ssEntryNotPresent:        ['The address is not mapped in the domain: mapped too late, unmapped too early, or past the end of the buffer. Under nesting it is a guest-physical address the host never mapped, often MMIO or a hole.', 'Map before use and unmap after completion; under nesting map all guest RAM (VFIO MAP_DMA).'],
  ssEntryReserved:          ['A bit that must be zero is set: SNP without ECAP_REG.SC, TM without DT, a large page of a size CAP_REG.SSLPS does not list, or an address wider than the host address width.', 'Mask what goes into the entry by the capabilities.'],
  ssTopEntryUnreadable:     ['SSPTPTR does not point at memory.', UNREADABLE_CURE],
  ssFlagUpdateFailed:       ['Accessed or dirty flags of a second-stage entry could not be written.', 'Invalidate before page-table pages are freed; clear SSADE if dirty tracking is not wanted.'],
  notCanonical:             ['The upper bits of the address do not repeat its top bit: a damaged pointer, or a 5-level address with 4-level paging.', 'Look at the descriptor; set FSPM to 5-level if the process uses 57-bit addresses.'],
  userAccessToSupervisor:   ['A user request hit a page with U/S clear: a kernel address, or KPTI hides the page.', 'Give the device addresses of the process\'s own memory.'],
  executeNotPermitted:      ['The device asked to execute from a page that forbids it (XD, or X of the second stage).', 'Map the code executable, or do not request execution.'],
  hostAddressBeyondWidth:   ['A pass-through or translated request names an address the platform does not have: a CPU virtual address, or a device that invents translated addresses.', 'Check the address the device was given; a device that forges translations must not have DTE set.'],
  smAddressBeyondWidth:     ['The device used an address wider than its domain: often a CPU address, or -1, in a register that wants an IOVA.', 'Limit the DMA mask to the domain width (AW, CAP_REG.MGAW).'],
  smWriteNotPermitted:      ['The page is read-only for the device: a read-only mapping, copy-on-write memory not yet copied, or a second stage that maps it read-only.', 'Map it writable; with page requests the handler must break copy-on-write; look for the entry whose R/W or W is clear.'],
  smReadNotPermitted:       ['The page may not be read by the device: write-only in the second stage.', 'Map it readable.'],
  smOutputIsInterruptRange: ['A mapping leads to FEEx_xxxxh, which would let a device forge interrupts.', 'Do not map this physical range.'],
  pasidBeyondSize:          ['The PASID has more bits than the unit supports.', 'Allocate PASIDs below 2^(ECAP_REG.PSS+1).'],
}
