// Devices on tables: by function and by PASID, replaced, refused, closed in any order; DMA through each.
import { afterEach, describe, expect, it } from 'vitest'
import { msix } from '../../../src/pci/device-model.js'
import { dmaCopy } from '../../../src/pci/devices/dma-copy.js'
import {
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  VFIO_DEVICE_ATTACH_IOMMUFD_PT,
  VFIO_DEVICE_DETACH_IOMMUFD_PT,
  vfio_device_attach_iommufd_pt,
  vfio_device_detach_iommufd_pt,
} from '../../../src/uapi.js'
import { plainDevice, refused } from '../../support/vfio-bench.js'
import { checkIommufd, GVA, guestMemory, iommufdBench, PAGE, user } from './bench.js'

afterEach(checkIommufd)

const PASID = IOMMU_HWPT_ALLOC_PASID

function setup(options: Parameters<typeof iommufdBench>[0] = {}) {
  const b = iommufdBench(options)
  const u = user(b)
  const d = u.device()
  const ioas = u.ioas()
  const memory = u.sys.mmap(0x4000)
  u.map(ioas, memory.vaddr, 0x4000n, 0x10_0000n)
  memory.bytes.set([1, 2, 3, 4, 5, 6, 7, 8])
  const copies = (dma: () => boolean) => {
    memory.bytes.fill(0, 0x1000, 0x2000)
    const ok = dma()
    const moved = memory.bytes[0x1007] === 8
    expect(moved).toBe(ok)
    return ok
  }
  return { b, u, d, ioas, memory, copies }
}

describe('a function', () => {
  it('moves bytes through an address space it is attached to, and none before or after', () => {
    const { d, ioas, copies } = setup()
    const dma = () => d.dma(0x10_0000n, 0x10_1000n)
    expect(copies(dma)).toBe(false)
    const hwpt = d.attach(ioas)
    expect(hwpt).not.toBe(ioas)
    expect(copies(dma)).toBe(true)
    d.detach()
    expect(copies(dma)).toBe(false)
  })

  it('shares the table that the first attach made, which goes with the last device', () => {
    const { u, d, ioas } = setup()
    const other = u.device(1)
    const hwpt = d.attach(ioas)
    expect(other.attach(ioas)).toBe(hwpt)
    d.detach()
    refused('EBUSY', () => u.destroy(hwpt))
    other.detach()
    refused('ENOENT', () => u.destroy(hwpt))
    u.destroy(ioas)
  })

  it('attaching again replaces: the old table is free, translations are the new one’s', () => {
    const { u, d, ioas, memory, copies } = setup()
    const first = u.hwpt(d.id, ioas)
    d.attach(first)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n))).toBe(true)
    const second = u.ioas()
    u.map(second, memory.vaddr, 0x2000n, 0x50_0000n)
    d.attach(second)
    u.destroy(first)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n))).toBe(false)
    expect(copies(() => d.dma(0x50_0000n, 0x50_1000n))).toBe(true)
    d.attach(ioas)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n))).toBe(true)
  })

  it('attaching to the same table again is a success without effect', () => {
    const { u, d, ioas, copies } = setup()
    const hwpt = u.hwpt(d.id, ioas)
    d.attach(hwpt)
    d.attach(hwpt)
    d.detach()
    u.destroy(hwpt)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n))).toBe(false)
  })

  it('a map and an unmap after the attach are seen by DMA', () => {
    const { u, d, ioas, memory, copies } = setup()
    d.attach(ioas)
    const at = u.map(ioas, memory.vaddr, 0x2000n)
    expect(copies(() => d.dma(at, at + PAGE))).toBe(true)
    u.unmap(ioas, at, 0x2000n)
    expect(copies(() => d.dma(at, at + PAGE))).toBe(false)
  })

  it.each([
    ['ENOENT', 999],
    ['EINVAL', 'device'],
  ] as const)('%s for object %s', (code, what) => {
    const { d } = setup()
    refused(code, () => d.attach(what === 'device' ? d.id : what))
  })

  it('EADDRINUSE when a mapping touches the message window, which stays unmapped for others', () => {
    const { u, d, memory } = setup()
    const other = u.ioas()
    u.map(other, memory.vaddr, 0x1000n, 0xfee0_0000n)
    refused('EADDRINUSE', () => d.attach(other))
    u.unmap(other, 0xfee0_0000n, 0x1000n)
    d.attach(other)
    refused('EINVAL', () => u.map(other, memory.vaddr, 0x1000n, 0xfee0_0000n))
    d.detach()
    u.map(other, memory.vaddr, 0x1000n, 0xfee0_0000n)
  })

  it('detach without attach is a success', () => {
    const { d } = setup()
    expect(d.detach()).toBe(0)
    expect(d.detach(5)).toBe(0)
  })
})

describe('a PASID', () => {
  it('reaches its own table, apart from the function’s and from other PASIDs', () => {
    const { u, d, ioas, memory, copies } = setup()
    const rid = u.hwpt(d.id, ioas, { flags: PASID })
    const other = u.ioas()
    u.map(other, memory.vaddr, 0x2000n, 0x70_0000n)
    const five = u.hwpt(d.id, other, { flags: PASID })
    d.attach(rid)
    d.attach(five, 5)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n))).toBe(true)
    expect(copies(() => d.dma(0x70_0000n, 0x70_1000n, 8, 5))).toBe(true)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n, 8, 5))).toBe(false)
    expect(copies(() => d.dma(0x70_0000n, 0x70_1000n))).toBe(false)
    expect(copies(() => d.dma(0x70_0000n, 0x70_1000n, 8, 6))).toBe(false)
    u.unmap(other, 0x70_0000n, 0x2000n)
    expect(copies(() => d.dma(0x70_0000n, 0x70_1000n, 8, 5))).toBe(false)
    d.detach(5)
    u.destroy(five)
  })

  it('works while the function itself is attached to nothing', () => {
    const { u, d, ioas, copies } = setup()
    d.attach(u.hwpt(d.id, ioas, { flags: PASID }), 7)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n, 8, 7))).toBe(true)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n))).toBe(false)
  })

  it('E140: EINVAL while the function is on a table without ALLOC_PASID', () => {
    const { u, d, ioas } = setup()
    d.attach(ioas)
    const hwpt = u.hwpt(d.id, ioas, { flags: PASID })
    refused('EINVAL', () => d.attach(hwpt, 5))
    u.destroy(hwpt)
  })

  it('E141: the function may not go to a table without ALLOC_PASID while a PASID is attached', () => {
    const { u, d, ioas } = setup()
    d.attach(u.hwpt(d.id, ioas, { flags: PASID }), 5)
    refused('EINVAL', () => d.attach(u.hwpt(d.id, ioas)))
    refused('EINVAL', () => d.attach(ioas))
    d.attach(u.hwpt(d.id, ioas, { flags: PASID }))
    refused('EINVAL', () => d.attach(u.hwpt(d.id, ioas)))
  })

  it.each([
    ['E142: the first number beyond the width', 1 << 16, 'EINVAL'],
    ['0, the function’s own slot', 0, 'EINVAL'],
    ['2^31', 0x8000_0000, 'ENOSPC'],
    ['2^32-1', 0xffff_ffff, 'ENOSPC'],
  ] as const)('%s is refused', (_, pasid, code) => {
    const { u, d, ioas } = setup({ vtd: { pasidBits: 16 } })
    const hwpt = u.hwpt(d.id, ioas, { flags: PASID })
    refused(code, () => d.attach(hwpt, pasid))
    d.attach(hwpt, (1 << 16) - 1)
  })

  it('E143: attaching a PASID again replaces, and the first table can be destroyed', () => {
    const { u, d, ioas, memory, copies } = setup()
    const first = u.hwpt(d.id, ioas, { flags: PASID })
    const other = u.ioas()
    u.map(other, memory.vaddr, 0x2000n, 0x70_0000n)
    const second = u.hwpt(d.id, other, { flags: PASID })
    d.attach(first, 5)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n, 8, 5))).toBe(true)
    d.attach(second, 5)
    u.destroy(first)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n, 8, 5))).toBe(false)
    expect(copies(() => d.dma(0x70_0000n, 0x70_1000n, 8, 5))).toBe(true)
  })

  it('E144: detaching a PASID that is not attached is a success', () => {
    const { d } = setup()
    expect(d.detach(5)).toBe(0)
    expect(d.detach(0xffff_ffff)).toBe(0)
  })

  it('E145: an attached table is EBUSY to destroy', () => {
    const { u, d, ioas } = setup()
    const hwpt = u.hwpt(d.id, ioas, { flags: PASID })
    d.attach(hwpt, 5)
    refused('EBUSY', () => u.destroy(hwpt))
    d.detach(5)
    u.destroy(hwpt)
  })

  it('EINVAL for an address space: the table it would get has no ALLOC_PASID, and is not left behind', () => {
    const { b, u, d, ioas } = setup()
    const { objects } = b.vfio.iommufd!.holdings()
    refused('EINVAL', () => d.attach(ioas, 5))
    expect(b.vfio.iommufd!.holdings().objects).toBe(objects)
    u.destroy(ioas)
  })

  it('EOPNOTSUPP for a device without PASIDs, EOPNOTSUPP for ALLOC_PASID where the IOMMU has none', () => {
    const b = iommufdBench({ devices: [[plainDevice([msix({ vectors: 1, bar: 2 })])]] })
    const u = user(b)
    const d = u.device()
    const hwpt = u.hwpt(d.id, u.ioas(), { flags: PASID })
    refused('EOPNOTSUPP', () => d.attach(hwpt, 5))
    const none = setup({ vtd: { pasidBits: 0 } })
    refused('EOPNOTSUPP', () => none.u.hwpt(none.d.id, none.ioas, { flags: PASID }))
  })
})

describe('a group of two functions', () => {
  const two = { devices: [[dmaCopy, dmaCopy]], acs: false } as const

  it('is attached whole with its first device, and follows a replacement', () => {
    const { b, u, d, ioas, memory, copies } = setup(two)
    expect(b.functions[0]!.group).toBe(b.functions[1]!.group)
    const other = u.device(1)
    d.attach(ioas)
    expect(copies(() => other.dma(0x10_0000n, 0x10_1000n))).toBe(true)
    other.attach(ioas)
    const second = u.ioas()
    u.map(second, memory.vaddr, 0x2000n, 0x50_0000n)
    d.attach(second)
    expect(copies(() => other.dma(0x50_0000n, 0x50_1000n))).toBe(true)
    d.detach()
    expect(copies(() => other.dma(0x50_0000n, 0x50_1000n))).toBe(true)
    other.detach()
    expect(copies(() => other.dma(0x50_0000n, 0x50_1000n))).toBe(false)
  })

  it('EINVAL when the second device asks for another table, also under a PASID', () => {
    const { u, d, ioas } = setup(two)
    const other = u.device(1)
    const [one, two_] = [u.hwpt(d.id, ioas, { flags: PASID }), u.hwpt(d.id, ioas, { flags: PASID })]
    d.attach(one)
    refused('EINVAL', () => other.attach(two_))
    d.attach(one, 5)
    refused('EINVAL', () => other.attach(two_, 5))
    other.attach(one, 5)
  })

  it('EPERM when another iommufd wants the second device', () => {
    const { b, d } = setup(two)
    const stranger = user(b, b.spawn())
    refused('EPERM', () => stranger.device(1))
    d.close()
    stranger.device(1)
  })
})

describe('the structures', () => {
  it.each([
    ['EINVAL', 'attach, argsz 11', VFIO_DEVICE_ATTACH_IOMMUFD_PT, { argsz: 11 }],
    ['EINVAL', 'attach, unknown flag', VFIO_DEVICE_ATTACH_IOMMUFD_PT, { flags: 2 }],
    [
      'EINVAL',
      'attach, PASID but argsz 12',
      VFIO_DEVICE_ATTACH_IOMMUFD_PT,
      { flags: 1, argsz: 12 },
    ],
    ['EINVAL', 'detach, argsz 7', VFIO_DEVICE_DETACH_IOMMUFD_PT, { argsz: 7 }],
    ['EINVAL', 'detach, unknown flag', VFIO_DEVICE_DETACH_IOMMUFD_PT, { flags: 2 }],
    ['EINVAL', 'detach, PASID but argsz 8', VFIO_DEVICE_DETACH_IOMMUFD_PT, { flags: 1, argsz: 8 }],
  ] as const)('%s: %s', (code, _, cmd, init) => {
    const { u, d } = setup()
    const make =
      cmd === VFIO_DEVICE_ATTACH_IOMMUFD_PT
        ? vfio_device_attach_iommufd_pt
        : vfio_device_detach_iommufd_pt
    refused(code, () => u.sys.ioctl(d.fd, cmd, make(init)))
    refused('EFAULT', () => u.sys.ioctl(d.fd, cmd, 0x1000))
  })

  it('detach by 8 bytes, attach by 12 bytes', () => {
    const { u, d, ioas } = setup()
    const arg = vfio_device_attach_iommufd_pt({ argsz: 12, pt_id: ioas })
    u.sys.ioctl(d.fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, arg)
    expect(arg.pt_id).not.toBe(ioas)
    u.sys.ioctl(d.fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, vfio_device_detach_iommufd_pt({ argsz: 8 }))
  })
})

describe('nested tables', () => {
  function nesting() {
    const made = setup()
    const { u, d } = made
    const guest = guestMemory(u.sys)
    const ioas = u.ioas()
    u.map(ioas, guest.vaddr, 0x1_0000n, 0n)
    const parent = u.hwpt(d.id, ioas, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT })
    guest.page(0, 0x5000)
    guest.page(1, 0x6000)
    guest.put(0x5000, 0x1234)
    return { ...made, guest, ioas, parent }
  }

  it.each([
    ['under a PASID', 5],
    ['for the function itself', undefined],
  ] as const)('translate a guest’s addresses %s', (_, pasid) => {
    const { u, d, guest, parent } = nesting()
    const hwpt = u.nested(d.id, parent, { pgtbl_addr: guest.root }, { flags: PASID })
    d.attach(hwpt, pasid)
    expect(d.dma(GVA, GVA + PAGE, 8, pasid)).toBe(true)
    expect(guest.word(0x6000)).toBe(0x1234n)
    d.detach(pasid)
    expect(d.dma(GVA, GVA + PAGE, 8, pasid)).toBe(false)
  })

  it('two functions with the same PASID on two guest tables of one parent do not mix', () => {
    const { u, d, guest, parent } = nesting()
    const other = u.device(1)
    // A second table at 0x8000 that shows page 0x7000 at the same address.
    guest.put(0x8000, 0x9007)
    guest.put(0x9000, 0xa007)
    guest.put(0xa000 + 16, 0xb007)
    guest.put(0xb000, 0x7007)
    guest.put(0xb008, 0x6007)
    guest.put(0x7000, 0x5678)
    d.attach(u.nested(d.id, parent, { pgtbl_addr: 0x1000n }, { flags: PASID }), 9)
    other.attach(u.nested(other.id, parent, { pgtbl_addr: 0x8000n }, { flags: PASID }), 9)
    expect(d.dma(GVA, GVA + PAGE, 8, 9)).toBe(true)
    expect(guest.word(0x6000)).toBe(0x1234n)
    expect(other.dma(GVA, GVA + PAGE, 8, 9)).toBe(true)
    expect(guest.word(0x6000)).toBe(0x5678n)
  })

  it('an unmap below is seen at once, whatever is cached above', () => {
    const { u, d, guest, ioas, parent } = nesting()
    d.attach(u.nested(d.id, parent, { pgtbl_addr: guest.root }, { flags: PASID }), 5)
    expect(d.dma(GVA, GVA + PAGE, 8, 5)).toBe(true)
    u.unmap(ioas, 0n, 0x1_0000n)
    expect(d.dma(GVA, GVA + PAGE, 8, 5)).toBe(false)
  })

  it('replacing a nested table by its parent and back', () => {
    const { u, d, guest, ioas, parent } = nesting()
    const plain = u.hwpt(d.id, ioas, { flags: PASID })
    const hwpt = u.nested(d.id, parent, { pgtbl_addr: guest.root }, { flags: PASID })
    d.attach(hwpt, 5)
    expect(d.dma(GVA, GVA + PAGE, 8, 5)).toBe(true)
    d.attach(plain, 5)
    expect(d.dma(GVA, GVA + PAGE, 8, 5)).toBe(false)
    expect(d.dma(0x5000n, 0x7000n, 8, 5)).toBe(true)
    expect(guest.word(0x7000)).toBe(0x1234n)
    d.attach(hwpt, 5)
    expect(d.dma(GVA, GVA + PAGE, 8, 5)).toBe(true)
  })
})

describe('closing', () => {
  it.each(['device first', 'iommufd first', 'process exit'] as const)(
    '%s leaves nothing',
    order => {
      const { u, d, ioas } = setup()
      d.attach(u.hwpt(d.id, ioas, { flags: PASID }))
      d.attach(u.hwpt(d.id, ioas, { flags: PASID }), 5)
      if (order === 'device first') d.close()
      if (order !== 'process exit') u.sys.close(u.fd)
      else u.sys.exit()
    },
  )

  it('an iommufd that a bound device keeps alive still translates', () => {
    const { u, d, ioas, copies } = setup()
    d.attach(ioas)
    u.sys.close(u.fd)
    expect(copies(() => d.dma(0x10_0000n, 0x10_1000n))).toBe(true)
  })
})
