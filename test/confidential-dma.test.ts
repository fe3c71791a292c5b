// Where private memory meets DMA (F-2, F-3, F-5): what a guest makes private leaves devices first, nothing that was under
// way shows private data, teardown in any order leaves nothing, and the checker tells both histories.
import { describe, expect, it } from 'vitest'
import { describeConfidentialDma } from '../src/confidential-dma.js'
import type { GuestMemfdOptions } from '../src/cpu/kvm/memory/private-memory.js'
import { explain } from '../src/explain/index.js'
import { createMachine } from '../src/machine.js'
import { ConfidentialPages } from '../src/mem/confidential.js'
import { dmaCopy } from '../src/pci/devices/dma-copy.js'
import * as uapi from '../src/uapi.js'
import { CopyDevice } from '../src/vmm/copy-device.js'
import { PrivateGuest } from '../src/vmm/private-guest.js'
import { answer, begin, DONE, description, PENDING, result } from './history/scene.js'
import { ProtectedVm } from './support/protected-vm.js'
import { image } from './vmm/private.js'

const PAGE = 4096
const PAGES = 8
/** Guest-physical and I/O virtual address of the memory. */
const AT = 0x10_0000
/** Where the device's copies come from and go to. */
const OTHER = 0x20_0000
const SECRET = 0x5e
const IOMMUS = ['vt-d', 'smmuv3'] as const

function scene(iommu: (typeof IOMMUS)[number] = 'vt-d', guestMemfd: GuestMemfdOptions = {}) {
  const devices = [{ at: '0000:01:00.0', model: dmaCopy }]
  const machine = createMachine({
    iommu,
    devices,
    ramBytes: 8 << 20,
    guestMemfd,
    detectConfidentialDma: true,
  })
  const start = { used: machine.kernel.frames.used, pins: machine.kernel.frames.pins }
  const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
  const at = '0000:01:00.0'
  const device = new CopyDevice(sys, machine.groupOf(at), at, () => machine.settle())
  const memory = sys.mmap(PAGES * PAGE)
  const other = sys.mmap(PAGES * PAGE)
  device.map(AT, memory.vaddr, PAGES * PAGE)
  device.map(OTHER, other.vaddr, PAGES * PAGE)
  const vm = new ProtectedVm(sys, AT, memory.vaddr, PAGES)
  const states = ConfidentialPages.of(machine.memory)
  const frames = machine.kernel.frames
  const secrets: number[] = []
  for (let i = 0; i < frames.total; i++) {
    if (states.state(i)?.kind !== 'private') continue
    secrets.push(i)
    frames.bytes(i * PAGE).fill(SECRET)
  }
  const read = (page: number) => device.copy(AT + page * PAGE, OTHER, PAGE)
  const write = (page: number) => device.copy(OTHER, AT + page * PAGE, PAGE)
  const leaked = () => other.bytes.includes(SECRET)
  return { machine, sys, device, memory, other, vm, states, secrets, read, write, leaked, start }
}

describe.each(IOMMUS)('F-2, behind %s: a page that becomes private', iommu => {
  it('is out of reach of a device that has used it, though the owner unmapped nothing', () => {
    const s = scene(iommu)
    s.memory.bytes.fill(0x11)
    for (let i = 0; i < 3; i++) expect([s.read(2), s.write(3)]).toEqual([true, true])
    s.vm.set(AT + 2 * PAGE, 2, true)
    s.other.bytes.fill(0x22)
    expect([s.read(2), s.write(2), s.read(3), s.write(3)]).toEqual([false, false, false, false])
    expect(s.leaked()).toBe(false)
    expect([s.memory.bytes[2 * PAGE], s.other.bytes[0]]).toEqual([0x11, 0x22])
    expect([s.read(1), s.read(4)]).toEqual([true, true])
  })

  it('is in reach again once it is shared, by the mapping that was there', () => {
    const s = scene(iommu)
    s.vm.set(AT, PAGES, true)
    expect(s.read(0)).toBe(false)
    s.vm.set(AT + PAGE, 2, false)
    s.memory.bytes.fill(0x33)
    expect([s.read(0), s.read(1), s.read(2), s.read(3)]).toEqual([false, true, true, false])
    expect(s.other.bytes[0]).toBe(0x33)
    s.device.unmap(AT, PAGES * PAGE)
    expect(s.read(1)).toBe(false)
  })

  it('leaves the IOMMU, and every cache that held it, before the attribute changes', () => {
    const s = scene(iommu)
    s.read(0)
    const order: string[] = []
    s.machine.trace.listen('*', (_, name) => {
      if (/withdraw|attributes|confidential-page|invalidate|command/.test(name)) order.push(name)
    })
    s.vm.set(AT, 1, true)
    const invalidation = order.findIndex(n => /invalidate|command/.test(n))
    const pages = order.indexOf('confidential-page')
    expect(order[0]).toBe('vfio.withdraw')
    expect(invalidation).toBeGreaterThan(0)
    expect(invalidation).toBeLessThan(pages)
    expect(order.at(-1)).toBe('kvm.attributes')
  })

  it('cannot be mapped for a device: EFAULT, and its file cannot be mapped at all', () => {
    const s = scene(iommu)
    s.device.unmap(AT, PAGES * PAGE)
    s.vm.set(AT + PAGE, 1, true)
    expect(() => s.device.map(AT, s.memory.vaddr, PAGES * PAGE)).toThrow('EFAULT')
    expect(() => s.device.map(AT, s.memory.vaddr + BigInt(PAGE), PAGE)).toThrow('EFAULT')
    s.device.map(AT, s.memory.vaddr, PAGE)
    expect(() => s.sys.mmap({ fd: s.vm.memfd, offset: 0, length: PAGE })).toThrow('ENODEV')
    s.vm.set(AT + PAGE, 1, false)
    s.device.map(AT + PAGE, s.memory.vaddr + BigInt(PAGE), PAGE)
    expect(s.read(1)).toBe(true)
  })

  it('stays out of reach of a container that gets its IOMMU afterwards', () => {
    const s = scene(iommu)
    s.vm.set(AT, 1, true)
    s.device.close()
    s.machine.settle()
    const at = '0000:01:00.0'
    const again = new CopyDevice(s.sys, s.machine.groupOf(at), at, () => s.machine.settle())
    again.map(AT + PAGE, s.memory.vaddr + BigInt(PAGE), PAGE)
    expect(() => again.map(AT, s.memory.vaddr, PAGE)).toThrow('EFAULT')
    again.close()
  })
})

describe.each(IOMMUS)('F-3, behind %s: conversion under DMA', iommu => {
  it.each(['read', 'write'] as const)(
    'a %s that has begun ends in an error, never in private data',
    way => {
      const s = scene(iommu)
      s.memory.bytes.fill(0x11)
      s.other.bytes.fill(0x22)
      if (way === 'read') s.device.start(AT, OTHER, PAGE)
      else s.device.start(OTHER, AT, PAGE)
      s.vm.set(AT, 1, true)
      s.machine.settle()
      expect(s.device.finished()).toBe(false)
      expect([s.memory.bytes[0], s.other.bytes[0], s.leaked()]).toEqual([0x11, 0x22, false])
      for (const frame of s.secrets)
        expect(s.machine.kernel.frames.bytes(frame * PAGE)[0]).toBe(SECRET)
    },
  )
})

describe('F-3: conversion with a page request outstanding', () => {
  it('the answer leads to no private data; shared again, it leads to the shared page', () => {
    const machine = createMachine({ ...description, detectConfidentialDma: true })
    let vm!: ProtectedVm
    const held = begin(machine, (caller, table) => {
      vm = new ProtectedVm(caller, 0, table, 16)
    })
    const sys = machine.process(held.pid)!
    expect(result(machine, held)[0]).toBe(PENDING)
    const states = ConfidentialPages.of(machine.memory)
    const { frames } = machine.kernel
    for (let i = 0; i < frames.total; i++)
      if (states.state(i)?.kind === 'private') frames.bytes(i * PAGE).fill(SECRET)
    vm.set(0x5000, 1, true)
    answer(machine, held, uapi.IOMMU_PAGE_RESP_SUCCESS)
    const [state, data] = result(machine, held)
    expect(state).not.toBe(DONE)
    expect(data).toBe(0n)
    vm.set(0x5000, 1, false)
    sys.pwrite(held.device, Uint8Array.of(1, 0, 0, 0), 0x18n)
    machine.settle()
    expect(result(machine, held)).toEqual([DONE, 0x1234_5678n])
  })
})

describe('F-5: teardown', () => {
  const steps = ['device', 'vm', 'memfd', 'memory'] as const
  const orders = steps.flatMap(a =>
    steps
      .filter(b => b !== a)
      .flatMap(b =>
        steps
          .filter(c => c !== a && c !== b)
          .map(c => [a, b, c, steps.find(d => ![a, b, c].includes(d))!] as const),
      ),
  )

  it('in every order leaves nothing, and shows nothing on the way', () => {
    expect(orders).toHaveLength(24)
    for (const order of orders) {
      const s = scene()
      s.vm.set(AT, 4, true)
      let open = true
      for (const step of order) {
        if (step === 'device') s.device.close()
        if (step === 'vm') for (const fd of [s.vm.vm, s.vm.kvm]) s.sys.close(fd)
        if (step === 'memfd') s.sys.close(s.vm.memfd)
        if (step === 'memory') s.sys.munmap(s.memory.vaddr, PAGES * PAGE)
        open &&= step !== 'device'
        if (open) for (const page of [0, 5]) s.read(page)
        expect(s.leaked(), order.join()).toBe(false)
      }
      expect(s.states.count, order.join()).toBe(0)
      const { frames } = s.machine.kernel
      for (const frame of s.secrets)
        expect(frames.bytes(frame * PAGE).includes(SECRET), order.join()).toBe(false)
      s.sys.exit()
      s.machine.settle()
      expect({ used: frames.used, pins: frames.pins }, order.join()).toEqual(s.start)
    }
  })

  it('by exit of the process leaves nothing', () => {
    const s = scene()
    s.vm.set(AT, 4, true)
    s.sys.exit()
    s.machine.settle()
    const { frames } = s.machine.kernel
    expect({ used: frames.used, pins: frames.pins }).toEqual(s.start)
    expect(s.states.count).toBe(0)
  })

  it('a frame that its owner unmapped is plain at once, also while its guest page is private', () => {
    const s = scene()
    s.device.unmap(AT, PAGES * PAGE)
    s.vm.set(AT, PAGES, true)
    const marked = s.states.count
    s.sys.process.memory.mprotect(s.memory.vaddr, PAGE, 1)
    expect(s.states.count).toBe(marked)
    s.sys.munmap(s.memory.vaddr, 2 * PAGE)
    expect(s.states.count).toBe(marked - 2)
  })

  it('two VMs over the same memory: a page is in reach when neither has it private', () => {
    const s = scene()
    const second = new ProtectedVm(s.sys, AT, s.memory.vaddr, PAGES)
    s.vm.set(AT, 1, true)
    second.set(AT, 1, true)
    s.vm.set(AT, 1, false)
    expect(s.read(0)).toBe(false)
    second.set(AT, 1, false)
    expect(s.read(0)).toBe(true)
  })
})

describe('the checker', () => {
  it('names DMA that the IOMMU refused because the page was taken back', () => {
    const s = scene()
    s.vm.set(AT + PAGE, 1, true)
    s.read(1)
    expect(s.machine.confidentialDmas).toMatchObject([
      {
        access: 'read',
        address: BigInt(AT + PAGE),
        outcome: 'refused',
        state: { kind: 'withdrawn' },
        page: [{ state: 'withdrawn' }],
        mapping: [{}, { what: 'iova 0x101000, 0x1000 bytes, left the IOMMU and every cache' }],
      },
    ])
  })

  it('says nothing of DMA to plain pages, nor of other refusals', () => {
    const s = scene()
    s.vm.set(AT, 1, true)
    s.read(2)
    s.device.copy(0x7000_0000, OTHER, PAGE)
    expect(s.machine.confidentialDmas).toEqual([])
  })

  it('where the owner is to unmap and forgets: refused by the machine, with both histories in words', () => {
    const s = scene('vt-d', { devices: 'owner' })
    s.memory.bytes.fill(0x11)
    expect(s.write(0)).toBe(true)
    const before = s.memory.bytes[0]
    s.vm.set(AT, 2, true)
    s.other.bytes.fill(0x66)
    expect([s.write(0), s.memory.bytes[0]]).toEqual([false, before])
    s.vm.set(AT, 2, false)
    expect([s.write(0), s.memory.bytes[0]]).toEqual([true, 0x66])
    const [found, ...more] = s.machine.confidentialDmas
    expect(more).toEqual([])
    const text = describeConfidentialDma(found!)
      .replaceAll(/0x7[0-9a-f]{11}/g, '<vaddr>')
      .replaceAll(/host 0x[0-9a-f]+/g, 'host <page>')
      .replaceAll(/ +\d+\.\d{3} µs/g, ' <time>')
    expect(text).toBe(
      [
        'DMA write of 4096 bytes by 0000:01:00.0 at 0x100000 (host <page>) reached the shared copy of a page that its guest has made private. It was refused; no byte moved.',
        '  the page:',
        ' <time>  withdrawn: VM of process 2: KVM_SET_MEMORY_ATTRIBUTES made its page private',
        "  the device's way to it:",
        ' <time>  VFIO_IOMMU_MAP_DMA: iova 0x100000, 0x8000 bytes at <vaddr>, to read and write',
      ].join('\n'),
    )
  })

  it('is explained: both histories, cause and cure', () => {
    const s = scene('vt-d', { devices: 'owner' })
    s.vm.set(AT, 1, true)
    s.write(0)
    const text = explain(s.machine.confidentialDmas[0]!)
    for (const line of [
      'DMA to confidential memory: write at 0x100000',
      'What happened before',
      'withdrawn: VM of process 2: KVM_SET_MEMORY_ATTRIBUTES made its page private',
      'VFIO_IOMMU_MAP_DMA: iova 0x100000, 0x8000 bytes',
      'Likely cause',
      'unmap the range for devices before KVM_SET_MEMORY_ATTRIBUTES',
    ])
      expect(text.replaceAll(/\s+/g, ' ')).toContain(line)
    for (const kind of ['private', 'encrypted'] as const) {
      const state = kind === 'private' ? { kind } : { kind, asid: 2 }
      const found = { ...s.machine.confidentialDmas[0]!, state, outcome: 'ciphertext' as const }
      for (const access of ['read', 'write'] as const)
        expect(
          explain({ ...found, access, output: -1, pasid: 3, page: [], mapping: [] }),
        ).toContain(`DMA to confidential memory: ${access} at 0x100000, PASID 3`)
    }
  })

  it('sees a mapping that came and went', () => {
    const s = scene('vt-d', { devices: 'owner' })
    s.device.unmap(AT, PAGES * PAGE)
    s.device.map(AT, s.memory.vaddr, PAGES * PAGE)
    s.vm.set(AT, 1, true)
    s.read(0)
    const [found] = s.machine.confidentialDmas
    expect(found!.mapping.map(e => e.what.split(':')[0])).toEqual([
      'VFIO_IOMMU_MAP_DMA',
      'VFIO_IOMMU_UNMAP_DMA',
      'VFIO_IOMMU_MAP_DMA',
    ])
  })
})

describe('the tour (vfio-emu run --guest private-memory)', () => {
  it.each([
    ['as it should be', false, 0],
    ['with a VMM that forgets to unmap', true, 2],
  ])('%s', (_, forgetful, findings) => {
    const at = '0000:01:00.0'
    const machine = createMachine({
      devices: [{ at, model: dmaCopy }],
      ramBytes: 64 << 20,
      detectConfidentialDma: true,
      guestMemfd: forgetful ? { devices: 'owner' } : {},
    })
    const sys = machine.spawn({ capabilities: ['CAP_IPC_LOCK'] })
    const device = new CopyDevice(sys, machine.groupOf(at), at, () => machine.settle())
    const guest = new PrivateGuest({ sys, image, program: 'tour', device, forgetful })
    const end = guest.run()
    guest.close()
    device.close()
    expect(end).toEqual({ done: 1, failure: undefined, conversions: 4 })
    expect(machine.confidentialDmas).toHaveLength(findings)
  })
})
