// F-2 through iommufd: pages that a guest makes private leave every domain of the address space first.
import { afterEach, expect, it } from 'vitest'
import { ProtectedVm } from '../../support/protected-vm.js'
import { checkIommufd, iommufdBench, PAGE, user } from './bench.js'

afterEach(checkIommufd)

const IOVA = 0x10_0000n
const [FROM, TO] = [0x10_0000n, 0x10_2000n]

function setup() {
  const b = iommufdBench()
  const u = user(b)
  const ioas = u.ioas()
  const memory = u.sys.mmap(4 * Number(PAGE))
  const vm = new ProtectedVm(u.sys, 0, memory.vaddr, 4)
  return { u, ioas, memory, vm }
}

it('a page that becomes private is out of reach of the device, and in reach again when it is shared', () => {
  const { u, ioas, memory, vm } = setup()
  const d = u.device()
  d.attach(ioas)
  u.map(ioas, memory.vaddr, 4n * PAGE, IOVA)
  expect(d.dma(FROM, TO)).toBe(true)
  vm.set(0, 1, true)
  memory.bytes.fill(0x11)
  expect([d.dma(FROM, TO), d.dma(TO, FROM), d.dma(FROM + PAGE, TO)]).toEqual([false, false, true])
  vm.set(0, 1, false)
  expect([d.dma(FROM, TO), memory.bytes[0x2000]]).toEqual([true, 0x11])
})

it('cannot be mapped where a domain pins it: EFAULT', () => {
  const { u, ioas, memory, vm } = setup()
  const d = u.device()
  d.attach(ioas)
  vm.set(0x1000, 1, true)
  expect(() => u.map(ioas, memory.vaddr, 4n * PAGE, IOVA)).toThrow('EFAULT')
  u.map(ioas, memory.vaddr, PAGE, IOVA)
  expect(d.dma(FROM, FROM + 8n)).toBe(true)
})

it('stays out of a second domain over the same address space', () => {
  const { u, ioas, memory, vm } = setup()
  const [one, two] = [u.device(), u.device(1)]
  one.attach(ioas)
  u.map(ioas, memory.vaddr, 4n * PAGE, IOVA)
  vm.set(0, 2, true)
  two.attach(u.hwpt(two.id, ioas))
  expect([two.dma(FROM, TO), two.dma(TO, TO + 8n)]).toEqual([false, true])
  vm.set(0, 2, false)
  expect([one.dma(FROM, TO), two.dma(FROM, TO)]).toEqual([true, true])
})
