// The public bench (src/testing) in the words of this room's tests: parts of the machine by name, and a program whose
// bind data is written out. `check` compares what is held with the state after building.
import { expect } from 'vitest'
import { ErrnoError, type ErrnoName } from '../../src/base/errno.js'
import { bank, bits, r32 } from '../../src/base/fields.js'
import type { CapabilityFactory } from '../../src/pci/capability.js'
import { defineDevice } from '../../src/pci/device-model.js'
import { dmaCopy } from '../../src/pci/devices/dma-copy.js'
import type { ProcessOptions } from '../../src/sys/process.js'
import { type IoctlArgument, Sys, s32 } from '../../src/sys/sys.js'
import { Bench, type BenchOptions, READ_WRITE } from '../../src/testing/index.js'
import {
  IOMMU_GPASID_BIND_VERSION_1,
  IOMMU_PASID_FORMAT_INTEL_VTD,
  iommu_gpasid_bind_data,
  VFIO_GROUP_GET_DEVICE_FD,
  VFIO_GROUP_SET_CONTAINER,
  VFIO_GROUP_UNSET_CONTAINER,
  VFIO_IOMMU_FLAG_ALLOC_PASID,
  VFIO_IOMMU_FLAG_FREE_PASID,
  VFIO_IOMMU_MAP_DMA,
  VFIO_IOMMU_NESTING_OP,
  VFIO_IOMMU_NESTING_OP_BIND_PGTBL,
  VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL,
  VFIO_IOMMU_PASID_REQUEST,
  VFIO_IOMMU_UNMAP_DMA,
  VFIO_SET_IOMMU,
  VFIO_TYPE1_NESTING_IOMMU,
  vfio_iommu_type1_dma_map,
  vfio_iommu_type1_dma_unmap,
  vfio_iommu_type1_nesting_op,
  vfio_iommu_type1_pasid_request,
} from '../../src/uapi.js'

export { READ_WRITE, standIn } from '../../src/testing/index.js'

/** Expects a call to be refused with this errno. */
export function refused(code: ErrnoName, call: () => unknown): ErrnoError {
  try {
    call()
  } catch (error) {
    if (!(error instanceof ErrnoError)) throw error
    expect(error.code, error.message).toBe(code)
    return error
  }
  throw new Error(`the call succeeded where ${code} was expected`)
}

export function vfioBench(options: BenchOptions = {}) {
  const made = new Bench({ device: dmaCopy, ...options })
  const { clock, trace, memory, kernel, fabric, unit, iommu, ioasid, interrupts, vfio } =
    made.machine
  const functions = fabric.functions().map((fn, i) => ({ fn, ...made.functions[i]! }))
  const held = () => {
    const { pageRequests: requests, pasidsReserved, ...rest } = made.holdings()
    return { ...rest, requests, pasidsAvailable: ioasid.available }
  }
  const { sys } = made.process()

  return {
    clock,
    trace,
    memory,
    frames: kernel.frames,
    kernel,
    fabric,
    unit,
    driver: iommu.deviceDriver(functions[0]!.bdf)!,
    core: iommu,
    ioasid,
    interrupts,
    vfio,
    functions,
    sys,
    spawn: (o: ProcessOptions = {}) => new Sys(kernel.spawn(o)),
    settle: () => clock.settle(),
    program: (s: Sys = sys) => program(s, functions),
    /** Ends every process and expects nothing to be held. */
    check: () => made.check(),
    held,
  }
}

/** The bench as built. */
export type VfioBench = ReturnType<typeof vfioBench>

const benches: VfioBench[] = []

/** A bench that `checkBenches` looks at when the test is over. */
export function bench(options: BenchOptions = {}): VfioBench {
  const made = vfioBench(options)
  benches.push(made)
  return made
}

/** Ends every process of the benches of a test and expects that nothing is held: for `afterEach`. */
export function checkBenches(): void {
  for (const made of benches.splice(0)) made.check()
}

/** What a test program does, in the fewest words. */
function program(sys: Sys, functions: readonly { name: string; group: number }[]) {
  const container = (id?: number, ...groups: number[]) => {
    const fd = sys.open('/dev/vfio/vfio')
    const opened = groups.map(g => {
      const group = sys.open(`/dev/vfio/${g}`)
      sys.ioctl(group, VFIO_GROUP_SET_CONTAINER, s32(fd))
      return group
    })
    if (id !== undefined) sys.ioctl(fd, VFIO_SET_IOMMU, id)
    const call = (cmd: number, arg?: IoctlArgument) => sys.ioctl(fd, cmd, arg)
    const bindCall = (
      op: number,
      init: Parameters<typeof iommu_gpasid_bind_data>[0],
      argsz?: number,
    ) => {
      const data = bindData(init)
      const arg = vfio_iommu_type1_nesting_op({ flags: op, data: data.bytes })
      if (argsz !== undefined) arg.argsz = argsz
      return call(VFIO_IOMMU_NESTING_OP, arg)
    }
    return {
      fd,
      groups: opened,
      call,
      map: (iova: bigint, vaddr: bigint, size: bigint, flags = READ_WRITE) =>
        call(VFIO_IOMMU_MAP_DMA, vfio_iommu_type1_dma_map({ flags, iova, vaddr, size })),
      /** Returns the bytes removed. */
      unmap(iova: bigint, size: bigint, flags = 0) {
        const arg = vfio_iommu_type1_dma_unmap({ flags, iova, size })
        call(VFIO_IOMMU_UNMAP_DMA, arg)
        return arg.size
      },
      alloc: (min = 1, max = 0xf_ffff) =>
        call(VFIO_IOMMU_PASID_REQUEST, pasids(VFIO_IOMMU_FLAG_ALLOC_PASID, min, max)),
      free: (min: number, max = min) =>
        call(VFIO_IOMMU_PASID_REQUEST, pasids(VFIO_IOMMU_FLAG_FREE_PASID, min, max)),
      bind: (init: Parameters<typeof iommu_gpasid_bind_data>[0], argsz?: number) =>
        bindCall(VFIO_IOMMU_NESTING_OP_BIND_PGTBL, init, argsz),
      unbind: (init: Parameters<typeof iommu_gpasid_bind_data>[0], argsz?: number) =>
        bindCall(VFIO_IOMMU_NESTING_OP_UNBIND_PGTBL, init, argsz),
      unset: (i = 0) => sys.ioctl(opened[i]!, VFIO_GROUP_UNSET_CONTAINER),
      device: (i = 0, of = 0) =>
        sys.ioctl(opened[of]!, VFIO_GROUP_GET_DEVICE_FD, functions[i]!.name),
      close() {
        for (const group of opened) sys.close(group)
        sys.close(fd)
      },
    }
  }
  return {
    sys,
    container,
    /** A nesting container with the group of function `i`. */
    nesting: (i = 0) => container(VFIO_TYPE1_NESTING_IOMMU, functions[i]!.group),
  }
}

/** A device that does nothing, with these capabilities. */
export const plainDevice = (capabilities: readonly CapabilityFactory[]) =>
  defineDevice({
    name: 'plain',
    identity: { vendorId: 0x1234, deviceId: 0x0001, classCode: 0x088000 },
    capabilities: [...capabilities],
    bar0: bank('plain', { SCRATCH: r32(0x00, '1', { VALUE: bits(31, 0, 'rw', 'kept') }) }),
    create: () => ({}),
  })

export const pasids = (flags: number, min: number, max: number) =>
  vfio_iommu_type1_pasid_request({ flags, range: { min, max } })

/** Bind data that VT-d takes, with members replaced. */
export function bindData(init: Parameters<typeof iommu_gpasid_bind_data>[0] = {}) {
  return iommu_gpasid_bind_data({
    version: IOMMU_GPASID_BIND_VERSION_1,
    format: IOMMU_PASID_FORMAT_INTEL_VTD,
    addr_width: 48,
    ...init,
  })
}
