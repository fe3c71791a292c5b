// Faults of the guest: the exit (D-1 to D-5), their order (D-6 to D-9), what a software-protected VM makes of them
// (D-27), the kernel's exit selftest (D-30), and invalidations around them (D-31).
import { describe, expect, it } from 'vitest'
import { preFault } from '../../../src/cpu/kvm/memory/calls.js'
import type { GuestMemfd } from '../../../src/cpu/kvm/memory/guest-memfd.js'
import { Invalidations } from '../../../src/cpu/kvm/memory/invalidations.js'
import { levelOfOrder } from '../../../src/cpu/kvm/memory/mapping-levels.js'
import * as uapi from '../../../src/cpu/kvm/uapi.js'
import { mayPreFault } from '../../../src/cpu/kvm/x86/vm-types.js'
import { AT } from '../kvm/guest.js'
import { ALLOCATE, GPA, MIB2, PAGE, PrivateGuest, PUNCH } from './guest.js'

const PRIVATE_FAULT = `fault 8 ${GPA.toString(16)}+4096`
const mappings = (g: PrivateGuest) => g.kvm.privateMemory!.mappings

/** A slot without a file over a page that is private. */
function broken() {
  const g = new PrivateGuest()
  const shared = g.sys.mmap(2 * PAGE)
  g.slot2({ user: shared.vaddr, size: 2 * PAGE })
  g.attributes(GPA, PAGE, true)
  return { g, shared }
}

describe('D-1: KVM_EXIT_MEMORY_FAULT', () => {
  it('is 39, with flags, gpa and size, PRIVATE being bit 3; bits 2:0 stay clear for writes and fetches', () => {
    expect(uapi.KVM_EXIT_MEMORY_FAULT).toBe(39)
    const { g } = broken()
    expect(g.peek(GPA)).toBe(PRIVATE_FAULT)
    expect(g.poke(GPA, 1)).toBe(PRIVATE_FAULT)
    g.setRegs({ rip: BigInt(GPA) })
    expect(g.enter()).toBe('EFAULT')
    expect([g.run.exit_reason, g.run.u.memory_fault.flags]).toEqual([39, 8n])
  })

  it('is traced, with who and where', () => {
    const { g } = broken()
    const told: unknown[] = []
    g.host.trace.listen('kvm.memory-fault', e => told.push(e))
    g.host.trace.listen('kvm.exit', e => told.push(e.reason))
    g.peek(GPA + 5)
    expect(told).toEqual(['MEMORY_FAULT', { vcpu: 0, gpa: GPA, private: true, errno: 'EFAULT' }])
  })
})

describe('D-2: KVM_RUN fails with it', () => {
  it('EFAULT; the reason is UNKNOWN for an EFAULT of another kind', () => {
    const { g, shared } = broken()
    expect(g.peek(GPA)).toBe(PRIVATE_FAULT)
    g.sys.munmap(shared.vaddr, 2 * PAGE)
    expect(g.peek(GPA + PAGE)).toBe('EFAULT')
    expect(g.run.exit_reason).toBe(uapi.KVM_EXIT_UNKNOWN)
  })

  it('the run call starts from UNKNOWN', () => {
    const { g } = broken()
    g.peek(GPA)
    let seen = -1
    g.host.clock.later(() => {
      seen = g.run.exit_reason
    }, 1)
    g.peek(AT.DATA)
    expect(seen).toBe(uapi.KVM_EXIT_UNKNOWN)
  })

  it('with the errno of a page that could not be had', () => {
    const g = new PrivateGuest()
    g.memory(PAGE)
    g.attributes(GPA, PAGE, true)
    const { frames } = g.host
    const all = frames.alloc(1)
    const taken: number[] = []
    try {
      for (;;) taken.push(frames.alloc(1))
    } catch {}
    g.setRegs({ rip: BigInt(AT.CODE), rbx: BigInt(GPA) })
    expect(g.enter()).toBe('ENOMEM')
    expect(g.run.exit_reason).toBe(uapi.KVM_EXIT_MEMORY_FAULT)
    expect(g.run.u.memory_fault).toMatchObject({ flags: 8n, gpa: BigInt(GPA), size: 4096n })
    for (const frame of [all, ...taken]) frames.free(frame)
    expect(g.peek(GPA)).toBe(0)
  })
})

describe('D-2: EHWPOISON', () => {
  it.each([0, 2])('of a page whose memory has failed, until a hole takes it; order %i', order => {
    const g = new PrivateGuest({ memfd: { order } })
    const { memfd } = g.memory(4 * PAGE)
    g.attributes(GPA, 4 * PAGE, true)
    for (let i = 0; i < 4; i++) g.poke(GPA + i * PAGE, 0x10 + i)
    const file = g.sys.process.fds.get(memfd) as GuestMemfd
    file.poison(1)
    g.setRegs({ rip: BigInt(AT.CODE), rbx: BigInt(GPA + PAGE) })
    expect(g.enter()).toBe('EHWPOISON')
    expect(g.run.exit_reason).toBe(uapi.KVM_EXIT_MEMORY_FAULT)
    expect(g.run.u.memory_fault).toMatchObject({ flags: 8n, gpa: BigInt(GPA + PAGE), size: 4096n })
    expect([0, 2, 3].map(i => g.peek(GPA + i * PAGE))).toEqual([0x10, 0x12, 0x13])
    expect(g.preFault(GPA + PAGE, PAGE)).toMatchObject({ error: 'EHWPOISON', left: PAGE })
    g.sys.fallocate(memfd, PUNCH, PAGE, PAGE)
    expect(g.peek(GPA + PAGE)).toBe(0)
  })
})

describe('D-3: gpa is the page and size 4 KiB', () => {
  it.each([0, 1, 0x123, 0xfff])('at byte %i of the page', offset => {
    const { g } = broken()
    expect(g.peek(GPA + offset)).toBe(PRIVATE_FAULT)
  })

  it('whatever the block would have been', () => {
    const g = new PrivateGuest({ memfd: { order: 9 } })
    g.slot2({ user: BigInt(MIB2), size: MIB2 })
    g.attributes(GPA, MIB2, true)
    expect(g.peek(GPA + 5 * PAGE)).toBe(`fault 8 ${(GPA + 5 * PAGE).toString(16)}+4096`)
  })

  it('an access across two pages names the one that fails', () => {
    const g = new PrivateGuest()
    const shared = g.sys.mmap(2 * PAGE)
    g.slot2({ user: shared.vaddr, size: 2 * PAGE })
    g.attributes(GPA + PAGE, PAGE, true)
    g.code('66 8b 03 e6 10') // mov (%rbx),%ax
    g.setRegs({ rip: BigInt(AT.CODE), rbx: BigInt(GPA + PAGE - 1) })
    expect(g.enter()).toBe('EFAULT')
    expect(g.run.u.memory_fault.gpa).toBe(BigInt(GPA + PAGE))
  })
})

describe('D-4, D-6: the kind told is that of the access', () => {
  it.each([
    ['a shared access to a private page', true, false],
    ['a private access to a shared page', false, true],
  ])("%s is the owner's to settle", (_, page, access) => {
    const g = new PrivateGuest()
    g.memory(PAGE)
    g.attributes(GPA, PAGE, page)
    const fault = (isPrivate: boolean) => mappings(g).fault(GPA / PAGE, { isPrivate })
    expect(fault(access)).toEqual({ kind: 'exit', isPrivate: access, code: 'EFAULT' })
    expect(g.mapped(GPA)).toBeUndefined()
    expect(fault(page)).toEqual({ kind: 'mapped', level: 1 })
  })

  it('the kinds are compared even where there is no slot', () => {
    const g = new PrivateGuest()
    g.attributes(GPA, PAGE, true)
    const exit = { kind: 'exit', isPrivate: false, code: 'EFAULT' }
    expect(mappings(g).fault(GPA / PAGE, { isPrivate: false })).toEqual(exit)
  })
})

describe('D-5: a second run', () => {
  it('exits the same again, and completes the same access once the owner has converted the page', () => {
    const { g, shared } = broken()
    shared.bytes[7] = 0x77
    g.setRegs({ rip: BigInt(AT.CODE), rbx: BigInt(GPA + 7) })
    for (let i = 0; i < 3; i++) {
      expect(g.enter()).toBe('EFAULT')
      expect(g.regs().rip).toBe(BigInt(AT.CODE))
      expect(g.run.u.memory_fault.gpa).toBe(BigInt(GPA))
    }
    g.attributes(GPA, PAGE, false)
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    expect(g.page[4096]).toBe(0x77)
  })

  it('completes once the owner has given the slot a file', () => {
    const { g, shared } = broken()
    expect(g.poke(GPA, 0x42)).toBe(PRIVATE_FAULT)
    g.slot2({ size: 0 })
    const memfd = g.createMemfd(2 * PAGE)
    g.slot2({ user: shared.vaddr, size: 2 * PAGE, memfd })
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    expect(g.peek(GPA)).toBe(0x42)
    expect(shared.bytes[0]).toBe(0)
  })
})

describe("the guest's access", () => {
  it("private: bytes of the file; shared: the owner's memory; neither sees the other", () => {
    const g = new PrivateGuest()
    const { shared } = g.memory(2 * PAGE)
    g.attributes(GPA, PAGE, true)
    g.poke(GPA, 0x11)
    g.poke(GPA + PAGE, 0x22)
    expect([shared.bytes[0], shared.bytes[PAGE]]).toEqual([0, 0x22])
    shared.bytes.fill(0x33)
    expect([g.peek(GPA), g.peek(GPA + PAGE)]).toEqual([0x11, 0x33])
  })

  it('page tables and code may be private', () => {
    const g = new PrivateGuest()
    g.memory(4 * PAGE)
    g.attributes(GPA, 4 * PAGE, true)
    // A page directory at GPA maps 2 MiB of physical memory at linear 0x40000000 + n; code at GPA + PAGE.
    for (const [i, byte] of [0x8a, 0x03, 0xe6, 0x10, 0xeb, 0xfe].entries())
      g.poke(GPA + PAGE + i, byte)
    const entry = BigInt(GPA) | 0xe7n
    for (let i = 0; i < 8; i++) g.poke(GPA + i, Number((entry >> BigInt(8 * i)) & 0xffn))
    g.view.setBigUint64(AT.PDPT + 8, BigInt(GPA) | 7n, true)
    g.setSregs(() => {})
    g.setRegs({ rip: BigInt(GPA + PAGE), rbx: BigInt(GPA + PAGE) })
    expect(g.enter()).toBe(uapi.KVM_EXIT_IO)
    expect(g.page[4096]).toBe(0x8a)
    // Made shared, the table is all zero: the next walk raises #PF, whose handler is in plain memory.
    g.attributes(GPA, PAGE, false)
    expect(g.trap()).toMatchObject({ vector: 14 })
    // Private without a file, the walk itself exits.
    g.slot2({ size: 0 })
    g.slot2({ size: 4 * PAGE, user: 0x1000_0000n })
    g.attributes(GPA, PAGE, true)
    g.setRegs({ rip: BigInt(AT.CODE), rbx: BigInt(GPA + PAGE) })
    expect(g.enter()).toBe('EFAULT')
    expect(g.run.u.memory_fault).toMatchObject({ flags: 8n, gpa: BigInt(GPA) })
  })

  it('KVM_TRANSLATE walks tables that the guest has not touched yet', () => {
    const g = new PrivateGuest()
    const t = uapi.kvm_translation({ linear_address: BigInt(AT.DATA + 5) })
    g.sys.ioctl(g.vcpu, uapi.KVM_TRANSLATE, t)
    expect([t.valid, t.physical_address]).toEqual([1, BigInt(AT.DATA + 5)])
  })

  it('self-modified code is seen through conversions', () => {
    const g = new PrivateGuest()
    const { shared } = g.memory(PAGE)
    shared.bytes.set([0xb0, 1, 0xe6, 0x10, 0xeb, 0xfe]) // mov $1,%al; out %al,$0x10
    g.setRegs({ rip: BigInt(GPA) })
    expect(g.answer()).toBe(1)
    g.attributes(GPA, PAGE, true)
    for (const [i, byte] of [0xb0, 2, 0xe6, 0x10, 0xeb, 0xfe].entries()) g.poke(GPA + i, byte)
    g.setRegs({ rip: BigInt(GPA) })
    expect(g.answer()).toBe(2)
    g.attributes(GPA, PAGE, false)
    g.setRegs({ rip: BigInt(GPA) })
    expect(g.answer()).toBe(1)
  })
})

describe('D-7: a private page', () => {
  it("is writable whatever the owner's protection", () => {
    const g = new PrivateGuest()
    const { shared } = g.memory(PAGE)
    g.sys.process.memory.mprotect(shared.vaddr, PAGE, 1)
    g.attributes(GPA, PAGE, true)
    expect(g.poke(GPA, 5)).toBeUndefined()
    expect(g.peek(GPA)).toBe(5)
    g.attributes(GPA, PAGE, false)
    expect(g.peek(GPA)).toBe(0)
    expect(g.poke(GPA, 5)).toBe('EFAULT')
  })

  it("is not the owner's memory mapped or not: munmap takes shared pages only", () => {
    const g = new PrivateGuest()
    const { shared } = g.memory(2 * PAGE)
    g.attributes(GPA, PAGE, true)
    g.poke(GPA, 6)
    g.sys.munmap(shared.vaddr, 2 * PAGE)
    expect([g.peek(GPA), g.peek(GPA + PAGE)]).toEqual([6, 'EFAULT'])
    g.sys.process.memory.mmap(2 * PAGE, { at: shared.vaddr }).bytes[PAGE] = 9
    expect(g.peek(GPA + PAGE)).toBe(9)
  })
})

describe('D-8: no slot', () => {
  it('a private access exits with EFAULT, a shared one is MMIO', () => {
    const g = new PrivateGuest()
    expect(g.peek(GPA)).toBe('MMIO')
    expect(g.poke(GPA, 1)).toBe('MMIO')
    g.attributes(GPA, PAGE, true)
    expect(g.peek(GPA)).toBe(PRIVATE_FAULT)
    expect(g.poke(GPA, 1)).toBe(PRIVATE_FAULT)
    expect(g.peek(GPA + PAGE)).toBe('MMIO')
  })
})

describe('D-9: allocation order and level', () => {
  it.each([
    [0, 1],
    [1, 1],
    [8, 1],
    [9, 2],
    [10, 2],
    [17, 2],
    [18, 3],
    [19, 3],
    [30, 3],
  ])('order %i allows level %i', (order, level) => {
    expect(levelOfOrder(order)).toBe(level)
  })

  it.each([
    [0, '1P'],
    [3, '1P'],
    [9, '2P'],
    [10, '2P'],
  ])('files that allocate order %i map 2 MiB as %s', (order, mapped) => {
    const g = new PrivateGuest({ memfd: { order } })
    const size = 2 * MIB2
    g.slot2({ size, memfd: g.createMemfd(size), user: BigInt(MIB2) })
    g.attributes(GPA, size, true)
    g.poke(GPA + MIB2 + 0x12345, 0x55)
    expect(g.mapped(GPA + MIB2 + 0x12000)).toBe(mapped)
    expect(g.peek(GPA + MIB2 + 0x12345)).toBe(0x55)
    expect(g.peek(GPA + MIB2 + 0x12346)).toBe(0)
  })

  it('a file whose pages do not lie as the slot does is mapped small', () => {
    const g = new PrivateGuest({ memfd: { order: 9 } })
    const memfd = g.createMemfd(2 * MIB2)
    g.slot2({ size: MIB2, memfd, offset: BigInt(PAGE), user: BigInt(MIB2) })
    g.attributes(GPA, MIB2, true)
    expect([g.poke(GPA, 1), g.mapped(GPA)]).toEqual([undefined, '1P'])
    expect([g.poke(GPA + MIB2 - 1, 2), g.peek(GPA)]).toEqual([undefined, 1])
  })

  it('a large page that a hole is punched in stays as small ones', () => {
    const g = new PrivateGuest({ memfd: { order: 9 } })
    const memfd = g.createMemfd(MIB2)
    g.slot2({ size: MIB2, memfd, user: BigInt(MIB2) })
    g.attributes(GPA, MIB2, true)
    g.poke(GPA, 1)
    g.poke(GPA + PAGE, 2)
    const used = g.host.frames.used
    g.sys.fallocate(memfd, PUNCH, PAGE, PAGE)
    expect(g.host.frames.used).toBe(used - 1)
    expect([g.peek(GPA), g.peek(GPA + PAGE), g.mapped(GPA)]).toEqual([1, 0, '1P'])
    g.sys.fallocate(memfd, PUNCH, 0, MIB2)
    expect(g.host.frames.used).toBe(used - 512)
    expect([g.peek(GPA), g.mapped(GPA)]).toEqual([0, '2P'])
  })

  it('falls back to single pages when no large one is free', () => {
    const g = new PrivateGuest({ memfd: { order: 9 } })
    const { frames } = g.host
    const held: number[] = []
    // One frame of every 2 MiB is taken.
    for (let at = 0; at < frames.total * PAGE; at += MIB2) {
      const free = frames.references(at + PAGE) === 0 && frames.references(at) === 0
      if (free) held.push(at)
    }
    for (const _ of held) frames.alloc(1, 512)
    const size = MIB2
    const memfd = g.createMemfd(size)
    g.slot2({ size, memfd, user: BigInt(MIB2) })
    g.attributes(GPA, size, true)
    expect([g.poke(GPA, 3), g.mapped(GPA), g.peek(GPA)]).toEqual([undefined, '1P', 3])
    g.sys.fallocate(memfd, ALLOCATE, 0, size)
    g.sys.fallocate(memfd, PUNCH, 0, size)
  })
})

describe('D-27: a software-protected VM', () => {
  it('is type 1; no access conflicts with the attribute, which alone decides', () => {
    expect(uapi.KVM_X86_SW_PROTECTED_VM).toBe(1)
    const g = new PrivateGuest()
    g.memory(2 * PAGE)
    for (let i = 0; i < 6; i++) {
      g.attributes(GPA, PAGE, i % 2 === 0)
      expect(g.poke(GPA, i)).toBeUndefined()
      expect(g.peek(GPA)).toBe(i)
    }
  })
})

describe('D-28: the hypercall MAP_GPA_RANGE', () => {
  const EXIT = 1n << BigInt(uapi.KVM_HC_MAP_GPA_RANGE)

  function caller(enabled: bigint) {
    const g = new PrivateGuest()
    const cap = uapi.kvm_enable_cap({
      cap: uapi.KVM_CAP_EXIT_HYPERCALL,
      args: [enabled, 0n, 0n, 0n],
    })
    g.sys.ioctl(g.vm, uapi.KVM_ENABLE_CAP, cap)
    g.code('0f 01 c1 e7 10') // vmcall; out %eax,$0x10
    const call = (gpa: bigint, pages: bigint, attributes = 0n) => {
      const regs = { rax: 12n, rbx: gpa, rcx: pages, rdx: attributes, rip: BigInt(AT.CODE) }
      g.setRegs(regs)
      const reason = g.enter()
      return reason === uapi.KVM_EXIT_IO ? BigInt.asIntN(64, g.regs().rax) : reason
    }
    return { g, call }
  }

  it('is number 12 and exits with gpa, pages and attributes; what the owner answers is RAX', () => {
    const { g, call } = caller(EXIT)
    expect(call(BigInt(GPA), 3n, 0x11n)).toBe(uapi.KVM_EXIT_HYPERCALL)
    const { nr, args, longmode } = g.run.u.hypercall
    expect([nr, args.get(0), args.get(1), args.get(2), longmode]).toEqual([
      12n,
      BigInt(GPA),
      3n,
      0x11n,
      1,
    ])
    g.run.u.hypercall.ret = 0x77n
    expect(g.answer()).toBe(0x77)
  })

  it.each([
    ['an address inside a page', 1n, 1n],
    ['no pages', 0n, 0n],
    ['a range that wraps', 0n, 2n ** 64n - 1n],
  ])('EINVAL (-22) without an exit for %s', (_, offset, pages) => {
    expect(caller(EXIT).call(BigInt(GPA) + offset, pages)).toBe(-22n)
  })

  it('ENOSYS (-1000) when the owner did not ask for it', () => {
    expect(caller(0n).call(BigInt(GPA), 1n)).toBe(-1000n)
    const { g } = caller(EXIT)
    g.setRegs({ rax: 11n, rip: BigInt(AT.CODE) })
    g.enter()
    expect(BigInt.asIntN(64, g.regs().rax)).toBe(-1000n)
  })
})

describe('D-30: the exits of the kernel selftest private_mem_kvm_exits_test', () => {
  const told = (g: PrivateGuest) => {
    const { flags, gpa, size } = g.run.u.memory_fault
    return [g.run.exit_reason, flags, gpa, size]
  }
  const EXPECTED = [uapi.KVM_EXIT_MEMORY_FAULT, 8n, BigInt(GPA), 4096n]

  it('(a) the slot is deleted while the guest reads private memory', () => {
    const g = new PrivateGuest()
    g.memory(PAGE)
    g.attributes(GPA, PAGE, true)
    g.code('48 8b 03 eb fb') // 1: mov (%rbx),%rax; jmp 1b
    g.setRegs({ rip: BigInt(AT.CODE), rbx: BigInt(GPA) })
    g.host.clock.later(() => g.slot2({ size: 0 }), 10_000)
    expect(g.enter()).toBe('EFAULT')
    expect(g.host.clock.now).toBeGreaterThanOrEqual(10_000)
    expect(told(g)).toEqual(EXPECTED)
  })

  it('(b) the slot never had a file', () => {
    const { g } = broken()
    g.setRegs({ rip: BigInt(AT.CODE), rbx: BigInt(GPA) })
    expect(g.enter()).toBe('EFAULT')
    expect(told(g)).toEqual(EXPECTED)
  })
})

describe('D-31: invalidations', () => {
  it('count by guest frame number: a fault elsewhere is not stale while one is open, nor after it on its own page', () => {
    const i = new Invalidations()
    const { sequence } = i
    i.begin()
    i.add(10, 19)
    expect([9, 10, 19, 20].map(gfn => i.stale(sequence, gfn))).toEqual([false, true, true, false])
    i.begin()
    i.add(30, 30)
    i.end()
    expect(i.stale(i.sequence, 15)).toBe(true)
    expect(i.open).toBe(1)
    i.end()
    expect([i.stale(sequence, 25), i.stale(i.sequence, 15)]).toEqual([true, false])
    i.begin()
    expect(i.stale(i.sequence, 15)).toBe(false)
    i.end()
  })

  it('never end more often than they begin, nor take a range outside', () => {
    const i = new Invalidations()
    expect(() => i.end()).toThrow('never began')
    expect(() => i.add(1, 2)).toThrow('without an invalidation')
    i.begin()
    i.end()
    expect(() => i.end()).toThrow('never began')
  })

  it('a VM that ends with one under way is an Error', () => {
    const g = new PrivateGuest()
    g.kvm.privateMemory!.invalidations.begin()
    g.sys.close(g.vcpu)
    g.sys.process.memory.release()
    expect(() => g.sys.close(g.vm)).toThrow('under way')
  })

  it.each([
    ['the page became shared', (g: PrivateGuest) => g.attributes(GPA, PAGE, false), 'S'],
    [
      'its private page was punched',
      (g: PrivateGuest, memfd: number) => g.sys.fallocate(memfd, PUNCH, 0, PAGE),
      'P',
    ],
    ['another page changed', (g: PrivateGuest) => g.attributes(GPA + PAGE, PAGE, true), 'P'],
  ])('a fault looks again when, between looking and mapping, %s', (_, happens, kind) => {
    const g = new PrivateGuest()
    const { memfd } = g.memory(2 * PAGE)
    g.attributes(GPA, PAGE, true)
    g.peek(AT.DATA)
    let times = 0
    mappings(g).pause = () => {
      if (times++ === 0) happens(g, memfd)
    }
    expect(g.peek(GPA)).toBe(0)
    expect(times).toBe(2)
    expect(g.mapped(GPA)).toBe(`1${kind}`)
  })

  it('a fault waits while its page is under invalidation', () => {
    const g = new PrivateGuest()
    g.memory(PAGE)
    const { invalidations } = g.kvm.privateMemory!
    invalidations.begin()
    invalidations.add(GPA / PAGE, GPA / PAGE)
    expect(() => mappings(g).fault(GPA / PAGE)).toThrow('in the middle of an invalidation')
    let waits = 0
    mappings(g).pause = () => {
      if (++waits === 3) invalidations.end()
    }
    expect(mappings(g).fault(GPA / PAGE)).toEqual({ kind: 'mapped', level: 1 })
    expect(waits).toBe(4)
  })

  it("the owner's munmap is one, from before it to after it", () => {
    const g = new PrivateGuest()
    const { shared } = g.memory(PAGE)
    const { invalidations } = g.kvm.privateMemory!
    const { sequence } = invalidations
    const seen: number[] = []
    g.sys.process.memory.onInvalidate(
      () => seen.push(invalidations.open),
      () => seen.push(invalidations.open),
    )
    g.peek(GPA)
    g.sys.munmap(shared.vaddr, PAGE)
    expect(seen).toEqual([1, 0])
    expect(invalidations.sequence).toBe(sequence + 1)
    expect(g.mapped(GPA)).toBeUndefined()
  })
})

describe('D-32: KVM_PRE_FAULT_MEMORY', () => {
  const SIZE = MIB2 + PAGE
  // biome-ignore format: table
  it.each([
    ['flags',                   GPA, PAGE, 1n,             'EINVAL'],
    ['an address inside a page', GPA + 1, PAGE, 0n,        'EINVAL'],
    ['a size of no whole pages', GPA, 1, 0n,               'EINVAL'],
    ['size 0',                  GPA, 0, 0n,                'EINVAL'],
    ['a range that wraps',      2n ** 64n - 4096n, 8192, 0n, 'EINVAL'],
    ['a range that ends at 2^64', 2n ** 64n - 4096n, 4096, 0n, 'EINVAL'],
    ['no slot',                 GPA - PAGE, PAGE, 0n,      'ENOENT'],
  ] as [string, number | bigint, number, bigint, string][])('%s', (_, gpa, size, flags, code) => {
    const g = new PrivateGuest()
    g.memory(PAGE)
    expect(g.preFault(gpa, size, flags)).toMatchObject({ error: code, left: size })
  })

  it('EFAULT for a structure that is not there', () => {
    const g = new PrivateGuest()
    expect(() => g.sys.ioctl(g.vcpu, uapi.KVM_PRE_FAULT_MEMORY, 0x1000)).toThrow('EFAULT')
  })

  it.each([
    ['default type, shared', uapi.KVM_X86_DEFAULT_VM, false],
    ['software-protected, shared', uapi.KVM_X86_SW_PROTECTED_VM, false],
    ['software-protected, private', uapi.KVM_X86_SW_PROTECTED_VM, true],
  ])('as the kernel selftest pre_fault_memory_test has it: %s', (_, type, isPrivate) => {
    const g = new PrivateGuest({ type })
    const shared = g.sys.mmap(SIZE)
    const memfd = isPrivate ? { memfd: g.createMemfd(SIZE) } : {}
    g.slot2({ size: SIZE, user: shared.vaddr, ...memfd })
    if (isPrivate) g.attributes(GPA, SIZE, true)
    expect(g.preFault(GPA, MIB2)).toMatchObject({ error: '', left: 0, gpa: GPA + MIB2 })
    // Part of it: success, and what is left; then nothing of it.
    const part = g.preFault(GPA + MIB2, 2 * PAGE)
    expect(part).toEqual({ error: '', left: PAGE, gpa: GPA + SIZE })
    expect(g.preFault(part.gpa, part.left)).toMatchObject({ error: 'ENOENT', left: PAGE })
    expect(g.preFault(GPA + SIZE, PAGE)).toMatchObject({ error: 'ENOENT', left: PAGE })
    for (let at = 0; at < SIZE; at += 64 * PAGE) expect(g.peek(GPA + at)).toBe(0)
  })

  it('maps as a fault would, kind and level, and the guest then faults no more', () => {
    const g = new PrivateGuest({ memfd: { order: 9 } })
    const size = 2 * MIB2
    g.slot2({ size, memfd: g.createMemfd(size), user: BigInt(MIB2) })
    g.attributes(GPA, size, true)
    expect(g.preFault(GPA + PAGE, MIB2)).toEqual({ error: '', gpa: GPA + PAGE + MIB2, left: 0 })
    expect([g.mapped(GPA), g.mapped(GPA + MIB2)]).toEqual(['2P', '2P'])
    g.peek(AT.DATA)
    const faults: unknown[] = []
    g.host.trace.listen('kvm.map', e => faults.push(e))
    g.peek(GPA)
    expect(faults).toEqual([])
  })

  it.each([
    ['private without a file', true, 'EFAULT'],
    ['shared without memory', false, 'EFAULT'],
  ])('%s is %s', (_, isPrivate, code) => {
    const g = new PrivateGuest()
    g.slot2({ user: 0x1000_0000n })
    g.attributes(GPA, PAGE, isPrivate)
    expect(g.preFault(GPA, PAGE)).toMatchObject({ error: code, left: PAGE })
  })

  it('EOPNOTSUPP where pages must not be there before a launch, and the range comes back as it was', () => {
    const g = new PrivateGuest()
    g.memory(PAGE)
    const range = uapi.kvm_pre_fault_memory({ gpa: BigInt(GPA), size: BigInt(PAGE) })
    const at = g.sys.mmap(PAGE)
    at.bytes.set(range.bytes)
    const call = () => preFault(g.kvm, false, Number(at.vaddr), g.sys.process)
    expect(call).toThrow('EOPNOTSUPP')
    expect(at.bytes.subarray(0, range.bytes.length)).toEqual(range.bytes)
    for (const type of [2, 3, 4]) expect(mayPreFault(type)).toBe(false)
  })

  it("EFAULT where a default VM's owner has no memory", () => {
    const g = new PrivateGuest({ type: uapi.KVM_X86_DEFAULT_VM })
    g.slot2({ user: 0x1000_0000n })
    expect(g.preFault(GPA, PAGE)).toMatchObject({ error: 'EFAULT', left: PAGE })
  })
})
