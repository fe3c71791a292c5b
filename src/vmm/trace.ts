// What the VMM says about itself on the trace bus: the guest's console, and what guest actions became.

import type { TraceName } from '../base/trace.js'

declare module '../base/trace.js' {
  interface TraceEvents {
    /** Container set up: what the kernel reported. */
    'vmm.container': { addressWidth: number; pasidBits: number; features: number; ramBytes: number }
    /** The guest asked its virtual IOMMU for a PASID, or gave one back. */
    'vmm.pasid': { operation: 'alloc' | 'free'; pasid: number; refused?: string }
    /** A guest PASID entry came or went, and what the ioctl answered. */
    'vmm.bind': { operation: 'bind' | 'unbind'; pasid: number; root: number; refused?: string }
    /** A guest invalidation that was passed down. `pages` is 0 for a whole PASID. */
    'vmm.invalidate': { pasid: number; address: bigint; pages: number; refused?: string }
    /** A device behind a virtual SMMU: its container is set up, guest RAM mapped. */
    'vmm.passed': { device: string; stream: number; stalling: boolean; ramBytes: number }
    /** A guest's stream table entry came, changed or went, and what SET_PASID_TABLE answered. */
    'vmm.table': {
      stream: number
      config: 'translate' | 'bypass' | 'abort'
      /** Guest physical address of the table of context descriptors, and log2 of its size; of `translate`. */
      table: number
      contextBits: number
      refused?: string
    }
    /** A guest's SMMU command that became a CACHE_INVALIDATE. Ids and ranges that it does not name are left out. */
    'vmm.smmu-invalidate': {
      stream: number
      cache: 'contexts' | 'tlb' | 'device-tlb'
      pasid?: number
      asid?: number
      address?: bigint
      pages?: number
      refused?: string
    }
    /** A stalled access on its way to the guest, and the guest's answer to it. */
    'vmm.stall': { stream: number; pasid: number; tag: number; address: bigint; write: boolean }
    'vmm.resume': { stream: number; tag: number; retry: boolean }
    /** A refused request of a device, told to the guest as an event of its SMMU. */
    'vmm.smmu-event': { stream: number; event: string; pasid: number; address: bigint }
    /** A page request on its way to the guest. */
    'vmm.page-request': {
      pasid: number
      group: number
      address: bigint
      write: boolean
      last: boolean
    }
    /** The guest's answer on its way to the device. */
    'vmm.page-response': { pasid: number; group: number; code: number }
    /** A line of the guest's console. */
    'guest.console': { line: string }
    /** The guest wrote its exit port. */
    'guest.exit': { code: number }
  }
}

/** Every event that a VMM makes: a recorded machine keeps them, so that a replay without the VMM tells the same story. */
export const VMM_EVENTS = [
  'vmm.container',
  'vmm.pasid',
  'vmm.bind',
  'vmm.invalidate',
  'vmm.passed',
  'vmm.table',
  'vmm.smmu-invalidate',
  'vmm.stall',
  'vmm.resume',
  'vmm.smmu-event',
  'vmm.page-request',
  'vmm.page-response',
  'guest.console',
  'guest.exit',
] as const satisfies readonly TraceName[]
