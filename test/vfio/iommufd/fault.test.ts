// Fault queues: page requests of a device as records, answers by cookie, and what leaves a table unanswered.
import { afterEach, describe, expect, it } from 'vitest'
import { ats, msix, pasidCapability } from '../../../src/pci/device-model.js'
import {
  IOMMU_FAULT_QUEUE_ALLOC,
  IOMMU_HWPT_ALLOC_NEST_PARENT,
  IOMMU_HWPT_ALLOC_PASID,
  IOMMU_HWPT_FAULT_ID_VALID,
  IOMMU_PGFAULT_FLAGS_LAST_PAGE,
  IOMMU_PGFAULT_FLAGS_PASID_VALID,
  IOMMU_PGFAULT_PERM_READ,
  IOMMUFD_PAGE_RESP_INVALID,
  IOMMUFD_PAGE_RESP_SUCCESS,
  iommu_fault_alloc,
  iommu_hwpt_page_response,
  iommu_hwpt_pgfault,
} from '../../../src/uapi.js'
import { plainDevice, refused } from '../../support/vfio-bench.js'
import { asker, READ, REFUSED, WAITING } from './asker.js'
import { checkIommufd, GVA, guestMemory, iommufdBench, PAGE, user } from './bench.js'

afterEach(checkIommufd)

const RECORD = 40

function setup({ pasid }: { readonly pasid: number | undefined } = { pasid: 5 }) {
  const b = iommufdBench({ devices: [[asker], [asker]] })
  const u = user(b)
  const d = u.device()
  const ioas = u.ioas()
  const guest = guestMemory(u.sys)
  u.map(ioas, guest.vaddr, 0x1_0000n, 0n)
  const parent = u.hwpt(d.id, ioas, { flags: IOMMU_HWPT_ALLOC_NEST_PARENT })
  const queue = u.faultQueue()
  const table = (fault_id = queue.id) =>
    u.nested(
      d.id,
      parent,
      { pgtbl_addr: guest.root },
      { flags: IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_FAULT_ID_VALID, fault_id },
    )
  const hwpt = table()
  d.attach(hwpt, pasid)
  const { ADDR, PASID, PAGES, STATE, GO } = asker.bar0
  const window = d.start()
  const state = () => {
    b.settle()
    return Number(window.load(STATE.offset, 4))
  }
  const ask = (addr = GVA, pages = 1, under = pasid) => {
    window.store(ADDR.offset, 8, addr)
    window.store(PASID.offset, 4, under === undefined ? 0n : 0x8000_0000n | BigInt(under))
    window.store(PAGES.offset, 4, BigInt(pages))
    window.store(GO.offset, 4, 1n)
    return state()
  }
  const read = (records = 8) => {
    const bytes = u.sys.read(queue.fd, records * RECORD)
    return Array.from({ length: bytes.length / RECORD }, (_, i) =>
      iommu_hwpt_pgfault.at(bytes, i * RECORD),
    )
  }
  const answers = (...list: [cookie: number, code: number][]) => {
    const bytes = new Uint8Array(list.length * 8)
    for (const [i, [cookie, code]] of list.entries())
      bytes.set(iommu_hwpt_page_response({ cookie, code }).bytes, i * 8)
    return u.sys.write(queue.fd, bytes)
  }
  const close = () => {
    u.sys.munmap(window.vaddr, 0x1000)
    d.close()
  }
  return { b, u, d, close, guest, parent, queue, table, hwpt, ask, state, read, answers }
}

describe.each([
  ['under a PASID', 5],
  ['of the function', undefined],
] as const)('a page request %s', (_, pasid) => {
  it('is read, answered, and the device goes on', () => {
    const { u, d, guest, queue, ask, state, read, answers } = setup({ pasid })
    expect(u.sys.readable(queue.fd)).toBe(false)
    expect(ask()).toBe(WAITING)
    expect(u.sys.readable(queue.fd)).toBe(true)
    const [fault] = read()
    expect(fault).toMatchObject({
      dev_id: d.id,
      pasid: pasid ?? 0,
      addr: GVA,
      perm: IOMMU_PGFAULT_PERM_READ,
      flags:
        IOMMU_PGFAULT_FLAGS_LAST_PAGE | (pasid === undefined ? 0 : IOMMU_PGFAULT_FLAGS_PASID_VALID),
      length: 0,
    })
    expect(u.sys.readable(queue.fd)).toBe(false)
    guest.page(0, 0x5000)
    expect(answers([fault!.cookie, IOMMUFD_PAGE_RESP_SUCCESS])).toBe(8)
    expect(state()).toBe(READ)
  })

  it('INVALID ends it', () => {
    const { ask, state, read, answers } = setup({ pasid })
    ask()
    answers([read()[0]!.cookie, IOMMUFD_PAGE_RESP_INVALID])
    expect(state()).toBe(REFUSED)
  })

  it.each(['read', 'not read'] as const)('that was %s is answered by a detach', how => {
    const { d, ask, state, read, answers } = setup({ pasid })
    ask()
    const cookie = how === 'read' ? read()[0]!.cookie : 1
    d.detach(pasid)
    expect(state()).toBe(REFUSED)
    expect(read()).toEqual([])
    refused('EINVAL', () => answers([cookie, IOMMUFD_PAGE_RESP_SUCCESS]))
  })

  it('is answered by a replacement, and the next goes to the new table’s queue', () => {
    const { u, d, table, ask, state, read } = setup({ pasid })
    const other = u.faultQueue()
    ask()
    d.attach(table(other.id), pasid)
    expect(state()).toBe(REFUSED)
    expect(read()).toEqual([])
    expect(ask()).toBe(WAITING)
    expect(read()).toEqual([])
    expect(u.sys.read(other.fd, RECORD)).toHaveLength(RECORD)
  })

  it('is answered when the device is closed', () => {
    const { b, close, ask } = setup({ pasid })
    expect(ask()).toBe(WAITING)
    close()
    expect(b.core.pendingPageRequests()).toBe(0)
  })
})

describe('reading', () => {
  it('E152: whole groups or none: EINVAL for 2 of 3 records, ESPIPE for 50 bytes', () => {
    const { u, queue, ask, read } = setup()
    ask(GVA, 3)
    refused('EINVAL', () => read(2))
    refused('EINVAL', () => u.sys.read(queue.fd, 0))
    refused('ESPIPE', () => u.sys.read(queue.fd, 50))
    const group = read(3)
    expect(group.map(f => f.addr)).toEqual([GVA, GVA + PAGE, GVA + 2n * PAGE])
    expect(group.map(f => f.flags & IOMMU_PGFAULT_FLAGS_LAST_PAGE)).toEqual([0, 0, 2])
    expect(new Set(group.map(f => f.cookie)).size).toBe(1)
  })

  it('as many groups as fit, 0 bytes when there is none', () => {
    const { u, d, queue, table, ask, read } = setup()
    expect(u.sys.read(queue.fd, RECORD)).toHaveLength(0)
    expect(u.sys.read(queue.fd, 0)).toHaveLength(0)
    d.attach(table(), 6)
    ask(GVA, 2, 5)
    ask(GVA, 2, 6)
    expect(read(3).map(f => f.pasid)).toEqual([5, 5])
    expect(read(3).map(f => f.pasid)).toEqual([6, 6])
  })

  it('tells a listener when something came', () => {
    const { u, queue, ask } = setup()
    let told = 0
    const end = u.sys.onReadable(queue.fd, () => told++)
    ask()
    end()
    expect(told).toBe(1)
  })
})

describe('writing', () => {
  it('E153: EINVAL for an unknown cookie; the count so far behind a valid one', () => {
    const { u, queue, ask, state, read, answers } = setup()
    refused('EINVAL', () => answers([7, IOMMUFD_PAGE_RESP_SUCCESS]))
    ask()
    const { cookie } = read()[0]!
    expect(answers([cookie, IOMMUFD_PAGE_RESP_INVALID], [7, IOMMUFD_PAGE_RESP_SUCCESS])).toBe(8)
    expect(state()).toBe(REFUSED)
    refused('EINVAL', () => answers([cookie, IOMMUFD_PAGE_RESP_SUCCESS]))
    refused('ESPIPE', () => u.sys.write(queue.fd, new Uint8Array(9)))
    expect(u.sys.write(queue.fd, new Uint8Array(0))).toBe(0)
  })

  it('EINVAL for a code that is none, and the request still waits', () => {
    const { guest, ask, state, read, answers } = setup()
    ask()
    const { cookie } = read()[0]!
    refused('EINVAL', () => answers([cookie, 2]))
    guest.page(0, 0x5000)
    answers([cookie, IOMMUFD_PAGE_RESP_SUCCESS])
    expect(state()).toBe(READ)
  })

  it('EINVAL for a request that was not read yet', () => {
    const { ask, answers } = setup()
    ask()
    refused('EINVAL', () => answers([1, IOMMUFD_PAGE_RESP_SUCCESS]))
  })
})

describe('who takes page requests', () => {
  it('nobody of a table without a queue: INVALID at once', () => {
    const { u, d, guest, parent, ask } = setup()
    const flags = IOMMU_HWPT_ALLOC_PASID
    d.attach(u.nested(d.id, parent, { pgtbl_addr: guest.root }, { flags }), 5)
    expect(ask()).toBe(REFUSED)
  })

  it('an address space’s table too, when it was made with a queue', () => {
    const { u, d, queue, guest, ask, state, read, answers } = setup()
    const ioas = u.ioas()
    const flags = IOMMU_HWPT_ALLOC_PASID | IOMMU_HWPT_FAULT_ID_VALID
    d.attach(u.hwpt(d.id, ioas, { flags, fault_id: queue.id }), 7)
    expect(ask(GVA, 1, 7)).toBe(WAITING)
    u.map(ioas, guest.vaddr, PAGE, GVA)
    answers([read()[0]!.cookie, IOMMUFD_PAGE_RESP_SUCCESS])
    expect(state()).toBe(READ)
  })

  it('ENODEV to attach a function without page requests to a table with a queue', () => {
    const b = iommufdBench({
      devices: [
        [plainDevice([msix({ vectors: 1, bar: 2 }), ats(), pasidCapability({ width: 20 })])],
      ],
    })
    const u = user(b)
    const d = u.device()
    const flags = IOMMU_HWPT_FAULT_ID_VALID
    const hwpt = u.hwpt(d.id, u.ioas(), { flags, fault_id: u.faultQueue().id })
    refused('ENODEV', () => d.attach(hwpt))
  })
})

describe('the object', () => {
  it('EBUSY while its file is open or a table uses it', () => {
    const { u, d, queue, hwpt } = setup()
    refused('EBUSY', () => u.destroy(queue.id))
    u.sys.close(queue.fd)
    refused('EBUSY', () => u.destroy(queue.id))
    d.detach(5)
    u.destroy(hwpt)
    u.destroy(queue.id)
  })

  it('its file keeps the iommufd alive', () => {
    const { b, u, close, queue } = setup()
    close()
    u.sys.close(u.fd)
    expect(b.vfio.iommufd!.holdings().iommufds).toBe(1)
    u.sys.close(queue.fd)
    expect(b.vfio.iommufd!.holdings().iommufds).toBe(0)
  })

  it('EOPNOTSUPP for flags, EMFILE without a descriptor', () => {
    const b = iommufdBench()
    const u = user(b, b.spawn({ nofile: 1 }))
    const call = (flags: number) => u.call(IOMMU_FAULT_QUEUE_ALLOC, iommu_fault_alloc({ flags }))
    refused('EOPNOTSUPP', () => call(1))
    refused('EMFILE', () => call(0))
  })
})
