/** Why a function's request did not go through, by the reason its completion or the fabric gives (pci/dma.ts). */
import type { DmaFailureReason } from '../pci/dma.js'

/** One reason in words. */
export interface DmaCause {
  readonly meaning: string
  readonly section: string
  readonly cause: string
  readonly cure: string
}

const row = (meaning: string, section: string, cause: string, cure: string): DmaCause => ({
  meaning,
  section,
  cause,
  cure,
})

/** Cause and cure by reason. */
// biome-ignore format: table
export const DMA_CAUSES: Readonly<Record<DmaFailureReason, DmaCause>> = {
  'bus-master-disabled': row('the function may not issue requests', 'PCIe 7.5.1.1.3', 'Bus Master Enable is clear in the function or in a bridge above it, or the function is not in D0.', 'Set Bus Master Enable from the port down to the function, and power state D0, before starting the device.'),
  'pasid-disabled':      row('the function may not send this prefix', 'PCIe 6.20.1', 'PASID Enable is clear, or Execute or Privileged Mode was asked for without its enable; or execute or privileged without a PASID.', 'Enable PASID, and the two permissions if wanted, in the PASID capability; with VFIO that is the bind, not the guest.'),
  'pasid-width':         row('the PASID does not fit the function', 'PCIe 7.8.9.2', 'The PASID is wider than Max PASID Width.', 'Allocate PASIDs within the width of the narrowest device.'),
  blocked:               row('a port above refused the request', 'PCIe 6.12.1.1, 2.2.10.2', 'ACS Translation Blocking met a translated request, or the port forwards no PASID prefixes.', 'Disable ATS in the function, or clear Translation Blocking where the device is trusted; enable End-End TLP prefixes.'),
  refused:               row('the request was completed as Unsupported Request', 'PCIe 2.2.9', 'The IOMMU refused it; its fault record says why.', 'Look at the fault of the same requester, PASID and address.'),
  aborted:               row('the request was completed as Completer Abort', 'PCIe 2.2.9', 'The IOMMU found a table damaged, or a translation completion was malformed.', 'Look at the fault of the same requester, PASID and address.'),
  stalled:               row('the IOMMU holds the request until software decides', 'IHI 0070 3.12.2', 'The page is not there and the stream\'s faults stall (CD.S or STE.S2S): an event with Stall set went to software.', 'Map the page and answer the page request with success: CMD_RESUME lets the request go on. Any other answer aborts it.'),
  'not-present':         row('ATS: there is no translation now', 'PCIe 10.2.3', 'The page is not mapped for this PASID. No fault is recorded for that: the device is expected to ask for the page.', 'Send a page request (PRI) and retry after its response; without PRI map and pin the memory first.'),
  'no-permission':       row('ATS: the translation does not allow this access', 'PCIe 10.2.3', 'The page is mapped, but not for this access (typically read-only or copy-on-write).', 'Send a page request that asks for the permission, and retry after its response.'),
  confidential:          row('the page is not for devices', 'PCIe 2.3.1', 'The translation leads to private memory of a guest, or to the shared copy of a page that the guest has made private since it was mapped for DMA.', 'Convert the page to shared before giving its address to a device, and unmap it from the IOMMU before converting it back; the confidential-DMA checker names both histories.'),
  unclaimed:             row('nothing answers at the physical address', 'PCIe 2.3.1', 'The translation leads to a hole in the memory map, or there is no IOMMU and the address is wrong.', 'Check the mapping\'s output; peer-to-peer addresses need a BAR that is assigned and enabled.'),
}
