/** DMA that reached for memory which is not for devices, explained: what became of the page, how the device came to it. */
import { formatBdf, hex } from '../base/addr.js'
import { type ConfidentialDma, describePageState, type PageState } from '../mem/confidential.js'
import type { ExplainedNode, Explanation } from './explanation.js'

const CAUSES: Readonly<Record<PageState['kind'], readonly [cause: string, cure: string]>> = {
  private: [
    'A device address leads to a frame of a guest_memfd. No mapping for devices can be made of one, so the address is older than the page, or nobody translates it.',
    'Invalidate the device TLB and the IOTLB when memory is taken from a device, before it is given to a guest.',
  ],
  withdrawn: [
    'The guest made the page private while a device still had an address of its shared copy: a driver that converts a buffer in use, or a VMM that does not unmap what becomes private.',
    'In the guest, free the DMA buffer before converting it; in the VMM, unmap the range for devices before KVM_SET_MEMORY_ATTRIBUTES, and map it again after it is shared.',
  ],
  encrypted: [
    "A device was given the address of a page under the guest's key: the page has the C-bit in the guest's tables, or never was shared.",
    'Give devices shared pages only: bounce buffers that are mapped without the C-bit.',
  ],
}

/** A finding of the checker as an explanation; the tree is its two histories. */
export function explainConfidentialDma(found: ConfidentialDma): Explanation {
  const { requester, pasid, address, output, length, access, state, outcome, page, mapping } = found
  const who = formatBdf(requester)
  const what =
    outcome === 'refused'
      ? 'It was refused, and no byte moved.'
      : access === 'read'
        ? 'It saw ciphertext.'
        : 'The guest cannot decrypt what is there now.'
  const [cause, cure] = CAUSES[state.kind]
  const history = (text: string, lines: readonly (readonly [number, string])[]): ExplainedNode[] =>
    lines.length === 0
      ? []
      : [{ text, children: lines.map(([at, line]) => ({ text: `${at} ns  ${line}` })) }]
  return {
    title: `DMA to confidential memory: ${access} at ${hex(address)}${pasid >= 0 ? `, PASID ${pasid}` : ''}`,
    summary: `${who} wanted to ${access} ${length} bytes at ${hex(address)} and reached ${describePageState(state)}. ${what}`,
    request: [
      ['source', who],
      ['PASID', pasid >= 0 ? `${pasid} (${hex(pasid)})` : 'none'],
      ['address', hex(address)],
      ['host address', output < 0 ? 'none: the IOMMU refused it' : hex(output)],
      ['access', `${access}, ${length} bytes`],
      ['time', `${found.time} ns`],
    ],
    heading: 'What happened before',
    tree: [
      ...history(
        'the page',
        page.map(e => [e.at, `${e.state}: ${e.cause}`] as const),
      ),
      ...history(
        "the device's way to it",
        mapping.map(e => [e.at, e.what] as const),
      ),
    ],
    section: "Linux, Documentation of KVM's API: KVM_SET_MEMORY_ATTRIBUTES; AMD64 vol. 2, 15.34.9",
    cause,
    cure,
  }
}
