// PASID ranges, widths and owners while a guest's processor keeps submitting (ENQCMD in a loop): what it gets
// must follow the bindings at once, and never be somebody else's.
import { afterEach, expect, it } from 'vitest'
import { le32 } from '../../src/bytes.js'
import { svaEngine } from '../../src/pci/devices/sva-engine.js'
import { bench, checkBenches } from '../../src/testing/index.js'
import { install } from '../../src/testing/setup.js'
import { VFIO_DEVICE_GET_REGION_INFO, vfio_region_info } from '../../src/uapi.js'
import { prepareGuest } from '../../src/vmm/guest-boot.js'
import { Vm } from '../../src/vmm/vm.js'
import { tinyElf } from '../support/elf.js'

install({ expect, afterEach })
afterEach(checkBenches)

const hex = (s: string) => [...s.matchAll(/../g)].map(m => Number.parseInt(m[0], 16))
const PORTAL = 0xc000_0000
/** Guest addresses of data; the descriptor, at 0x210000, is a no-op of zeroes. */
const [IDT, IDT_POINTER, COUNTERS] = [0x20_0000, 0x20_2000, 0x22_0000]

/** lidt; IA32_PASID = valid | gpasid; then ENQCMD for ever, counting accepted, retried and #GP. */
const guestCode = (gpasid: number) => [
  ...hex('0f011c2500202000'), // lidt 0x202000
  ...hex('b9930d0000'),
  0xb8,
  gpasid,
  0,
  0,
  0x80,
  ...hex('31d2'),
  ...hex('0f30'), // wrmsr 0xd93
  ...hex('bf000000c0'),
  ...hex('be00002100'),
  ...hex('bb00002200'), // rdi, rsi, rbx
  ...hex('f20f38f83e7405'),
  ...hex('48ff03'),
  ...hex('ebf4'), // enqcmd; jz; accepted++
  ...hex('48ff4308'),
  ...hex('ebee'), // retried++
]
/** #GP: counts, skips the instruction as if it had answered retry (ZF), returns. */
const HANDLER = hex('48ff4310' + '4883442408' + '05' + '48834c241840' + '4883c408' + '48cf')

/** A guest in `program`'s process that submits to function `device`'s shared queue without end. */
function submitter(
  program: ReturnType<ReturnType<typeof bench>['process']>,
  deviceFd: number,
  gpasid: number,
) {
  const { sys } = program
  const portal = vfio_region_info({ index: 4 })
  sys.ioctl(deviceFd, VFIO_DEVICE_GET_REGION_INFO, portal)
  const mapped = sys.mmap({ fd: deviceFd, offset: portal.offset, length: 4096 })
  const ram = sys.mmap(4 * 2 ** 20)
  const code = guestCode(gpasid)
  const handler = 0x10_0000 + code.length
  const entry = prepareGuest(ram.bytes, tinyElf([...code, ...HANDLER]), {
    ramBytes: 4 * 2 ** 20,
    ecamBase: 0,
    iommuBase: 0,
  })
  const view = new DataView(ram.bytes.buffer, ram.bytes.byteOffset, ram.bytes.length)
  view.setUint16(IDT_POINTER, 0xfff, true)
  view.setUint32(IDT_POINTER + 2, IDT, true)
  view.setUint32(IDT + 13 * 16, (8 << 16) | (handler & 0xffff), true)
  view.setUint32(IDT + 13 * 16 + 4, (handler & 0xffff_0000) | 0x8e00, true)
  const vm = new Vm(sys)
  vm.setSlot(0, 0, 4 * 2 ** 20, ram.vaddr)
  vm.setSlot(1, PORTAL, 4096, mapped.vaddr)
  vm.setEntry(entry)
  const counters = () =>
    [0, 8, 16].map(i => Number(view.getBigUint64(COUNTERS + i, true))) as [number, number, number]
  return {
    /** Lets the guest run for 20 µs; what it was answered meanwhile. */
    run(): { accepted: number; faulted: number } {
      const before = counters()
      program.sys.process.kernel.clock.later(() => vm.kick(), 20_000)
      expect(
        vm.runOnce({ portRead: () => 0, portWrite() {}, mmioRead: () => 0n, mmioWrite() {} }).kind,
      ).toBe('again')
      const after = counters()
      return { accepted: after[0] - before[0], faulted: after[2] - before[2] }
    },
    close() {
      vm.close()
      sys.munmap(mapped.vaddr, 4096)
    },
  }
}

it('two containers of one process bind and unbind one PASID while the guest submits: it translates from the first bind to the last unbind (E128, E131)', () => {
  const b = bench({ devices: [[svaEngine], [svaEngine]] })
  const program = b.process()
  const [one, two] = [program.nesting(0), program.nesting(1)]
  const device = one.device(0)
  device.write(0, 0x100, le32(0x8000_0041))
  const guest = submitter(program, device.fd, 5)
  const pasid = one.alloc(100, 100)
  const translates = () => {
    const { accepted, faulted } = guest.run()
    expect(accepted > 0).toBe(faulted === 0)
    return accepted > 0
  }
  expect(translates()).toBe(false)
  one.bind({ hpasid: pasid, gpasid: 5, gpgd: 0x1000n })
  expect(translates()).toBe(true)
  two.bind({ hpasid: pasid, gpasid: 5, gpgd: 0x1000n })
  expect(translates()).toBe(true)
  one.unbind(pasid)
  expect(translates()).toBe(true)
  two.unbind(pasid)
  expect(translates()).toBe(false)
  guest.close()
})

it('binding through two devices of one group while the guest submits, then freeing the bound PASID: submission ends with the FREE, before any unbind (E53, E129)', () => {
  const b = bench({ devices: [[svaEngine, svaEngine]] })
  const program = b.process()
  const container = program.nesting(0)
  const device = container.device(0)
  device.write(0, 0x100, le32(0x8000_0041))
  const guest = submitter(program, device.fd, 9)
  const pasid = container.alloc(7, 7)
  container.bind({ hpasid: pasid, gpasid: 9, gpgd: 0x1000n })
  expect(guest.run()).toMatchObject({ faulted: 0 })
  container.free(pasid)
  expect(guest.run().accepted).toBe(0)
  expect(() => container.bind({ hpasid: pasid, gpasid: 9, gpgd: 0x1000n })).toRefuse('ENOENT')
  guest.close()
})
