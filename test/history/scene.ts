// A process that plays VMM and guest on a recorded machine: a guest's table bound to a PASID, and a device that asks
// for the page that the table lacks. Only system calls, so that everything it does is history.
import { iova, pasid } from '../../src/base/addr.js'
import { bank, bits, r32, r64, u64 } from '../../src/base/fields.js'
import type { Machine, MachineDescription } from '../../src/machine.js'
import { createMachine } from '../../src/machine.js'
import { ats, defineDevice, msix, pasidCapability, pri } from '../../src/pci/device-model.js'
import type { Sys } from '../../src/sys/sys.js'
import { s32 } from '../../src/sys/sys.js'
import * as uapi from '../../src/uapi.js'

export const PENDING = 0
export const DONE = 1
export const FAILED = 2
const GVA = 0x40_0000
const region = (index: number) => BigInt(index) << 40n

/** Reads 8 bytes at ADDR under PASID, asking for the page when it is missing; `value` shows in every result. */
export const reader = (value: () => bigint = () => 0n) =>
  defineDevice({
    name: 'reader',
    identity: { vendorId: 1, deviceId: 3, classCode: 0x088000 },
    capabilities: [
      msix({ vectors: 1, bar: 2 }),
      ats(),
      pri({ capacity: 8 }),
      pasidCapability({ width: 20 }),
    ],
    bar0: bank('reader', {
      ADDR: r64(0x00, '1', { VALUE: u64(63, 0, 'rw', 'where') }),
      DATA: r64(0x08, '2', { VALUE: u64(63, 0, 'ro', 'what was there') }),
      PASID: r32(0x10, '3', { ID: bits(19, 0, 'rw', 'under') }),
      STATE: r32(0x14, '4', { STATE: bits(1, 0, 'ro', '0 pending, 1 done, 2 failed') }),
      GO: r32(0x18, '5', { GO: bits(0, 0, 'wo', 'begin') }),
    }),
    create(port, regs) {
      const run = () => {
        const tag = { pasid: pasid(regs.PASID.ID) }
        const data = new Uint8Array(8)
        const at = iova(regs.ADDR.VALUE)
        const result = port.dma.read(at, data, tag)
        regs.DATA.VALUE = new DataView(data.buffer).getBigUint64(0, true) + value()
        regs.STATE.STATE = result.ok ? DONE : FAILED
        if (result.ok || !result.recoverable) return
        const asked = port.dma.pageRequest(at, {}, tag, code => {
          if (code === 0) port.later(run)
          else regs.STATE.STATE = FAILED
        })
        if (asked.ok) regs.STATE.STATE = PENDING
      }
      return { onWrite: { GO: () => port.later(run) } }
    },
  })

export const description = {
  ramBytes: 16 * 2 ** 20,
  devices: [{ at: '0000:01:00.0', model: reader() }],
} satisfies MachineDescription

/** Descriptors and addresses of the process, which a restored machine has under the same numbers. */
export interface Scene {
  readonly pid: number
  readonly device: number
  readonly eventfd: number
  readonly table: bigint
  readonly window: bigint
  readonly id: number
}

/**
 * Sets everything up and rings the doorbell: the page request waits for an answer. `before` runs when the guest's memory
 * is there and no PASID yet.
 */
export function begin(
  machine: Machine,
  before: (sys: Sys, table: bigint) => void = () => {},
): Scene {
  const sys = machine.spawn({ memlock: 2 ** 26 })
  const container = sys.open('/dev/vfio/vfio')
  const group = sys.open(machine.groupOf('0000:01:00.0'))
  sys.ioctl(group, uapi.VFIO_GROUP_SET_CONTAINER, s32(container))
  sys.ioctl(container, uapi.VFIO_SET_IOMMU, uapi.VFIO_TYPE1_NESTING_IOMMU)
  const guest = sys.mmap(0x10000)
  before(sys, guest.vaddr)
  const size = 0x10000n
  const flags = 3
  const map = uapi.vfio_iommu_type1_dma_map({ flags, vaddr: guest.vaddr, iova: 0n, size })
  sys.ioctl(container, uapi.VFIO_IOMMU_MAP_DMA, map)
  const words = new DataView(guest.bytes.buffer, guest.bytes.byteOffset, 0x10000)
  words.setBigUint64(0x1000, 0x2007n, true)
  words.setBigUint64(0x2000, 0x3007n, true)
  words.setBigUint64(0x3010, 0x4007n, true)
  words.setBigUint64(0x5008, 0x1234_5678n, true)

  const device = sys.ioctl(group, uapi.VFIO_GROUP_GET_DEVICE_FD, '0000:01:00.0')
  sys.pwrite(device, Uint8Array.of(6, 0), region(7) + 4n)
  const window = sys.mmap({ fd: device, offset: 0, length: 0x1000 })
  const request = uapi.vfio_iommu_type1_pasid_request({
    flags: uapi.VFIO_IOMMU_FLAG_ALLOC_PASID,
    range: { min: 1, max: 100 },
  })
  const id = sys.ioctl(container, uapi.VFIO_IOMMU_PASID_REQUEST, request)
  const bind = uapi.iommu_gpasid_bind_data({
    argsz: 72,
    version: uapi.IOMMU_GPASID_BIND_VERSION_1,
    format: uapi.IOMMU_PASID_FORMAT_INTEL_VTD,
    addr_width: 48,
    hpasid: BigInt(id),
    gpgd: 0x1000n,
  })
  const op = uapi.vfio_iommu_type1_nesting_op(
    { flags: uapi.VFIO_IOMMU_NESTING_OP_BIND_PGTBL },
    bind.bytes.length,
  )
  op.bytes.set(bind.bytes, op.bytes.length - bind.bytes.length)
  sys.ioctl(container, uapi.VFIO_IOMMU_NESTING_OP, op)

  const eventfd = sys.eventfd()
  const fds = new Uint8Array(Int32Array.of(eventfd).buffer)
  const trigger = uapi.VFIO_IRQ_SET_DATA_EVENTFD | uapi.VFIO_IRQ_SET_ACTION_TRIGGER
  const irqs = uapi.vfio_irq_set({ flags: trigger, index: 5, count: 1, data: fds })
  sys.ioctl(device, uapi.VFIO_DEVICE_SET_IRQS, irqs)

  window.store(0, 8, BigInt(GVA + 8))
  window.store(0x10, 4, BigInt(id))
  window.store(0x18, 4, 1n)
  machine.settle()
  const scene = { pid: sys.process.pid, device, eventfd, table: guest.vaddr, window: window.vaddr }
  return { ...scene, id }
}

/** The guest's handler puts the page in, or does not; the VMM answers the request. */
export function answer(machine: Machine, scene: Scene, code: number): void {
  const sys = sysOf(machine, scene)
  const { device } = scene
  if (code === uapi.IOMMU_PAGE_RESP_SUCCESS) {
    const entry = sys.process.memory.bytesAt(scene.table + 0x4000n, 8)!
    new DataView(entry.buffer, entry.byteOffset).setBigUint64(0, 0x5007n, true)
  }
  const ring = uapi.vfio_region_dma_fault()
  sys.pread(device, ring.bytes, region(9))
  const fault = uapi.iommu_fault()
  sys.pread(device, fault.bytes, region(9) + BigInt(ring.offset))
  const answers = uapi.vfio_region_dma_fault_response()
  sys.pread(device, answers.bytes, region(10))
  const response = uapi.iommu_page_response({
    version: 1,
    flags: uapi.IOMMU_PAGE_RESP_PASID_VALID,
    pasid: fault.event.prm.pasid,
    grpid: fault.event.prm.grpid,
    code,
  })
  sys.pwrite(device, response.bytes, region(10) + BigInt(answers.offset))
  sys.pwrite(device, new Uint8Array(Uint32Array.of(1).buffer), region(10))
  machine.settle()
}

/** The device's STATE and DATA, as the process reads them. */
export function result(machine: Machine, scene: Scene): [number, bigint] {
  const sys = sysOf(machine, scene)
  const state = new Uint8Array(4)
  sys.pread(scene.device, state, 0x14n)
  const data = new Uint8Array(8)
  sys.pread(scene.device, data, 8n)
  return [state[0]!, new DataView(data.buffer).getBigUint64(0, true)]
}

export function sysOf(machine: Machine, { pid }: Scene): Sys {
  const sys = machine.process(pid)
  if (sys === undefined) throw new Error(`there is no process ${pid}`)
  return sys
}

export const recorded = (): Machine => createMachine({ ...description, record: true })
