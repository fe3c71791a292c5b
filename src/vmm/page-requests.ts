// Carries page requests from the device's fault region to the guest's virtual IOMMU, and the guest's
// answers back through the response region (vsva-uapi 2.10, offered under V7R as an extension).

import { halves, split } from '../base/addr.js'
import { ErrnoError } from '../base/errno.js'
import type { TraceBus } from '../base/trace.js'
import {
  IOMMU_FAULT_DMA_UNRECOV,
  IOMMU_FAULT_PAGE_REQ,
  IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE,
  IOMMU_FAULT_PAGE_REQUEST_PASID_VALID,
  IOMMU_FAULT_PERM_EXEC,
  IOMMU_FAULT_PERM_PRIV,
  IOMMU_FAULT_PERM_READ,
  IOMMU_FAULT_PERM_WRITE,
  IOMMU_PAGE_RESP_FAILURE,
  IOMMU_PAGE_RESP_INVALID,
  IOMMU_PAGE_RESP_PASID_VALID,
  IOMMU_PAGE_RESP_SUCCESS,
  IOMMU_PAGE_RESP_VERSION_1,
  iommu_fault,
  iommu_page_response,
} from '../iommu/uapi.js'
import type { PageGroupResponse, PageRequest } from '../pci/request.js'
import type { Sys } from '../sys/sys.js'
import {
  VFIO_DEVICE_GET_INFO,
  VFIO_DEVICE_GET_IRQ_INFO,
  VFIO_DEVICE_GET_REGION_INFO,
  VFIO_DEVICE_SET_IRQS,
  VFIO_IRQ_INFO_CAP_TYPE,
  VFIO_IRQ_SET_ACTION_TRIGGER,
  VFIO_IRQ_SET_DATA_EVENTFD,
  VFIO_IRQ_SUBTYPE_DMA_FAULT,
  VFIO_IRQ_TYPE_NESTED,
  VFIO_PCI_NUM_IRQS,
  VFIO_PCI_NUM_REGIONS,
  VFIO_REGION_INFO_CAP_TYPE,
  VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT,
  VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT_RESPONSE,
  VFIO_REGION_TYPE_NESTED,
  vfio_device_info,
  vfio_irq_info_cap_type,
  vfio_irq_info_caps,
  vfio_irq_set,
  vfio_region_dma_fault,
  vfio_region_dma_fault_response,
  vfio_region_info,
  vfio_region_info_cap_type,
} from '../vfio/uapi/vfio.js'
import { findCapability, infoWithCapabilities } from './container.js'
import './trace.js'

/** PRI response codes (PCIe 10.4.2.1) to what VFIO calls them. */
const RESPONSE: Readonly<Record<number, number>> = {
  0: IOMMU_PAGE_RESP_SUCCESS,
  1: IOMMU_PAGE_RESP_INVALID,
  15: IOMMU_PAGE_RESP_FAILURE,
}

/** A request of the device that was refused, as the kernel tells it. */
export type UnrecoverableFault = ReturnType<typeof iommu_fault>['event']['event']

/** The fault regions of one device. */
export class PageRequestChannel {
  /** Signalled by the kernel for every record. */
  readonly eventfd: number
  readonly #sys: Sys
  readonly #device: number
  readonly #faults: bigint
  readonly #responses: bigint
  readonly #ring
  readonly #answers
  readonly #requestPoint
  readonly #responsePoint
  #tail = 0
  #head = 0

  /** Finds regions and interrupt by their type capabilities; ENODEV when the kernel offers none. */
  constructor(sys: Sys, device: number, trace: TraceBus) {
    this.#sys = sys
    this.#device = device
    this.#requestPoint = trace.point('vmm.page-request')
    this.#responsePoint = trace.point('vmm.page-response')
    const info = vfio_device_info()
    sys.ioctl(device, VFIO_DEVICE_GET_INFO, info)
    this.#faults = this.#findRegion(info.num_regions, VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT)
    this.#responses = this.#findRegion(
      info.num_regions,
      VFIO_REGION_SUBTYPE_NESTED_DMA_FAULT_RESPONSE,
    )
    this.#ring = vfio_region_dma_fault()
    sys.pread(device, this.#ring.bytes, this.#faults)
    this.#answers = vfio_region_dma_fault_response()
    sys.pread(device, this.#answers.bytes, this.#responses)
    this.#tail = this.#ring.head
    this.#head = this.#answers.tail

    this.eventfd = sys.eventfd()
    const data = new Uint8Array(4)
    new DataView(data.buffer).setInt32(0, this.eventfd, true)
    const flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER
    const index = this.#findIrq(info.num_irqs)
    sys.ioctl(device, VFIO_DEVICE_SET_IRQS, vfio_irq_set({ flags, index, count: 1, data }))
  }

  /**
   * Hands every new page request to `deliver`, and every refused request to `refused`. One that the guest cannot
   * take is answered INVALID at once, so that the device never waits for nobody.
   */
  poll(
    guestBdf: number,
    deliver: (request: PageRequest) => boolean,
    refused?: (fault: UnrecoverableFault) => void,
  ): void {
    if (this.#sys.readable(this.eventfd)) this.#sys.read(this.eventfd, new Uint8Array(8))
    this.#sys.pread(this.#device, this.#ring.bytes, this.#faults)
    const record = iommu_fault()
    while (this.#tail !== this.#ring.head) {
      const at = this.#ring.offset + this.#tail * this.#ring.entry_size
      this.#sys.pread(this.#device, record.bytes, this.#faults + BigInt(at))
      this.#tail = (this.#tail + 1) % this.#ring.nb_entries
      this.#putU32(this.#faults, this.#tail)
      if (record.type === IOMMU_FAULT_PAGE_REQ) this.#deliver(record, guestBdf, deliver)
      else if (record.type === IOMMU_FAULT_DMA_UNRECOV) refused?.(record.event.event)
    }
  }

  /** Sends the guest's answer to the device. */
  respond(response: PageGroupResponse): void {
    const code = RESPONSE[response.code] ?? IOMMU_PAGE_RESP_INVALID
    const hasPasid = response.pasid >= 0
    const record = iommu_page_response({
      version: IOMMU_PAGE_RESP_VERSION_1,
      flags: hasPasid ? IOMMU_PAGE_RESP_PASID_VALID : 0,
      pasid: hasPasid ? response.pasid : 0,
      grpid: response.prgIndex,
      code,
    })
    const at = this.#answers.offset + this.#head * this.#answers.entry_size
    this.#sys.pwrite(this.#device, record.bytes, this.#responses + BigInt(at))
    this.#head = (this.#head + 1) % this.#answers.nb_entries
    this.#putU32(this.#responses, this.#head)
    if (this.#responsePoint.on)
      this.#responsePoint.emit({ pasid: response.pasid, group: response.prgIndex, code })
  }

  close(): void {
    this.#sys.close(this.eventfd)
  }

  #deliver(
    record: ReturnType<typeof iommu_fault>,
    requester: number,
    deliver: (request: PageRequest) => boolean,
  ): void {
    const { flags, pasid, grpid, perm, addr } = record.event.prm
    split(addr)
    const hasPasid = (flags & IOMMU_FAULT_PAGE_REQUEST_PASID_VALID) !== 0
    const request: PageRequest = {
      requester,
      pasid: hasPasid ? pasid : -1,
      hi: halves[1]!,
      lo: halves[0]!,
      read: (perm & IOMMU_FAULT_PERM_READ) !== 0,
      write: (perm & IOMMU_FAULT_PERM_WRITE) !== 0,
      execute: (perm & IOMMU_FAULT_PERM_EXEC) !== 0,
      privileged: (perm & IOMMU_FAULT_PERM_PRIV) !== 0,
      prgIndex: grpid,
      last: (flags & IOMMU_FAULT_PAGE_REQUEST_LAST_PAGE) !== 0,
    }
    if (this.#requestPoint.on) {
      const { write, last } = request
      this.#requestPoint.emit({ pasid, group: grpid, address: addr, write, last })
    }
    if (!deliver(request) && request.last)
      this.respond({ requester, pasid: request.pasid, prgIndex: grpid, code: 1 })
  }

  #putU32(region: bigint, value: number): void {
    const bytes = new Uint8Array(4)
    new DataView(bytes.buffer).setUint32(0, value, true)
    this.#sys.pwrite(this.#device, bytes, region)
  }

  #findRegion(regions: number, subtype: number): bigint {
    for (let index = VFIO_PCI_NUM_REGIONS; index < regions; index++) {
      const info = infoWithCapabilities(
        this.#sys,
        this.#device,
        VFIO_DEVICE_GET_REGION_INFO,
        vfio_region_info,
        (argsz, tail) => vfio_region_info({ argsz, index }, tail),
      )
      const at = findCapability(info.bytes, info.cap_offset, VFIO_REGION_INFO_CAP_TYPE)
      if (at === undefined) continue
      const cap = vfio_region_info_cap_type.at(info.bytes, at)
      if (cap.type === VFIO_REGION_TYPE_NESTED && cap.subtype === subtype) return info.offset
    }
    throw new ErrnoError(
      'ENODEV',
      'VFIO_DEVICE_GET_REGION_INFO: no region that delivers page requests',
    )
  }

  #findIrq(irqs: number): number {
    for (let index = VFIO_PCI_NUM_IRQS; index < irqs; index++) {
      const info = infoWithCapabilities(
        this.#sys,
        this.#device,
        VFIO_DEVICE_GET_IRQ_INFO,
        vfio_irq_info_caps,
        (argsz, tail) => vfio_irq_info_caps({ argsz, index }, tail),
      )
      const at = findCapability(info.bytes, info.cap_offset, VFIO_IRQ_INFO_CAP_TYPE)
      if (at === undefined) continue
      const cap = vfio_irq_info_cap_type.at(info.bytes, at)
      if (cap.type === VFIO_IRQ_TYPE_NESTED && cap.subtype === VFIO_IRQ_SUBTYPE_DMA_FAULT)
        return index
    }
    throw new ErrnoError('ENODEV', 'VFIO_DEVICE_GET_IRQ_INFO: no interrupt for page requests')
  }
}
