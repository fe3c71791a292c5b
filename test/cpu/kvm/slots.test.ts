import { describe, expect, it } from 'vitest'
import type { PasidHandler } from '../../../src/cpu/kvm/pasid.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import type { MmioTarget } from '../../../src/mem/address-space.js'
import { PROT_NONE, PROT_READ } from '../../../src/mem/vma.js'
import { AT, Guest, RAM_BYTES } from './guest.js'

const GPA = 0x1000_0000
/** Loads, stores and loads again at the slot: old value, then new. */
// mov $0x10000000,%ebx; mov (%rbx),%eax; out %eax,$0x10; movl $0x11223344,(%rbx); mov (%rbx),%eax; out %eax,$0x10
const PROBE = 'bb 00 00 00 10 8b 03 e7 10 c7 03 44 33 22 11 8b 03 e7 10'

function withMemory(flags = 0) {
  const g = new Guest()
  const memory = g.sys.mmap(0x4000)
  const slot = {
    slot: 1,
    flags,
    guest_phys_addr: BigInt(GPA),
    memory_size: 0x4000n,
    userspace_addr: memory.vaddr,
  }
  g.slot(slot)
  return { g, memory, slot }
}

describe('KVM_SET_USER_MEMORY_REGION refuses', () => {
  const ok = {
    slot: 1,
    guest_phys_addr: BigInt(GPA),
    memory_size: 0x2000n,
    userspace_addr: 0x7000_0000n,
  }
  it.each([
    ['unknown flags', { ...ok, flags: 4 }, 'EINVAL'],
    ['a size that is no page multiple', { ...ok, memory_size: 0x1001n }, 'EINVAL'],
    ['an unaligned guest address', { ...ok, guest_phys_addr: 0x800n }, 'EINVAL'],
    ['an unaligned user address', { ...ok, userspace_addr: 0x800n }, 'EINVAL'],
    ['a user range that leaves user space', { ...ok, userspace_addr: 0x7fff_ffff_e000n }, 'EINVAL'],
    ['a kernel address', { ...ok, userspace_addr: 0xffff_8000_0000_0000n }, 'EINVAL'],
    ['a slot beyond the last', { ...ok, slot: 32764 }, 'EINVAL'],
    ['another address space', { ...ok, slot: 0x1_0001 }, 'EINVAL'],
    ['a guest range that wraps', { ...ok, guest_phys_addr: 0xffff_ffff_ffff_f000n }, 'EINVAL'],
    ['a guest range beyond the physical width', { ...ok, guest_phys_addr: 1n << 52n }, 'EINVAL'],
    ['deleting a slot that is not there', { ...ok, memory_size: 0n }, 'EINVAL'],
    ['overlap with another slot', { ...ok, guest_phys_addr: BigInt(RAM_BYTES - 4096) }, 'EEXIST'],
  ])('%s', (_, region, code) => {
    const g = new Guest()
    expect(() => g.slot(region)).toThrow(code)
  })

  it.each([
    ['a new size', { memory_size: 0x2000n }],
    ['another user address', { userspace_addr: 0x7000_0000n }],
    ['a change of READONLY', { flags: uapi.KVM_MEM_READONLY }],
  ])('%s of an existing slot', (_, change) => {
    const { g, slot } = withMemory()
    expect(() => g.slot({ ...slot, ...change })).toThrow('EINVAL')
  })

  it('a moved slot that would overlap, and leaves it where it was', () => {
    const { g, slot, memory } = withMemory()
    expect(() => g.slot({ ...slot, guest_phys_addr: 0n })).toThrow('EEXIST')
    new DataView(memory.bytes.buffer, memory.bytes.byteOffset).setUint32(0, 5, true)
    g.code(PROBE)
    expect(g.answer()).toBe(5)
  })

  it('a structure that is not there', () => {
    const g = new Guest()
    expect(() => g.sys.ioctl(g.vm, uapi.KVM_SET_USER_MEMORY_REGION, 0x1000)).toThrow('EFAULT')
  })
})

describe('a slot', () => {
  it("is the owner's memory, both ways", () => {
    const { g, memory } = withMemory()
    memory.bytes.set([1, 0, 0, 0])
    g.code(PROBE)
    expect([g.answer(), g.answer()]).toEqual([1, 0x11223344])
    expect([...memory.bytes.subarray(0, 4)]).toEqual([0x44, 0x33, 0x22, 0x11])
  })

  it('moves, and deleting it makes its range MMIO, also for translations in use', () => {
    const { g, slot, memory } = withMemory()
    memory.bytes.set([1, 0, 0, 0])
    g.code(PROBE)
    expect(g.answer()).toBe(1)
    g.slot({ ...slot, guest_phys_addr: BigInt(GPA + 0x10_0000) })
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    g.slot({ ...slot, memory_size: 0n })
    g.slot({ ...slot })
  })

  it('that is read-only gives loads, and makes stores MMIO', () => {
    const { g, memory } = withMemory(uapi.KVM_MEM_READONLY)
    memory.bytes.set([1, 0, 0, 0])
    g.code(PROBE)
    expect(g.answer()).toBe(1)
    expect(g.enter()).toBe(uapi.KVM_EXIT_MMIO)
    expect([g.run.u.mmio.is_write, g.run.u.mmio.phys_addr]).toEqual([1, BigInt(GPA)])
    expect(g.answer()).toBe(1)
  })

  it('whose memory the owner unmapped is EFAULT to the owner; mapped again, the guest goes on', () => {
    const { g, memory } = withMemory()
    g.code(PROBE)
    g.answer()
    g.sys.munmap(memory.vaddr, 0x4000)
    expect(g.enter()).toBe('EFAULT')
    const again = g.sys.process.memory.mmap(0x4000, { at: memory.vaddr })
    expect(g.answer()).toBe(0x11223344)
    expect(again.bytes[0]).toBe(0x44)
  })

  it('may be set up before there is memory, and be filled in any order', () => {
    const g = new Guest()
    const at = 0x5000_0000n
    g.slot({ slot: 1, guest_phys_addr: BigInt(GPA), memory_size: 0x4000n, userspace_addr: at })
    const high = g.sys.process.memory.mmap(0x1000, { at: at + 0x2000n })
    const low = g.sys.process.memory.mmap(0x1000, { at })
    high.bytes[0] = 2
    low.bytes[0] = 1
    // mov 0x10002000,%al; out %al,$0x10; mov 0x10000000,%al; out %al,$0x10; mov 0x10001000,%al
    g.code('8a 04 25 00 20 00 10 e6 10 8a 04 25 00 00 00 10 e6 10 8a 04 25 00 10 00 10')
    expect([g.answer(), g.answer()]).toEqual([2, 1])
    expect(g.enter()).toBe('EFAULT')
  })

  it('of 8 TiB over a hole is set up at once', () => {
    const g = new Guest()
    g.slot({
      slot: 1,
      guest_phys_addr: 1n << 43n,
      memory_size: (2n ** 31n - 1n) << 12n,
      userspace_addr: 0x1000_0000n,
    })
    g.slot({ slot: 1, guest_phys_addr: 1n << 43n, memory_size: 0n, userspace_addr: 0n })
  })

  it('over memory the owner may only read is EFAULT on a store', () => {
    const { g, memory } = withMemory()
    g.sys.process.memory.mprotect(memory.vaddr, 0x4000, PROT_READ)
    g.code(PROBE)
    g.answer()
    expect(g.enter()).toBe('EFAULT')
  })

  it('over memory the owner may not even read is EFAULT on a load', () => {
    const { g, memory } = withMemory()
    g.sys.process.memory.mprotect(memory.vaddr, 0x4000, PROT_NONE)
    g.code(PROBE)
    expect(g.enter()).toBe('EFAULT')
  })

  it('may show memory the kernel shares with its owner', () => {
    const g = new Guest()
    const page = g.sys.mmap({ fd: g.vcpu, offset: 8192, length: 4096 })
    const userspace_addr = page.vaddr
    g.slot({ slot: 1, guest_phys_addr: BigInt(GPA), memory_size: 0x1000n, userspace_addr })
    page.bytes[0] = 6
    g.code(PROBE)
    expect(g.answer()).toBe(6)
  })

  it('page tables in a hole are a reserved-bit fault, in memory that appeared they work', () => {
    const g = new Guest()
    const at = 0x5000_0000n
    g.slot({ slot: 1, guest_phys_addr: BigInt(GPA), memory_size: 0x1000n, userspace_addr: at })
    g.view.setBigUint64(AT.PD + 8, BigInt(GPA) | 7n, true)
    // mov 0x200000,%al; out %al,$0x10
    g.code('8a 04 25 00 00 20 00 e6 10')
    expect(g.trap()).toMatchObject({ vector: 14, error: 9 })
    const table = g.sys.process.memory.mmap(0x1000, { at })
    new DataView(table.bytes.buffer, table.bytes.byteOffset).setBigUint64(0, 0x3_0007n, true)
    g.ram[0x3_0000] = 9
    g.setRegs({ rip: BigInt(AT.CODE), rsp: BigInt(AT.STACK) })
    expect(g.answer()).toBe(9)
  })
})

describe('the dirty log', () => {
  const log = (g: Guest, slot = 1) => {
    const bitmap = g.sys.mmap(4096)
    g.sys.ioctl(
      g.vm,
      uapi.KVM_GET_DIRTY_LOG,
      uapi.kvm_dirty_log({ slot, dirty_bitmap: bitmap.vaddr }),
    )
    return bitmap.bytes[0]
  }

  it('names the pages written since it was last asked', () => {
    const { g } = withMemory(uapi.KVM_MEM_LOG_DIRTY_PAGES)
    // mov $0x10000000,%ebx; mov %al,0x1000(%rbx); mov %al,0x3fff(%rbx); mov (%rbx),%al; out %al,$0x10; mov %al,(%rbx); out %al,$0x10
    g.code('bb 00 00 00 10 88 83 00 10 00 00 88 83 ff 3f 00 00 8a 03 e6 10 88 03 e6 10')
    g.answer()
    expect(log(g)).toBe(0b1010)
    g.answer()
    expect(log(g)).toBe(0b0001)
    expect(log(g)).toBe(0)
  })

  it.each([
    ['ENOENT', 1],
    ['ENOENT', 7],
    ['EINVAL', 0x1_0000],
  ])('%s for slot %i without one', (code, slot) => {
    expect(() => log(withMemory().g, slot)).toThrow(code)
  })
})

describe('a slot over a mapped device', () => {
  it('forwards accesses of each size and both kinds of 64-byte write', () => {
    const subscribe = (_: object, handler: PasidHandler) => {
      handler.bind(5, 77)
      return () => {}
    }
    const g = new Guest({
      parts: { pasidSource: { subscribe } },
    })
    const seen: string[] = []
    const device: MmioTarget = {
      read: (offset, size) => {
        seen.push(`read ${offset} ${size}`)
        return 0x1234n
      },
      write: (offset, size, value) => void seen.push(`write ${offset} ${size} ${value}`),
      write64: (offset, bytes, deferrable) => {
        seen.push(`write64 ${offset} ${deferrable} ${bytes[0]}`)
        return bytes[63] !== 1
      },
    }
    g.host.memory.addMmio(0xc000_0000, 0x2000, device, 'bar')
    const bar = g.sys.process.memory.mmap(0x2000, {
      backing: { space: g.host.memory, hpa: 0xc000_0000 },
    })
    g.slot({
      slot: 1,
      guest_phys_addr: BigInt(GPA),
      memory_size: 0x2000n,
      userspace_addr: bar.vaddr,
    })
    // mov $0x10000000,%ebx; mov 8(%rbx),%ax; mov %eax,0x1004(%rbx); mov $0x20000,%edx; movdir64b (%rdx),%rbx; mov $0xd93,%ecx; mov $0x80000005,%eax; xor %edx,%edx; wrmsr; mov $0x20000,%edx; movl $0,(%rdx); enqcmd (%rdx),%rbx; setz %al; out %al,$0x10; movb $1,63(%rdx); enqcmd (%rdx),%rbx; setz %al; out %al,$0x10
    g.code(
      'bb 00 00 00 10 66 8b 43 08 89 83 04 10 00 00 ba 00 00 02 00 66 0f 38 f8 1a b9 93 0d 00 00 b8 05 00 00 80 31 d2 0f 30 ba 00 00 02 00 c7 02 00 00 00 00 f2 0f 38 f8 1a 0f 94 c0 e6 10 c6 42 3f 01 f2 0f 38 f8 1a 0f 94 c0 e6 10',
    )
    g.ram[AT.DATA] = 3
    expect([g.answer(), g.answer()]).toEqual([0, 1])
    expect(seen).toEqual([
      'read 8 2',
      'write 4100 4 4660',
      'write64 0 false 3',
      'write64 0 true 77',
      'write64 0 true 77',
    ])
  })
})
