// The calls whose every step is made to fail: for each, the state it is made in, the call, and what can be tried to
// see whether what was there before still works.

import { iova, pasid } from '../../src/base/addr.js'
import type { MachineDescription } from '../../src/machine.js'
import { s32 } from '../../src/sys/sys.js'
import * as u from '../../src/uapi.js'
import { IOMMUFD } from './iommufd.js'
import { KVM, KVM_ARM64 } from './kvm.js'
import { outcome, type World } from './world.js'

/** A call in a state. */
export interface FailCase {
  readonly call: string
  readonly machine?: MachineDescription
  /** Brings the machine into the state, and answers the call and a probe of what works in it. */
  readonly in: (w: World) => { readonly run: () => unknown; readonly probe?: () => string }
  /** The interface hides refusals: it answers this whatever came of the call. */
  readonly hides?: string
}

const NESTING = 6
const TYPE1_V2 = 3
const PAGE = 4096n
const COPY = 0
const PAIR = 1
const OTHER = 2
const PLAIN = 3

const map = (vaddr: bigint, at: bigint, size: bigint) =>
  u.vfio_iommu_type1_dma_map({ flags: 3, vaddr, iova: at, size })
const pasids = (flags: number, min = 1, max = 99) =>
  u.vfio_iommu_type1_pasid_request({ flags, range: { min, max } })
const op = (what: number, payload: { readonly bytes: Uint8Array }) =>
  u.vfio_iommu_type1_nesting_op({ flags: what, data: payload.bytes })
const table = (id: number, guest: number | undefined = undefined) =>
  u.iommu_gpasid_bind_data({
    version: 1,
    format: 1,
    addr_width: 48,
    flags: guest === undefined ? 0n : 1n,
    hpasid: BigInt(id),
    gpasid: BigInt(guest ?? 0),
  })

/** Guest memory at IOVA 0: four levels of table in its first pages, which lead from 0 to its fifth. */
function guest(w: World, fd: number) {
  const { vaddr, bytes } = w.sys.mmap(8 * 4096)
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  for (let level = 0; level < 4; level++)
    words.setBigUint64(level * 4096, BigInt((level + 1) * 4096) | 0x67n, true)
  words.setUint32(4 * 4096, 0x5a17_ab1e, true)
  w.ioctl(fd, u.VFIO_IOMMU_MAP_DMA, map(vaddr, 0n, 8n * PAGE))
  return { vaddr, bytes }
}

/** What a device reads at an address, without PASID or under some. */
function reads(w: World, device: number, ...ids: readonly number[]): string {
  const port = w.ports[device]!.dma
  const one = (at: bigint, tag: object) => {
    const data = new Uint8Array(4)
    return port.read(iova(at), data, tag).ok ? [...data].join('.') : 'refused'
  }
  const untagged = [0n, 4n * PAGE, 8n * PAGE, 0x20_0000n].map(at => one(at, {}))
  return [...untagged, ...ids.map(id => one(0n, { pasid: pasid(id) }))].join(' ')
}

const onContainer = (
  name: string,
  type: number,
  run: (w: World, fd: number) => () => unknown,
  more: Partial<FailCase> = {},
): FailCase => ({
  call: `container ${name}`,
  in(w) {
    const { fd, group } = w.container(type, PAIR)
    w.device(group, PAIR)
    guest(w, fd)
    return { run: run(w, fd), probe: () => reads(w, PAIR, 1, 2, 3) }
  },
  ...more,
})

/** A nesting container whose PASID 1 is bound and whose PASID 2 is not. */
const nested = (
  name: string,
  run: (w: World, fd: number) => () => unknown,
  more: Partial<FailCase> = {},
): FailCase =>
  onContainer(
    name,
    NESTING,
    (w, fd) => {
      for (const id of [1, 2]) {
        w.ioctl(fd, u.VFIO_IOMMU_PASID_REQUEST, pasids(1, id))
        if (id === 1) w.ioctl(fd, u.VFIO_IOMMU_NESTING_OP, op(0, table(id)))
      }
      return run(w, fd)
    },
    more,
  )

const CONTAINER: readonly FailCase[] = [
  { call: 'open container', in: w => ({ run: () => w.sys.open('/dev/vfio/vfio') }) },
  ...[
    ['type 1', 1, [PAIR]],
    ['type 1 v2, two groups', TYPE1_V2, [COPY, PAIR]],
    ['nesting, two devices', NESTING, [PAIR]],
  ].map(
    ([name, type, devices]): FailCase => ({
      call: `container SET_IOMMU, ${name}`,
      in(w) {
        const { fd } = w.container(undefined, ...(devices as number[]))
        return { run: () => w.ioctl(fd, u.VFIO_SET_IOMMU, type as number) }
      },
    }),
  ),
  nested(
    'GET_INFO',
    (w, fd) => () =>
      w.ioctl(fd, u.VFIO_IOMMU_GET_INFO, u.vfio_iommu_type1_info({ argsz: 224 }, 200)),
  ),
  onContainer('MAP_DMA, a page', TYPE1_V2, (w, fd) => {
    const { vaddr } = w.sys.mmap(4096)
    return () => w.ioctl(fd, u.VFIO_IOMMU_MAP_DMA, map(vaddr, 8n * PAGE, PAGE))
  }),
  onContainer('MAP_DMA, three runs of pages', TYPE1_V2, (w, fd) => {
    // Made in reverse, so that neighbours in the process are no neighbours in memory.
    const at = w.sys.mmap(3 * 4096).vaddr
    w.sys.munmap(at, 3 * 4096)
    for (const i of [2n, 1n, 0n]) {
      w.sys.mmap(4096)
      w.sys.process.memory.mmap(4096, { at: at + i * PAGE })
    }
    // Below 2 MiB, where there is a table already: an empty one would stay until the domain goes, as in the kernel.
    return () => w.ioctl(fd, u.VFIO_IOMMU_MAP_DMA, map(at, 0x10_0000n, 3n * PAGE))
  }),
  onContainer('MAP_DMA, 4 MiB far up', TYPE1_V2, (w, fd) => {
    const { vaddr } = w.sys.mmap(4 * 2 ** 20)
    return () => w.ioctl(fd, u.VFIO_IOMMU_MAP_DMA, map(vaddr, 0x7f_ffff_f000n, 4n * 2n ** 20n))
  }),
  onContainer(
    'UNMAP_DMA',
    TYPE1_V2,
    (w, fd) => () =>
      w.ioctl(
        fd,
        u.VFIO_IOMMU_UNMAP_DMA,
        u.vfio_iommu_type1_dma_unmap({ iova: 0n, size: 8n * PAGE }),
      ),
  ),
  onContainer(
    'DIRTY_PAGES, START',
    TYPE1_V2,
    (w, fd) => () =>
      w.ioctl(fd, u.VFIO_IOMMU_DIRTY_PAGES, new Uint8Array(Uint32Array.of(8, 1).buffer)),
  ),
  nested(
    'PASID_REQUEST, ALLOC',
    (w, fd) => () => w.ioctl(fd, u.VFIO_IOMMU_PASID_REQUEST, pasids(1)),
  ),
  nested(
    'PASID_REQUEST, FREE of a bound one',
    (w, fd) => () => w.ioctl(fd, u.VFIO_IOMMU_PASID_REQUEST, pasids(2)),
  ),
  nested(
    'NESTING_OP, BIND',
    (w, fd) => () => w.ioctl(fd, u.VFIO_IOMMU_NESTING_OP, op(0, table(2))),
  ),
  nested(
    "NESTING_OP, BIND with the guest's PASID",
    (w, fd) => () => w.ioctl(fd, u.VFIO_IOMMU_NESTING_OP, op(0, table(2, 7))),
  ),
  nested(
    'NESTING_OP, UNBIND',
    (w, fd) => () => w.ioctl(fd, u.VFIO_IOMMU_NESTING_OP, op(1, table(1))),
  ),
  nested(
    'NESTING_OP, CACHE_INVLD',
    (w, fd) => () => {
      const info = u.iommu_cache_invalidate_info({ version: 1, cache: 1, granularity: 1 })
      Object.assign(info.granu.pasid_info, { flags: 1, pasid: 1n })
      return w.ioctl(fd, u.VFIO_IOMMU_NESTING_OP, op(2, info))
    },
    { hides: '0' },
  ),
  {
    call: 'container NESTING_OP, BIND through a second container',
    in(w) {
      const first = w.container(NESTING, PAIR)
      const second = w.container(NESTING, PLAIN)
      for (const [c, d] of [
        [first, PAIR],
        [second, PLAIN],
      ] as const) {
        w.device(c.group, d)
        guest(w, c.fd)
      }
      w.ioctl(first.fd, u.VFIO_IOMMU_PASID_REQUEST, pasids(1))
      w.ioctl(first.fd, u.VFIO_IOMMU_NESTING_OP, op(0, table(1, 3)))
      return {
        run: () => w.ioctl(second.fd, u.VFIO_IOMMU_NESTING_OP, op(0, table(1, 3))),
        probe: () => `${reads(w, PAIR, 1)} ${reads(w, PLAIN)}`,
      }
    },
  },
]

const GROUP: readonly FailCase[] = [
  { call: 'open group', in: w => ({ run: () => w.group(PAIR) }) },
  {
    call: 'group GET_STATUS',
    in(w) {
      const { group } = w.container(TYPE1_V2, PAIR)
      return { run: () => w.ioctl(group, u.VFIO_GROUP_GET_STATUS, u.vfio_group_status()) }
    },
  },
  {
    call: 'group SET_CONTAINER, attached at once',
    in(w) {
      const { fd, group } = w.container(TYPE1_V2, PAIR)
      w.device(group, PAIR)
      guest(w, fd)
      const other = w.group(PLAIN)
      return {
        run: () => w.ioctl(other, u.VFIO_GROUP_SET_CONTAINER, s32(fd)),
        probe: () => `${reads(w, PAIR)} ${reads(w, PLAIN)}`,
      }
    },
  },
  {
    call: 'group SET_CONTAINER, mappings of a software device replayed',
    in(w) {
      const mdev = w.host.vfio.createMdev({ name: 'c5f9c2f4-3a5d-4d0e-9a58-000000000001' })
      const fd = w.sys.open('/dev/vfio/vfio')
      const software = w.sys.open(`/dev/vfio/${mdev.group}`)
      w.ioctl(software, u.VFIO_GROUP_SET_CONTAINER, s32(fd))
      w.ioctl(fd, u.VFIO_SET_IOMMU, TYPE1_V2)
      guest(w, fd)
      const { vaddr } = w.sys.mmap(2 * 4096)
      w.ioctl(fd, u.VFIO_IOMMU_MAP_DMA, map(vaddr, 0x4000_0000n, 2n * PAGE))
      const group = w.group(PLAIN)
      return { run: () => w.ioctl(group, u.VFIO_GROUP_SET_CONTAINER, s32(fd)) }
    },
  },
  {
    call: 'group UNSET_CONTAINER',
    in(w) {
      const { fd, group } = w.container(NESTING, PAIR)
      guest(w, fd)
      return { run: () => w.ioctl(group, u.VFIO_GROUP_UNSET_CONTAINER) }
    },
  },
  ...(['first', 'second'] as const).map(
    (which): FailCase => ({
      call: `group GET_DEVICE_FD, the ${which} of a nested group`,
      in(w) {
        const { fd, group } = w.container(NESTING, PAIR)
        guest(w, fd)
        if (which === 'second') w.device(group, OTHER)
        return {
          run: () => w.ioctl(group, u.VFIO_GROUP_GET_DEVICE_FD, '0000:02:00.0'),
          probe: () => reads(w, OTHER),
        }
      },
    }),
  ),
]

const onDevice = (
  name: string,
  run: (w: World, fd: number, group: number) => () => unknown,
): FailCase => ({
  call: `device ${name}`,
  in(w) {
    const { fd, group } = w.container(NESTING, PAIR)
    const device = w.device(group, PAIR)
    guest(w, fd)
    return { run: run(w, device, group), probe: () => reads(w, PAIR) }
  },
})

const irqs = (index: number, start: number, ...fds: readonly number[]) =>
  u.vfio_irq_set({
    flags: 0x24,
    index,
    start,
    count: fds.length,
    data: new Uint8Array(Int32Array.from(fds).buffer),
  })

const DEVICE: readonly FailCase[] = [
  onDevice('GET_INFO', (w, fd) => () => w.ioctl(fd, u.VFIO_DEVICE_GET_INFO, u.vfio_device_info())),
  onDevice(
    'GET_REGION_INFO, MSI-X table',
    (w, fd) => () =>
      w.ioctl(fd, u.VFIO_DEVICE_GET_REGION_INFO, u.vfio_region_info({ argsz: 96, index: 2 }, 64)),
  ),
  onDevice(
    'GET_REGION_INFO, fault ring',
    (w, fd) => () =>
      w.ioctl(fd, u.VFIO_DEVICE_GET_REGION_INFO, u.vfio_region_info({ argsz: 96, index: 9 }, 64)),
  ),
  onDevice(
    'GET_IRQ_INFO, fault interrupt',
    (w, fd) => () =>
      w.ioctl(fd, u.VFIO_DEVICE_GET_IRQ_INFO, u.vfio_irq_info_caps({ argsz: 64, index: 5 }, 40)),
  ),
  onDevice('SET_IRQS, two vectors', (w, fd) => {
    const [a, b] = [w.sys.eventfd(), w.sys.eventfd()]
    return () => w.ioctl(fd, u.VFIO_DEVICE_SET_IRQS, irqs(2, 0, a, b))
  }),
  onDevice('SET_IRQS, another eventfd', (w, fd) => {
    const [a, b] = [w.sys.eventfd(), w.sys.eventfd()]
    w.ioctl(fd, u.VFIO_DEVICE_SET_IRQS, irqs(2, 0, a, a))
    return () => w.ioctl(fd, u.VFIO_DEVICE_SET_IRQS, irqs(2, 1, b))
  }),
  onDevice('SET_IRQS, fault interrupt', (w, fd) => {
    const a = w.sys.eventfd()
    return () => w.ioctl(fd, u.VFIO_DEVICE_SET_IRQS, irqs(5, 0, a))
  }),
  onDevice('SET_IRQS, off', (w, fd) => {
    const a = w.sys.eventfd()
    w.ioctl(fd, u.VFIO_DEVICE_SET_IRQS, irqs(2, 0, a, a))
    return () => w.ioctl(fd, u.VFIO_DEVICE_SET_IRQS, u.vfio_irq_set({ flags: 0x21, index: 2 }))
  }),
  onDevice('IOEVENTFD', (w, fd) => {
    const a = w.sys.eventfd()
    const arg = u.vfio_device_ioeventfd({ flags: 4, offset: 0n, data: 1n, fd: a })
    return () => w.ioctl(fd, u.VFIO_DEVICE_IOEVENTFD, arg)
  }),
  onDevice('RESET', (w, fd) => () => w.ioctl(fd, u.VFIO_DEVICE_RESET)),
  onDevice(
    'GET_PCI_HOT_RESET_INFO',
    (w, fd) => () =>
      w.ioctl(
        fd,
        u.VFIO_DEVICE_GET_PCI_HOT_RESET_INFO,
        u.vfio_pci_hot_reset_info({ argsz: 64 }, 52),
      ),
  ),
  onDevice(
    'PCI_HOT_RESET',
    (w, fd, group) => () =>
      w.ioctl(
        fd,
        u.VFIO_DEVICE_PCI_HOT_RESET,
        u.vfio_pci_hot_reset({ count: 1, group_fds: [group] }),
      ),
  ),
]

/** The N13 revision: a guest's whole PASID table. */
const N13: readonly FailCase[] = [
  {
    call: 'container SET_PASID_TABLE (N13), on hardware that takes none',
    machine: { profile: 'N13' },
    in(w) {
      const { fd } = w.container(NESTING, PAIR)
      return { run: () => outcome(() => w.ioctl(fd, 0x3b76, new Uint8Array(64))) }
    },
  },
]

/** Calls beside ioctl that take descriptors and memory. */
const OTHERS: readonly FailCase[] = [
  onDevice('mmap of BAR 0', (w, fd) => () => w.sys.mmap({ fd, offset: 0, length: 4096 })),
  { call: 'mmap of memory', in: w => ({ run: () => w.sys.mmap(0x4000) }) },
  { call: 'eventfd', in: w => ({ run: () => w.sys.eventfd() }) },
  { call: 'dup', in: w => ({ run: () => w.sys.dup(w.sys.open('/dev/kvm')) }) },
  {
    call: 'fork',
    in(w) {
      w.sys.mmap(0x4000)
      w.sys.open('/dev/kvm')
      return { run: () => w.sys.fork() }
    },
  },
]

/** Every case, in the order of the table. */
export const CASES: readonly FailCase[] = [
  ...CONTAINER,
  ...N13,
  ...GROUP,
  ...DEVICE,
  ...IOMMUFD,
  ...KVM,
  ...KVM_ARM64,
  ...OTHERS,
]
